"""Kits of a cluster's builders: packed the same for the same content, and had by who needs them."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from vibed.runtimes.layers import toolbox
from vibed.runtimes.layers.compilers import kits_of
from vibed.runtimes.layers.in_pod import CompilersOfPod
from vibed.runtimes.layers.kits import Kit, Kits, lead_within, packed
from vibed.runtimes.templates import load_templates
from vibed.runtimes.tool import ToolError
from vibed.runtimes.tools import Tools
from vibed.sandboxes.driver import RunFailed


class Filling:
    """A kit, and how often it was made."""

    def __init__(self, content: str = "x", facts: tuple[str, ...] = ("1",)) -> None:
        self.content = content
        self.times = 0
        self.kit = Kit("kit", "the things", facts, self.fill)

    async def fill(self, root: Path, log: Path) -> Mapping[str, str]:
        self.times += 1
        (root / "bin").mkdir(parents=True)
        (root / "bin" / "tool").write_text(self.content)
        (root / "bin" / "tool").chmod(0o700)
        (root / "link").symlink_to("bin/tool")
        return {"libc6": "2.41"}


async def test_a_kit_is_packed_once_and_the_same_wherever_it_is(tmp_path: Path) -> None:
    filling = Filling()
    first = await packed(filling.kit, tmp_path / "a")
    assert await packed(filling.kit, tmp_path / "a") == first
    assert filling.times == 1
    second = await packed(filling.kit, tmp_path / "b")
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.debian == {"libc6": "2.41"}
    with tarfile.open(first.path) as archive:
        assert [(one.name, one.mode) for one in archive] == [("bin", 0o755), ("bin/tool", 0o755), ("link", 0o755)]


async def test_a_kit_of_other_facts_takes_the_place_of_the_earlier_one(tmp_path: Path) -> None:
    await packed(Filling().kit, tmp_path)
    later = await packed(Filling("y", ("2",)).kit, tmp_path)
    assert sorted(tmp_path.glob("kit-*.tar.gz")) == [later.path]


async def test_what_cannot_be_packed_leaves_nothing_and_says_what_it_is(tmp_path: Path) -> None:
    async def fill(root: Path, log: Path) -> Mapping[str, str]:
        root.mkdir()
        raise OSError("no room")

    with pytest.raises(ToolError, match="the things: they could not be packed: no room"):
        await packed(Kit("kit", "the things", (), fill), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".busy"]


async def test_what_the_image_brings_is_not_made(tmp_path: Path) -> None:
    filling = Filling()
    brought = await packed(filling.kit, tmp_path / "image")
    assert await Kits(tmp_path / "image", tmp_path / "own").packed(filling.kit) == brought.path
    assert filling.times == 1
    assert not (tmp_path / "own").exists()


async def test_where_no_image_brings_any_they_are_made(tmp_path: Path) -> None:
    assert (await Kits(tmp_path / "none", tmp_path / "own").packed(Filling().kit)).parent == tmp_path / "own"


async def test_what_the_image_does_not_bring_is_refused_with_why(tmp_path: Path) -> None:
    (tmp_path / "image").mkdir()
    kits = Kits(tmp_path / "image", tmp_path / "own")
    templates = load_templates()
    compilers = CompilersOfPod(kits, tmp_path, Tools(tmp_path), templates)
    with pytest.raises(RunFailed, match="there are no compilers for python-311") as failed:
        await compilers.mounts("python-311")
    assert failed.value.error_code == "DependencyBuildFailed"
    assert not failed.value.may_retry


def test_builders_of_python_and_node_have_headers_of_their_own_and_compilers_together(tmp_path: Path) -> None:
    templates, tools = load_templates(), Tools(tmp_path)
    named = {
        name: [kit.name for kit in kits_of(tmp_path, tools, templates[name]).values()]
        for name in ("python-313", "node-24", "go-123")
    }
    assert named == {
        "python-313": ["compilers-trixie"],
        "node-24": ["compilers-trixie", "headers-node-24"],
        "go-123": ["compilers-trixie"],
    }


def test_an_order_takes_the_installers_of_its_kind_alone(tmp_path: Path) -> None:
    tools = Tools(tmp_path)
    found = {kind: toolbox.kit_for(kind, tools) for kind in ("python", "node", "build", "worker", "go")}
    assert {kind: kit.name if kit else None for kind, kit in found.items()} == {
        "python": "installers-python",
        "node": "installers-node",
        "build": "installers-node",
        "worker": "installers-node",
        "go": None,
    }


def test_links_of_a_systems_root_lead_within_it(tmp_path: Path) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/settings").write_text("x")
    (tmp_path / "usr/lib/settings").symlink_to("/etc/settings")
    (tmp_path / "usr/lib/beside").symlink_to("settings")
    lead_within(tmp_path)
    assert (tmp_path / "usr/lib/settings").readlink() == Path("../../etc/settings")
    assert (tmp_path / "usr/lib/beside").read_text() == "x"
