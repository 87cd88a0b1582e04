"""TypeScript that Node cannot run by stripping its types, with what really runs it: from the registry, so for
`make test-all`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from tests.e2e.conftest import Apps
from tests.e2e.instance import Instance
from tests.e2e.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.everything, pytest.mark.timeout(300)]
BUILD_S = 200.0

SERVER = """import express, { Request, Response, NextFunction } from 'express'
import routes from './routes'
const app = express()
app.use((q: Request, r: Response, n: NextFunction) => n())
app.use('/', routes)
app.listen(process.env.PORT || 3000)
"""
ROUTES = """import { Router, Request, Response } from 'express'
const router = Router()
router.get('/', (q: Request, r: Response) => { r.send('from ' + __dirname) })
export default router
"""
PLAIN = {"src/index.ts": SERVER, "src/routes.ts": ROUTES}
DECORATED = {
    "src/index.ts": """import 'reflect-metadata'
import express from 'express'
import { helper } from '@lib/helper'
let seen = ''
function Log(): MethodDecorator {
  return (t, k) => { seen = Reflect.getMetadata('design:paramtypes', t, k).map((one: any) => one.name).join() }
}
class Greeter {
  @Log()
  greet(name: string, times: number) { return name + times }
}
const app = express()
app.get('/', (q, r) => { r.send(new Greeter().greet('a', 1) + helper() + seen) })
app.listen(3000)
""",
    "src/lib/helper.ts": "export const helper = () => ' helped '\n",
    "tsconfig.json": """{
  // as tsc writes it, with comments
  "compilerOptions": {"target": "es2020", "module": "commonjs", "esModuleInterop": true,
    "experimentalDecorators": true, "emitDecoratorMetadata": true, "baseUrl": ".", "paths": {"@lib/*": ["src/lib/*"]}}
}""",
}
COMMONJS = '{"compilerOptions": {"target": "es2020", "module": "commonjs", "esModuleInterop": true}}'


@pytest.mark.parametrize(
    ("files", "package", "answer"),
    [
        pytest.param(
            {**PLAIN, "tsconfig.json": COMMONJS},
            {
                "scripts": {"dev": "ts-node-dev --respawn src/index.ts"},
                "devDependencies": {"ts-node-dev": "^2.0.0", "typescript": "^5.4.0"},
            },
            "from /app/src",
            id="ts-node-dev",
        ),
        pytest.param(PLAIN, {"main": "src/index.ts"}, "from /app/src", id="none of its own"),
        pytest.param(
            DECORATED,
            {
                "scripts": {"start": "ts-node src/index.ts"},
                "dependencies": {"reflect-metadata": "^0.2.2"},
                "devDependencies": {"ts-node": "^10.9.2", "tsconfig-paths": "^4.2.0", "typescript": "^5.4.0"},
            },
            "a1 helped String,Number",
            id="decorators that read types",
        ),
    ],
)
def test_it_runs_as_it_is(
    vibed: Instance, apps: Apps, files: Mapping[str, str], package: dict[str, dict[str, str]], answer: str
) -> None:
    vibed.client.wait_for_template("node-24")
    name = apps.name()
    manifest = {"name": "x", **package, "dependencies": {"express": "^4.19.2", **package.get("dependencies", {})}}
    answered = vibed.client.post_deploy(name, {**files, "package.json": json.dumps(manifest)})
    assert answered.status_code in (200, 202), answered.text
    eventually(lambda: vibed.client.visit(name).text == answer, "it answers", within_s=BUILD_S)
