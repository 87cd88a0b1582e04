"""Node apps as people write them, unmodified."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.e2e import samples
from tests.e2e.conftest import Apps
from tests.e2e.instance import Instance
from tests.e2e.load import Load, connect

_EXPRESS = (
    'const app = require("express")();\napp.get("/", (req, res) => res.send("from express"));\napp.listen(3000);\n'
)


@pytest.fixture(autouse=True)
def _node(vibed: Instance) -> None:
    vibed.client.wait_for_template("node-24")


def test_a_program_without_package_json_runs(vibed: Instance, apps: Apps) -> None:
    app = apps.ready(samples.node_hello(1))
    assert vibed.client.visit(app).text == "version 1\n"
    assert vibed.client.app(app)["runtime"]["template"] == "node-24"


_FASTIFY = """
import Fastify from "fastify";
const app = Fastify();
app.get("/", async () => "from fastify");
await app.listen({ port: process.env.PORT });
"""
_TYPED = """
import { createServer } from "node:http";
const word: string = "typed";
createServer((request, response) => response.end(word)).listen(process.env.PORT);
"""
_KOA = """
import Koa from "koa";
const app = new Koa();
app.use((context) => { context.body = "from koa"; });
app.listen(8080, "127.0.0.1");
"""
_TWO = {
    "server/work.js": "require('fs').writeFileSync('word', 'written in ' + process.cwd())\nsetInterval(f => f, 1000)\n",
    "server/pages.js": (
        "const fs = require('fs')\n"
        "const pages = require('http').createServer((q, r) => r.end(fs.readFileSync('word')))\n"
        "const wait = setInterval(() => {\n"
        "  if (fs.existsSync('word')) { clearInterval(wait); pages.listen(3000) }\n"
        "}, 20)\n"
    ),
}
_BESIDE = """
const { createServer } = require("node:http");
createServer((request, response) => response.writeHead(426).end()).listen(8080);
const pages = () => createServer((request, response) => response.end("pages")).listen(process.env.PORT || 3000);
setTimeout(pages, 1500);
"""
WAYS = {
    "two-processes-in-a-folder": (
        _TWO,
        {"scripts": {"start": "cd server && npx concurrently 'node work.js' 'node pages.js'"}},
        "written in /app/server",
    ),
    "main-on-3000": ({"server.js": _EXPRESS}, {"main": "server.js", "dependencies": {"express": "*"}}, "from express"),
    "start-script-of-a-module": ({"a.mjs": _FASTIFY}, {"scripts": {"start": "node a.mjs"}}, "from fastify"),
    "typescript": ({"server.ts": _TYPED}, {"type": "module", "scripts": {"start": "node server.ts"}}, "typed"),
    "beside-another-server-on-8080": ({"s.js": _BESIDE}, {"scripts": {"start": "node s.js"}}, "pages"),
    "main-on-loopback": ({"server.js": _KOA}, {"type": "module", "main": "server.js"}, "from koa"),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_usual_ways_to_start_are_found(vibed: Instance, apps: Apps, way: str) -> None:
    files, package, expected = WAYS[way]
    app = apps.ready({**files, "package.json": json.dumps(package)})
    assert vibed.client.visit(app).text == expected


async def test_websockets_and_bodies_work(vibed: Instance, apps: Apps) -> None:
    app = apps.ready(samples.node(1))
    assert vibed.client.visit(app, "/echo", "POST", content=b"x" * 1_000_000).json()["size"] == 1_000_000
    async with connect(vibed.client, app) as socket:
        await socket.send("hello")
        assert await socket.recv() == "1 hello"


def test_the_app_sees_its_environment_and_nothing_of_vibed(vibed: Instance, apps: Apps) -> None:
    app = apps.ready(samples.node(1), env=[{"name": "GREETING", "value": "hello"}])
    seen = vibed.client.visit(app, "/env").json()
    assert (seen["GREETING"], seen.get("NODE_ENV")) == ("hello", "production")
    assert not [name for name in seen if name.startswith("VIBED_")]


def test_an_uncaught_error_is_told_with_its_line_and_not_with_nodes_version(apps: Apps) -> None:
    package = '{"type": "module", "scripts": {"start": "node index.js"}}'
    deployed = apps.deploy({"package.json": package, "index.js": "\n\nlisten(process.env.PORT);\n"})
    assert (deployed.phase, deployed.reason) == ("Failed", "StartFailed")
    assert "ReferenceError: listen is not defined (index.js, line 3)" in deployed.message


async def test_an_update_whose_cluster_ends_when_it_listens_costs_no_visitor_a_request(
    vibed: Instance, apps: Apps
) -> None:
    vibed.client.wait_for_template("python-313")
    name = apps.name()
    await asyncio.to_thread(vibed.client.deploy_ready, name, samples.python(1))
    broken = """
const cluster = require("node:cluster");
if (cluster.isPrimary) {
  cluster.fork();
  cluster.on("exit", () => cluster.fork());
} else {
  require("node:http").createServer((request, response) => response.end("version 2"))
    .listen(process.env.PORT, () => { throw new Error("no licence file"); });
}
"""
    async with Load(vibed.client, name, get=2) as load:
        await load.quiet_until(3)
        files = {"s.js": broken, "package.json": '{"scripts": {"start": "node s.js"}}'}
        failed = await asyncio.to_thread(vibed.client.deploy, name, files)
        await load.quiet_until(10)
    assert (failed.phase, failed.reason) == ("Failed", "StartFailed")
    assert "workers end before they serve a request" in failed.message
    assert "no licence file" in failed.message
    assert vibed.client.app(name)["serving_version"] == 1
    assert not load.failed, load.failed[:5]
    assert {one.version for one in load.seen} == {1}
