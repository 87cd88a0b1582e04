# ruff: noqa: E501 (tables of inputs)
"""What can be seen in a source before it is started: pages that need a build, files that are not what they are called,
what the template does not have, and hosts that cannot be reached."""

from __future__ import annotations

import json

import pytest
from classify_trees import TEMPLATES, Asked, table_of

from vibed.classify.classifier import classify
from vibed.classify.decision import Decision
from vibed.classify.errors import ClassifyError

Files = dict[str, str | bytes]

PAGE = '<div id="app"></div><script type="module" src="/src/main.js"></script>'
MAP = '<script type="importmap">{"imports": {"three": "https://x.dev/three.js", "three/addons/": "https://x.dev/"}}</script>'
VITE = json.dumps({"scripts": {"dev": "vite", "build": "vite build"}, "devDependencies": {"vite": "^7"}})
FLASK = "from flask import Flask\napp = Flask(__name__)\n"
GO = 'package main\nimport "net/http"\nfunc main() { http.ListenAndServe(":8080", nil) }\n'
GIN = "require github.com/gin-gonic/gin v1.10.0\n"


def decided(files: Files, asked: Asked | None = None) -> Decision:
    return classify(table_of(files), asked, TEMPLATES)


def refused(files: Files, asked: Asked | None = None) -> str:
    with pytest.raises(ClassifyError) as caught:
        decided(files, asked)
    return f"{caught.value.error_code}: {caught.value.message} | {caught.value.hint}"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"package.json": VITE, "index.html": PAGE, "src/main.js": "import { createApp } from 'vue'\n"},
            "imports ‘vue’ by its bare name",
        ),
        (
            {
                "package.json": VITE,
                "index.html": PAGE,
                "src/main.js": "import './app.js'\n",
                "src/app.js": "import {\n  a,\n  b\n} from '@x/y'\n",
            },
            "‘src/app.js’ imports ‘@x/y’",
        ),
        ({"package.json": VITE, "index.html": PAGE, "src/main.js": "import './style.css'\n"}, "no JavaScript module"),
        ({"index.html": PAGE, "src/main.js": "import * as THREE from 'three'\n"}, "import map"),
        ({"index.html": '<script type=module>import x from "lit"</script>'}, "‘lit’"),
        ({"index.html": PAGE, "src/main.js": "console.log(import.meta.env.VITE_X)\n"}, "import.meta.env"),
        ({"index.html": "<link href='%VITE_BASE%/x.css'>"}, "%VITE_BASE%"),
        (
            {"public/index.html": PAGE.replace("/src/", "/"), "public/main.js": "import x from 'x'\n", "a.txt": ""},
            "‘x’",
        ),
    ],
)
def test_a_page_whose_modules_a_browser_cannot_load_is_not_served_blank(files: Files, words: str) -> None:
    said = refused(files)
    assert said.startswith("BuildRequired")
    assert words in said


@pytest.mark.parametrize(
    "files",
    [
        {
            "index.html": PAGE,
            "src/main.js": "import x from './x.js'\n// import y from 'y' is not needed\n",
            "src/x.js": "export default 1",
        },
        {"index.html": PAGE, "src/main.js": "import y from 'https://esm.sh/y'\nimport z from '/src/z.js'\n"},
        {
            "index.html": MAP + PAGE,
            "src/main.js": "import * as THREE from 'three'\nimport { O } from 'three/addons/O.js'\n",
        },
        {"index.html": "<script src='main.js'></script>", "main.js": "import x from 'never run as a module'\n"},
    ],
)
def test_a_page_whose_modules_a_browser_can_load_is_a_site(files: Files) -> None:
    assert decided(files).kind == "static"


