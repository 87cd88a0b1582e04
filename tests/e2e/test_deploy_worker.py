"""A worker runs in an isolate of its own, with what Wrangler projects use."""

from __future__ import annotations

import hashlib

from tests.e2e import samples
from tests.e2e.conftest import Apps
from tests.e2e.instance import Instance
from tests.e2e.load import connect


def test_a_worker_is_live_when_the_deploy_is_answered(vibed: Instance, apps: Apps) -> None:
    vibed.client.wait_for_template("workerd")
    answer = vibed.client.post_deploy(apps.name("worker"), samples.worker(1))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert vibed.client.visit(body["app_id"]).text == "version 1\n"
    assert (body["runtime"]["lane"], body["runtime"]["template"]) == ("fast", "workerd")
    assert vibed.client.app(body["app_id"])["isolation"] == "isolate"


def test_bodies_arrive_whole(vibed: Instance, apps: Apps) -> None:
    vibed.client.wait_for_template("workerd")
    app = apps.ready(samples.worker(1))
    body = b"0123456789abcdef" * 65_536
    answer = vibed.client.visit(app, "/echo", "POST", content=body).json()
    assert answer["sha256"] == hashlib.sha256(body).hexdigest()


def test_environment_reaches_the_worker_and_nothing_else_does(vibed: Instance, apps: Apps) -> None:
    vibed.client.wait_for_template("workerd")
    app = apps.ready(samples.worker(1), env=[{"name": "GREETING", "value": "hello"}])
    assert vibed.client.visit(app, "/env").json() == {"GREETING": "hello"}


async def test_websockets_work(vibed: Instance, apps: Apps) -> None:
    vibed.client.wait_for_template("workerd")
    app = apps.ready(samples.worker(1))
    async with connect(vibed.client, app) as socket:
        for number in range(10):
            await socket.send(f"n{number}")
            assert await socket.recv() == f"1 n{number}"


def test_typescript_and_packages_are_bundled(vibed: Instance, apps: Apps) -> None:
    vibed.client.wait_for_template("workerd")
    app = apps.ready(
        {
            "wrangler.toml": 'name = "x"\nmain = "src/index.ts"\ncompatibility_date = "2026-01-01"\n',
            "src/index.ts": 'import { Hono } from "hono";\nimport { word } from "./word";\n'
            "const app = new Hono();\napp.get('/', (c) => c.text(word as string));\nexport default app;\n",
            "src/word.ts": "export const word: string = 'typed';\n",
        }
    )
    assert vibed.client.visit(app).text == "typed"


def test_a_worker_that_throws_at_its_top_level_says_so(vibed: Instance, apps: Apps) -> None:
    vibed.client.wait_for_template("workerd")
    deployed = apps.deploy({"worker.js": "throw new Error('no luck today');\nexport default { fetch() {} };\n"})
    assert deployed.phase == "Failed"
    assert "no luck today" in deployed.message


def test_a_package_that_is_not_there_is_named(vibed: Instance, apps: Apps) -> None:
    vibed.client.wait_for_template("workerd")
    source: samples.Files = {
        "wrangler.toml": 'name = "x"\nmain = "index.ts"\n',
        "index.ts": 'import x from "left-pad-of-nobody";\nexport default { fetch: () => new Response(x) };\n',
    }
    answer = vibed.client.post_deploy(apps.name(), source)
    if answer.status_code == 422:
        body = answer.json()
        assert (body["code"], "left-pad-of-nobody" in body["message"]) == ("DependenciesMissing", True)
    else:
        version = vibed.client.settled(answer.json()["app_id"], 1)
        assert (version["phase"], version["reason"]) == ("Failed", "DependenciesMissing")
        assert "left-pad-of-nobody" in version["message"]


def test_an_import_of_a_host_file_brings_nothing(vibed: Instance, apps: Apps) -> None:
    vibed.client.wait_for_template("workerd")
    deployed = apps.deploy(
        {
            "wrangler.toml": 'name = "x"\nmain = "index.ts"\n',
            "index.ts": 'import p from "/etc/passwd" with { type: "text" };\n'
            "export default { fetch: () => new Response(p) };\n",
        }
    )
    assert deployed.phase == "Failed" or "root:x" not in vibed.client.visit(deployed.app_id).text
