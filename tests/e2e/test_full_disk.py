"""A vibeD whose disk is full: sites serve, deploys are refused, deleting gives the room back; after a restart too."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.instance import Instance
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.root


@pytest.fixture
def small() -> Iterator[Instance]:
    """What it keeps is on a disk of 512 MB, of which the installers take a fifth."""
    instance = Instance(templates="static-nginx", owner_storage_mb="250", general_driver="process")
    disk = instance.root / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512m,mode=711", "tmpfs", disk], check=True)
    instance._take_from_cache()
    instance.home.rename(instance.root / "programs")
    instance.home.mkdir(mode=0o711)
    mounts = [instance.home]
    subprocess.run(["mount", "--bind", disk, instance.home], check=True)
    for name in ("tools", "templates"):
        (instance.home / name).mkdir()
        subprocess.run(["mount", "--bind", instance.root / "programs" / name, instance.home / name], check=True)
        mounts.append(instance.home / name)
    try:
        instance.up()
        yield instance
    finally:
        instance.run("down", timeout_s=90)
        for place in [*reversed(mounts), disk]:
            subprocess.run(["umount", "-l", place], check=True)
        left = instance.end()
    assert left == []


def fill(home: Path) -> Path:
    """Somebody else's files, down to the last block."""
    filler = home / "others"
    for size in (1 << 20, 1 << 12):
        with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * size)
    return filler


def site(kib: int) -> dict[str, str | bytes]:
    """Of so many KiB, in an archive that is fifty times as small."""
    line = os.urandom(504).hex().encode()
    return {"index.html": "<h1>here</h1>", "large.csv": b"".join(line + os.urandom(16) for _ in range(kib))}


def test_a_full_disk_serves_refuses_and_lets_go(small: Instance) -> None:
    client = small.client
    for name in ("one", "two"):
        assert client.deploy(name, site(60_000)).phase == "Ready"
    answer = client.post_deploy("three", site(140_000))
    assert (answer.status_code, answer.json()["code"]) == (507, "StorageLimitReached")
    assert "one 63 MB" in answer.json()["message"]
    reserve = small.layout.database.with_name("vibed.db.reserve")
    eventually(lambda: reserve.exists() and reserve.stat().st_blocks > 0, "the reserve is made")

    filler = fill(small.home)
    answer = client.post_deploy("three", site(10))
    assert (answer.status_code, answer.json()["code"]) == (507, "StorageFull")
    assert client.visit("one").text == "<h1>here</h1>"
    assert client.api("GET", "/readyz").status_code == 503
    small.kill("serve", "controller")
    eventually(lambda: client.api("GET", "/healthz").status_code == 200, "the API is back", within_s=60)
    assert client.api("DELETE", "/v1/apps/one").status_code == 204
    eventually(lambda: os.statvfs(small.home).f_bavail * 4096 > 50 << 20, "the room of the site is free", within_s=60)
    assert client.visit("two").text == "<h1>here</h1>"

    filler.unlink()
    small.wait_until_ready()
    assert client.deploy("three", site(10)).phase == "Ready"
    eventually(lambda: reserve.stat().st_blocks > 0, "the reserve is made again")
