"""Builds: an app's own build script in real builder sandboxes, with packages of a registry on loopback."""

from __future__ import annotations

import asyncio
import json
import tarfile
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests import prepare
from tests.contract.driver_kit import SUBJECTS, Bench, Subject, bench
from tests.contract.fake_registry import FakeRegistry, fake_registry, npm_package
from tests.contract.test_layers import Counting, base, counting
from vibed.apps.app import Build, Install, Runtime
from vibed.runtimes.builds.built import Built
from vibed.runtimes.builds.provider import Builds
from vibed.runtimes.builds.store import BuiltStore
from vibed.runtimes.layers.asker import Asker
from vibed.runtimes.layers.layer import Layer
from vibed.runtimes.layers.provider import Layers
from vibed.runtimes.layers.store import LayerStore
from vibed.runtimes.layers.toolbox import Toolbox
from vibed.runtimes.registries import Registries
from vibed.runtimes.tools import Tools
from vibed.sandboxes.driver import RunFailed
from vibed.supervision.base import SupervisedDriver

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

every = pytest.mark.parametrize("subject", [s for s in SUBJECTS.values() if s.general], ids=lambda s: s.name)
one = pytest.mark.parametrize("subject", [SUBJECTS["process"]], ids=lambda s: s.name)

BUNDLER = """#!/usr/bin/env node
const fs = require('fs')
const folder = process.argv[2] || 'dist'
for (const cache of ['node_modules/.cache', 'node_modules/.bundler-temp']) {
  fs.mkdirSync(cache, { recursive: true })
  fs.writeFileSync(cache + '/x', 'tools keep caches beside the packages')
}
const word = require('./word.cjs') + (process.env.VITE_WORD || '') + require('@some/where')
fs.mkdirSync(folder + '/assets', { recursive: true })
fs.writeFileSync(folder + '/index.html', `<div id="root"></div><script type="module" src="/assets/app.js"></script>`)
fs.writeFileSync(folder + '/assets/app.js', `console.log("${word}")`)
console.log('built')
"""
"""What stands for a front-end tool: a command of a package that needs another and writes where such tools write."""


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as it:
        # it ran at install time already: its cache is in the layer
        scripts = {"postinstall": "mkdir -p ../.bundler-temp && touch ../.bundler-temp/x"}
        manifest = {"name": "bundler", "version": "1.0.0", "bin": {"bundle": "cli.cjs"}, "scripts": scripts}
        content = {"package.json": json.dumps(manifest), "cli.cjs": BUNDLER, "word.cjs": "module.exports = 'made'"}
        it.packages["bundler"] = {"1.0.0": npm_package(content)}
        scoped = {"package.json": '{"name": "@some/where", "version": "1.0.0"}', "index.js": "module.exports = '!'"}
        it.packages["@some/where"] = {"1.0.0": npm_package(scoped)}
        yield it


