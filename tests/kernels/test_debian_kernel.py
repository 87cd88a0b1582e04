"""What vibeD asks of a kernel, under the kernel that Debian ships and with cgroup v2.

Kernels differ in what they allow, not in what they document: one that is newer than every release's let a detached
mount be cloned, and nothing that ran here noticed that Debian's and Ubuntu's refuse it.
"""

from __future__ import annotations

import asyncio
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels import guest
from tests.prepare import home
from vibed.runtimes.tools import Tools

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]


def in_guest(command: str) -> guest.Done:
    """Skips where no guest can be booted."""
    try:
        return guest.run(command)
    except guest.CannotBoot as why:
        pytest.skip(str(why))


@pytest.fixture
async def confine_test() -> Path:
    """The confinement's own tests as a program. Sandboxes' uids run it too: no place for pytest's folders."""
    program = home() / "kernels" / "confine.test"
    program.parent.mkdir(parents=True, exist_ok=True)
    go = await Tools(home()).install("go")
    await asyncio.to_thread(
        subprocess.run,
        [str(go), "test", "-c", "-o", str(program), "./confine"],
        cwd=guest.REPOSITORY / "agent",
        env={"PATH": "/usr/bin:/bin", "HOME": str(Path.home()), "CGO_ENABLED": "0"},
        check=True,
    )
    return program


def test_a_sandbox_is_as_confined_there(confine_test: Path) -> None:
    done = in_guest(f"uname -r && cd agent/confine && {shlex.quote(str(confine_test))} -test.v")
    assert done.status == 0, done.output
    assert guest.debian_kernel().version in done.output, "another kernel than the one that was meant"
    assert "--- PASS: TestEverythingDangerousIsRefused" in done.output
    assert "--- SKIP" not in done.output, done.output


def test_control_groups_of_version_2_bound_count_and_end() -> None:
    inside = Path(__file__).parent / "inside"
    done = in_guest(f"{shlex.quote(sys.executable)} -m pytest -p no:cacheprovider -q {shlex.quote(str(inside))}")
    assert done.status == 0, done.output
    assert " passed" in done.output and "skipped" not in done.output, done.output
