"""Go apps are compiled in real builder sandboxes, with modules of a registry on loopback."""

from __future__ import annotations

import asyncio
import json
import subprocess
import tarfile
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests import prepare
from tests.contract.driver_kit import SUBJECTS, Bench, Subject, bench
from tests.contract.fake_registry import FakeRegistry, fake_registry, go_module
from tests.contract.test_layers import Counting, base, counting
from vibed.apps.app import Build
from vibed.runtimes.builds.built import Built
from vibed.runtimes.builds.provider import Builds
from vibed.runtimes.builds.store import BuiltStore
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

WORDS = "example.com/words"
MAIN = f'package main\n\nimport "{WORDS}"\n\nfunc main() {{ print(words.Small) }}\n'
MOD = f"module app\n\ngo 1.20\n\nrequire {WORDS} v1.0.0\n"


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as it:
        it.modules[WORDS] = {"v1.0.0": go_module(WORDS, "v1.0.0", {"a.go": 'package words\n\nconst Small = "tiny"\n'})}
        yield it


@dataclass
class Maker:
    """What compiles on a bench."""

    on: Bench
    subject: Subject
    registry: FakeRegistry
    steps: Counting = field(init=False)
    builds: Builds = field(init=False)

    def __post_init__(self) -> None:
        driver = self.subject.driver(self.on)
        assert isinstance(driver, SupervisedDriver)
        tools = Toolbox(prepare.home(), Tools(prepare.home()))
        self.steps = counting(driver, tools, Registries(go=f"{self.registry.url}/go"))
        layers = Layers(LayerStore(self.on.layout.home), self.steps, base=base, version=tools.version)
        layers.prepare()
        self.builds = Builds(BuiltStore(self.on.layout.home), self.steps, base=base, layers=layers)
        self.builds.prepare()

    async def build(self, files: Mapping[str, str], package: str = "") -> Built:
        build = Build("Go", "go build .", "go-123", site=False, kind="go", package=package)
        more: dict[str, Any] = {"layer": None, "strip": "", "env": {}, "owner": "ann", "app_id": "an-app"}
        return await self.builds.provide(
            build, source=self.on.archive(files), source_digest=json.dumps(files), log_dir=self.on.scratch / "log",
            on_step=lambda step: None, wanted=lambda: True, **more,
        )  # fmt: skip

    async def failure(self, files: Mapping[str, str]) -> RunFailed:
        with pytest.raises(RunFailed) as failed:
            await self.build(files)
        return failed.value


@pytest.fixture
async def maker(tmp_path: Path, registry: FakeRegistry, subject: Subject) -> AsyncIterator[Maker]:
    async with bench(tmp_path) as on:
        it = Maker(on, subject, registry)
        yield it
        await it.builds.close()


def names(built: Built) -> dict[str, int]:
    """What is in it, with modes."""
    with tarfile.open(built.archive) as archive:
        return {member.name: member.mode for member in archive if member.isfile()}


@every
async def test_a_module_is_fetched_and_the_same_source_is_compiled_once(maker: Maker, registry: FakeRegistry) -> None:
    files = {"go.mod": MOD, "main.go": MAIN, "pages/index.html": "<p>hello"}
    built = await maker.build(files)
    assert names(built)[".vibed/app"] == 0o755
    assert "pages/index.html" in names(built)
    assert f"/go/{WORDS}/@v/v1.0.0.zip" in registry.paths()
    again = await maker.build(files)
    assert (again.archive, maker.steps.done) == (built.archive, ["build"])


@one
async def test_a_vendor_folder_is_enough_and_does_not_come_along(maker: Maker, registry: FakeRegistry) -> None:
    vendored = {
        "vendor/modules.txt": f"# {WORDS} v1.0.0\n## explicit\n{WORDS}\n",
        f"vendor/{WORDS}/a.go": 'package words\n\nconst Small = "vendored"\n',
    }
    built = await maker.build({"go.mod": MOD, "main.go": MAIN, **vendored})
    assert ".vibed/app" in names(built)
    assert not any(name.startswith("vendor/") for name in names(built))
    assert registry.paths() == []


@one
async def test_what_calls_c_is_compiled_with_the_builders_compiler_and_runs(maker: Maker) -> None:
    main = (
        'package main\n\n// static int seven(void) { return 7; }\nimport "C"\n\n'
        'import "fmt"\n\nfunc main() { fmt.Println("seven is", C.seven()) }\n'
    )
    built = await maker.build({"go.mod": "module app\n\ngo 1.23\n", "main.go": main})
    with tarfile.open(built.archive) as archive:
        program = archive.extractfile(".vibed/app")
        assert program is not None
        place = maker.on.scratch / "app"
        place.write_bytes(program.read())
    place.chmod(0o755)
    done = await asyncio.to_thread(subprocess.run, [place], capture_output=True, text=True, check=True)
    assert done.stdout == "seven is 7\n"


@one
async def test_without_go_mod_its_own_imports_say_what_it_is_called(maker: Maker) -> None:
    imports = f'import (\n"{WORDS}"\n"github.com/ann/shop/pages"\n)\n'
    main = f"package main\n\n{imports}\nfunc main() {{ print(words.Small, pages.One) }}\n"
    built = await maker.build({"main.go": main, "pages/pages.go": "package pages\n\nconst One = 1\n"})
    assert {".vibed/app", "go.mod", "go.sum"} <= names(built).keys()


@one
async def test_a_package_below_is_compiled_in_its_own_module(maker: Maker) -> None:
    files = {"back/go.mod": MOD, "back/cmd/web/main.go": MAIN, "README.md": "x"}
    assert ".vibed/app" in names(await maker.build(files, "back/cmd/web"))


@one
async def test_what_fails_is_told_with_its_cause(maker: Maker, registry: FakeRegistry) -> None:
    wrong = await maker.failure({"go.mod": MOD, "main.go": MAIN.replace("Small", "Large")})
    assert (wrong.error_code, wrong.may_retry) == ("BuildFailed", False)
    assert "main.go:5: undefined: words.Large" in wrong.message
    lost = await maker.failure({"go.mod": MOD.replace("words", "lost"), "main.go": MAIN.replace("words", "lost")})
    assert "no module proxy has example.com/lost@v1.0.0" in lost.message
    sums = f"{WORDS} v1.0.0 h1:{'A' * 43}=\n{WORDS} v1.0.0/go.mod h1:{'A' * 43}=\n"
    other = await maker.failure({"go.mod": MOD, "go.sum": sums, "main.go": MAIN})
    assert "example.com/words@v1.0.0" in other.message
    assert "go.sum" in other.hint if other.hint else False


@one
async def test_a_module_that_wants_a_go_that_there_is_not_is_told(maker: Maker, registry: FakeRegistry) -> None:
    newer = {"go.mod": f"module {WORDS}\n\ngo 1.99\n", "a.go": 'package words\n\nconst Small = "x"\n'}
    registry.modules[WORDS] = {"v1.0.0": go_module(WORDS, "v1.0.0", newer)}
    failed = await maker.failure({"go.mod": MOD, "main.go": MAIN})
    assert "Go 1.99" in failed.message


@one
async def test_a_registry_that_fails_is_no_fault_of_the_app(maker: Maker, registry: FakeRegistry) -> None:
    registry.status["/go/"] = 503
    failed = await maker.failure({"go.mod": MOD, "main.go": MAIN})
    assert failed.may_retry
