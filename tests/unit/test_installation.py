"""What lies on disk before vibeD's processes start; bringing them up for real is in tests/e2e."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vibed.cli import installation
from vibed.cli.plan import plan
from vibed.config import Config, InvalidConfiguration
from vibed.layout import Layout, Uids
from vibed.supervision import mounts


def _caddy(layout: Layout) -> dict[str, Any]:
    """Caddy's command in the watchdog's plan."""
    installation.lay_out(Config(layout.home), layout)
    made: Any = plan(Config(layout.home), layout, agent=Path("/agent"), caddy=Path("/caddy"))
    return next(command for command in made["commands"] if command["name"] == "caddy")


def test_without_root_caddy_keeps_its_files_where_nobody_elses_caddy_does(tmp_path: Path) -> None:
    """It is not confined then, so that its /tmp is everybody's."""
    layout = Layout(tmp_path / "home", tmp_path / "run" / "ab", Uids(os.geteuid(), rootless=True))
    env = _caddy(layout)["env"]
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        assert Path(env[name]).is_relative_to(layout.runtime), name
        assert Path(env[name]).is_dir()


@pytest.mark.root
def test_the_site_server_is_confined_as_caddy_is_and_has_no_network_and_no_app(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "home", tmp_path / "run" / "ab", Uids(100_000_000))
    try:
        _caddy(layout)
        spec = json.loads((layout.runtime / "sites.confine.json").read_text())
    finally:
        installation.remove_runtime(layout)  # it is a mount, which pytest could not remove
    assert (spec["uid"], spec["capabilities"], "net" in spec["namespaces"]) == (layout.uids.caddy, [], True)
    seen = {entry["target"]: entry for entry in spec["root"] if entry["type"] == "bind"}
    assert seen[str(layout.sites)]["ro"]
    assert str(layout.ingress) not in seen
    assert str(layout.serve_socket.parent) not in seen


@pytest.mark.root
def test_a_new_runtime_directory_is_in_memory_and_one_that_is_in_use_is_not_covered(tmp_path: Path) -> None:
    new, old = (Layout(tmp_path / "home", tmp_path / "run" / name, Uids(100_000_000)) for name in ("new", "old"))
    old.sandboxes.mkdir(parents=True)
    try:
        for _ in range(2):
            for layout in (new, old):
                installation.lay_out(Config(layout.home), layout)
        assert mounts.in_memory(new.runtime)
        assert mounts.in_memory(old.runtime) == mounts.in_memory(tmp_path)
        assert Path("/proc/self/mountinfo").read_text().count(f" {new.runtime} ") <= 1
        assert new.runtime.stat().st_mode & 0o777 == 0o711
    finally:
        for layout in (new, old):
            installation.remove_runtime(layout)
            assert not layout.runtime.exists()


def test_an_up_that_fails_on_a_full_disk_costs_the_next_one_nothing_of_what_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path / "home", tmp_path / "run" / "ab", Uids(os.geteuid(), rootless=True))
    installation.lay_out(Config(layout.home), layout)
    (layout.sandboxes / "s1").mkdir()

    def full(path: Path, text: str) -> None:
        path.open("w").close()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched, contextlib.suppress(OSError):
        patched.setattr(Path, "write_text", full)
        installation.lay_out(Config(layout.home), layout)
    installation.lay_out(Config(layout.home), layout)
    assert (layout.sandboxes / "s1").is_dir()


def test_what_is_left_of_an_earlier_boot_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(tmp_path / "home", tmp_path / "run" / "ab", Uids(os.geteuid(), rootless=True))
    installation.lay_out(Config(layout.home), layout)
    (layout.sandboxes / "s1").mkdir()
    (tmp_path / "boot_id").write_text("another\n")
    monkeypatch.setattr(installation, "_BOOT_ID", tmp_path / "boot_id")
    for _ in range(2):
        installation.lay_out(Config(layout.home), layout)
        assert not (layout.sandboxes / "s1").exists()
    assert (layout.runtime / "boot").read_text() == "another"


