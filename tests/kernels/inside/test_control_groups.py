"""cgroup v2 as a kernel has it; run in a guest by tests/kernels/test_debian_kernel.py (this machine may have v1)."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from vibed.supervision.cgroups import Bounds, Cgroups, Group


@pytest.fixture
def group() -> Iterator[Group]:
    cgroups = Cgroups.find("0123abcd")
    assert cgroups.missing == ()
    group = cgroups.make("s1", Bounds(memory_bytes=64 << 20, cpus=0.5, pids=20))
    assert group.unified
    yield group
    # to its end: the next test has a group of that name too, and counts what is in it
    deadline = time.monotonic() + 30
    while not group.remove() and time.monotonic() < deadline:
        group.kill()
        time.sleep(0.05)


def started(group: Group, *argv: str) -> subprocess.Popen[bytes]:
    """A process that is in the group before it runs anything."""
    enter = " && ".join(f"echo $$ > {procs}" for procs in group.procs)
    return subprocess.Popen(["/bin/sh", "-c", f'{enter} && exec "$@"', "sh", *argv])


def holds(group: Group, count: int) -> bool:
    """Whether so many processes come to be in the group."""
    deadline = time.monotonic() + 30
    while len(group.processes()) != count and time.monotonic() < deadline:
        time.sleep(0.1)
    return len(group.processes()) == count


def test_what_is_in_a_group_is_counted_and_ended_at_once(group: Group) -> None:
    process = started(group, "sh", "-c", "sleep 600 & exec sleep 600")
    assert holds(group, 2)
    assert (group.memory_bytes() or 0) > 0
    group.kill()
    assert process.wait(30) == -signal.SIGKILL


def test_too_much_memory_is_killed_and_counted(group: Group) -> None:
    process = started(group, sys.executable, "-S", "-c", "x = bytearray(256 << 20)")
    assert process.wait(60) == -signal.SIGKILL
    assert group.oom_kills() >= 1


def test_more_processes_than_allowed_are_refused(group: Group) -> None:
    process = started(group, "sh", "-c", "for i in $(seq 40); do sleep 600 & done 2>/dev/null; exit 0")
    process.wait(60)
    assert 0 < len(group.processes()) <= 20


async def test_an_empty_group_can_be_removed_and_a_full_one_is_ended_first(group: Group) -> None:
    process = started(group, "sleep", "600")
    assert holds(group, 1)
    assert await group.end(deadline_s=30)
    assert process.wait(30) == -signal.SIGKILL
    assert not group.procs[0].exists()