@dataclass
class Maker:
    """What builds on a bench."""

    on: Bench
    subject: Subject
    registry: FakeRegistry
    steps: Counting = field(init=False)
    layers: Layers = field(init=False)
    builds: Builds = field(init=False)
    sources: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        driver = self.subject.driver(self.on)
        assert isinstance(driver, SupervisedDriver)
        tools = Toolbox(prepare.home(), Tools(prepare.home()))
        self.steps = counting(driver, tools, Registries(npm=self.registry.npm))
        self.layers = Layers(LayerStore(self.on.layout.home), self.steps, base=base, version=tools.version)
        self.layers.prepare()
        self.again()

    def again(self) -> None:
        """As a vibeD that starts anew has them."""
        self.builds = Builds(BuiltStore(self.on.layout.home), self.steps, base=base)
        self.builds.prepare()

    async def layer(self, files: Mapping[str, str], source: Path, *, wanted: tuple[str, ...] = ()) -> Layer:
        install = Install("node", "npm", files=("package.json",), wanted=wanted, development=True)
        return await self.layers.provide(
            install, Asker("node-24", source, "d", "", "ann", "an-app"),
            log_dir=self.on.scratch / "log", on_step=lambda step: None, wanted=lambda: True,
        )  # fmt: skip

    async def build(self, script: str, files: Mapping[str, str] | None = None, **more: Any) -> Built:
        wanted = {"bundler": "^1", "@some/where": "*"}
        package = {"name": "app", "scripts": {"build": script}, "devDependencies": wanted}
        files = {"package.json": json.dumps(package), **(files or {})}
        source = self.sources.get(json.dumps(files))
        if source is None:
            # of its own: others are read meanwhile
            source = self.on.archive(files).rename(self.on.scratch / f"source-{len(self.sources)}.tar.gz")
            self.sources[json.dumps(files)] = source
        build = Build("Bundler", "npm run build", "node-24", outputs=("dist", "build"), **more.pop("build", {}))
        told: dict[str, Any] = {
            "layer": await self.layer(files, source),
            "source": source,
            "source_digest": json.dumps(files),
            "strip": "",
            "env": {},
            "owner": "ann",
            "app_id": "an-app",
            "log_dir": self.on.scratch / "log",
            "on_step": lambda step: None,
            "wanted": lambda: True,
        }
        return await self.builds.provide(build, **{**told, **more})

    def log(self) -> list[str]:
        lines = (self.on.scratch / "log/log.jsonl").read_text().splitlines()
        return [str(json.loads(line)["text"]) for line in lines]


def contents(built: Built) -> dict[str, str]:
    """The files of what was built."""
    with tarfile.open(built.archive) as archive:
        files = ((member.name.removeprefix("./"), archive.extractfile(member)) for member in archive if member.isfile())
        return {name: file.read().decode() for name, file in files if file is not None}


@pytest.fixture
async def maker(tmp_path: Path, registry: FakeRegistry, subject: Subject) -> AsyncIterator[Maker]:
    async with bench(tmp_path) as on:
        it = Maker(on, subject, registry)
        yield it
        await it.builds.close()
        await it.layers.close()
        assert [path.name for path in (on.layout.home / "built").glob(".making-*")] == []


@every
async def test_a_build_script_makes_a_site(maker: Maker) -> None:
    built = await maker.build("bundle", env={"VITE_WORD": " of words"})
    assert contents(built)["assets/app.js"] == 'console.log("made of words!")'
    assert set(contents(built)) == {"index.html", "assets/app.js"}
    assert built.spa
    runtime = built.runtime(Runtime("fast", "static-nginx", "static", "", "", strip="wrap/"))
    assert (runtime.strip, runtime.root, runtime.spa, runtime.build) == ("", "", True, None)
    assert "$ npm run build" in maker.log()
    assert "built" in maker.log()


@one
async def test_a_script_of_the_project_is_told_what_npm_tells_one(maker: Maker) -> None:
    names = (
        "NODE npm_execpath npm_node_execpath npm_config_user_agent npm_config_local_prefix npm_package_json INIT_CWD"
    )
    names += " npm_lifecycle_event npm_lifecycle_script npm_package_name npm_package_version npm_package_config_word_s"
    names += " npm_package_engines_node npm_package_bin_own npm_package_main npm_command"
    facts = (
        "const fs = require('fs'); const { env } = process; fs.mkdirSync('facts', { recursive: true });"
        f" const told = Object.fromEntries('{names}'.split(' ').map((name) => [name, env[name]]));"
        " told.bins = env.PATH.split(':').filter((one) => one.endsWith('.bin')).slice(0, 2);"
        " fs.writeFileSync(`facts/${process.argv[2]}-${env.npm_lifecycle_event}`, JSON.stringify(told));"
    )
    scripts = {
        "build": "bundle && npm run ours && npm run --foreground-scripts theirs",
        **{f"{when}{whose}": f"node facts.cjs {whose}" for when in ("pre", "", "post") for whose in ("ours", "theirs")},
    }
    package = {
        "name": "app", "version": "1.2.3", "main": "x.js", "config": {"word-s": "of config"}, "bin": {"own": "x.js"},
        "engines": {"node": ">=20"}, "scripts": scripts, "devDependencies": {"bundler": "^1", "@some/where": "*"},
    }  # fmt: skip
    moved = "require('fs').cpSync('facts', 'dist/facts', { recursive: true })"
    scripts["postbuild"] = f'node -e "{moved}"'
    made = contents(await maker.build("", {"package.json": json.dumps(package), "facts.cjs": facts}))
    for when in ("pre", "", "post"):
        ours = made[f"facts/ours-{when}ours"]
        assert ours.replace("ours", "theirs") == made[f"facts/theirs-{when}theirs"]
        assert '"npm_package_config_word_s":"of config"' in ours


