"""What lies on disk before vibeD's processes start; bringing them up for real is in tests/e2e."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from vibed.cli import installation
from vibed.config import Config
from vibed.layout import Layout, Uids


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
