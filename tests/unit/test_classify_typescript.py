"""TypeScript that Node cannot run by stripping its types: what runs it, and what is installed for that."""

from __future__ import annotations

import json

import pytest

from tests.unit.classify_trees import table_of
from vibed.classify.classifier import classify
from vibed.classify.decision import Decision
from vibed.classify.errors import BuildRequired

HTTP = "import http from 'node:http'\nhttp.createServer((q, r) => r.end('ok')).listen(3000)\n"
BARE = {"src/index.ts": "import { x } from './db'\n" + HTTP, "src/db.ts": "export const x = 1\n"}
DECORATED = {"src/index.ts": "@Controller('x')\nclass A {}\n" + HTTP}


def package(**keys: object) -> str:
    return json.dumps({"name": "x", **keys})


def decided(files: dict[str, str], installs: tuple[str, ...] = ("node", "build")) -> Decision:
    class Facts:
        lane, kind, version = "general", "node", "24"
        packages: dict[str, str] = {}  # noqa: RUF012

    return classify(table_of(files), None, {"node-24": Facts()}, installs)


@pytest.mark.parametrize(
    ("files", "argv", "wanted"),
    [
        # the project's own runner, wherever its scripts or its list name it
        (
            {**BARE, "package.json": package(scripts={"dev": "tsx watch src/index.ts"}, devDependencies={"tsx": "^4"})},
            "node --import tsx src/index.ts",
            (),
        ),
        (
            {
                **BARE,
                "package.json": package(
                    scripts={"start": "ts-node src/index.ts"}, devDependencies={"ts-node": "^10", "typescript": "^5"}
                ),
            },
            "node --require ts-node/register/transpile-only src/index.ts",
            (),
        ),
        (
            {
                **DECORATED,
                "package.json": package(
                    scripts={"dev": "ts-node-dev --respawn src/index.ts"},
                    devDependencies={"ts-node-dev": "^2", "typescript": "^5"},
                ),
            },
            "node --require ts-node/register/transpile-only src/index.ts",
            ("ts-node",),  # which the other one brings too
        ),
        (
            {
                **BARE,
                "package.json": package(
                    scripts={"dev": "nodemon --exec ts-node src/index.ts"},
                    devDependencies={"nodemon": "3", "ts-node": "10", "typescript": "5", "tsconfig-paths": "4"},
                ),
                "tsconfig.json": '{"compilerOptions": {"paths": {"@/*": ["./src/*"]}}}',
            },
            "node --require ts-node/register/transpile-only --require tsconfig-paths/register src/index.ts",
            (),
        ),
        # ts-node loads no ES modules in today's Node
        (
            {
                **BARE,
                "package.json": package(
                    type="module", scripts={"start": "ts-node src/index.ts"}, devDependencies={"ts-node": "^10"}
                ),
            },
            "node --import tsx src/index.ts",
            ("tsx",),
        ),
        # types that decorators read are for a compiler
        (
            {
                **DECORATED,
                "package.json": package(dependencies={"typeorm": "0.3"}, main="src/index.ts"),
                "tsconfig.json": '{"compilerOptions": {"emitDecoratorMetadata": true}}',
            },
            "node --require ts-node/register/transpile-only src/index.ts",
            ("ts-node", "typescript"),
        ),
        # none of its own
        ({**BARE, "package.json": package(main="src/index.ts")}, "node --import tsx src/index.ts", ("tsx",)),
        ({"server.ts": "import { x } from './db'\n" + HTTP, "db.ts": ""}, "node --import tsx server.ts", ("tsx",)),
    ],
)
def test_it_is_run_by_the_projects_own_runner_or_else_by_one_that_is_installed(
    files: dict[str, str], argv: str, wanted: tuple[str, ...]
) -> None:
    found = decided(files)
    assert (" ".join(found.argv), found.made) == (argv, None)
    assert found.install is not None
    assert found.install.wanted == wanted
    assert found.install.development or "package.json" not in files


@pytest.mark.parametrize(
    "text",
    [
        "import express, { Request, Response } from 'express'\nexport function x(q: Request, r: Response) {}\n",
        "import { readFileSync } from 'node:fs'\nconst page = readFileSync(__dirname + '/x.html')\n",
        "import data from './data.json'\n",
        "import { db } from '@/db'\n",
    ],
)
def test_what_is_written_for_a_compiler_is_not_stripped(text: str) -> None:
    files = {
        "src/index.ts": text + HTTP,
        "src/data.json": "{}",
        "package.json": package(main="src/index.ts", devDependencies={"tsx": "4"}, dependencies={"express": "5"}),
        "tsconfig.json": '{"compilerOptions": {"paths": {"@/*": ["./src/*"]}}}',
    }
    assert decided(files).argv == ("node", "--import", "tsx", "src/index.ts")
    # where nothing can be installed it is tried as it is
    alone = {**files, "package.json": package(main="src/index.ts")}
    assert classify(table_of(alone)).argv == ("node", "src/index.ts")


@pytest.mark.parametrize(
    "text",
    [
        "import { type Request, Router } from 'express'\nconst r = Router()\nexport function x(q: Request) {}\n",
        "import type { Request } from 'express'\nexport function x(q: Request) {}\n",
        "import { Server } from 'node:http'\nconst s: Server = new Server()\n",
        "import data from './data.json' with { type: 'json' }\n",
        "export enum Size { Small }\n",
    ],
)
def test_what_node_can_run_itself_needs_no_runner(text: str) -> None:
    files = {"src/index.ts": text + HTTP, "src/data.json": "{}", "package.json": package(main="src/index.ts")}
    assert "tsx" not in decided(files).argv


def test_what_a_build_script_compiles_is_built() -> None:
    scripts = {"build": "tsc", "start": "node dist/index.js"}
    found = decided({**BARE, "package.json": package(scripts=scripts, devDependencies={"typescript": "5", "tsx": "4"})})
    assert found.argv == ("node", "dist/index.js")
    assert found.made is not None


def test_what_no_script_compiles_is_started_from_its_source() -> None:
    scripts = {"start": "node dist/index.js"}
    found = decided({**BARE, "package.json": package(scripts=scripts, devDependencies={"typescript": "5"})})
    assert found.argv == ("node", "--import", "tsx", "src/index.ts")


def test_where_nothing_can_be_installed_it_is_refused() -> None:
    with pytest.raises(BuildRequired, match="without the file"):
        decided({**BARE, "package.json": package(main="src/index.ts")}, ())
