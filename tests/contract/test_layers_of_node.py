"""Layers of Node projects by their own package managers: each follows its own lock, from a registry on the loopback."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.contract.driver_kit import SUBJECTS, Subject
from tests.contract.fake_registry import FakeRegistry, fake_registry, npm_package
from tests.contract.test_layers import Maker, making
from vibed.apps.app import Install
from vibed.sandboxes.driver import RunFailed

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]
one = pytest.mark.parametrize("subject", [SUBJECTS["process"]], ids=lambda s: s.name)


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as it:
        for version in ("1.0.0", "1.1.0"):
            it.packages.setdefault("tiny", {})[version] = package("tiny", version)
        yield it


@pytest.fixture
async def maker(tmp_path: Path, registry: FakeRegistry, subject: Subject) -> AsyncIterator[Maker]:
    async with making(tmp_path, registry, subject) as it:
        yield it


def package(name: str, version: str, **more: object) -> bytes:
    manifest = {"name": name, "version": version, **more}
    return npm_package({"package.json": json.dumps(manifest), "index.js": f"module.exports = '{version}'"})


def integrity(tarball: bytes) -> str:
    return "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode()


def pnpm_lock(tarball: bytes, spec: str = "^1", version: str = "1.0.0") -> str:
    return (
        "lockfileVersion: '9.0'\n\nsettings:\n  autoInstallPeers: true\n  excludeLinksFromLockfile: false\n\n"
        f"importers:\n\n  .:\n    dependencies:\n      tiny:\n        specifier: {spec}\n        version: {version}\n\n"
        f"packages:\n\n  tiny@{version}:\n    resolution: {{integrity: {integrity(tarball)}}}\n\n"
        f"snapshots:\n\n  tiny@{version}: {{}}\n"
    )


def yarn_lock(tarball: bytes) -> str:
    return (
        "# yarn lockfile v1\n\n\ntiny@^1:\n"
        '  version "1.0.0"\n  resolved "https://somewhere.example/tiny/-/tiny-1.0.0.tgz#'
        f'{hashlib.sha1(tarball).hexdigest()}"\n  integrity {integrity(tarball)}\n'
    )


def berry_lock(tarball: bytes) -> str:
    """As yarn 4.0 writes it: an earlier version of the format than today's."""
    return (
        '__metadata:\n  version: 8\n  cacheKey: 10c0\n\n"app@workspace:.":\n  version: 0.0.0-use.local\n'
        '  resolution: "app@workspace:."\n  dependencies:\n    tiny: "npm:^1"\n'
        "  languageName: unknown\n  linkType: soft\n\n"
        '"tiny@npm:^1":\n  version: 1.0.0\n  resolution: "tiny@npm:1.0.0"\n  languageName: node\n  linkType: hard\n'
    )


LOCKS = {
    "pnpm": ("pnpm", "pnpm-lock.yaml", pnpm_lock, "pnpm@10.4.0"),
    "pnpm 11": ("pnpm", "pnpm-lock.yaml", pnpm_lock, "pnpm@11.0.3+sha512.00"),
    "yarn 1": ("yarn", "yarn.lock", yarn_lock, "yarn@1.22.19"),
    "yarn 4": ("yarn", "yarn.lock", berry_lock, "yarn@4.0.2"),
}
managers = pytest.mark.parametrize("manager", list(LOCKS))


def app(manager: str, spec: str = "^1", **more: str) -> tuple[Install, dict[str, str]]:
    name, _, _, named = LOCKS[manager]
    manifest = {"name": "app", "packageManager": named, "dependencies": {"tiny": spec}}
    files = {"package.json": json.dumps(manifest), **more}
    return Install("node", name, files=tuple(files)), files


def lock_of(manager: str, registry: FakeRegistry) -> dict[str, str]:
    _, path, lock, _ = LOCKS[manager]
    return {path: lock(registry.packages["tiny"]["1.0.0"])}


async def seen(maker: Maker, install: Install, files: dict[str, str]) -> tuple[str, tuple[str, ...]]:
    layer = await maker.provide(install, files)
    return await maker.run(layer, "console.log(require('/layers/node/node_modules/tiny'))"), layer.notes


