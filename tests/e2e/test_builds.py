# ruff: noqa: E501 (sources of apps)
"""Apps that have to be built first: real tools, from the registries that this machine's own clients use."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Apps
from tests.e2e.instance import Instance

BUILD_S = 240.0
"""A registry may be slow, and the first installation makes its tools ready."""


@pytest.fixture(autouse=True)
def _ready(vibed: Instance) -> Iterator[None]:
    vibed.client.wait_for_template("node-24")
    yield


def test_a_vite_project_is_built_and_served_at_the_root_of_its_name(vibed: Instance, apps: Apps) -> None:
    source: dict[str, str | bytes] = {
        "package.json": json.dumps(
            {
                "type": "module",
                "scripts": {"build": "vite build"},
                "devDependencies": {"vite": "^7"},
                "dependencies": {"dayjs": "1.11.13"},
            }
        ),
        "vite.config.js": "export default { base: '/repo/' }",
        ".env": "VITE_PLACE=file\n",
        "index.html": '<div id="root"></div><script type="module" src="/main.js"></script>',
        "main.js": "import dayjs from 'dayjs'\ndocument.title = dayjs('2026-11-30').format('YYYY') + import.meta.env.VITE_PLACE + import.meta.env.VITE_WORD\n",
    }
    name = apps.name()
    vibed.client.deploy_ready(name, source, settle_s=BUILD_S, env=[{"name": "VITE_WORD", "value": "told"}])
    page = vibed.client.visit(name)
    assert page.status_code == 200
    script = page.text.partition('src="')[2].partition('"')[0]
    assert script.startswith("/assets/")
    code = vibed.client.visit(name, script)
    assert (code.status_code, "VITE_PLACE" in code.text, "file" in code.text, "told" in code.text) == (
        200,
        False,
        True,
        True,
    )
    assert vibed.client.visit(name, "/some/where").status_code == 200
    again = vibed.client.post_deploy(apps.name(), source)
    assert again.status_code in (200, 202), again.text
    source["main.js"] = "import nothing from './nothing.js'\nnothing()\n"
    broken = apps.name()
    failed = vibed.client.deploy(broken, source, settle_s=BUILD_S)
    assert (failed.phase, failed.reason) == ("Failed", "BuildFailed")
    assert "./nothing.js" in failed.message


def test_a_server_in_typescript_is_built_and_then_run(vibed: Instance, apps: Apps) -> None:
    source: dict[str, str | bytes] = {
        "package.json": json.dumps(
            {
                "type": "module",
                "scripts": {"build": "tsc", "start": "node dist/index.js"},
                "devDependencies": {"typescript": "^5", "@types/node": "^22"},
            }
        ),
        "tsconfig.json": json.dumps(
            {"compilerOptions": {"module": "nodenext", "target": "es2022", "outDir": "dist", "rootDir": "src"}}
        ),
        "src/index.ts": "import { createServer } from 'node:http'\nimport { Word } from './word.js'\ncreateServer((q, r) => r.end(Word.Hello)).listen(process.env.PORT)\n",
        "src/word.ts": "export enum Word { Hello = 'compiled' }\n",
    }
    name = apps.name()
    vibed.client.deploy_ready(name, source, settle_s=BUILD_S)
    assert vibed.client.visit(name).text == "compiled"


def test_a_server_of_a_workspace_serves_the_pages_of_another_package_that_share_a_third(
    vibed: Instance, apps: Apps
) -> None:
    source: dict[str, str | bytes] = {
        "package.json": json.dumps({"private": True, "workspaces": ["apps/*", "packages/*"], "scripts": {"build": "turbo build"}}),
        "packages/shared/package.json": json.dumps({"name": "@acme/shared", "version": "1.0.0", "type": "module", "main": "dist/index.js", "scripts": {"build": "mkdir -p dist && cp src/index.js dist/"}, "dependencies": {"dayjs": "1.11.13"}}),
        "packages/shared/src/index.js": "import dayjs from 'dayjs'\nexport const year = dayjs('2026-11-30').format('YYYY')\n",
        "apps/web/package.json": json.dumps({"name": "web", "version": "1.0.0", "type": "module", "scripts": {"build": "vite build"}, "dependencies": {"@acme/shared": "*"}, "devDependencies": {"vite": "^7"}}),
        "apps/web/index.html": '<script type="module" src="/main.js"></script>',
        "apps/web/main.js": "import { year } from '@acme/shared'\ndocument.title = `pages of ${year}`\n",
        "apps/api/package.json": json.dumps({"name": "api", "version": "1.0.0", "type": "module", "scripts": {"start": "node index.js"}, "dependencies": {"@acme/shared": "*", "express": "^4.21.0"}}),
        "apps/api/index.js": "import express from 'express'\nimport { year } from '@acme/shared'\nconst app = express()\napp.get('/api', (q, r) => r.json({ year }))\napp.use(express.static(new URL('../web/dist', import.meta.url).pathname))\napp.listen(process.env.PORT)\n",
    }  # fmt: skip
    name = apps.name()
    vibed.client.deploy_ready(name, source, settle_s=BUILD_S)
    assert vibed.client.visit(name, "/api").json() == {"year": "2026"}
    page = vibed.client.visit(name).text
    assert "pages of" in vibed.client.visit(name, page.partition('src="')[2].partition('"')[0]).text
