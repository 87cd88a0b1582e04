"""What lies on disk before vibeD's processes start; bringing them up for real is in tests/e2e."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from vibed.cli import installation
from vibed.config import Config
from vibed.layout import Layout, Uids
from vibed.sandboxes import mounts


def _caddy(layout: Layout) -> dict[str, Any]:
    """Caddy's command in the watchdog's plan."""
    installation.lay_out(Config(layout.home), layout)
    plan: Any = installation.plan(Config(layout.home), layout, agent=Path("/agent"), caddy=Path("/caddy"))
    return next(command for command in plan["commands"] if command["name"] == "caddy")


def test_without_root_caddy_keeps_its_files_where_nobody_elses_caddy_does(tmp_path: Path) -> None:
    """It is not confined then, so that its /tmp is everybody's."""
    layout = Layout(tmp_path / "home", tmp_path / "run" / "ab", Uids(os.geteuid(), rootless=True))
    env = _caddy(layout)["env"]
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        assert Path(env[name]).is_relative_to(layout.runtime), name
        assert Path(env[name]).is_dir()


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
