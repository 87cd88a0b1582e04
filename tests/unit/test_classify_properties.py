# ruff: noqa: E501 (tables of inputs)
"""The classifier on arbitrary archives: total, the same every time, and whatever the order of the members."""

from __future__ import annotations

import json
import random
import time
from dataclasses import replace

import pytest
from classify_trees import TEMPLATES, Asked, table_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vibed.classify.classifier import classify
from vibed.classify.decision import Decision
from vibed.classify.errors import ClassifyError
from vibed.sources.table import ArchiveTable, Entry, Kind
from vibed.sources.texts import Kept, wanted

NAMES = st.sampled_from(
    [
        "app.py",
        "main.py",
        "wsgi.py",
        "manage.py",
        "server.js",
        "index.js",
        "package.json",
        "requirements.txt",
        "pyproject.toml",
        "Pipfile",
        "Procfile",
        "go.mod",
        "main.go",
        "wrangler.toml",
        "wrangler.jsonc",
        "worker.js",
        "index.html",
        "about.html",
        "index.ts",
        "Dockerfile",
        "runtime.txt",
        "deno.json",
        "Cargo.toml",
        "notes.ipynb",
        "App.jsx",
        "setup.py",
        "gunicorn.conf.py",
        "startup.txt",
        "app",
        "style.css",
        "data.csv",
        "README.md",
        "_redirects",
        "mkdocs.yml",
        "models.py",
        "docker-compose.yml",
        ".env",
        "logo.png",
        "vite.config.js",
        ".python-version",
        "server.ts",
    ]
)
FOLDERS = st.sampled_from(
    ["", "", "", "src/", "app/", "public/", "dist/", "cmd/server/", "node_modules/x/", "site/", "a/b/"]
)
PIECES = st.sampled_from(
    [
        "from flask import Flask\n", "import fastapi\n", "app = Flask(__name__)\n", "app = FastAPI()\n", "if __name__ == '__main__':\n",
        "    app.run()\n", "import streamlit as st\n", "export default { fetch() {} }\n", "require('express')\n", "x.listen(3000)\n",
        "addEventListener('fetch', f)\n", "package main\n", "func main() {\n", "import \"net/http\"\n", "flask==1.0\n", "-r other.txt\n",
        "[project]\n", "dependencies = ['flask']\n", "[project.scripts]\nx = 'a:b'\n", "main = 'worker.js'\n", "web: gunicorn x:y\n",
        '{"scripts": {"start": "node app.js && vite"}}', '{"main": 3, "scripts": [], "dependencies": null}', "{", "[", "\\", "'", "\"",
        "/*", "//", "CMD [\"python\", 1]\n", "module x\ngo 1.99999\n", "require a.b/c v1\n", "<script src=/src/x.tsx>", "\ufeff", "\0", "²",
        "<div id=root>", "import argparse\n", "^1.2.3", "django", "DJANGO_SETTINGS_MODULE', 'a.b'", "def create_app():\n", "\n\n\n", "    ",
        "t.start()\n", "node a.js & ", "cd x && ", "npm run a --prefix ", "concurrently 'a' ", "def app(environ, start_response):\n", "process.env.PORT || 3000", "web: uv run ", "from app import x\n", "from . import y\n", "import google.x, fpdf\n", "services:\n", "  db:\n", "worker: x\n", "class M(models.Model):\n",
    ]
)  # fmt: skip
CONTENTS = st.one_of(
    st.lists(PIECES, max_size=8).map("".join),
    st.binary(max_size=60),
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["scripts", "main", "dependencies", "devDependencies", "start", "vars", "assets", "bin", "type", "directory", "kv_namespaces", "build"]), inner, max_size=4)).map(json.dumps),
)  # fmt: skip
FILES = st.dictionaries(st.tuples(FOLDERS, NAMES).map("".join), CONTENTS, min_size=1, max_size=10)
OVERRIDES = st.builds(
    Asked,
    st.sampled_from([None, None, "fast", "general"]),
    st.sampled_from([None, None, None, *TEMPLATES]),
    st.sampled_from(
        [None, None, "app.py", "node server.js", "x", "main:app", "index.html", "'", "a=b", "worker.js", "./app"]
    ),
    st.sampled_from([None, 3000]),
)
RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def table(files: dict[str, str | bytes]) -> ArchiveTable | None:
    """A table without an archive; None where a path is both a file and a folder."""
    if any(other.startswith(path + "/") for path in files for other in files):
        return None
    kept = Kept()
    entries = []
    for path, content in files.items():
        raw = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        entries.append(Entry(path, Kind.FILE, len(raw), 0o755, 0))
        if head := wanted(path, True):
            kept.add(path, raw[:head])
    return ArchiveTable(tuple(entries), 1, 1, *kept.result())


def outcome(found: ArchiveTable, asked: Asked) -> Decision | tuple[str, str, str | None]:
    try:
        return classify(found, asked, TEMPLATES)
    except ClassifyError as error:
        return error.error_code, error.message, error.hint


