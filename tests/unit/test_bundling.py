"""What surrounds esbuild; what esbuild makes of sources, hostile ones too, is in tests/contract and tests/hostile."""

from __future__ import annotations

import asyncio
import errno
import os
import tarfile
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from vibed.apps.app import Runtime
from vibed.drivers.workerd import driver as workerd
from vibed.drivers.workerd import source as of_source
from vibed.drivers.workerd.bundling import bundle
from vibed.layout import Layout, Uids
from vibed.sandboxes.driver import Limits, Run, RunFailed
from vibed.sources.extraction import extract
from vibed.sources.table import ArchiveTable
from vibed.supervision.cgroups import Bounds, Cgroups, Group
from vibed.supervision.host import Host
from vibed.supervision.place import Place
from vibed.supervision.roots import Root


class _Programs:
    def path(self, name: str) -> Path:
        return Path("/nonexistent") / name


class _Full(Cgroups):
    def make(self, id: str, bounds: Bounds) -> Group:
        raise OSError(errno.ENOSPC, "no room for another group")


def _host(folder: Path, cgroups: type[Cgroups] = Cgroups) -> Host:
    roots: Any = None
    layout = Layout(folder / "home", folder / "run", Uids(100_000_000))
    return Host(layout, _Programs(), roots, cgroups=cgroups("x", {}, unified=False))


async def _bundle(host: Host, source: Path) -> None:
    runtime = Runtime("fast", "workerd", "worker", "worker.ts", "test", bundle=True)
    run = Run("a", 1, 1, source, runtime, {}, Limits())
    await bundle(host, Root("workerd", "d"), run, "worker.ts")


async def test_a_group_that_cannot_be_made_costs_no_uid(tmp_path: Path) -> None:
    host = _host(tmp_path, _Full)
    with pytest.raises(OSError, match="no room"):
        await _bundle(host, tmp_path / "source")
    assert not host.uids._taken


@pytest.mark.timeout(10)
async def test_a_pipe_in_the_place_of_a_source_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "source")
    with pytest.raises(RunFailed, match="not a file") as caught:
        await _bundle(_host(tmp_path), tmp_path / "source")
    assert caught.value.error_code == "InjectFailed"


async def test_a_link_in_the_place_of_a_source_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").touch()
    (tmp_path / "source").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic links"):
        await _bundle(_host(tmp_path), tmp_path / "source")


async def test_assets_of_a_worker_that_is_ended_while_they_are_unpacked_go_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slowly(source: Path, table: ArchiveTable, into: Path, **how: Any) -> int:
        begun.set()
        go_on.wait(10)
        # as it is when a file came between the removal of the others and that of their folder
        into.parent.mkdir(exist_ok=True)
        return extract(source, table, into, **how)

    monkeypatch.setattr(of_source, "extract", slowly)
    source = tmp_path / "source"
    with tarfile.open(source, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("public/index.html"))
    roots: Any = None
    layout = Layout(tmp_path / "home", tmp_path / "run", Uids(os.geteuid(), rootless=True))
    driver = workerd.WorkerdDriver(Host(layout, _Programs(), roots, cgroups=Cgroups("x", {}, unified=False)))
    place = Place(layout.sandboxes / "s1", os.geteuid(), os.geteuid())
    (driver._assets / place.id).mkdir(parents=True)
    runtime = Runtime("fast", "workerd", "worker", "", "", options={"assets": {"directory": "public"}})
    run = Run("a", 1, 1, source, runtime, {}, Limits())
    ordering = asyncio.create_task(driver.order(cast(Any, SimpleNamespace(place=place)), run))
    await asyncio.to_thread(begun.wait, 10)
    cleaning = asyncio.create_task(driver.clean(place, Group(place.id, {}, unified=False), {}, lost=False))
    await asyncio.wait([cleaning], timeout=0.2)
    go_on.set()
    await asyncio.gather(ordering, cleaning, return_exceptions=True)
    assert not (driver._assets / place.id).exists()
