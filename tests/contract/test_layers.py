"""Layers: the real installers in real builder sandboxes, against registries on the loopback interface."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.contract.driver_kit import SUBJECTS, Bench, Subject, bench
from tests.contract.fake_registry import FakeRegistry, fake_registry, npm_package, sdist, wheel
from tests.prepare import home as shared_home
from vibed.apps.app import Install, Runtime, Start
from vibed.apps.errors import VibedError
from vibed.runtimes.layers.asker import Asker
from vibed.runtimes.layers.compilers import Compilers
from vibed.runtimes.layers.equipment import OfHost
from vibed.runtimes.layers.imaging import Taken
from vibed.runtimes.layers.keys import Base
from vibed.runtimes.layers.layer import Layer
from vibed.runtimes.layers.npm_tree.plan import Plan
from vibed.runtimes.layers.provider import Layers
from vibed.runtimes.layers.steps import Order
from vibed.runtimes.layers.store import LayerStore
from vibed.runtimes.layers.toolbox import Toolbox
from vibed.runtimes.layers.work import Workshop
from vibed.runtimes.layers.workbench import Workbench
from vibed.runtimes.registries import Registries
from vibed.runtimes.templates import load_templates
from vibed.runtimes.tools import Tools
from vibed.sandboxes.driver import Builder, RunFailed, SandboxLost
from vibed.supervision.base import SupervisedDriver

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

every = pytest.mark.parametrize("subject", [s for s in SUBJECTS.values() if s.general], ids=lambda s: s.name)
one = pytest.mark.parametrize("subject", [SUBJECTS["process"]], ids=lambda s: s.name)

COMPILERS = Compilers(shared_home(), Tools(shared_home()), load_templates())
SCRIPT = "[console_scripts]\nprog = prog:main\n"
TINY = '{"name": "tiny", "version": "1.0.0"}'
BACKEND = """
import os, zipfile
def build_wheel(folder, settings=None, metadata=None):
    {code}
    name = "odd-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        wheel.writestr("odd.py", "WORD = 'odd'")
        wheel.writestr("odd-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: odd\\nVersion: 1.0\\n")
        wheel.writestr("odd-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("odd-1.0.dist-info/RECORD", "")
    return name
"""
"""Of a source distribution that needs nothing to be built: what `{code}` does is done by the build."""


def odd(code: str, *, told: bool = True) -> bytes:
    """`told`: whether it says without being built what it needs."""
    project = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    project += '[project]\nname = "odd"\nversion = "1.0"\n' if told else ""
    info = "Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n"
    return sdist("odd", "1.0", {"pyproject.toml": project, "backend.py": BACKEND.format(code=code), "PKG-INFO": info})


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as it:
        it.files["tiny-1.0-py3-none-any.whl"] = wheel("tiny", "1.0", {"tiny.py": "WORD = 'small'\n"}, ("other>=1",))
        it.files["other-1.1-py3-none-any.whl"] = wheel("other", "1.1", {"other/__init__.py": "WORD = 'more'\n"})
        it.packages["tiny"] = {
            "1.0.0": npm_package(
                {"package.json": '{"name": "tiny", "version": "1.0.0"}', "index.js": "module.exports=7"}
            )
        }
        yield it


@dataclass
class Counting:
    """A workshop that says what it was asked to do."""

    workshop: Workshop
    done: list[str] = field(default_factory=list)

    async def perform(self, order: Order, place: Path, log_dir: Path, bench: Workbench | None = None) -> Any:
        self.done.append(str(order.request["step"]))
        return await self.workshop.perform(order, place, log_dir, bench)

    async def compose(self, take: tuple[Taken, ...], place: Path) -> Any:
        self.done.append("compose")
        return await self.workshop.compose(take, place)

    async def lay(self, plan: Plan, place: Path) -> Any:
        self.done.append("lay")
        return await self.workshop.lay(plan, place)

    async def said(self, orders: Mapping[str, Any], place: Path) -> Any:
        self.done.append("read")
        return await self.workshop.said(orders, place)


def counting(driver: SupervisedDriver, toolbox: Toolbox, registries: Registries) -> Counting:
    """What makes things in small builders of a driver."""

    async def asked() -> Registries:
        return registries

    bounds = Builder(cpus=2.0, memory_mb=512, pids=256, disk_mb=256)
    return Counting(Workshop(OfHost(driver.host), driver, toolbox, COMPILERS, asked, timeout_s=60, limits=bounds))


@dataclass
class Maker:
    """The layers of a bench, and apps that use them."""

    on: Bench
    subject: Subject
    registry: FakeRegistry
    driver: SupervisedDriver = field(init=False)
    steps: Counting = field(init=False)
    layers: Layers = field(init=False)
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        driver = self.subject.driver(self.on)
        assert isinstance(driver, SupervisedDriver)
        self.driver = driver
        tools = Tools(shared_home())
        self.toolbox = Toolbox(shared_home(), tools)
        registries = Registries(pypi=(self.registry.index,), npm=self.registry.npm)
        self.steps = counting(driver, self.toolbox, registries)
        self.layers = self.again()

    def again(self) -> Layers:
        """As a vibeD that starts anew has them."""
        layers = Layers(LayerStore(self.on.layout.home), self.steps, base=base, version=self.toolbox.version)
        layers.prepare()
        return layers

    async def provide(
        self, install: Install, files: Mapping[str, str] | None = None, *, owner: str = "ann", **more: Any
    ) -> Layer:
        kind = {"python": "python-313", "node": "node-24"}[install.kind]
        asker = Asker(kind, self.on.archive(files or {"app.py": ""}), "d", "", owner, "an-app")
        told: dict[str, Any] = {
            "log_dir": self.on.scratch / "log",
            "on_step": self.told.append,
            "wanted": lambda: True,
        }
        return await self.layers.provide(install, asker, **{**told, **more})

    async def python(self, *wanted: str, **more: Any) -> Layer:
        return await self.provide(Install("python", "uv", wanted=wanted, **more))

    async def run(self, layer: Layer, code: str) -> str:
        """What a program with the layer prints."""
        argv = ("python3", "-c", code) if layer.kind == "python" else ("node", "-e", code)
        return await self.job(layer, argv, {"x": ""})

    async def job(self, layer: Layer, argv: tuple[str, ...], files: Mapping[str, str]) -> str:
        """What a command with the layer prints in an app's folder."""
        template = "python-313" if layer.kind == "python" else "node-24"
        sandbox = await self.driver.boot(template, urgent=True, builder=Builder(memory_mb=256, disk_mb=64))
        self.on.sandboxes.append(sandbox)
        runtime = Runtime("general", template, "build", "", "test", start=Start(build=(argv,)))
        run = replace(
            self.subject.run(self.on), runtime=runtime, env=dict(layer.env), mounts=(layer.mount,),
            links=layer.links, source=self.on.archive(files),
        )  # fmt: skip
        log = self.on.scratch / f"log-{sandbox.id}"
        try:
            await sandbox.run(run, socket=self.on.scratch / "no.sock", log_dir=log, on_stage=lambda stage: None)
        finally:
            await sandbox.destroy(0)
        return "\n".join(_texts(log, "build"))

    def log(self) -> str:
        return "\n".join(_texts(self.on.scratch / "log"))


def _texts(folder: Path, *streams: str) -> list[str]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["text"] for line in lines if not streams or line["stream"] in streams]