@pytest.mark.parametrize(
    ("files", "folder"),
    [
        ({"vite.config.js": "export default { build: { outDir: 'public_html' } }"}, "public_html"),
        (
            {"vite.config.ts": "export default defineConfig({\n  build: {\n    outDir: './out/web',\n  },\n})"},
            "out/web",
        ),
        ({"package.json": VITE.replace("vite build", "vite build --outDir www2")}, "www2"),
        ({"angular.json": '{"options": {"outputPath": "dist/shop"}}'}, "dist/shop"),
        ({"vite.config.js": "export default { build: { outDir: '../static' } }"}, "dist"),
        ({"package.json": VITE.replace("vite build", "tailwindcss -o out.css && vite build")}, "dist"),
    ],
)
def test_the_hint_of_a_build_names_the_configured_folder(files: Files, folder: str) -> None:
    project: Files = {"package.json": VITE, "index.html": PAGE, "src/main.js": "import 'vue'\n", **files}
    assert refused(project).endswith(f"vibed deploy {folder}")
    assert decided({**project, f"{folder}/index.html": "<p>"}).root == f"{folder}/"


@pytest.mark.parametrize("name", ["app.py", "server.js", "index.html", "main.go"])
def test_a_source_in_markdown_is_refused(name: str) -> None:
    texts = {
        "app.py": FLASK,
        "server.js": "require('http').createServer(f).listen(1)\n",
        "index.html": "<p>",
        "main.go": GO,
    }
    assert refused({name: f"```\n{texts[name]}\n```\n"}).startswith("BadSource")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("data:image/png;base64,iVBORw0KGgo=", "data: URL as text"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "pointer of Git LFS"),
        ("iVBORw0KGgoAAAANSUhEUg==", "‘iVBORw0KGgoAAAANSUhEUg==’"),
    ],
)
def test_a_picture_that_is_none_is_told(content: str, words: str) -> None:
    found = decided({"index.html": "<img src=a.png>", "a.png": content, "b.png": b"\x89PNG\r\n"})
    assert len(found.notes) == 1
    assert "‘a.png’ is no png file" in found.notes[0]
    assert words in found.notes[0]


CALLS = [
    ({"app.py": FLASK + "import requests\nrequests.get('https://api.weather.dev/x')\n"}, "api.weather.dev"),
    (
        {"app.py": FLASK + "import requests\nBASE_URL = 'https://llm.corp.io/v1'\nrequests.post(BASE_URL)\n"},
        "llm.corp.io",
    ),
    ({"server.js": "require('http').createServer(async () => fetch(`https://api.x.io/${1}`)).listen(1)\n"}, "api.x.io"),
    ({"worker.js": "export default { async fetch(r) { return fetch('https://up.stream.dev/') } }\n"}, "up.stream.dev"),
]


@pytest.mark.parametrize(("files", "host"), CALLS, ids=[row[1] for row in CALLS])
def test_hosts_that_a_server_calls_are_told(files: Files, host: str) -> None:
    assert f"apps here have no network out, and this one calls ‘{host}’" in decided(files).notes


@pytest.mark.parametrize(
    "text",
    [
        "import requests\nrequests.get('http://localhost:9000/x')\n",
        "DOCS_URL = 'https://docs.dev/x'\n",
        "import requests\n# see https://x.dev\nrequests.get(url)\n",
    ],
)
def test_addresses_that_nothing_calls_are_not_told(text: str) -> None:
    assert decided({"app.py": FLASK + text}).notes == ()


@pytest.mark.parametrize(
    ("files", "note"),
    [
        (
            {"pyproject.toml": "[project]\nrequires-python = '>=3.9,<3.12'\ndependencies = ['flask']"},
            "pyproject.toml asks for Python >=3.9,<3.12; the template has 3.13",
        ),
        (
            {"pyproject.toml": "[tool.poetry.dependencies]\npython = '~3.11'\nflask = '*'"},
            "pyproject.toml asks for Python >=3.11,<3.12; the template has 3.13",
        ),
        (
            {"Pipfile": "[packages]\nflask = '*'\n[requires]\npython_version = '3.9'"},
            "Pipfile asks for Python ==3.9.*; the template has 3.13",
        ),
        ({".python-version": "3.11.4\n"}, ".python-version asks for Python 3.11; the template has 3.13"),
        ({"runtime.txt": "python-3.13.1\n"}, None),
        ({"pyproject.toml": "[project]\nrequires-python = '>=3.13.2'\ndependencies = ['flask']"}, None),
    ],
)
def test_another_version_of_python_is_told(files: Files, note: str | None) -> None:
    assert decided({"app.py": FLASK, **files}).notes == ((note,) if note else ())


