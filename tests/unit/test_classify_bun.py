"""Apps that are written for Bun: Bun is installed for them, where anything can be, and starts them."""

from __future__ import annotations

import json

import pytest

from tests.unit.classify_trees import TEMPLATES, table_of
from vibed.classify import bun
from vibed.classify.classifier import classify
from vibed.classify.decision import Decision
from vibed.classify.errors import UnsupportedRuntime

SERVES = "Bun.serve({ port: 3000, fetch() { return new Response('hi') } })\n"
HONO = "import { Hono } from 'hono'\nconst app = new Hono()\napp.get('/', c => c.text('hi'))\nexport default app\n"
ELYSIA = "import { Elysia } from 'elysia'\nnew Elysia().get('/', () => 'x').listen(3000)\n"


def package(**keys: object) -> str:
    return json.dumps({"name": "x", **keys})


def decided(files: dict[str, str], installs: tuple[str, ...] = ("node", "build")) -> Decision:
    return classify(table_of(files), None, TEMPLATES, installs)


@pytest.mark.parametrize(
    ("files", "argv", "wanted"),
    [
        ({"index.ts": SERVES}, "bun index.ts", "bun"),
        ({"package.json": package(module="api.ts"), "api.ts": SERVES}, "bun api.ts", "bun"),
        (
            {"package.json": package(scripts={"dev": "bun --watch src/index.ts"}), "src/index.ts": ELYSIA},
            "bun src/index.ts",
            "bun",
        ),
        (
            {
                "package.json": package(
                    scripts={"start": "bun run server/index.ts --quiet"}, packageManager="bun@1.2.3"
                ),
                "server/index.ts": HONO,
            },
            "bun server/index.ts --quiet",
            "bun@1.2.3",
        ),
        ({"Procfile": "web: bun run api/main.ts", "api/main.ts": SERVES}, "bun api/main.ts", "bun"),
        (
            {
                "Dockerfile": 'FROM oven/bun\nRUN bun install\nCMD ["bun", "run", "src/main.ts"]',
                "package.json": package(dependencies={"hono": "4"}),
                "src/main.ts": "import './db'\n" + HONO,
                "src/db.ts": "import { Database } from 'bun:sqlite'\n",
            },
            "bun src/main.ts",
            "bun",
        ),
    ],
)
def test_bun_is_installed_and_starts_the_file(files: dict[str, str], argv: str, wanted: str) -> None:
    found = decided(files)
    assert (found.kind, " ".join(found.argv)) == ("node", argv)
    assert found.install is not None
    assert wanted in found.install.wanted


def test_where_nothing_can_be_installed_it_is_refused() -> None:
    with pytest.raises(UnsupportedRuntime, match="written for Bun"):
        decided({"index.ts": SERVES}, ())


def test_what_bun_and_a_worker_both_run_is_a_worker() -> None:
    files = {"package.json": package(scripts={"dev": "bun run --hot src/index.ts"}), "src/index.ts": HONO}
    assert decided(files).kind == "worker"


def test_what_only_bun_has_is_no_worker() -> None:
    files = {"package.json": package(), "src/index.ts": "import { Database } from 'bun:sqlite'\n" + HONO}
    assert decided(files).argv == ("bun", "src/index.ts")


@pytest.mark.parametrize(
    "text",
    [
        "typeof Bun === 'undefined' ? http.createServer(f).listen(1) : Bun.serve({ fetch })",
        "import { Elysia } from 'elysia'\nimport { node } from '@elysiajs/node'",
        "// get it from https://bun.sh, or ask Bunny.serve(1)",
    ],
)
def test_what_runs_elsewhere_as_well_needs_no_bun(text: str) -> None:
    assert not bun.only(text)


@pytest.mark.parametrize(
    ("script", "expected"),
    [("bun build src/a.ts --outdir dist", True), ("bun run make.ts", True), ("bun run build:css && vite build", False)],
)
def test_a_build_that_has_bun_do_something_gets_it(script: str, expected: bool) -> None:
    assert bun.builds({"build": script}) is expected
