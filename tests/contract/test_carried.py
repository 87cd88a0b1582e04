"""What a build writes among its packages is there when what it built runs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.contract.driver_kit import Subject
from tests.contract.fake_registry import FakeRegistry, fake_registry, npm_package
from tests.contract.test_layers import Maker, every, making, one
from tests.contract.test_workspaces import ran
from vibed.apps.app import Build, Install
from vibed.runtimes.builds.built import Built
from vibed.runtimes.builds.provider import Builds
from vibed.runtimes.builds.store import BuiltStore
from vibed.runtimes.layers.layer import Layer
from vibed.runtimes.layers.store import LayerStore

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

GENERATOR = """#!/usr/bin/env node
const fs = require('fs'), path = require('path')
// as Prisma does it: beside the package that it belongs to, wherever that lies
const place = path.join(path.dirname(fs.realpathSync(require.resolve('client/package.json'))), '../.made/client')
fs.mkdirSync(place, { recursive: true })
fs.writeFileSync(place + '/index.js', 'module.exports = ' + JSON.stringify(fs.readFileSync('schema', 'utf8').trim()))
"""
MANIFEST = {"name": "app", "scripts": {"build": "generate"}, "dependencies": {"generator": "*", "adapter": "*"}}
FILES = {"package.json": json.dumps(MANIFEST), "schema": "of my schema", "server.js": "console.log(require('adapter'))"}


def package(name: str, text: str, **more: object) -> bytes:
    return npm_package({"package.json": json.dumps({"name": name, "version": "1.0.0", **more}), "index.js": text})


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as it:
        it.packages["client"] = {"1.0.0": package("client", "module.exports = require('.made/client')")}
        uses = {"dependencies": {"client": "*"}}
        it.packages["adapter"] = {"1.0.0": package("adapter", "module.exports = 'client ' + require('client')", **uses)}
        manifest = {"name": "generator", "version": "1.0.0", "bin": {"generate": "cli.js"}, **uses}
        it.packages["generator"] = {
            "1.0.0": npm_package({"package.json": json.dumps(manifest), "cli.js": GENERATOR}),
        }
        yield it


@pytest.fixture
async def maker(tmp_path: Path, registry: FakeRegistry, subject: Subject) -> AsyncIterator[Maker]:
    async with making(tmp_path, registry, subject) as it:
        yield it


async def built(maker: Maker, files: dict[str, str], script: str, *, copied: bool = False) -> tuple[Built, Layer]:
    """What a build makes of a server, and what was installed for it."""
    layer = await maker.provide(Install("node", "npm", files=("package.json",), development=True), files)
    home = maker.on.layout.home
    builds = Builds(BuiltStore(home, LayerStore(home)), maker.steps, base=maker.layers._base)
    builds.prepare()
    found = await builds.provide(
        Build("", script, "node-24", site=False, copied=copied), layer=layer, source=maker.on.archive(files),
        source_digest=json.dumps(files), strip="", env={}, owner="ann", app_id="an-app",
        log_dir=maker.on.scratch / "log", on_step=lambda step: None, wanted=lambda: True,
    )  # fmt: skip
    await builds.close()
    return found, layer


@every
async def test_what_a_build_generates_beside_a_package_is_what_other_packages_find(maker: Maker) -> None:
    made, layer = await built(maker, FILES, "npm run build")
    assert made.packages is not None
    assert made.packages.key != layer.key
    assert await ran(maker, made.packages, FILES, "node server.js") == "client of my schema"
    # once as links, which could not be written through, and once as copies
    assert maker.steps.done.count("build") == 2
    again, _ = await built(maker, FILES, "npm run build")
    assert again == made


@one
async def test_new_folders_among_the_packages_are_kept_and_caches_are_not(maker: Maker) -> None:
    script = (
        "mkdir -p node_modules/@own/x node_modules/.cache && echo 'module.exports=5' > node_modules/@own/x/index.js"
    )
    made, _ = await built(maker, FILES, f"{script} && touch node_modules/.cache/much")
    assert maker.steps.done.count("build") == 1
    assert made.packages is not None
    line = "node -p \"require('@own/x'), require('fs').existsSync('node_modules/.cache')\" && ls node_modules/client"
    assert (await ran(maker, made.packages, FILES, line)).split() == ["false", "index.js", "package.json"]
    untouched, _ = await built(maker, FILES, "mkdir -p node_modules/.cache && touch node_modules/.cache/x", copied=True)
    assert untouched.packages is None


@one
async def test_a_build_whose_packages_have_gone_is_made_again(maker: Maker) -> None:
    made, _ = await built(maker, FILES, "npm run build", copied=True)
    assert made.packages is not None
    LayerStore(maker.on.layout.home).remove(made.packages.key)
    again, _ = await built(maker, FILES, "npm run build", copied=True)
    assert again.packages is not None
    assert maker.steps.done.count("build") == 2