def test_a_newer_version_of_python_is_refused() -> None:
    said = refused({"app.py": FLASK, "pyproject.toml": "[project]\nrequires-python = '>=3.14'\n"})
    assert said.startswith("UnsupportedRuntime: pyproject.toml asks for Python >=3.14; the template has 3.13")


@pytest.mark.parametrize(
    ("version", "hint"),
    [
        ("go 1.13\n", "run go mod edit -go=1.23 and go mod tidy, run go mod vendor"),
        ("go 1.16\n", "run go mod edit -go=1.23"),
        ("", "run go mod edit -go=1.23"),
        ("go 1.21\n", "| run go mod vendor"),
    ],
)
def test_the_hint_for_go_modules_works_for_old_ones_too(version: str, hint: str) -> None:
    assert hint in refused({"go.mod": f"module x\n{version}{GIN}", "main.go": GO})


def test_a_vendor_folder_is_looked_at_whatever_go_mod_says() -> None:
    files: Files = {"main.go": GO, "vendor/modules.txt": "#"}
    assert "-mod=vendor" in decided({"go.mod": f"module x\ngo 1.13\n{GIN}", **files}).build[-1]
    assert "-mod=vendor" not in decided({"go.mod": f"module x\ngo 1.21\n{GIN}", **files}).build[-1]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"server.js": "require('better-sqlite3')\nrequire('http').createServer(f).listen(1)"},
            "node:sqlite, which Node brings",
        ),
        ({"app.py": FLASK + "from helpers import x\n"}, "helpers may be a file of yours that is missing"),
        ({"Dockerfile": "FROM rust\nRUN cargo build\n", "notes.txt": ""}, "Dockerfile is not built"),
    ],
)
def test_a_refusal_names_the_cure_that_there_is(files: Files, words: str) -> None:
    assert words in refused(files)


def test_what_a_dockerfile_installs_is_told() -> None:
    dockerfile = "FROM python\nRUN apt-get update && apt-get install -y --no-install-recommends ffmpeg \\\n    imagemagick curl\nCMD python app.py\n"
    found = decided({"Dockerfile": dockerfile, "app.py": FLASK})
    assert found.notes == ("Dockerfiles are not built here: ffmpeg, imagemagick of it are not there",)


@pytest.mark.parametrize("asked", ["python3 main.py", "node server.js --port 1", "python -u lib/x.py"])
def test_an_entrypoint_that_is_not_there_is_said_to_be(asked: str) -> None:
    said = refused({"app.py": FLASK}, Asked(entrypoint=asked))
    assert said.startswith("BadOverride")
    assert "which is not in the archive" in said


def test_of_several_servers_below_the_root_the_named_one_is_started_and_the_others_are_told() -> None:
    files: Files = {"admin/app.py": FLASK, "shop/app.py": FLASK, "a.txt": ""}
    with pytest.raises(ClassifyError, match="could each be the server"):
        decided(files)
    found = decided({**files, "Dockerfile": "FROM python\nCOPY shop/ /app\n"})
    assert "shop.app:app" in found.argv[-1]
    assert found.notes == ("‘admin/app.py’ would serve as well: name an entrypoint if another is meant",)


def test_of_several_servers_of_node_below_the_root_the_others_are_told() -> None:
    server = "require('http').createServer(f).listen(1)\n"
    found = decided({"server/index.js": server, "api/server.js": server, "a.txt": ""})
    assert found.argv == ("node", "server/index.js")
    assert found.notes == ("‘api/server.js’ would serve as well: name an entrypoint if another is meant",)


def test_links_of_tools_are_told() -> None:
    from dataclasses import replace

    table = replace(table_of({"app.py": FLASK}), passed_over=(".venv/bin/python", ".venv/lib64"))
    assert classify(table, None, TEMPLATES).notes == ("left out: 2 links of tools, in ‘.venv/bin’, ‘.venv’",)
