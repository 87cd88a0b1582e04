"""`node_modules` laid out without npm is what npm makes of the same lock."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.contract.driver_kit import SUBJECTS, Subject
from tests.contract.fake_registry import FakeRegistry, fake_registry
from tests.contract.test_layers import Maker, making
from vibed.apps.app import Install
from vibed.runtimes.layers.layer import Layer
from vibed.runtimes.layers.npm_tree import plan, renewal
from vibed.sandboxes.driver import RunFailed

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]
one = pytest.mark.parametrize("subject", [SUBJECTS["process"]], ids=lambda s: s.name)

LISTED = """
const fs = require('fs'), path = require('path'), crypto = require('crypto'), found = {}
const root = '/layers/node'
for (const name of fs.readdirSync(root, { recursive: true })) {
  const at = path.join(root, name), is = fs.lstatSync(at)
  const hash = () => crypto.createHash('sha256').update(fs.readFileSync(at)).digest('hex').slice(0, 9)
  found[name] = is.isSymbolicLink() ? fs.readlinkSync(at) : is.isDirectory() ? '/'
    : `${is.mode & 0o111 ? 'x' : '-'} ${hash()}`
}
console.log(JSON.stringify(found))
"""


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as it:
        fill(it)
        yield it


@pytest.fixture
async def maker(tmp_path: Path, registry: FakeRegistry, subject: Subject) -> AsyncIterator[Maker]:
    async with making(tmp_path, registry, subject) as it:
        yield it


def packed(manifest: Mapping[str, Any], *files: tuple[str, str, int]) -> bytes:
    """A tarball of a package; `files`: path, content and mode of each."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for path, text, mode in (("package/package.json", json.dumps(manifest), 0o644), *files):
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(text.encode()), mode
            archive.addfile(member, io.BytesIO(text.encode()))
        link = tarfile.TarInfo("package/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return out.getvalue()


def fill(registry: FakeRegistry) -> None:
    """With packages of all kinds."""

    def has(name: str, version: str = "1.0.0", *files: tuple[str, str, int], **more: Any) -> None:
        tarball = packed({"name": name, "version": version, **more}, *files)
        registry.packages.setdefault(name, {})[version] = tarball

    program = ("package/cli.js", "#!/usr/bin/env node\r\nconsole.log(process.argv[2])\r\n", 0o644)
    has("shared", "1.0.0")
    has("shared", "2.0.0", ("package/index.js", "module.exports = 2", 0o600))
    has(
        "@tools/cli",
        "1.0.0",
        program,
        ("package/run.sh", "#!/bin/sh\n", 0o755),
        bin={"tell": "./cli.js", "gone": "gone"},
    )
    has("nests", "1.0.0", dependencies={"shared": "^1", "@tools/cli": "*"})
    has(
        "odd", "1.0.0", ("package/.gitignore", "a", 0o644), ("package/.npmignore", "b", 0o644),
        ("another/place/x.js", "x", 0o640), ("package/twice", "1", 0o755), ("package/twice", "2", 0o644),
        ("package/sub/.gitignore", "c", 0o644), ("package/A", "1", 0o644), ("package/a", "2", 0o644),
    )  # fmt: skip
    has("native", "1.0.0", optionalDependencies={"native-linux": "1.0.0", "native-mac": "1.0.0", "native-new": "1"})
    has("native-linux", os=["linux"], libc=["glibc"], cpu=[{"x86_64": "x64"}.get(os.uname().machine, "arm64")])
    has("native-mac", os=["darwin"], dependencies={"only-mac": "*"})
    has("native-new", engines={"node": ">=99"})
    has("only-mac")
    has(
        "brings", "1.0.0",
        ("package/node_modules/brought/package.json", '{"name": "brought", "version": "3.1.0"}', 0o644),
        ("package/node_modules/brought/index.js", "module.exports = 3", 0o644),
        dependencies={"brought": "^3"}, bundleDependencies=["brought"],
    )  # fmt: skip
    has("brought", "3.2.0")
    has("plugs", peerDependencies={"shared": "^2", "never": "*"}, peerDependenciesMeta={"never": {"optional": True}})
    has("never")
    has("checks", dependencies={"only-dev": "*"})
    has("only-dev")


MANIFEST = {
    "name": "app",
    "dependencies": {
        "shared": "^2", "nests": "1", "@tools/cli": "*", "odd": "*", "native": "*", "brings": "*", "plugs": "*",
        "renamed": "npm:shared@1.0.0",
    },
    "devDependencies": {"checks": "*"},
}  # fmt: skip
FILES = {"package.json": json.dumps(MANIFEST)}
INSTALL = Install("node", "npm", files=("package.json",))


async def tree(maker: Maker, layer: Layer) -> dict[str, str]:
    found: dict[str, str] = json.loads(await maker.run(layer, LISTED))
    return found


def old_lock(registry: FakeRegistry) -> str:
    """As npm 6 writes it for `MANIFEST`: no peers that nobody asks for, and of packages next to nothing."""

    def entry(name: str, version: str = "1.0.0", **more: Any) -> dict[str, Any]:
        digest = hashlib.sha1(registry.packages[name][version]).digest()
        place = f"https://somewhere.example/{name}/-/{name.rpartition('/')[2]}-{version}.tgz"
        return {"version": version, "resolved": place, "integrity": f"sha1-{b64encode(digest).decode()}", **more}

    packages = {
        "shared": entry("shared", "2.0.0"), "@tools/cli": entry("@tools/cli"), "odd": entry("odd"),
        "nests": entry("nests", requires={"shared": "^1"}, dependencies={"shared": entry("shared")}),
        "native": entry("native"), "only-mac": entry("only-mac", optional=True),
        **{f"native-{one}": entry(f"native-{one}", optional=True) for one in ("linux", "mac", "new")},
        "brings": entry("brings", dependencies={"brought": {"version": "3.1.0", "bundled": True}}),
        "plugs": entry("plugs"), "checks": entry("checks", dev=True), "only-dev": entry("only-dev", dev=True),
        "renamed": {**entry("shared"), "version": "npm:shared@1.0.0"}, "unasked": entry("never"),
    }  # fmt: skip
    return json.dumps({"name": "app", "lockfileVersion": 1, "requires": True, "dependencies": packages})


async def by_npm(maker: Maker, layer: Layer, install: Install, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What npm makes of what the layer was made of."""
    maker.layers.remove(layer.key)

    def left(*arguments: object, **more: object) -> None:
        raise plan.Left("for the sake of comparison")

    monkeypatch.setattr(plan, "of", left)
    monkeypatch.setattr(renewal.old_lock, "is_old", lambda lock: False)
    return await tree(maker, await maker.provide(install, FILES))


@one
@pytest.mark.parametrize("development", [False, True])
async def test_it_is_the_same_tree_to_the_byte(
    maker: Maker, development: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    install = Install("node", "npm", files=("package.json",), development=development)
    layer = await maker.provide(install, FILES)
    assert maker.steps.done == ["resolve", "lay"]
    ours = await tree(maker, layer)
    assert ours["node_modules/.bin/tell"] == "../@tools/cli/cli.js"
    assert ours["node_modules/nests/node_modules/shared/package.json"].startswith("-")
    assert "node_modules/native-linux/package.json" in ours
    assert "node_modules/brings/node_modules/brought/index.js" in ours
    assert ("node_modules/only-dev" in ours) is development
    assert not {"node_modules/native-mac", "node_modules/native-new", "node_modules/only-mac"} & set(ours)
    assert await by_npm(maker, layer, install, monkeypatch) == ours
    assert maker.steps.done[2:] == ["resolve", "install"]


@one
@pytest.mark.parametrize("development", [False, True])
async def test_a_lock_of_npm_6_comes_to_the_same_tree_to_the_byte(
    maker: Maker, development: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FILES, "package-lock.json", old_lock(maker.registry))
    install = Install("node", "npm", files=tuple(FILES), development=development)
    layer = await maker.provide(install, FILES)
    assert maker.steps.done == ["read", "lay"]
    assert not layer.notes
    ours = await tree(maker, layer)
    assert ours["node_modules/.bin/tell"] == "../@tools/cli/cli.js"
    assert not {"node_modules/native-mac", "node_modules/native-new", "node_modules/unasked"} & set(ours)
    assert not [path for path in maker.registry.paths() if not path.endswith(".tgz")]
    assert await by_npm(maker, layer, install, monkeypatch) == ours
    assert maker.steps.done[2:] == ["install"]


@one
async def test_what_npm_6_did_not_see_to_is_seen_to(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = json.loads(old_lock(maker.registry))
    for gone in ("shared", "renamed"):
        del lock["dependencies"][gone]
    monkeypatch.setitem(MANIFEST, "dependencies", {"plugs": "*", "nests": "*"})
    files = {"package.json": json.dumps(MANIFEST), "package-lock.json": json.dumps(lock)}
    layer = await maker.provide(Install("node", "npm", files=tuple(files)), files)
    assert maker.steps.done == ["read", "install", "resolve", "lay"]
    ours = await tree(maker, layer)
    assert {"node_modules/shared", "node_modules/nests/node_modules/shared"} <= set(ours)
    assert ["does not fit package.json" in note for note in layer.notes] == [True]


@one
async def test_install_scripts_run_on_what_was_laid_out(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    made = "node -e \"require('fs').writeFileSync('made', process.env.npm_package_name + require('shared'))\""
    scripts = {"preinstall": "touch first", "install": "cat first && tell heard > second", "postinstall": made}
    manifest = {
        "name": "scripted",
        "version": "1.0.0",
        "scripts": scripts,
        "dependencies": {"shared": "^2", "@tools/cli": "*"},
    }
    maker.registry.packages["scripted"] = {"1.0.0": packed(manifest)}
    monkeypatch.setitem(MANIFEST["dependencies"], "scripted", "*")  # type: ignore[arg-type]
    monkeypatch.setitem(FILES, "package.json", json.dumps(MANIFEST))
    layer = await maker.provide(INSTALL, FILES)
    assert maker.steps.done == ["resolve", "lay", "install"]
    ours = await tree(maker, layer)
    assert {"node_modules/scripted/first", "node_modules/scripted/second", "node_modules/scripted/made"} <= set(ours)
    assert (
        await maker.run(
            layer, "console.log(require('fs').readFileSync('/layers/node/node_modules/scripted/made', 'utf8'))"
        )
        == "scripted2"
    )
    assert await by_npm(maker, layer, INSTALL, monkeypatch) == ours


@one
async def test_install_scripts_run_beside_however_many_files(maker: Maker) -> None:
    icons = [(f"package/icons/{'a-long-name-' * 8}{number}.js", "", 0o644) for number in range(8000)]
    manifest = {"name": "icons", "version": "1.0.0", "scripts": {"install": "touch made"}}
    maker.registry.packages["icons"] = {"1.0.0": packed(manifest, *icons)}
    files = {"package.json": json.dumps({"name": "app", "dependencies": {"icons": "1"}})}
    layer = await maker.provide(Install("node", "npm", files=("package.json",)), files)
    assert maker.steps.done == ["resolve", "lay", "install"]
    count = "console.log(require('fs').readdirSync('/layers/node/node_modules/icons/icons').length)"
    assert await maker.run(layer, count) == "8000"


@one
async def test_an_optional_package_whose_script_fails_is_done_without(maker: Maker) -> None:
    maker.registry.packages["frail"] = {
        "1.0.0": packed({"name": "frail", "version": "1.0.0", "scripts": {"install": "false"}})
    }
    manifest = {"name": "app", "dependencies": {"shared": "*"}, "optionalDependencies": {"frail": "*"}}
    layer = await maker.provide(INSTALL, {"package.json": json.dumps(manifest)})
    assert maker.steps.done == ["resolve", "lay", "install", "install"]
    assert "node_modules/frail" not in await tree(maker, layer)


@one
@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("lies", "not the one that the lock names|its digest is another"),
        ("gone", "registry"),
        ("down", "answers 500; trying again may help"),
    ],
)
async def test_what_cannot_be_had_is_told_in_npms_words(maker: Maker, trouble: str, words: str) -> None:
    page = json.loads(maker.registry.answer("/npm/shared", {})[2])
    entry = {
        "version": "2.0.0",
        "resolved": "https://somewhere.example/shared/-/shared-2.0.0.tgz",
        "integrity": page["versions"]["2.0.0"]["dist"]["integrity"],
    }
    asked = {"name": "app", "dependencies": {"shared": "^2"}}
    lock = {
        "name": "app",
        "lockfileVersion": 3,
        "requires": True,
        "packages": {"": asked, "node_modules/shared": entry},
    }
    files = {"package.json": json.dumps(asked), "package-lock.json": json.dumps(lock), ".npmrc": "fetch-retries=0\n"}
    match trouble:
        case "lies":
            maker.registry.lies.add("shared-2.0.0.tgz")
        case "gone":
            maker.registry.status["/npm/shared/-/"] = 404
        case "down":
            maker.registry.status["/npm/shared/-/"] = 500
    with pytest.raises(RunFailed, match=words):
        await maker.provide(Install("node", "npm", files=tuple(files)), files)
    assert maker.steps.done == ["lay", "install"]
