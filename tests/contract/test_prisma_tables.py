"""The tables of a Prisma project's database in a file, made by the Node of the template."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.contract.driver_kit import Subject
from tests.contract.fake_registry import FakeRegistry, fake_registry, npm_package
from tests.contract.test_layers import Maker, making, one
from tests.contract.test_workspaces import ran
from vibed.apps.app import Install
from vibed.classify.prisma_tables import TABLES

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

INIT = "prisma/migrations/20260101000000_init/migration.sql"
MORE = "prisma/migrations/20260201000000_more/migration.sql"
FILES = {
    "package.json": '{"dependencies": {"tiny": "*"}}',
    "tables.js": TABLES,
    INIT: 'CREATE TABLE "User" ("id" INTEGER PRIMARY KEY);',
    MORE: 'ALTER TABLE "User" ADD COLUMN "name" TEXT;',
    "prisma/migrations/migration_lock.toml": 'provider = "sqlite"',
}
TOLD = json.dumps({"variable": "DATABASE_URL", "url": "", "place": "prisma", "migrations": "prisma/migrations"})
MAKE = f"""make() {{ node -e "$(cat tables.js)" '{TOLD}' 2>&1; }}; """
READ = """ask() { node -e "
  const { DatabaseSync } = require('node:sqlite')
  console.log(JSON.stringify(new DatabaseSync('$1').prepare('$2').all()))
" 2>/dev/null; }; """


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as it:
        it.packages["tiny"] = {"1.0.0": npm_package({"package.json": '{"name": "tiny", "version": "1.0.0"}'})}
        yield it


@pytest.fixture
async def maker(tmp_path: Path, registry: FakeRegistry, subject: Subject) -> AsyncIterator[Maker]:
    async with making(tmp_path, registry, subject) as it:
        yield it


async def said(maker: Maker, line: str, **more: str) -> list[str]:
    layer = await maker.provide(Install("node", "npm", files=("package.json",)), FILES)
    return (await ran(maker, layer, {**FILES, **more}, MAKE + READ + line)).splitlines()


@one
async def test_each_migration_is_run_once_and_recorded_as_prisma_does(maker: Maker) -> None:
    line = "export DATABASE_URL=file:./dev.db; make; make; "
    line += "ask prisma/dev.db 'SELECT id, name FROM User'; "
    line += "ask prisma/dev.db 'SELECT checksum, applied_steps_count AS steps FROM _prisma_migrations'"
    first, second, users, recorded = await said(maker, line)
    assert (first, second) == ("Prisma: migration 20260101000000_init", "Prisma: migration 20260201000000_more")
    assert users == "[]"
    sums = [hashlib.sha256(FILES[path].encode()).hexdigest() for path in (INIT, MORE)]
    assert json.loads(recorded) == [{"checksum": one, "steps": 1} for one in sums]


@one
async def test_what_the_env_file_says_counts_and_other_databases_are_left_alone(maker: Maker) -> None:
    env = '# of the app\nOTHER=1\nDATABASE_URL="file:./deeper/my.db?connection_limit=1"\n'
    line = "make > made; ask prisma/deeper/my.db 'SELECT count(*) AS n FROM User'; "
    line += "DATABASE_URL=postgresql://x make; ask own.db 'CREATE TABLE mine (x)'; "
    line += "DATABASE_URL=file:../own.db make; rm .env; make"
    assert await said(maker, line, **{".env": env}) == [
        '[{"n":0}]',
        "Prisma: no tables are made, since DATABASE_URL names no file",
        "[]",
        "Prisma: /app/own.db has tables and no record of migrations",
        "Prisma: no tables are made, since DATABASE_URL is not set",
    ]


@one
async def test_a_migration_that_fails_is_named_and_ends_the_start(maker: Maker) -> None:
    line = "DATABASE_URL=file:./dev.db make; echo $?"
    *_, why, status = await said(maker, line, **{MORE: "CREATE TABLE nonsense;"})
    assert why.startswith(f"Prisma: the migration {MORE} fails: ")
    assert status == "1"