def test_without_a_runtime_directory_of_the_user_there_is_one_below_tmp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.delenv("VIBED_LAYOUT", raising=False)
    layout = Layout.of(Path("/home/ann/vibed"))
    assert layout.above_runtime == (Path("/tmp/vibed-1234/vibed"), Path("/tmp/vibed-1234"))
    assert layout.runtime.parent == layout.above_runtime[0]


@pytest.mark.parametrize(("euid", "runtime"), [(0, "/run"), (1234, "/run/user/1234")])
def test_the_systems_own_runtime_directory_is_not_taken_for_vibeds(
    monkeypatch: pytest.MonkeyPatch, euid: int, runtime: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: euid)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1234")
    monkeypatch.delenv("VIBED_LAYOUT", raising=False)
    assert Layout.of(Path("/home/ann/vibed")).above_runtime == (Path(runtime) / "vibed",)


@pytest.fixture
def laid_out(tmp_path: Path) -> Layout:
    """As root; `runtime` is in use, so that nothing is mounted on it."""
    layout = Layout(tmp_path / "home", tmp_path / "run", Uids(100_000_000))
    layout.sandboxes.mkdir(parents=True)
    installation.lay_out(Config(layout.home), layout)
    return layout


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


@pytest.mark.root
def test_a_link_in_the_folder_that_serve_may_write_gives_it_nothing_of_the_hosts(
    laid_out: Layout, tmp_path: Path
) -> None:
    victim = tmp_path / "shadow"
    victim.touch(mode=0o640)
    link = laid_out.database.with_name("vibed.db-x")
    link.symlink_to(victim)
    with pytest.raises(InvalidConfiguration, match=r"vibed\.db-x is not a regular file"):
        installation.lay_out(Config(laid_out.home), laid_out)
    assert victim.stat().st_uid == 0


@pytest.mark.root
def test_a_link_in_the_databases_place_makes_no_file_elsewhere(laid_out: Layout, tmp_path: Path) -> None:
    laid_out.database.unlink()
    laid_out.database.symlink_to(tmp_path / "made")
    with pytest.raises(InvalidConfiguration):
        installation.lay_out(Config(laid_out.home), laid_out)
    assert not (tmp_path / "made").exists()


@pytest.mark.root
@pytest.mark.parametrize("make", [os.mkfifo, _socket, Path.mkdir])
@pytest.mark.parametrize("name", ["vibed.db", "vibed.db-wal"])
def test_what_is_no_file_in_the_databases_place_is_told(
    laid_out: Layout, make: Callable[[Path], None], name: str
) -> None:
    place = laid_out.database.with_name(name)
    place.unlink(missing_ok=True)
    make(place)
    with pytest.raises(InvalidConfiguration, match="is not a regular file"):
        installation.lay_out(Config(laid_out.home), laid_out)


@pytest.mark.root
def test_after_a_change_of_uid_base_what_was_kept_belongs_to_the_new_uids(laid_out: Layout, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.touch()
    state = laid_out.home / "state"
    (state / "link").symlink_to(victim)
    log = laid_out.logs / "todo" / "0000000001" / "log.jsonl"
    for path in (state / "signing.key", laid_out.sources / "incoming" / "x", laid_out.sources / "y.tar.gz", log):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.chown(path, 100_000_000, 100_000_000)
    os.chown(log, 0, 100_000_000)
    moved = Layout(laid_out.home, laid_out.runtime, Uids(200_000_000))
    assert installation.is_of_other_uids(moved)
    installation.hand_over(moved)
    installation.lay_out(Config(moved.home), moved)
    assert not installation.is_of_other_uids(moved)
    kept = [moved.admin_key, state, *state.rglob("*"), moved.sources, *moved.sources.rglob("*")]
    assert {path.lstat().st_uid for path in kept} == {200_000_000}
    assert {(path.stat().st_uid, path.stat().st_gid) for path in moved.logs.rglob("*")} == {(0, 200_000_000)}
    assert victim.stat().st_uid == 0


@pytest.mark.root
def test_the_same_uids_are_no_change(laid_out: Layout) -> None:
    assert not installation.is_of_other_uids(laid_out)
