"""A worker runs in an isolate of its own, with what Wrangler projects use."""

from __future__ import annotations

import hashlib
import json

from tests.e2e import samples
from tests.e2e.conftest import Apps
from tests.e2e.instance import Instance
from tests.e2e.load import connect

BUILD_S = 300.0


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


def test_packages_are_installed_and_bundled_once_and_what_is_not_there_fails_where_it_is_used(
    vibed: Instance, apps: Apps
) -> None:
    vibed.client.wait_for_template("workerd")
    vibed.client.wait_for_template("node-24")
    source: samples.Files = {
        "wrangler.jsonc": json.dumps(
            {
                "name": "x",
                "main": "src/index.ts",
                "compatibility_date": "2023-05-01",
                "assets": {"directory": "public", "run_worker_first": ["/api/*"]},
                "kv_namespaces": [{"binding": "LINKS", "id": "x"}],
            }
        ),
        "package.json": json.dumps({"name": "x", "dependencies": {"zod": "^4", "jsonwebtoken": "^9"}}),
        "src/index.ts": """
            import { z } from "zod";
            import jwt from "jsonwebtoken";
            export default { async fetch(request: Request, env: { LINKS: any }) {
              const path = new URL(request.url).pathname;
              if (path === "/api/kv") return new Response(await env.LINKS.get("x"));
              const given = z.object({ id: z.coerce.number() }).parse({ id: path.slice(5) });
              return Response.json(jwt.verify(jwt.sign(given, "secret", { noTimestamp: true }), "secret"));
            } };
        """,
        "public/index.html": "<h1>page</h1>",
    }
    name, again = apps.name(), apps.name()
    vibed.client.deploy_ready(name, source, settle_s=BUILD_S)
    assert "bundling src/index.ts" in vibed.client.log_text(name)
    assert vibed.client.visit(name, "/api/42").json() == {"id": 42}
    assert vibed.client.visit(name).text == "<h1>page</h1>"
    assert vibed.client.visit(name, "/api/kv").status_code == 500
    deployed = vibed.client.deploy_ready(again, source, settle_s=BUILD_S)
    assert "KV namespace LINKS" in str(deployed.answer["notes"])
    assert "bundling" not in vibed.client.log_text(again), "it is bundled already"


def test_a_package_that_no_registry_has_is_named(vibed: Instance, apps: Apps) -> None:
    vibed.client.wait_for_template("workerd")
    vibed.client.wait_for_template("node-24")
    source: samples.Files = {
        "wrangler.toml": 'name = "x"\nmain = "index.ts"\n',
        "index.ts": 'import x from "left-pad-of-nobody";\nexport default { fetch: () => new Response(x) };\n',
    }
    deployed = vibed.client.deploy(apps.name(), source, settle_s=BUILD_S)
    assert (deployed.phase, deployed.reason) == ("Failed", "DependencyBuildFailed")
    assert "left-pad-of-nobody" in deployed.message


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