def base(template: str) -> Base:
    built = json.loads((shared_home() / "templates" / template / "current/manifest.json").read_text())
    return Base(template, template.partition("-")[0], built["packages"], built["debian"])


@asynccontextmanager
async def making(tmp_path: Path, registry: FakeRegistry, subject: Subject) -> AsyncIterator[Maker]:
    """A maker, which leaves nothing half made."""
    async with bench(tmp_path) as on:
        it = Maker(on, subject, registry)
        yield it
        await it.layers.close()
        left = [path.name for path in (on.layout.home / "layers").glob(".making-*")]
        assert left == []


def booted(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by a template with each sandbox that is booted from now on."""
    boots: list[str] = []
    boot = maker.driver.boot

    async def counted(template: str, **how: Any) -> Any:
        boots.append(template)
        return await boot(template, **how)

    monkeypatch.setattr(maker.driver, "boot", counted)
    return boots


@pytest.fixture
async def maker(tmp_path: Path, registry: FakeRegistry, subject: Subject) -> AsyncIterator[Maker]:
    async with making(tmp_path, registry, subject) as it:
        yield it


@every
async def test_a_python_layer_has_what_is_wanted_and_what_that_needs(maker: Maker) -> None:
    layer = await maker.python("tiny")
    assert layer.packages == {"tiny": "1.0", "other": "1.1"}
    assert await maker.run(layer, "import tiny, other; print(tiny.WORD, other.WORD, tiny.__file__)") == (
        "small more /layers/python/lib/python3.13/site-packages/tiny.py"
    )
    assert "Installed 2 packages" in maker.log()


@every
async def test_a_node_layer_has_what_package_json_asks_for(maker: Maker) -> None:
    files = {"package.json": json.dumps({"name": "app", "scripts": {"start": "x"}, "dependencies": {"tiny": "^1"}})}
    layer = await maker.provide(Install("node", "npm", files=("package.json",)), files)
    assert layer.packages == {"tiny": "1.0.0"}
    assert await maker.run(layer, "console.log(require('/layers/node/node_modules/tiny'))") == "7"


@one
async def test_the_same_again_asks_no_registry_and_builds_nothing(maker: Maker) -> None:
    first = await maker.python("tiny", "other")
    asked, done = len(maker.registry.asked), list(maker.steps.done)
    maker.layers = maker.again()
    assert await maker.python("other", "tiny") == first
    assert (len(maker.registry.asked), maker.steps.done) == (asked, done)


@one
async def test_requests_that_lead_to_the_same_packages_share_a_layer(maker: Maker) -> None:
    first = await maker.python("tiny")
    second = await maker.python("tiny>=1.0", "other==1.1")
    assert first.key == second.key
    assert maker.steps.done == ["resolve", "install", "resolve"]


@one
async def test_however_many_ask_at_once_it_is_built_once(maker: Maker) -> None:
    layers = await asyncio.gather(*(maker.python("tiny") for _ in range(5)))
    assert len({layer.key for layer in layers}) == 1
    assert maker.steps.done == ["resolve", "install"]


@every
async def test_what_another_layer_has_is_taken_over_from_it(maker: Maker) -> None:
    program = {"prog.py": "def main(): print('ran')", "prog-1.0.dist-info/entry_points.txt": SCRIPT}
    maker.registry.files["prog-1.0-py3-none-any.whl"] = wheel("prog", "1.0", program)
    maker.registry.files["more-1.0-py3-none-any.whl"] = wheel("more", "1.0", {"more.py": "WORD = 'and'"})
    said: list[str] = []
    await maker.python("tiny", "prog")
    await maker.provide(Install("python", "uv", wanted=("more", "tiny")), on_step=said.append)
    assert "2 of 3 packages are taken over from earlier layers" in said
    assert maker.steps.done == ["resolve", "install"] * 2
    both = await maker.python("more", "prog")
    assert maker.steps.done[4:] == ["resolve", "compose"], "nothing is left to be installed"
    again = "import more, prog, subprocess; print(more.WORD, prog.__cached__, subprocess.getoutput('prog'))"
    compiled = "/layers/python/lib/python3.13/site-packages/__pycache__/prog.cpython-313.pyc"
    assert await maker.run(both, f"{again}; open(prog.__cached__).close()") == f"and {compiled} ran"


@one
async def test_nothing_is_taken_over_from_a_layer_in_which_one_package_changed_another(maker: Maker) -> None:
    evil = wheel("evil", "1.0", {"evil.py": "", "tiny.py": "WORD = 'PLANTED'\n"})
    maker.registry.files["evil-1.0-py3-none-any.whl"] = evil
    await maker.python("evil", "tiny")
    clean = await maker.python("tiny")
    assert "compose" not in maker.steps.done
    assert await maker.run(clean, "import tiny; print(tiny.WORD)") == "small"


@one
async def test_what_was_built_says_nothing_that_anybody_else_believes(maker: Maker) -> None:
    """The build sends its own answer, as the program would: that what it changed may be taken over."""
    lie = (
        "import glob, io, json, os, socket, tarfile\n"
        "    pins = open('/tmp/pins.txt').read().splitlines()\n"
        "    tiny = next(pin for pin in pins if pin.startswith('tiny'))\n"
        "    path = 'lib/python3.13/site-packages/tiny.py'\n"
        "    out = io.BytesIO()\n"
        "    with tarfile.open(fileobj=out, mode='w') as tar:\n"
        "        for name, text in ((path, b'WORD = 1'), ('.packages.json', json.dumps({tiny: [path]}).encode())):\n"
        "            member = tarfile.TarInfo(name); member.size = len(text); tar.addfile(member, io.BytesIO(text))\n"
        "    body = json.dumps({'installed': True, 'packages': pins}).encode()\n"
        "    to = socket.socket(socket.AF_UNIX); to.connect('/layers/out/out.sock')\n"
        "    to.sendall(len(body).to_bytes(8, 'big') + body + out.getvalue()); to.close()"
    )
    maker.registry.files["odd-1.0.tar.gz"] = odd(lie)
    await maker.python("tiny", "odd")
    clean = await maker.python("tiny")
    assert "compose" not in maker.steps.done
    assert await maker.run(clean, "import tiny; print(tiny.WORD)") == "small"


@one
async def test_packages_that_do_not_go_together_are_all_installed(maker: Maker) -> None:
    maker.registry.files["rival-1.0-py3-none-any.whl"] = wheel("rival", "1.0", {"other/__init__.py": "WORD = 'rival'"})
    await maker.python("other")
    layer = await maker.python("other", "rival")
    assert maker.steps.done == ["resolve", "install", "resolve", "install", "install"]
    assert layer.packages == {"other": "1.1", "rival": "1.0"}
    assert await maker.run(layer, "import other; print(other.WORD)") in ("more", "rival")


@one
async def test_what_the_template_has_stays_out_unless_another_version_is_wanted(maker: Maker) -> None:
    has = base("python-313").packages["flask"]
    for version in ("2.0.3", has, "99.0"):
        maker.registry.files[f"flask-{version}-py3-none-any.whl"] = wheel("flask", version, {"flask.py": "V=1"})
    assert (await maker.python("flask", "tiny")).packages == {"tiny": "1.0", "other": "1.1"}
    older = await maker.python("flask==2.0.3", "tiny")
    assert older.packages["flask"] == "2.0.3"
    assert "/layers/python/" in await maker.run(older, "import flask; print(flask.__file__)")


@one
async def test_path_files_of_a_layer_count_and_namespaces_are_shared_with_the_template(maker: Maker) -> None:
    content = {"extra.pth": "beside\n", "beside/found.py": "WORD = 'found'\n", "google/mine.py": "WORD = 'mine'\n"}
    maker.registry.files["spaces-1.0-py3-none-any.whl"] = wheel("spaces", "1.0", content)
    layer = await maker.python("spaces")
    code = "import found, google.mine, google.protobuf; print(found.WORD, google.mine.WORD)"
    assert await maker.run(layer, code) == "found mine"


@one
async def test_a_script_of_a_layer_is_found_before_the_templates(maker: Maker) -> None:
    entry = {"tool.py": "def main(): print('mine')", "flaskish-1.0.dist-info/entry_points.txt": ""}
    entry["flaskish-1.0.dist-info/entry_points.txt"] = "[console_scripts]\nflask = tool:main\n"
    maker.registry.files["flaskish-1.0-py3-none-any.whl"] = wheel("flaskish", "1.0", entry)
    layer = await maker.python("flaskish")
    assert await maker.run(layer, "import subprocess; subprocess.run(['flask'])") == "mine"


@one
async def test_a_package_that_does_not_exist_is_told_with_its_name(maker: Maker) -> None:
    with pytest.raises(RunFailed) as failed:
        await maker.python("tiny", "nosuchthing")
    assert failed.value.error_code == "DependencyBuildFailed"
    assert "there is no package nosuchthing in the package registry" in failed.value.message
    assert not failed.value.may_retry


@one
async def test_a_line_that_is_no_requirement_is_quoted(maker: Maker) -> None:
    with pytest.raises(RunFailed, match='the line "Please install this" is no requirement'):
        await maker.python("tiny", "Please install this")


@one
async def test_a_registry_that_is_down_is_worth_a_retry(maker: Maker) -> None:
    maker.registry.status["/simple/"] = 503
    with pytest.raises(RunFailed) as failed:
        await maker.python("tiny")
    assert failed.value.may_retry
    maker.registry.status.clear()
    assert (await maker.python("tiny")).packages


@one
async def test_a_registry_that_gives_another_file_than_it_says_gives_no_layer(maker: Maker) -> None:
    maker.registry.lies.add("tiny-1.0-py3-none-any.whl")
    with pytest.raises(RunFailed):
        await maker.python("tiny")
    assert maker.layers.listing() == []


@one
async def test_hashes_of_an_apps_own_list_are_held_against_what_comes(maker: Maker) -> None:
    listed = "tiny==1.0 \\\n    --hash=sha256:" + "0" * 64 + "\nother==1.1\n"
    install = Install("python", "uv", files=("requirements.txt",), wanted=("tiny==1.0", "other==1.1"))
    with pytest.raises(RunFailed, match=r"[Hh]ash"):
        await maker.provide(install, {"requirements.txt": listed})


@one
async def test_what_nothing_imports_and_cannot_be_had_is_left_out_with_a_note(maker: Maker) -> None:
    maker.registry.files["odd-1.0.tar.gz"] = odd("raise RuntimeError('needs a compiler')")
    layer = await maker.python("tiny", "odd", "nosuchthing", optional=("odd", "nosuchthing"))
    assert layer.packages == {"tiny": "1.0", "other": "1.1"}
    assert [note.split(" (")[0] for note in layer.notes] == ["left out: nosuchthing", "left out: odd"]
    assert (await maker.python("tiny", "odd", "nosuchthing", optional=("odd", "nosuchthing"))).notes == layer.notes
    with pytest.raises(RunFailed, match=r"odd 1\.0 could not be built: RuntimeError: needs a compiler"):
        await maker.python("tiny", "odd")


@one
async def test_what_another_python_has_ready_made_is_built_only_where_no_other_may_be_tried(maker: Maker) -> None:
    files, ready = maker.registry.files, f"cp311-cp311-manylinux1_{os.uname().machine}"
    files["odd-1.0.tar.gz"] = odd("pass")
    files[f"odd-1.0-{ready}.whl"] = wheel("odd", "1.0", {"odd.py": ""})
    files["odd-1.2-py3-none-any.whl"] = wheel("odd", "1.2", {"odd.py": ""})
    needs = Install("python", "uv", wanted=("odd==1.0",))
    with pytest.raises(RunFailed, match=r"odd 1\.0 has no wheel for Python 3\.13, but for 3\.11") as failed:
        await maker.provide(needs, compiles=False)
    assert (failed.value.unmet, failed.value.fits) == (True, {11})
    assert "raise `odd==1.0` to 1.2 or later" in (failed.value.hint or "")
    assert not any(path.endswith("odd-1.0.tar.gz") for path in maker.registry.paths())
    assert await maker.run(await maker.provide(needs), "import odd; print(odd.WORD)") == "odd"


@every
async def test_a_hostile_build_changes_nothing_but_its_own_layer(maker: Maker) -> None:
    code = (
        "import glob, subprocess, urllib.request\n"
        "    for path in ('/layers/out/request.json', '/layers/tools/uv', '/layers/registry/x', '/usr/bin/evil'):\n"
        "        try: open(path, 'w').write('x'); print('WROTE', path)\n"
        "        except OSError: pass\n"
        "    try: print('REACHED', urllib.request.urlopen('http://192.0.2.1:8080/', timeout=5).read())\n"
        "    except OSError as error: print('refused', error)\n"
        "    raise SystemExit('enough')"
    )
    maker.registry.files["odd-1.0.tar.gz"] = odd(code)
    with pytest.raises(RunFailed) as failed:
        await maker.python("odd")
    assert "WROTE" not in maker.log()
    assert "REACHED" not in maker.log()
    assert "refused" in maker.log()
    assert "192.0.2.1:8080" in (failed.value.hint or "")
    assert (await maker.python("tiny")).packages == {"tiny": "1.0", "other": "1.1"}


@one
async def test_a_build_that_plants_files_beside_the_packages_it_came_with_is_not_in_anybody_elses_layer(
    maker: Maker,
) -> None:
    code = (
        "import glob\n"
        "    for place in glob.glob('/tmp/**/tiny*', recursive=True) + ['/tmp/pinned.txt']:\n"
        "        try: open(place, 'a').write('PLANTED')\n"
        "        except OSError: pass"
    )
    maker.registry.files["odd-1.0.tar.gz"] = odd(code)
    tainted = await maker.python("tiny", "odd")
    clean = await maker.python("tiny")
    assert clean.key != tainted.key
    assert await maker.run(clean, "import tiny; print(tiny.WORD)") == "small"


@every
async def test_wheels_are_resolved_and_unpacked_in_one_sandbox(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    boots = booted(maker, monkeypatch)
    layer = await maker.python("tiny")
    assert (maker.steps.done, len(boots)) == (["resolve", "install"], 1)
    assert await maker.run(layer, "import other, tiny; print(tiny.WORD, other.WORD)") == "small more"


@every
async def test_what_is_installed_finds_nothing_of_code_that_was_run_to_resolve_it(
    maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build fails where it was before, and leaves what would change how Python and uv work."""
    code = (
        "if os.path.exists('/tmp/planted'): raise SystemExit('PLANTED')\n"
        "    for place in ('/tmp/planted', '/tmp/cache/planted', '/app/uv.toml', '/tmp/home/sitecustomize.py'):\n"
        "        open(place, 'w').close()"
    )
    maker.registry.files["odd-1.0.tar.gz"] = odd(code, told=False)
    boots = booted(maker, monkeypatch)
    layer = await maker.python("odd")
    assert maker.steps.done == ["resolve", "resolve", "install", "install"]
    assert len(boots) == 2
    assert await maker.run(layer, "import odd; print(odd.WORD)") == "odd"


@one
@pytest.mark.parametrize("wanted", ["heroku", "psycopg2==2.9"], ids=["by another", "by its name"])
async def test_what_would_need_a_library_of_the_machine_is_had_as_its_twin_that_does_not(
    maker: Maker, wanted: str
) -> None:
    files = maker.registry.files
    files["heroku-1.0-py3-none-any.whl"] = wheel("heroku", "1.0", {"heroku.py": ""}, ("psycopg2>=2",))
    files["psycopg2-2.9-cp313-cp313-win_amd64.whl"] = wheel("psycopg2", "2.9", {})  # which tells what it needs
    files["psycopg2-2.9.tar.gz"] = sdist("psycopg2", "2.9", {"setup.py": "raise RuntimeError('pg_config is missing')"})
    twin = {"psycopg2.py": "WORD = 'ready'"}
    files["psycopg2_binary-2.9-py3-none-any.whl"] = wheel("psycopg2_binary", "2.9", twin)
    layer = await maker.python(wanted)
    assert layer.packages["psycopg2-binary"] == "2.9" and "psycopg2" not in layer.packages
    assert await maker.run(layer, "import psycopg2; print(psycopg2.WORD)") == "ready"


@one
async def test_the_newest_release_is_taken_though_it_has_to_be_built_to_tell_what_it_needs(maker: Maker) -> None:
    maker.registry.files["odd-0.9-py3-none-any.whl"] = wheel("odd", "0.9", {"odd.py": "WORD = 'old'"})
    maker.registry.files["odd-1.0.tar.gz"] = odd("pass", told=False)
    layer = await maker.python("odd")
    assert layer.packages == {"odd": "1.0"}
    assert await maker.run(layer, "import odd; print(odd.WORD)") == "odd"


@one
async def test_a_package_that_was_looked_at_and_not_taken_keeps_nothing_from_being_taken_over(maker: Maker) -> None:
    """As registries without metadata files make installers do, both versions of other are fetched to be read."""
    files = maker.registry.files
    files["other-1.2-py3-none-any.whl"] = wheel("other", "1.2", {"other/__init__.py": ""}, ("tiny<1",))
    await maker.python("tiny")
    files["prog-1.0-py3-none-any.whl"] = wheel("prog", "1.0", {"prog.py": "WORD = 'and'\n"})
    both = await maker.python("tiny", "prog")
    assert await maker.run(both, "import tiny, prog; print(tiny.WORD, prog.WORD)") == "small and"
    assert "taken over" in " ".join(maker.told)


@one
async def test_a_package_that_is_built_with_what_setuptools_has_dropped_gets_an_earlier_one(maker: Maker) -> None:
    backend = """
import zipfile
def build_wheel(folder, settings=None, metadata=None):
    exec(open("setup.py").read(), {})
    with zipfile.ZipFile(f"{folder}/odd-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("odd.py", "WORD = 'odd'")
        wheel.writestr("odd-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: odd\\nVersion: 1.0\\n")
        wheel.writestr("odd-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("odd-1.0.dist-info/RECORD", "")
    return "odd-1.0-py3-none-any.whl"
"""
    for version, has in {"80.9.0": "convert_path = str", "82.0.0": ""}.items():
        files = {"setuptools/__init__.py": f"{has}\n", "setuptools/build_meta.py": backend}
        maker.registry.files[f"setuptools-{version}-py3-none-any.whl"] = wheel("setuptools", version, files)
    project = '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
    info = "Metadata-Version: 2.2\nName: odd\nVersion: 1.0\n"
    source = {"pyproject.toml": project, "setup.py": "from setuptools import convert_path\n", "PKG-INFO": info}
    maker.registry.files["odd-1.0.tar.gz"] = sdist("odd", "1.0", source)
    layer = await maker.python("odd")
    assert "once more with setuptools<81" in maker.log()
    assert await maker.run(layer, "import odd; print(odd.WORD)") == "odd"


@one
async def test_a_build_that_never_ends_is_ended_when_nobody_wants_it_any_more(maker: Maker) -> None:
    maker.registry.files["odd-1.0.tar.gz"] = odd("import time; print('sleeping', flush=True); time.sleep(3600)")
    wanted = True
    asking = asyncio.create_task(maker.provide(Install("python", "uv", wanted=("odd",)), wanted=lambda: wanted))
    while maker.steps.done.count("install") < 2:
        await asyncio.sleep(0.05)
    wanted = False
    with pytest.raises(RunFailed) as failed:
        await asking
    assert failed.value.error_code == "Stopped"
    assert maker.layers.building() == {}
    assert [line for line in maker.on.left() if "group" in line or "process" in line] == []


@one
async def test_a_builder_that_is_killed_leaves_nothing_and_the_next_one_makes_it(maker: Maker) -> None:
    maker.registry.files["odd-1.0.tar.gz"] = odd("import time; time.sleep(3600)")
    asking = asyncio.create_task(maker.python("odd"))
    while maker.steps.done.count("install") < 2:
        await asyncio.sleep(0.05)
    while not asking.done():
        for state in maker.on.layout.sandboxes.glob("*/state.json"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                os.kill(int(json.loads(state.read_text())["pid"]), signal.SIGKILL)
        await asyncio.sleep(0.2)
    with pytest.raises(SandboxLost):  # no fault of the app, and worth a retry
        await asking
    assert maker.layers.listing() == []
    maker.registry.files["odd-1.0.tar.gz"] = odd("pass")
    layer = await maker.python("odd")
    assert await maker.run(layer, "import odd; print('there')") == "there"


@one
async def test_a_layer_that_was_damaged_is_made_again(maker: Maker) -> None:
    layer = await maker.python("tiny")
    layer.image.write_bytes(b"damaged")
    maker.layers = maker.again()
    again = await maker.python("tiny")
    assert again.key == layer.key
    assert await maker.run(again, "import tiny; print(tiny.WORD)") == "small"


@one
async def test_a_private_layer_has_the_folder_of_its_own_source_and_nobody_elses(maker: Maker) -> None:
    project = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    project += '[project]\nname = "odd"\nversion = "1.0"\n'
    files = {"lib/odd/pyproject.toml": project, "lib/odd/backend.py": BACKEND.format(code="pass")}
    install = Install("python", "uv", wanted=("./lib/odd", "tiny"), private=True)
    layer = await maker.provide(install, files)
    assert await maker.run(layer, "import odd, tiny; print(odd.WORD, tiny.WORD)") == "odd small"
    other = await maker.provide(install, files, owner="bob")
    assert other.key != layer.key


@one
async def test_a_lock_is_followed_and_one_that_does_not_fit_is_resolved_anew_with_a_note(maker: Maker) -> None:
    content = {"package.json": '{"name": "tiny", "version": "1.1.0"}', "index.js": "module.exports=8"}
    files = {"package.json": json.dumps({"name": "app", "dependencies": {"tiny": "^1"}})}
    install = Install("node", "npm", files=("package.json",))
    await maker.provide(install, files)
    lock = _lock(maker, "1.0.0")
    maker.registry.packages["tiny"]["1.1.0"] = npm_package(content)
    both = Install("node", "npm", files=("package.json", "package-lock.json"))
    pinned = await maker.provide(both, {**files, "package-lock.json": lock})
    assert pinned.packages == {"tiny": "1.0.0"}
    wants_more = {"package.json": json.dumps({"name": "app", "dependencies": {"tiny": "^1.1"}})}
    newer = await maker.provide(both, {**wants_more, "package-lock.json": lock})
    assert newer.packages == {"tiny": "1.1.0"}
    assert any("does not fit package.json" in note for note in newer.notes)


def _lock(maker: Maker, version: str) -> str:
    page = json.loads(maker.registry.answer("/npm/tiny", {})[2])
    entry = {
        "version": version,
        "resolved": f"https://somewhere.example/tiny/-/tiny-{version}.tgz",
        "integrity": page["versions"][version]["dist"]["integrity"],
    }
    packages = {"": {"name": "app", "dependencies": {"tiny": "^1"}}, "node_modules/tiny": entry}
    return json.dumps({"name": "app", "lockfileVersion": 3, "requires": True, "packages": packages})


@one
async def test_what_only_a_script_of_a_package_makes_is_there(maker: Maker) -> None:
    script = {"install": "node -e \"require('fs').writeFileSync('made.js', 'module.exports=9')\""}
    manifest = {"name": "scripted", "version": "1.0.0", "scripts": script}
    maker.registry.packages["scripted"] = {"1.0.0": npm_package({"package.json": json.dumps(manifest)})}
    layer = await maker.provide(Install("node", "npm", wanted=("scripted@^1",)))
    assert await maker.run(layer, "console.log(require('/layers/node/node_modules/scripted/made'))") == "9"


@one
async def test_an_npm_package_that_does_not_exist_is_told_with_its_name(maker: Maker) -> None:
    with pytest.raises(VibedError, match="there is no package nosuchthing in the package registry"):
        await maker.provide(Install("node", "npm", wanted=("nosuchthing",)))


EXTENSION = """
#include <Python.h>
{more}
static PyObject *seven(PyObject *self, PyObject *none) {{ return PyLong_FromLong(7); }}
static PyMethodDef methods[] = {{ {{"seven", seven, METH_NOARGS, 0}}, {{0}} }};
static struct PyModuleDef module = {{ PyModuleDef_HEAD_INIT, "odd", 0, -1, methods }};
PyMODINIT_FUNC PyInit_odd(void) {{ return PyModule_Create(&module); }}
"""
COMPILE = """
    import subprocess, sysconfig
    with open("odd.c", "w") as file:
        file.write({source!r})
    argv = ["gcc", "-shared", "-fPIC", "-I" + sysconfig.get_path("include"), "odd.c", "-o", "odd.so", *{options!r}]
    done = subprocess.run(argv, stderr=subprocess.STDOUT)
    if done.returncode:
        raise SystemExit("error: command 'gcc' failed with exit code 1")
    with zipfile.ZipFile(os.path.join(folder, "odd-1.0-py3-none-any.whl"), "w") as wheel:
        wheel.write("odd.so")
        wheel.writestr("odd-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: odd\\nVersion: 1.0\\n")
        wheel.writestr("odd-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("odd-1.0.dist-info/RECORD", "")
    return "odd-1.0-py3-none-any.whl"
"""


def compiled(more: str = "", *options: str) -> bytes:
    """A source distribution in C."""
    code = COMPILE.format(source=EXTENSION.format(more=more), options=options).strip()
    return odd(code)


@every
async def test_a_package_in_c_is_compiled_against_the_templates_own_python(maker: Maker) -> None:
    maker.registry.files["odd-1.0.tar.gz"] = compiled()
    layer = await maker.python("odd")
    assert await maker.run(layer, "import odd; print(odd.seven())") == "7"
    assert layer.notes == ()
    assert maker.steps.done == ["resolve", "install", "install", "resolve", "install"], (
        "unpacked, built, with compilers"
    )
    assert "it is compiled" in maker.log()


ADDON = """
#include <node_api.h>
#include <string>
static napi_value seven(napi_env env, napi_callback_info info) {
  napi_value it; napi_create_string_utf8(env, std::string("seven").c_str(), 5, &it); return it;
}
NAPI_MODULE_INIT() {
  napi_value it; napi_create_function(env, "seven", 5, seven, nullptr, &it); return it;
}
"""


def addon() -> bytes:
    """A package of npm in C++."""
    return npm_package(
        {
            "package.json": '{"name": "addon", "version": "1.0.0", "gypfile": true}',
            "binding.gyp": '{"targets": [{"target_name": "addon", "sources": ["addon.cc"]}]}',
            "addon.cc": ADDON,
            "index.js": "module.exports = require('./build/Release/addon.node')",
        }
    )


@every
async def test_an_addon_is_compiled_by_node_gyp_against_the_templates_own_node(maker: Maker) -> None:
    maker.registry.packages["addon"] = {"1.0.0": addon()}
    layer = await maker.provide(Install("node", "npm", wanted=("addon@*",)))
    assert await maker.run(layer, "console.log(require('/layers/node/node_modules/addon')())") == "seven"
    assert maker.steps.done == ["resolve", *(["lay", "install"] * 2)]


@one
async def test_a_header_or_a_library_that_a_package_wants_is_named(maker: Maker) -> None:
    maker.registry.files["odd-1.0.tar.gz"] = compiled("#include <sql.h>")
    with pytest.raises(RunFailed, match=r"odd 1.0 could not be built: the header sql.h is missing \(of unixODBC\)"):
        await maker.python("odd")
    maker.registry.files["odd-1.0.tar.gz"] = compiled("", "-lpq")
    with pytest.raises(RunFailed, match="the library libpq is missing"):
        await maker.python("odd")


@one
async def test_what_a_compiled_package_wants_of_its_template_and_does_not_find_is_a_note(maker: Maker) -> None:
    maker.registry.files["odd-1.0.tar.gz"] = compiled("", "-Wl,--no-as-needed", "-lquadmath", "-L/layers/compilers/lib")
    layer = await maker.python("odd")
    assert ["libquadmath.so.0" in note for note in layer.notes] == [True]


@one
async def test_all_names_that_no_registry_has_are_told_at_once(maker: Maker) -> None:
    with pytest.raises(
        RunFailed, match=r"there is no package lost-(one|two|three), lost-\w+, lost-\w+ in the package registry"
    ):
        await maker.python("lost-one", "tiny", "lost_two>=1", "lost.three[extra]==2")
    with pytest.raises(RunFailed) as failed:
        await maker.provide(Install("node", "npm", wanted=("lost-one@^1", "tiny@1", "@lost/two@*")))
    assert "lost-one" in failed.value.message
    assert "@lost/two" in failed.value.message
    assert "tiny" not in failed.value.message
