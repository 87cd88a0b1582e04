# ruff: noqa: E501 (tables of inputs)
"""Workers that need more than their template: what is installed for them, and what makes one module of it."""

from __future__ import annotations

import json

import pytest
from classify_trees import TEMPLATES, table_of

from vibed.apps.app import Build, Install
from vibed.classify.classifier import classify
from vibed.classify.decision import Decision
from vibed.classify.errors import BuildRequired, ClassifyError, DependenciesMissing

Files = dict[str, str]
HANDLER = "export default { fetch: () => new Response('x') }\n"
PAGE = "<!doctype html><div id=root></div>"
EVERYTHING = ("python", "node", "worker", "build")


def decided(files: Files, installs: tuple[str, ...] = EVERYTHING) -> Decision:
    return classify(table_of(files), None, TEMPLATES, installs=installs)


def pkg(**keys: object) -> str:
    return json.dumps({"name": "x", **keys})


def worker(source: str, package: str | None = None, **more: str) -> Decision:
    files = {"wrangler.toml": 'main = "src/index.ts"\n', "src/index.ts": source + HANDLER, **more}
    return decided(files if package is None else {**files, "package.json": package})


def test_packages_that_the_template_lacks_are_installed_and_bundled_by_the_projects_own_lock() -> None:
    package = pkg(dependencies={"hono": "^4", "zod": "^4"}, devDependencies={"wrangler": "^4"})
    decision = worker("import { Hono } from 'hono'\nimport { z } from 'zod'\n", package, **{"pnpm-lock.yaml": ""})
    assert decision.install == Install("node", "pnpm", files=("package.json", "pnpm-lock.yaml"))
    assert decision.made == Build("esbuild", "", "node-24", site=False, kind="worker", package="src/index.ts")
    assert (decision.template, decision.lane, decision.bundle) == ("workerd", "fast", False)


@pytest.mark.parametrize(
    ("source", "package"),
    [
        ("import { Hono } from 'hono'\n", pkg(dependencies={"hono": "^4.0.0"}, devDependencies={"wrangler": "*"})),
        ("import { Hono } from 'hono'\n", pkg(dependencies={"hono": "^4", "zod": "^4"})),
        ("import { AutoRouter } from 'itty-router'\n", None),
        ("import fs from 'node:fs'\nimport { Buffer } from 'buffer'\n", None),
        ("import { KVNamespace } from '@cloudflare/workers-types'\n", pkg(devDependencies={"typescript": "*"})),
        ("import { x } from '@lib/x'\nimport { y } from 'shared/y'\nimport { z } from '~/z'\n", None),
    ],
    ids=["its version", "unused", "undeclared", "of Node", "types", "its own"],
)
def test_what_needs_no_more_than_the_template_stays_on_the_fast_lane(source: str, package: str | None) -> None:
    own = {
        "tsconfig.json": '{"compilerOptions": {"paths": {"@lib/*": ["./lib/*"]}}}',
        "shared/y.ts": "export const y = 1",
    }
    decision = worker(source, package, **own)
    assert (decision.install, decision.made, decision.bundle) == (None, None, True)


@pytest.mark.parametrize(
    ("package", "install"),
    [
        (None, Install("node", "npm", wanted=("hono", "left-pad"))),
        (pkg(dependencies={"hono": "^3"}), Install("node", "npm", ("package.json",), ("left-pad",), development=True)),
        (
            pkg(devDependencies={"left-pad": "1", "hono": "4"}),
            Install("node", "npm", ("package.json",), development=True),
        ),
    ],
    ids=["none", "not this one", "only for development"],
)
def test_what_no_package_json_says_is_installed_all_the_same(package: str | None, install: Install) -> None:
    assert worker("import { Hono } from 'hono'\nimport pad from 'left-pad'\n", package).install == install


def test_a_version_that_the_template_has_not_is_installed() -> None:
    assert worker("import { Hono } from 'hono'\n", pkg(dependencies={"hono": "3.12.0"})).install is not None


def test_assets_go_with_it() -> None:
    source = "import { z } from 'zod'\n" + HANDLER
    settings = 'main = "w.js"\n[assets]\ndirectory = "./public"\n'
    decision = decided({"wrangler.toml": settings, "w.js": source, "public/index.html": PAGE})
    assert decision.made is not None
    assert decision.made.outputs == ("public",)
    pages = decided({"_worker.js": source, "index.html": PAGE})
    assert pages.made is not None
    assert (pages.made.package, pages.made.outputs) == ("_worker.js", ("",))


