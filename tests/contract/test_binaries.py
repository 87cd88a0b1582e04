"""Programs that packages fetch when they are installed come from configured sources, as packages from registries."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.contract.driver_kit import Subject
from tests.contract.fake_registry import FakeRegistry, fake_registry, npm_package
from tests.contract.test_layers import Maker, counting, making, one
from vibed.apps.app import Install
from vibed.runtimes.layers.layer import Layer
from vibed.runtimes.registries import Registries
from vibed.sandboxes.driver import RunFailed

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

FETCH = """
const { writeFileSync } = require('fs')
async function main () {
  const answer = await fetch(process.env.PRISMA_ENGINES_MIRROR + '/engine')
  if (!answer.ok) throw new Error(`Failed to fetch the engine: ${answer.status} ${await answer.text()}`)
  writeFileSync('engine', await answer.text())
}
main()
"""
"""As the client of a source does it, which its variable leads to the gate."""
FILES = {"package.json": json.dumps({"name": "app", "dependencies": {"engined": "*"}})}


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as it:
        manifest = {"name": "engined", "version": "1.0.0", "scripts": {"install": "node fetch.js"}}
        it.packages["engined"] = {
            "1.0.0": npm_package({"package.json": json.dumps(manifest), "fetch.js": FETCH, "index.js": ""}),
        }
        it.files["engine"] = b"an engine"
        it.files["engine.sha256"] = hashlib.sha256(b"an engine").hexdigest().encode()
        yield it


@pytest.fixture
async def maker(tmp_path: Path, registry: FakeRegistry, subject: Subject) -> AsyncIterator[Maker]:
    async with making(tmp_path, registry, subject) as it:
        yield it


async def installed(maker: Maker, source: str) -> Layer:
    registries = Registries(npm=maker.registry.npm, binaries={"prisma": source})
    maker.steps = counting(maker.driver, maker.toolbox, registries)
    maker.layers = maker.again()
    return await maker.provide(Install("node", "npm", files=("package.json",)), FILES)


@one
async def test_a_program_that_an_install_script_fetches_is_in_the_layer(maker: Maker) -> None:
    layer = await installed(maker, f"{maker.registry.url}/files")
    read = "console.log(require('fs').readFileSync('/layers/node/node_modules/engined/engine', 'utf8'))"
    assert await maker.run(layer, read) == "an engine"
    assert "/files/engine" in maker.registry.paths()


@one
@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("", "the operator of this vibeD has switched it off"),
        ("http://127.0.0.1:9", "the registry 127.0.0.1:9 cannot be reached"),
    ],
    ids=["off", "out of reach"],
)
async def test_a_source_that_cannot_be_had_is_told_with_what_to_change(maker: Maker, source: str, why: str) -> None:
    with pytest.raises(RunFailed) as failed:
        await installed(maker, source)
    hint = failed.value.hint or ""
    assert f"Prisma's engines, which no package registry has, could not be fetched: {why}" in hint
    assert "the operator can name a mirror" in hint
    assert not failed.value.may_retry


@one
async def test_a_program_that_is_not_what_its_source_publishes_is_not_installed(maker: Maker) -> None:
    maker.registry.files["engine"] = b"another engine"
    with pytest.raises(RunFailed) as failed:
        await installed(maker, f"{maker.registry.url}/files")
    assert "its digest is another" in (failed.value.hint or "")
