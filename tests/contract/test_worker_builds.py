"""Workers that are built: in real builder sandboxes, with packages of a registry on loopback, and run as isolates."""

from __future__ import annotations

import base64
import json
import tarfile
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.contract.driver_kit import SUBJECTS, Running, bench
from tests.contract.fake_registry import FakeRegistry, fake_registry, npm_package
from tests.contract.test_builds import Maker
from tests.contract.test_workers import ADD
from vibed.apps.app import Build, Runtime
from vibed.runtimes.builds.built import Built
from vibed.sandboxes.driver import RunFailed

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]
workerd = SUBJECTS["workerd"]
RUNTIME = Runtime("fast", "workerd", "worker", "src/index.ts", "")
OLD = """
const path = require('path')
const { createHash } = require('node:crypto')
try { require('not-there') } catch {}
module.exports = (text) => `${path.join('a', '..', 'b')} ${createHash('sha256').update(text).digest('hex').slice(0, 4)}`
"""
"""CommonJS that takes modules of Node, under both their names, and one that may be missing."""
SUM = """
import module from './add.wasm'
export const sum = (a, b) => new WebAssembly.Instance(module).exports.add(a, b)
"""


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as it:
        old = {"package.json": '{"name": "old", "version": "1.0.0", "main": "index.js"}', "index.js": OLD}
        exports = {"workerd": "./worker.js", "default": "./node.js"}
        fit = {
            "package.json": json.dumps({"name": "fit", "version": "1.0.0", "type": "module", "exports": exports}),
            "worker.js": "export const where = 'workerd'",
            "node.js": "export const where = 'node'",
        }
        it.packages["old"] = {"1.0.0": npm_package(old)}
        it.packages["fit"] = {"1.0.0": npm_package(fit)}
        yield it


@pytest.fixture
async def maker(tmp_path: Path, registry: FakeRegistry) -> AsyncIterator[Maker]:
    async with bench(tmp_path) as on:
        it = Maker(on, SUBJECTS["process"], registry)
        yield it
        await it.builds.close()
        await it.layers.close()


async def build(maker: Maker, files: Mapping[str, str], script: str = "", outputs: tuple[str, ...] = ()) -> Built:
    package = {"name": "app", "dependencies": {"old": "^1", "fit": "^1"}, "scripts": {"build": script}}
    files = {"package.json": json.dumps(package), **files}
    source = maker.on.archive(files).rename(maker.on.scratch / "source.tar.gz")
    ordered = Build(
        "", "npm run build" if script else "", "node-24", False, outputs, kind="worker", package="src/index.ts"
    )
    return await maker.builds.provide(
        ordered, layer=await maker.layer(files, source), source=source, source_digest=json.dumps(files), strip="",
        env={}, owner="ann", app_id="an-app", log_dir=maker.on.scratch / "log", on_step=lambda step: None,
        wanted=lambda: True,
    )  # fmt: skip


async def serve(maker: Maker, built: Built, runtime: Runtime = RUNTIME) -> Running:
    run = workerd.run(maker.on, {"x": ""})
    return await workerd.start(
        maker.on, workerd.driver(maker.on), replace(run, source=built.archive, runtime=built.runtime(runtime))
    )


def files_of(built: Built) -> list[str]:
    with tarfile.open(built.archive) as archive:
        return [member.name for member in archive if member.isfile()]


async def test_a_worker_is_one_module_with_its_packages_and_the_files_beside_it(maker: Maker) -> None:
    source = """
        import old from "old";
        import { where } from "fit";
        import words from "./words.txt";
        const later: Promise<string> = import("./later").then((module) => module.name);
        export default { async fetch(request: Request, env: { GREETING: string }) {
          return new Response([old("x"), where, words, await later, env.GREETING].join());
        } };
    """
    files = {
        "src/index.ts": source, "src/words.txt": "words", "src/later.ts": "export const name: string = 'later'",
        "public/index.html": "page", "public/a.js": "import('./b.js')", "secret.txt": "x",
    }  # fmt: skip
    built = await build(maker, files, outputs=("public",))
    assert set(files_of(built)) == {"worker/index.js", "assets/index.html", "assets/a.js"}
    assert maker.steps.done[-1] == "worker"
    assets = {"directory": "./public", "run_worker_first": ["/api/*"]}
    app = await serve(maker, built, replace(RUNTIME, options={"assets": assets}))
    assert (await app.get("/api/x")).body == "b 2d71,workerd,words,later,world"
    assert (await app.get("/")).body == "page"


async def test_what_is_no_javascript_stays_a_module_of_its_own(maker: Maker) -> None:
    packed = f"require('fs').writeFileSync('src/add.wasm', Buffer.from('{base64.b64encode(ADD).decode()}', 'base64'))"
    source = "import { sum } from './sum'\nexport default { fetch: () => new Response(String(sum(2, 40))) }"
    built = await build(maker, {"src/index.ts": source, "src/sum.js": SUM}, f'node -e "{packed}"')
    assert len(files_of(built)) == 2
    assert (await (await serve(maker, built)).get()).body == "42"


async def test_what_a_build_says_that_it_made_is_run(maker: Maker) -> None:
    make = """
        const fs = require('fs')
        const assets = { directory: '../client', not_found_handling: 'single-page-application' }
        const settings = { main: 'index.js', assets, vars: { WORD: 'built' }, kv_namespaces: [{ binding: 'LINKS' }] }
        const place = { configPath: '../../dist/server/wrangler.json' }
        for (const folder of ['dist/server/parts', 'dist/client', '.wrangler/deploy']) {
          fs.mkdirSync(folder, { recursive: true })
        }
        fs.writeFileSync('.wrangler/deploy/config.json', JSON.stringify(place))
        fs.writeFileSync('dist/server/wrangler.json', JSON.stringify(settings))
        fs.writeFileSync('dist/server/.dev.vars', 'SECRET=x')
        fs.writeFileSync('dist/server/parts/word.js', 'export const word = (env) => env.WORD + typeof env.LINKS')
        fs.writeFileSync('dist/server/index.js', `import { word } from "./parts/word.js"
          export default { fetch: (request, env) => new Response(word(env)) }`)
        fs.writeFileSync('dist/client/index.html', 'page')
    """
    built = await build(maker, {"make.cjs": make}, "node make.cjs")
    assert set(files_of(built)) == {
        "wrangler.json", "worker/index.js", "worker/parts/word.js", "assets/index.html",
    }  # fmt: skip
    app = await serve(maker, built)
    assert (await app.get("/api")).body == "builtobject"
    assert (await app.get("/some/page", Sec_Fetch_Mode="navigate")).body == "page"


async def test_an_import_that_nothing_has_is_told_with_its_line(maker: Maker) -> None:
    with pytest.raises(RunFailed) as failed:
        await build(maker, {"src/index.ts": "import pad from 'left-pad'\nexport default { fetch: () => pad }"})
    assert failed.value.error_code == "BuildFailed"
    assert 'src/index.ts:1:16: Could not resolve "left-pad"' in failed.value.message
    assert failed.value.hint == "add left-pad to the dependencies of package.json"
    assert not failed.value.may_retry
