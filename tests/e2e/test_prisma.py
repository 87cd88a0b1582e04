"""Prisma's own packages, from the registry, so for `make test-all`; where they fetch engines, that is from a source on
the loopback interface."""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.e2e.instance import Instance

pytestmark = [pytest.mark.slow, pytest.mark.everything, pytest.mark.timeout(900)]
BUILD_S = 600.0

CONFIG = """import "dotenv/config";
import { defineConfig, env } from "prisma/config";
export default defineConfig({
  schema: "prisma/schema.prisma",
  migrations: { path: "prisma/migrations" },
  datasource: { url: env("DATABASE_URL") },
});
"""
SQLITE = 'datasource db {\n  provider = "sqlite"\n%s}\n'
MODEL = "model Note {\n  id   Int @id @default(autoincrement())\n  text String\n}\n"
TABLE = 'CREATE TABLE "Note" ("id" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, "text" TEXT NOT NULL);'
MIGRATIONS = {
    "prisma/migrations/20260101000000_init/migration.sql": TABLE,
    "prisma/migrations/migration_lock.toml": 'provider = "sqlite"\n',
}
SEVEN = {
    "package.json": json.dumps(
        {
            "type": "module",
            "scripts": {"start": "node server.js"},
            "dependencies": {"@prisma/client": "7.3.0", "@prisma/adapter-libsql": "7.3.0"},
            "devDependencies": {"prisma": "7.3.0", "dotenv": "17.2.3"},
        }
    ),
    "prisma.config.ts": CONFIG,
    "prisma/schema.prisma": 'generator client {\n  provider = "prisma-client"\n  output = "../generated/prisma"\n}\n'
    + SQLITE % ""
    + MODEL,
    **MIGRATIONS,
    "server.js": """import http from 'node:http'
import { PrismaClient } from './generated/prisma/client.ts'
import { PrismaLibSql } from '@prisma/adapter-libsql'
const prisma = new PrismaClient({ adapter: new PrismaLibSql({ url: process.env.DATABASE_URL }) })
http.createServer(async (request, answer) => {
  await prisma.note.create({ data: { text: 'hello' } })
  answer.end(`${await prisma.note.count()} notes`)
}).listen(process.env.PORT)
""",
}
SIX = {
    "package.json": json.dumps(
        {
            "scripts": {"start": "node server.js"},
            "dependencies": {"@prisma/client": "6.19.3", "@prisma/adapter-libsql": "6.19.3"},
            "devDependencies": {"prisma": "6.19.3"},
        }
    ),
    "prisma/schema.prisma": 'generator client {\n  provider = "prisma-client-js"\n  engineType = "client"\n}\n'
    + SQLITE % '  url = env("DATABASE_URL")\n'
    + MODEL,
    **MIGRATIONS,
    "server.js": """const http = require('node:http')
const { PrismaClient } = require('@prisma/client')
const { PrismaLibSQL } = require('@prisma/adapter-libsql')
const prisma = new PrismaClient({ adapter: new PrismaLibSQL({ url: process.env.DATABASE_URL }) })
http.createServer(async (request, answer) => {
  await prisma.note.create({ data: { text: 'hello' } })
  answer.end(`${await prisma.note.count()} notes`)
}).listen(process.env.PORT)
""",
}
FIVE = {
    "package.json": json.dumps(
        {
            "scripts": {"start": "node server.js"},
            "dependencies": {"@prisma/client": "5.22.0"},
            "devDependencies": {"prisma": "5.22.0"},
        }
    ),
    "prisma/schema.prisma": 'generator client {\n  provider = "prisma-client-js"\n}\n'
    + SQLITE % '  url = env("DATABASE_URL")\n'
    + MODEL,
    **MIGRATIONS,
    "server.js": """const http = require('node:http'), fs = require('node:fs'), path = require('node:path')
const { PrismaClient } = require('@prisma/client')
const engines = path.join(path.dirname(require.resolve('@prisma/client/package.json')), '../../.prisma/client')
const engine = fs.readdirSync(engines).find((name) => name.startsWith('libquery_engine'))
http.createServer((request, answer) => {
  answer.end(`${typeof new PrismaClient().note.count}, ${fs.readFileSync(path.join(engines, engine))}`)
}).listen(process.env.PORT)
""",
}
ENGINE = b"no engine, and the one that was published"


@pytest.fixture(scope="module")
def mirrored() -> Iterator[Instance]:
    """A vibeD whose machine has a mirror of Prisma's engines."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            packed = gzip.compress(ENGINE, mtime=0)
            body = packed if ".gz" in self.path else ENGINE
            if self.path.endswith(".sha256"):
                body = hashlib.sha256(body).hexdigest().encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else body)

        do_HEAD = do_GET

        def log_message(self, *arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    instance = Instance(templates="node-24")
    instance.env["PRISMA_ENGINES_MIRROR"] = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        instance.up()
        instance.client.wait_for_template("node-24")
        yield instance
    finally:
        left = instance.end()
        server.shutdown()
    assert not left


@pytest.mark.parametrize(("name", "source"), [("seven", SEVEN), ("six", SIX)], ids=["7", "6"])
def test_a_client_without_an_engine_is_generated_has_its_tables_and_serves(
    mirrored: Instance, name: str, source: dict[str, str]
) -> None:
    mirrored.client.deploy_ready(name, dict(source), settle_s=BUILD_S)
    assert [mirrored.client.visit(name).text for _ in range(2)] == ["1 notes", "2 notes"]


def test_the_engine_that_an_older_prisma_fetches_runs_with_it(mirrored: Instance) -> None:
    mirrored.client.deploy_ready("five", dict(FIVE), settle_s=BUILD_S)
    assert mirrored.client.visit("five").text == f"function, {ENGINE.decode()}"
