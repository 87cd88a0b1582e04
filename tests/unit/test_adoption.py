"""What a controller takes over from an earlier one, where something stands in the way."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from vibed.drivers.process import ProcessDriver
from vibed.layout import Layout, Uids
from vibed.supervision import logs
from vibed.supervision.host import Host


@dataclass
class Groups:
    """Control groups of which one has a process that does not end: in an uninterruptible sleep, for example."""

    stuck: str

    def get(self, id: str) -> Any:
        return Group(id, self.stuck)

    def ids(self) -> set[str]:
        return set()


@dataclass
class Group:
    id: str
    stuck: str

    async def end(self) -> bool:
        return self.id != self.stuck

    def processes(self) -> set[int]:
        return {4711}

    def oom_kills(self) -> int:
        return 0


async def test_what_a_killed_controller_was_making_goes_when_it_is_old(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "home", tmp_path / "run", Uids(os.geteuid(), rootless=True))
    for name, age in (("old", 3600), ("new", 0)):
        folder, spec = layout.sandboxes / f".s{name}", layout.sandboxes / f".b{name}.json"
        (folder / "root").mkdir(parents=True)
        spec.write_text("{}")
        for path in (folder, spec):
            os.utime(path, (time.time() - age,) * 2)
    anything = cast(Any, None)
    await ProcessDriver(Host(layout, anything, anything, cgroups=cast(Any, Groups(stuck="")))).adopt()
    assert sorted(path.name for path in layout.sandboxes.iterdir()) == [".bnew.json", ".snew"]


async def test_what_a_killed_controller_had_half_removed_goes(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "home", tmp_path / "run", Uids(os.geteuid(), rootless=True))
    (layout.sandboxes / "sa" / "in").mkdir(parents=True)
    anything = cast(Any, None)
    await ProcessDriver(Host(layout, anything, anything, cgroups=cast(Any, Groups(stuck="")))).adopt()
    assert list(layout.sandboxes.iterdir()) == []


async def test_a_process_that_does_not_end_costs_no_other_sandbox_its_adoption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path / "home", tmp_path / "run", Uids(os.geteuid(), rootless=True))
    for name in ("sa", "sb"):
        (layout.sandboxes / name).mkdir(parents=True)
        spec = {"driver": "process", "uid": 0, "template": "t", "template_digest": "d"}
        (layout.sandboxes / name / "spec.json").write_text(json.dumps(spec))
    anything = cast(Any, None)
    driver = ProcessDriver(Host(layout, anything, anything, cgroups=cast(Any, Groups(stuck="sa"))))
    assert await driver.adopt() == []
    assert (layout.sandboxes / "sa").is_dir(), "it is looked at again by the next controller"
    assert not (layout.sandboxes / "sb").exists(), "nothing of it lives, so it is cleared away"


@pytest.mark.root
def test_a_log_folder_that_a_killed_controller_had_just_made_can_be_read_by_the_api(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir(mode=0o750)
    logs.make_folder(tmp_path / "app" / "0000000001", 100_000_000)
    for folder in (tmp_path / "app", tmp_path / "app" / "0000000001"):
        assert folder.stat().st_gid == 100_000_000
