"""What is taken for a site or for a worker where both could be meant, and what is told of what is not done."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from classify_trees import TEMPLATES, table_of

from vibed.classify.classifier import classify
from vibed.classify.decision import Decision
from vibed.classify.errors import ClassifyError
from vibed.classify.unpublished import unpublished

PAGE = "<!doctype html><title>hi</title><script src='app.js'></script>"
BROWSERS = """
self.addEventListener('fetch', (event) => event.respondWith(fetch(event.request)));
"""
WORKER = "export default { async fetch(request, env) { return env.ASSETS.fetch(request) } }\n"


def decide(files: Mapping[str, str]) -> Decision:
    return classify(table_of(files), None, TEMPLATES)


@pytest.mark.parametrize(
    ("what", "files"),
    [
        ("the tools of a theme", {"Gemfile": "", "Rakefile": "", "index.html": PAGE}),
        ("styles installed by composer", {"composer.json": "{}", "index.html": PAGE}),
        ("a project file of an editor", {"x.csproj": "", "x.sln": "", "index.html": PAGE}),
        ("WebAssembly from Rust", {"Cargo.toml": "", "src/lib.rs": "", "index.html": PAGE, "pkg/a.js": ""}),
        ("WebAssembly from C", {"main.c": "", "CMakeLists.txt": "", "index.html": PAGE, "main.js": ""}),
    ],
)
def test_a_finished_page_beside_files_of_a_tool_is_a_site(what: str, files: Mapping[str, str]) -> None:
    assert (decide(files).kind, decide(files).root) == ("static", "")


def test_a_flutter_app_that_was_built_is_served_from_where_the_build_put_it() -> None:
    project = {"pubspec.yaml": "", "lib/main.dart": "", "web/index.html": "<base href='$FLUTTER_BASE_HREF'>"}
    assert decide({**project, "build/web/index.html": PAGE}).root == "build/web/"
    with pytest.raises(ClassifyError, match="Dart") as refused:
        decide(project)
    assert "build/web" in str(refused.value.hint)


@pytest.mark.parametrize(
    "files",
    [
        {"Gemfile": "", "config.ru": "", "index.html": PAGE},
        {"composer.json": "{}", "public/index.php": "", "public/index.html": PAGE},
        {"x.csproj": "", "src/Program.cs": "", "index.html": PAGE},
        {"Gemfile": "", "index.html": "---\nlayout: x\n---\n"},
    ],
)
def test_a_program_in_another_language_is_none_because_of_a_page(files: Mapping[str, str]) -> None:
    with pytest.raises(ClassifyError, match="written in"):
        decide(files)


@pytest.mark.parametrize(
    ("files", "entry"),
    [
        ({"worker.js": BROWSERS, "index.html": "<script>navigator.serviceWorker.register('./worker.js')</script>"}, ""),
        (
            {"worker.js": BROWSERS, "index.html": PAGE, "app.js": "new Worker(new URL('worker.js', import.meta.url))"},
            "",
        ),
        ({"worker.js": BROWSERS + "self.addEventListener('install', x)", "index.html": PAGE}, ""),
        ({"worker.js": BROWSERS + "caches.match(event.request)", "index.html": PAGE}, ""),
        ({"worker.js": BROWSERS, "index.html": "<script>register('service-worker.js')</script>"}, "worker.js"),
        ({"worker.js": BROWSERS + "await caches.default.match(r)"}, "worker.js"),
    ],
)
def test_a_pages_service_worker_is_no_worker(files: Mapping[str, str], entry: str) -> None:
    decision = decide(files)
    assert (decision.kind, decision.entrypoint) == (("worker", entry) if entry else ("static", "index.html"))


@pytest.mark.parametrize("folder", ["", "dist/"])
def test_an_underscore_worker_beside_pages_has_them_as_its_assets(folder: str) -> None:
    beside = {f"{folder}_worker.js": WORKER, f"{folder}index.html": PAGE, f"{folder}404.html": ""}
    decision = decide({"package.json": "{}", **beside})
    assert (decision.kind, decision.entrypoint) == ("worker", f"{folder}_worker.js")
    assert decision.options["assets"] == {
        "directory": folder.rstrip("/") or ".", "run_worker_first": True, "not_found_handling": "404-page",
    }  # fmt: skip


def test_a_worker_with_assets_whose_entry_only_a_script_names_keeps_its_worker() -> None:
    files = {
        "wrangler.toml": '[assets]\ndirectory = "public"\n',
        "package.json": '{"scripts": {"dev": "wrangler dev src/api.ts"}}',
        "src/api.ts": WORKER,
        "public/index.html": PAGE,
    }
    decision = decide(files)
    assert (decision.kind, decision.entrypoint) == ("worker", "src/api.ts")
    files["package.json"] = '{"scripts": {"dev": "wrangler dev"}}'
    assert decide(files).kind == "static"


FUNCTIONS = {
    "api/hello.js": "export default function handler(req, res) { res.json({}) }",
    "functions/x.ts": "export const onRequestGet = () => new Response()",
    "netlify/functions/y.js": "exports.handler = async () => ({ statusCode: 200 })",
    "api/main.py": "class handler(BaseHTTPRequestHandler): ...",
}


@pytest.mark.parametrize("path", FUNCTIONS)
def test_functions_of_other_hosts_beside_pages_are_told_and_their_source_is_not_published(path: str) -> None:
    files = {"index.html": PAGE, path: FUNCTIONS[path], "api/data.json": "{}"}
    (note,) = decide(files).notes
    assert path in note
    assert "do not run here" in note
    assert unpublished(files, lambda name: files.get(name, "")) == {path}


def test_a_script_of_the_page_in_a_folder_that_is_called_api_is_the_pages() -> None:
    files = {"index.html": "<script type=module src='api/client.js'></script>", "api/client.js": "export default 1"}
    assert decide(files).notes == ()
    assert unpublished(files, lambda name: files.get(name, "")) == frozenset()


def test_what_configures_hosts_and_tools_is_not_published_unless_the_page_names_it() -> None:
    files = dict.fromkeys(
        ("index.html", "README.md", "data/package.json", ".well-known/x", "app.config.js", "about.php.html"), ""
    )
    files["index.html"] = '<script src="app.config.js"></script>'
    hidden = dict.fromkeys(
        (
            "_redirects", "_headers", "netlify.toml", "vercel.json", "wrangler.jsonc", ".env", "a/.env.local",
            ".git/config", "package.json", "Dockerfile", "Dockerfile.dev", "tsconfig.app.json", "vite.config.ts",
            "contact.php", "lib/db.php", "node_modules/a/index.js", "Gemfile", "x.csproj", "requirements-dev.txt",
        ),
        "",
    )  # fmt: skip
    every = {**files, **hidden}
    assert unpublished(every, lambda name: every.get(name, "")) == set(hidden)
    every["index.html"] += '<script src="/node_modules/a/index.js"></script><script>fetch("./package.json")</script>'
    assert unpublished(every, lambda name: every.get(name, "")) == set(hidden) - {
        "node_modules/a/index.js", "package.json",
    }  # fmt: skip


def test_a_folder_of_pages_without_a_first_one_is_a_site_that_begins_with_their_list() -> None:
    decision = decide({"a.html": PAGE, "b.html": PAGE, "c/d.html": PAGE, "style.css": ""})
    assert (decision.kind, decision.root, decision.options) == ("static", "", {"listing": True})
    assert "index.html" in decision.notes[0]
    assert decide({"data.csv": "", "p/a.html": PAGE, "p/b.html": PAGE}).root == "p/"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("_redirects", "/* /index.html 200"),
        ("netlify.toml", '[[redirects]]\nfrom = "/*"\nto = "/index.html"\nstatus = 200'),
        ("vercel.json", '{"rewrites": [{"source": "/(.*)", "destination": "/index.html"}]}'),
        ("firebase.json", '{"hosting": {"rewrites": [{"source": "**", "destination": "/index.html"}]}}'),
        ("staticwebapp.config.json", '{"navigationFallback": {"rewrite": "/index.html"}}'),
    ],
)
def test_the_single_page_rule_of_every_host_makes_a_single_page_app(file: str, text: str) -> None:
    decision = decide({"index.html": PAGE, "about.html": PAGE, file: text})
    assert (decision.spa, decision.notes) == (True, ())


def test_what_is_not_followed_of_hosts_rules_is_told() -> None:
    files = {
        "index.html": PAGE,
        "_redirects": "/a /b\n/c https://x.example/ 200\n",
        "vercel.json": '{"redirects": [{"source": "/a", "destination": "/b"}], "headers": [{}, {}]}',
    }
    assert decide(files).notes == (
        "_redirects line 2 is not followed: nothing is fetched from another host;"
        " a redirect (301, 302) would lead there",
        "1 redirects, 2 headers of vercel.json are not followed: write them in _redirects and _headers, which are",
    )


@pytest.mark.parametrize(
    ("head", "base"),
    [
        ("<script src='/repo/app.js'></script><link href='/repo/a.css'>", "/repo/"),
        ("<script src='/org/repo/app.js?v=1'></script>", "/org/repo/"),
        ("<link rel=icon href='/favicon.ico'><script src='/repo/app.js'></script>", "/repo/"),
        ("<base href='/repo/'><script src='app.js'></script>", "/repo/"),
        ("<base href='/'><script src='app.js'></script>", ""),
        ("<script src='/app.js'></script><link href='/repo/a.css'>", ""),
        ("<img src='/app.js'><script src='/repo/app.js'></script><link href='/repo/a.css'>", "/repo/"),
        ("<script src='/one/app.js'></script><link href='/two/a.css'>", ""),
        ("<script src='app.js'></script>", ""),
        ("<script src='/js/app.js'></script>", ""),
        ("<base href='/js/'><script src='app.js'></script>", ""),
    ],
)
def test_the_prefix_that_a_site_was_built_for_is_seen_from_its_first_page(head: str, base: str) -> None:
    decision = decide({"index.html": head, "app.js": "", "a.css": "", "js/app.js": ""})
    assert decision.base == base