def test_where_nothing_can_be_built_packages_are_missing_as_ever() -> None:
    files = {"worker.js": "import { z } from 'zod'\n" + HANDLER}
    with pytest.raises(DependenciesMissing, match="zod"):
        decided(files, ("python", "node", "worker"))
    with pytest.raises(DependenciesMissing, match="zod"):
        decided(files, ())


VITE = {
    "package.json": pkg(
        scripts={"build": "tsc -b && vite build"},
        dependencies={"react": "^19"},
        devDependencies={"vite": "^8", "@cloudflare/vite-plugin": "^1", "wrangler": "^4"},
    ),
    "vite.config.ts": "import { cloudflare } from '@cloudflare/vite-plugin'\n",
    "index.html": PAGE + '<script type="module" src="/src/main.tsx"></script>',
    "src/main.tsx": "",
}


@pytest.mark.parametrize(
    ("settings", "files", "entry"),
    [
        ({"main": "worker/index.ts", "assets": {"not_found_handling": "single-page-application"}}, {"worker/index.ts": HANDLER}, "worker/index.ts"),
        ({"main": "@tanstack/react-start/server-entry"}, {}, "@tanstack/react-start/server-entry"),
    ],
    ids=["a worker and a page", "TanStack Start"],
)  # fmt: skip
def test_a_worker_that_vite_builds_is_built(settings: dict[str, object], files: Files, entry: str) -> None:
    decision = decided({**VITE, "wrangler.jsonc": json.dumps(settings), **files})
    assert decision.kind == "worker"
    assert decision.made == Build("Vite", "npm run build", "node-24", site=False, kind="worker", package=entry)
    assert decision.install is not None
    assert decision.install.development


def test_sveltekits_adapter_for_cloudflare_makes_a_worker_whether_wranglers_file_says_so_or_not() -> None:
    place = ".svelte-kit/cloudflare"
    kit = {"@sveltejs/kit": "^2", "@sveltejs/adapter-cloudflare": "^7", "vite": "^7"}
    package = pkg(scripts={"build": "vite build"}, devDependencies=kit)
    settings = json.dumps({"main": f"{place}/_worker.js", "assets": {"directory": place, "binding": "ASSETS"}})
    for more in ({}, {"wrangler.jsonc": settings}):
        decision = decided({"package.json": package, "src/app.html": PAGE, **more})
        assert decision.made is not None
        assert (decision.kind, decision.made.package) == ("worker", f"{place}/_worker.js")
        assert (decision.made.script, decision.made.outputs) == ("npm run build", (place,))


def test_a_next_app_that_opennext_would_make_a_worker_of_runs_on_node() -> None:
    package = pkg(scripts={"build": "next build"}, dependencies={"next": "16", "@opennextjs/cloudflare": "^1"})
    decision = decided(
        {"package.json": package, "wrangler.jsonc": '{"main": ".open-next/worker.js"}', "app/page.tsx": ""}
    )
    assert (decision.kind, decision.rule) == ("node", "node-framework")
    assert decision.made is not None


@pytest.mark.parametrize(
    ("settings", "script", "outputs"),
    [
        ({"main": "src/index.ts", "assets": {"directory": "./dist"}}, "npm run build", ("dist",)),
        ({"main": "build/w.js"}, "npm run build", ()),
        ({"main": "build/w.js", "build": {"command": "make worker"}}, "make worker", ()),
    ],
    ids=["its static files", "its entry", "by a command of wrangler's file"],
)
def test_what_a_build_script_makes_of_a_worker_is_made(
    settings: dict[str, object], script: str, outputs: tuple[str, ...]
) -> None:
    files = {"package.json": pkg(scripts={"build": "node build.js"}), "src/index.ts": HANDLER}
    decision = decided({**files, "wrangler.json": json.dumps(settings)})
    assert decision.made is not None
    assert (decision.made.script, decision.made.outputs) == (script, outputs)
    with pytest.raises(BuildRequired):
        decided({**files, "wrangler.json": json.dumps(settings)}, ())


def test_static_files_alone_that_a_build_makes_are_a_site() -> None:
    settings = {"assets": {"directory": "./dist", "not_found_handling": "single-page-application"}}
    files = {"package.json": pkg(scripts={"build": "vite build"}, devDependencies={"vite": "8"}), "index.html": PAGE}
    decision = decided({**files, "wrangler.jsonc": json.dumps(settings)})
    assert decision.made is not None
    assert (decision.kind, decision.made.site, decision.made.outputs[0], decision.spa) == ("static", True, "dist", True)
    with pytest.raises(ClassifyError):
        decided({**files, "wrangler.jsonc": json.dumps(settings)}, ())