@managers
@one
async def test_a_project_is_installed_by_its_own_manager_as_its_lock_says(maker: Maker, manager: str) -> None:
    assert await seen(maker, *app(manager, **lock_of(manager, maker.registry))) == ("1.0.0", ())
    # what is locked needs no resolution
    assert maker.steps.done == ["install"]


@managers
@one
async def test_without_a_lock_the_manager_that_is_named_resolves(maker: Maker, manager: str) -> None:
    assert await seen(maker, *app(manager)) == ("1.1.0", ())
    assert maker.steps.done == ["resolve", "install"]


@managers
@one
async def test_a_lock_that_does_not_fit_is_resolved_anew_with_a_note(maker: Maker, manager: str) -> None:
    version, notes = await seen(maker, *app(manager, "^1.1", **lock_of(manager, maker.registry)))
    assert version == "1.1.0"
    assert ["does not fit package.json" in note for note in notes] == [True]


@managers
@one
async def test_a_script_of_a_package_runs(maker: Maker, manager: str) -> None:
    script = {"postinstall": "node -e \"require('fs').writeFileSync('made.js', 'module.exports = 9')\""}
    maker.registry.packages["tiny"] = {"1.0.0": package("tiny", "1.0.0", scripts=script)}
    install, files = app(manager, **lock_of(manager, maker.registry))
    layer = await maker.provide(install, files)
    assert await maker.run(layer, "console.log(require('/layers/node/node_modules/tiny/made'))") == "9"


@managers
@one
async def test_a_file_that_is_not_the_one_of_the_lock_gives_no_layer(maker: Maker, manager: str) -> None:
    files = lock_of(manager, maker.registry)
    if manager == "yarn 4":
        files["yarn.lock"] += f"  checksum: 10c0/{'0' * 128}\n"
    maker.registry.packages["tiny"]["1.0.0"] = package("tiny", "1.0.0", description="another")
    with pytest.raises(RunFailed, match="not the one that the lock names"):
        await maker.provide(*app(manager, **files))


@managers
@one
async def test_a_package_that_nobody_has_is_told_with_its_name(maker: Maker, manager: str) -> None:
    install, files = app(manager)
    files["package.json"] = files["package.json"].replace("tiny", "@none/such")
    with pytest.raises(RunFailed, match="there is no package @none/such in the package registry"):
        await maker.provide(install, files)
    files["package.json"] = files["package.json"].replace("@none/such", "tiny").replace("^1", "^9")
    with pytest.raises(RunFailed, match=r"tiny has no version \^9"):
        await maker.provide(install, files)


HASTY = {
    "yarn 1": (".yarnrc", "network-timeout 300\n"),
    "yarn 4": (".yarnrc.yml", "httpTimeout: 300\nhttpRetry: 0\n"),
}


@pytest.mark.parametrize("manager", list(HASTY))
@one
async def test_how_long_a_registry_may_take_is_the_gates_to_say(maker: Maker, manager: str) -> None:
    maker.registry.delay_s = 0.8
    path, text = HASTY[manager]
    assert await seen(maker, *app(manager, **lock_of(manager, maker.registry), **{path: text})) == ("1.0.0", ())
    files = [path for path in maker.registry.paths() if path.endswith(".tgz")]
    assert files == ["/npm/tiny/-/tiny-1.0.0.tgz"]


@one
async def test_plug_and_play_is_laid_out_as_node_modules(maker: Maker) -> None:
    more = {".yarnrc.yml": "nodeLinker: pnp\nyarnPath: .yarn/releases/yarn-4.0.2.cjs\n"}
    install, files = app("yarn 4", **lock_of("yarn 4", maker.registry), **more)
    assert await seen(maker, install, files) == ("1.0.0", ())


@one
async def test_buns_lock_is_followed_by_npm(maker: Maker) -> None:
    tarball = maker.registry.packages["tiny"]["1.0.0"]
    wanted = {"dependencies": {"tiny": "^1"}}
    lock = json.dumps({"lockfileVersion": 1, "workspaces": {"": wanted}, "packages": {}})
    lock = lock.replace('"packages": {}', f'"packages": {{"tiny": ["tiny@1.0.0", "", {{}}, "{integrity(tarball)}"],}}')
    files = {"package.json": json.dumps(wanted), "bun.lock": lock}
    assert await seen(maker, Install("node", "bun", files=tuple(files)), files) == ("1.0.0", ())
    assert maker.steps.done == ["lay"]