@settings(RELAXED, max_examples=400)
@given(FILES, OVERRIDES, st.integers())
def test_is_total_and_does_not_depend_on_order(files: dict[str, str | bytes], asked: Asked, seed: int) -> None:
    found = table(files)
    if found is None:
        return
    first = outcome(found, asked)
    if isinstance(first, Decision):
        assert first.why
        assert first.runtime().template in TEMPLATES
        assert not first.strip or first.strip.endswith("/")
        assert all(first.argv)
    else:
        assert first[1]
        assert first[2]
    entries = list(found.entries)
    texts = list(found.texts.items())
    random.Random(seed).shuffle(entries)
    random.Random(seed + 1).shuffle(texts)
    assert outcome(replace(found, entries=tuple(entries), texts=dict(texts)), asked) == first


@RELAXED
@given(FILES)
def test_wrapping_everything_in_a_folder_changes_only_strip(files: dict[str, str | bytes]) -> None:
    plain, wrapped = table(files), table({f"my-project/{path}": content for path, content in files.items()})
    if plain is None or wrapped is None:
        return
    first, second = outcome(plain, Asked()), outcome(wrapped, Asked())
    if isinstance(first, Decision) and isinstance(second, Decision) and not first.strip:
        assert replace(second, strip="") == first
        assert second.strip == "my-project/"


HOSTILE = [
    "/*" * 100_000, "(" * 200_000, "'" * 200_001, '"' * 200_001, '"\\' * 100_000, "a." * 100_000, " " * 250_000, "\n" * 250_000, ".listen" * 30_000,
    "import " * 30_000, "from x import (" * 16_000, "if " + " \n" * 100_000, "with a:\n" + "  x\n" * 60_000, "with x:\n" * 30_000, "x = " * 60_000,
    "appapp" * 40_000, "a=b " * 60_000, "<script " * 30_000, "<script src" * 20_000, "export default {" * 15_000, "fetch(" * 40_000,
    "[" * 100_000, "{\"a\":" * 40_000, "require(" * 30_000, "constructor(" * 20_000, "--a --b " * 30_000, "npm run a && " * 20_000, "CMD " * 60_000,
    "\\\n" * 100_000, "x" * 250_000 + "(", "get('/" * 40_000, "a.b/c v1\n" * 25_000, "if __name__" * 20_000, "[[a]]\n" * 30_000, "-r a.txt\n" * 25_000,
    ".get('/" * 30_000, ".get('*" * 30_000, "t.start()\n" * 20_000, "A().start()\n" * 20_000, "ALLOWED_HOSTS=[" * 15_000, "ALLOWED_HOSTS=[\n" * 15_000, "services:\n a:\n" * 10_000,
    "class A:\n" * 25_000, "class A:\n    def __call__(self, " * 8_000, "def create_app():\n" * 12_000, "def create_app():\n    x\n" * 10_000, "from x import app\n" * 12_000, "req.body.x " * 20_000,
    "app.get('/', (req) => req.body.x" * 6_000, ".on('message', m => " * 10_000, "PORT || 3000 " * 15_000, "run((" * 40_000, "async def app(scope, " * 10_000, "await " * 30_000, "uv run " * 30_000,
    "mysql+" * 40_000, "(models.Model\n" * 15_000, "<script src=babel type=text/babel" * 8_000,
]  # fmt: skip


LONGEST = 80_000
PREFIXES = {
    "package.json": ("", '{"scripts": {"start": "'),
    "app.py": ("", "from flask import Flask\n"),
    "Dockerfile": ("", "CMD "),
    "Procfile": ("", "web: "),
    "server.js": ("", "x.listen(1)\n"),
    "manage.py": ("", "import django\n"),
}


@pytest.mark.parametrize("text", HOSTILE, ids=[str(n) for n, _ in enumerate(HOSTILE)])
def test_hostile_texts_cannot_keep_it_busy(text: str) -> None:
    names = [
        "app.py", "server.js", "server.ts", "package.json", "wrangler.jsonc", "wrangler.toml", "go.mod", "main.go", "index.html", "Procfile",
        "requirements.txt", "pyproject.toml", "Dockerfile", "worker.js", "manage.py", "Pipfile", "x/app.py",
        "models.py", "docker-compose.yml",
    ]  # fmt: skip
    for name in names:
        for prefix in PREFIXES.get(name, ("",)):
            found = table({name: prefix + text[:LONGEST]})
            assert found is not None
            before = time.process_time()
            outcome(found, Asked())
            # Not a measure of speed: what is quadratic in such a text takes minutes.
            assert time.process_time() - before < 10, (name, text[:20])


def test_a_real_archive_gives_the_same_as_a_made_table() -> None:
    files: dict[str, str | bytes] = {
        "app.py": "from flask import Flask\napp = Flask('x')\n",
        "requirements.txt": "flask\n",
    }
    made = table(files)
    assert made is not None
    assert classify(made, None, TEMPLATES) == classify(table_of(files), None, TEMPLATES)