@one
async def test_the_same_source_is_never_built_twice(maker: Maker) -> None:
    first = await maker.build("bundle")
    done = list(maker.steps.done)
    maker.again()
    assert await maker.build("bundle") == first
    assert maker.steps.done == done
    assert await maker.build("bundle", env={"VITE_WORD": "other"}) != first


@one
async def test_another_source_with_the_same_packages_installs_nothing(maker: Maker) -> None:
    await maker.build("bundle")
    maker.steps.done.clear()
    await maker.build("bundle", {"page.js": "changed"})
    assert maker.steps.done == ["build"]


@one
async def test_what_only_a_build_needs_is_installed_beside_what_package_json_names(maker: Maker) -> None:
    package = {"name": "app", "scripts": {"build": "bundle"}, "devDependencies": {"bundler": "^1"}}
    files = {"package.json": json.dumps(package)}
    with pytest.raises(RunFailed, match="@some/where"):
        await maker.build("bundle", files)
    layer = await maker.layer(files, maker.sources[json.dumps(files)], wanted=("@some/where@^1",))
    assert set(layer.packages) == {"bundler", "@some/where"}
    assert "index.html" in contents(await maker.build("bundle", files, layer=layer))


@one
async def test_however_many_ask_at_once_it_is_built_once(maker: Maker) -> None:
    built = await asyncio.gather(*(maker.build("bundle") for _ in range(4)))
    assert len({one.key for one in built}) == 1
    assert maker.steps.done.count("build") == 1


@one
@pytest.mark.parametrize(
    ("script", "files", "expected"),
    [
        ("bundle elsewhere", {}, {"index.html", "assets/app.js"}),
        ("bundle dist/my-app/browser", {}, {"index.html", "assets/app.js"}),
        ("yarn run styles && pnpm bundle build", {}, {"index.html", "assets/app.js"}),
        ("mkdir css && echo x > css/x.css", {"index.html": "<p>by hand"}, {"index.html", "css/x.css", "package.json"}),
    ],
    ids=["another folder", "a folder of folders", "other managers", "styles beside a page"],
)  # fmt: skip
async def test_the_site_is_where_the_build_made_it(
    maker: Maker, script: str, files: dict[str, str], expected: set[str]
) -> None:
    package = {"name": "app", "scripts": {"build": script, "styles": "true"}}
    package |= {"devDependencies": {"bundler": "^1", "@some/where": "*"}}
    assert set(contents(await maker.build(script, {**files, "package.json": json.dumps(package)}))) == expected


@one
async def test_a_server_is_the_whole_tree_without_its_packages(maker: Maker) -> None:
    built = await maker.build("bundle dist", {"server.js": "x"}, build={"site": False})
    assert set(contents(built)) == {"package.json", "server.js", "dist/index.html", "dist/assets/app.js"}


