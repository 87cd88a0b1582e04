"""Tools: pinned, whole or not there, and never from a member that leaves its folder."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from vibed.runtimes import clients, host_tools
from vibed.runtimes import tools as tools_module
from vibed.runtimes.tool import ToolError
from vibed.runtimes.tools import NAMES, Tools, own_digest
from vibed.runtimes.wheels import unpack_wheel


@pytest.fixture
def only_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without Go and Node."""
    monkeypatch.setattr(host_tools, "_host_tool", lambda *_: None)


def put(tools: Tools, name: str, content: bytes = b"program") -> Path:
    """A tool as `install` leaves it."""
    path = tools.path(name)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    folder = next(p for p in path.parents if p.name.startswith(f"{name}-"))
    (folder / "tool.json").write_text(json.dumps({"size": len(content), "sha256": "0" * 64}))
    return path


def test_every_tool_has_a_pinned_version_and_a_place_of_its_own(tmp_path: Path, only_pinned: None) -> None:
    tools = Tools(tmp_path)
    places = set()
    for name in NAMES:
        tool = tools.tool(name)
        assert tool.version and tool.version != "latest"
        assert tool.path.is_relative_to(tmp_path / "tools" / f"{name}-{tool.version}")
        places.add(tool.path)
    assert len(places) == len(NAMES)


def test_runsc_is_the_one_that_was_measured(tmp_path: Path) -> None:
    assert Tools(tmp_path).version("runsc") == "v0.0.0-20260905035102-160fafc42237"


def test_an_unknown_tool_is_refused_with_the_names_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="caddy") as refused:
        Tools(tmp_path).path("nginx")
    assert refused.value.error_code == "ToolInstallFailed"


def test_a_tool_is_installed_when_it_is_whole(tmp_path: Path) -> None:
    tools = Tools(tmp_path)
    assert not tools.installed("caddy")
    path = put(tools, "caddy")
    assert tools.installed("caddy")
    path.write_bytes(b"progr")
    assert not tools.installed("caddy"), "a truncated program is not installed"


def test_a_program_of_the_host_is_asked_without_a_home_to_leave_something_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`go version` makes ~/.config/go/telemetry, which `vibed clean` would have to know of."""
    go = tmp_path / "go"
    go.write_text(f"#!/bin/sh\nenv > {tmp_path}/seen\necho go version go9.9.9 linux/amd64\n")
    go.chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert Tools(tmp_path / "home").tool("go").version == "9.9.9"
    names = [line.partition("=")[0] for line in (tmp_path / "seen").read_text().splitlines()]
    assert not {"HOME", "XDG_CONFIG_HOME"} & set(names)


def test_a_host_go_that_is_too_old_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version, used in (("1.22.4", False), ("1.26.3", True), ("1.27.0", True)):
        folder = tmp_path / version
        folder.mkdir()
        (folder / "go").write_text(f"#!/bin/sh\necho go version go{version} linux/amd64\n")
        (folder / "go").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        tool = Tools(tmp_path / "home").tool("go")
        assert (tool.path == folder / "go") is used, version


def test_the_agents_version_follows_its_sources_and_not_its_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "agent"
    source.mkdir()
    (source / "main.go").write_text("package main")
    monkeypatch.setattr(tools_module, "shipped", lambda _: source)
    of_sources = own_digest.__wrapped__  # of one process it is looked at once
    before = of_sources("vibed-agent")
    (source / "main_test.go").write_text("package main")
    assert of_sources("vibed-agent") == before
    (source / "main.go").write_text("package main // changed")
    assert of_sources("vibed-agent") != before


# wheels


def wheel(path: Path, members: dict[str, tuple[bytes, int]]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, (content, mode) in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return path


def test_a_wheels_programs_keep_their_mode_and_its_scripts_come_to_the_top(tmp_path: Path) -> None:
    made = wheel(
        tmp_path / "x.whl",
        {"x-1.data/scripts/run-x": (b"x", 0o755), "x/bin/tool": (b"tool", 0o775), "x/data": (b"data", 0o600)},
    )
    unpack_wheel(made, tmp_path / "out")
    modes = {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert modes == {"run-x": 0o755, "tool": 0o755, "data": 0o644}
    assert (tmp_path / "out/run-x").exists()


@pytest.mark.parametrize("name", ["../escape", "/escape", "x/../../escape", "x-1.data/scripts/../../escape"])
def test_a_member_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="escape"):
        unpack_wheel(wheel(tmp_path / "x.whl", {name: (b"", 0o644)}), tmp_path / "a" / "b")
    assert not list(tmp_path.rglob("escape"))
    shutil.rmtree(tmp_path / "a", ignore_errors=True)


async def test_npm_trusts_what_the_system_trusts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: dict[str, str] = {}

    async def run(name: str, argv: object, *, env: dict[str, str], **_: object) -> None:
        heard.update(env)

    async def installed(self: Tools, name: str, say: object = None) -> Path:
        return Path("/tools/bin") / name

    system = tmp_path / "ca-certificates.crt"
    system.touch()
    monkeypatch.setattr(clients, "_AUTHORITIES", ("/nowhere.crt", str(system)))
    monkeypatch.setattr(clients, "checked", run)
    monkeypatch.setattr(Tools, "install", installed)
    monkeypatch.delenv("NODE_EXTRA_CA_CERTS", raising=False)
    await Tools(tmp_path).npm_ci(tmp_path, log=tmp_path / "log")
    assert heard["NODE_EXTRA_CA_CERTS"] == str(system)
    monkeypatch.setenv("NODE_EXTRA_CA_CERTS", "/of/the/operator.crt")
    await Tools(tmp_path).npm_ci(tmp_path, log=tmp_path / "log")
    assert heard["NODE_EXTRA_CA_CERTS"] == "/of/the/operator.crt"
