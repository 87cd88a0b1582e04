"""Projects with Prisma: the client is generated, and a database in a file gets its tables."""

from __future__ import annotations

import json

import pytest

from tests.unit.classify_trees import table_of
from vibed.classify.classifier import classify
from vibed.classify.decision import Decision
from vibed.runtimes.templates import load_templates

TEMPLATES = load_templates()
GENERATOR = 'generator client {\n  provider = "prisma-client-js"\n}\n'
OUTPUT = 'generator client {\n  provider = "prisma-client"\n  output = "../src/generated/prisma"\n}\n'
SQLITE = 'datasource db {\n  provider = "sqlite"\n  url = env("DATABASE_URL")\n}\n'
POSTGRES = SQLITE.replace("sqlite", "postgresql")
SERVER = "require('http').createServer((q, a) => a.end('x')).listen(process.env.PORT)"
ASKED = {"@prisma/client": "^6.7.0", "prisma": "^6.7.0"}
IN_PLACE = "[ -e node_modules/.prisma/client/schema.prisma ] || prisma generate"


def decided(files: dict[str, str], **package: object) -> Decision:
    manifest = {"name": "app", "dependencies": ASKED, "scripts": {"start": "node server.js"}, **package}
    table = table_of({"server.js": SERVER, "package.json": json.dumps(manifest), **files})
    return classify(table, None, TEMPLATES, ("node", "build"))


def script(files: dict[str, str], **package: object) -> str:
    made = decided(files, **package).made
    return made.script if made is not None else ""


def test_the_client_is_generated_before_an_app_that_has_no_build() -> None:
    decision = decided({"prisma/schema.prisma": GENERATOR + POSTGRES})
    assert decision.argv == ("node", "server.js")
    assert decision.made is not None
    assert (decision.made.script, decision.made.site, decision.made.copied) == (IN_PLACE, False, True)
    assert decision.install is not None
    assert decision.install.development


def test_it_is_generated_before_the_build() -> None:
    next_ = {"dependencies": {**ASKED, "next": "15.0.0"}, "scripts": {"build": "next build", "start": "next start"}}
    assert script({"prisma/schema.prisma": OUTPUT + POSTGRES}, **next_) == "prisma generate && npm run build"


@pytest.mark.parametrize(
    "scripts",
    [
        {"build": "prisma generate && next build"},
        {"build": "next build", "prebuild": "npx prisma generate"},
        {"build": "npm run db:generate && next build", "db:generate": "prisma generate --no-hints"},
    ],
)
def test_what_the_projects_own_build_generates_is_not_generated_twice(scripts: dict[str, str]) -> None:
    files = {"prisma/schema.prisma": OUTPUT + POSTGRES}
    assert script(files, scripts=scripts, dependencies={**ASKED, "next": "15.0.0"}) == "npm run build"


def test_an_own_postinstall_does_not_do_for_a_client_outside_of_the_packages() -> None:
    scripts = {"start": "node server.js", "postinstall": "prisma generate"}
    assert script({"prisma/schema.prisma": OUTPUT + POSTGRES}, scripts=scripts) == "prisma generate"


def test_the_command_is_installed_where_only_the_client_is_asked_for() -> None:
    made = decided({"prisma/schema.prisma": GENERATOR + POSTGRES}, dependencies={"@prisma/client": "5.22.0"}).made
    assert made is not None
    assert made.packages == ("prisma@5.22.0",)


def test_a_configuration_that_wants_a_variable_gets_one_to_generate_by() -> None:
    config = (
        'import { defineConfig, env } from "prisma/config"\nexport default defineConfig({ schema: "db/app.prisma", '
    )
    config += 'datasource: { url: env("DB_URL") } })'
    files = {
        "db/app.prisma": OUTPUT + POSTGRES.replace('  url = env("DATABASE_URL")\n', ""),
        "prisma.config.ts": config,
    }
    assert script(files) == 'DB_URL="${DB_URL:-postgresql://none@localhost/none}" prisma generate'


def test_a_schema_in_several_files_or_another_place_is_found() -> None:
    assert script({"prisma/schema/a.prisma": OUTPUT, "prisma/schema/b.prisma": POSTGRES}).startswith("prisma generate")
    assert script({"db/schema.prisma": GENERATOR + POSTGRES}, prisma={"schema": "db/schema.prisma"}) == IN_PLACE


def test_without_a_schema_or_without_prisma_nothing_is_generated() -> None:
    assert script({}) == ""
    assert script({"prisma/schema.prisma": GENERATOR}, dependencies={}) == ""


def test_a_package_of_the_project_generates_its_own() -> None:
    files = {
        "packages/db/package.json": json.dumps({"name": "db", "dependencies": ASKED, "main": "index.js"}),
        "packages/db/index.js": "module.exports = 1",
        "packages/db/prisma/schema.prisma": GENERATOR + POSTGRES,
    }
    said = script(files, workspaces=["packages/*"], dependencies={"db": "*"})
    assert said == '(cd packages/db && PATH="$PWD/node_modules/.bin:$PATH" && prisma generate)'


# SQLite


def tables(decision: Decision) -> dict[str, str]:
    (step,) = [one for one in decision.build if one[0] == "node"]
    told: dict[str, str] = json.loads(step[-1])
    return told


MIGRATED = {
    "prisma/schema.prisma": GENERATOR + SQLITE,
    "prisma/migrations/20260101000000_init/migration.sql": 'CREATE TABLE "User" ("id" INTEGER PRIMARY KEY);',
    "prisma/migrations/20260201000000_more/migration.sql": 'ALTER TABLE "User" ADD COLUMN "name" TEXT;',
    "prisma/migrations/migration_lock.toml": 'provider = "sqlite"',
}


def test_an_engine_finds_the_file_beside_the_schema_and_an_adapter_where_the_app_runs() -> None:
    decision = decided(MIGRATED)
    assert decision.env["DATABASE_URL"] == "file:./dev.db"
    assert tables(decision) == {
        "variable": "DATABASE_URL", "url": "", "place": "prisma", "migrations": "prisma/migrations",
    }  # fmt: skip
    adapted = decided(MIGRATED, dependencies={**ASKED, "@prisma/adapter-better-sqlite3": "^7"})
    assert tables(adapted)["place"] == "."
    written = {**MIGRATED, "db.js": "new PrismaLibSql({ url: 'file:./data/app.db' })"}
    found = tables(decided(written, dependencies={**ASKED, "@prisma/adapter-libsql": "^7"}))
    assert (found["variable"], found["url"]) == ("", "file:./data/app.db")


def test_what_a_committed_env_file_says_of_the_database_counts() -> None:
    assert "DATABASE_URL" not in decided({**MIGRATED, ".env": "DATABASE_URL=file:./my.db"}).env


def test_a_database_that_was_sent_is_the_one_that_is_opened() -> None:
    assert decided({**MIGRATED, "prisma/todo.db": ""}).env["DATABASE_URL"] == "file:./todo.db"


def test_a_schema_without_migrations_says_what_to_send() -> None:
    decision = decided({"prisma/schema.prisma": GENERATOR + SQLITE})
    assert any("npx prisma migrate dev --name init" in note for note in decision.notes)
    assert not [one for one in decision.build if one[0] == "node"]


def test_a_database_over_the_network_gets_no_tables_and_no_address() -> None:
    decision = decided({**MIGRATED, "prisma/schema.prisma": GENERATOR + POSTGRES})
    assert decision.build == ()
    assert any("expects PostgreSQL at DATABASE_URL" in note for note in decision.notes)
    assert "DATABASE_URL" not in decision.env