@one
async def test_a_build_that_compiles_is_tried_with_compilers(maker: Maker) -> None:
    script = "echo 'int main() { return 0; }' > a.c && gcc a.c -o a && ./a && bundle"
    assert "index.html" in contents(await maker.build(script))
    assert maker.steps.done.count("build") == 2


@one
@pytest.mark.parametrize("version", ["19.2.0", "11.2.0"])
async def test_angular_leaves_fonts_of_elsewhere_where_they_are(maker: Maker, version: str) -> None:
    cli = {"package.json": json.dumps({"name": "@angular/cli", "version": version})}
    maker.registry.packages["@angular/cli"] = {version: npm_package(cli)}
    built = {"builder": "@angular/build:application", "configurations": {"development": {"optimization": False}}}
    other = {"builder": "@angular/build:unit-test"}
    settings = {"projects": {"x": {"architect": {"build": built, "test": other}}}}
    package = {"name": "app", "scripts": {"build": "mkdir dist && cp angular.json dist && echo x > dist/index.html"}}
    package |= {"devDependencies": {"@angular/cli": version}}
    files = {"package.json": json.dumps(package), "angular.json": json.dumps(settings)}
    used = json.loads(contents(await maker.build("", files))["angular.json"])["projects"]["x"]["architect"]
    if version.startswith("11"):
        assert used == {"build": built, "test": other}
    else:
        assert used["build"]["options"]["optimization"]["fonts"] is False
        assert used["build"]["options"]["optimization"]["scripts"] is True
        assert used["build"]["configurations"] == built["configurations"]
        assert used["test"] == other


@one
async def test_a_build_that_wants_hashes_of_the_past_gets_them(maker: Maker) -> None:
    script = "node -e \"require('crypto').createHash('md4')\" && bundle"
    assert "index.html" in contents(await maker.build(script, env={"NODE_OPTIONS": "--max-old-space-size=300"}))
    assert maker.steps.done.count("build") == 2


@one
async def test_a_build_that_fails_is_told_with_its_first_error(maker: Maker) -> None:
    script = "echo hello; echo \"src/a.ts(3,5): error TS2322: Type 'string' is no number\"; echo more; exit 2"
    with pytest.raises(RunFailed) as failed:
        await maker.build(script)
    assert failed.value.error_code == "BuildFailed"
    assert failed.value.message == (
        "the build failed (Bundler: npm run build): src/a.ts(3,5): error TS2322: Type 'string' is no number"
    )
    assert not failed.value.may_retry


@one
async def test_a_build_that_makes_no_page_says_what_it_made(maker: Maker) -> None:
    with pytest.raises(RunFailed, match=r"made no index\.html; it made lib") as failed:
        await maker.build("mkdir lib && echo x > lib/x.js")
    assert failed.value.hint


@one
async def test_a_build_that_asks_for_another_host_is_told_which(maker: Maker) -> None:
    code = "node -e \"fetch('http://fonts.example/a').catch(e => { console.error('Error: ' + e); process.exit(1) })\""
    proxied = (
        "const n=require('http');n.get({host:'127.0.0.1',port:3128,path:'http://fonts.example/'},r=>process.exit(1))"
    )
    with pytest.raises(RunFailed) as failed:
        await maker.build(f'{code}; node -e "{proxied}"')
    assert "fonts.example:80" in (failed.value.hint or "")


@one
async def test_what_was_built_and_damaged_is_built_again(maker: Maker) -> None:
    first = await maker.build("bundle")
    first.archive.write_bytes(b"damaged")
    maker.again()
    assert contents(await maker.build("bundle"))


@one
async def test_a_build_that_nobody_wants_any_more_ends(maker: Maker) -> None:
    wanted = True
    asking = asyncio.create_task(maker.build("sleep 3600", wanted=lambda: wanted))
    while "build" not in maker.steps.done:
        await asyncio.sleep(0.05)
    wanted = False
    with pytest.raises(RunFailed) as failed:
        await asking
    assert failed.value.error_code == "Stopped"
