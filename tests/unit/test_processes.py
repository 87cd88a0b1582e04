"""A process is there as long as any of its threads is."""

from __future__ import annotations

import subprocess
import sys

from tests.e2e.waiting import eventually
from vibed.processes import start_time

LEADER_ENDS = """
import ctypes, sys, threading
threading.Thread(target=sys.stdin.read).start()
print("ready", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_lives_on_after_its_first_thread_and_is_gone_before_it_is_waited_for() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LEADER_ENDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        began = start_time(process.pid)
        assert began is not None
        eventually(lambda: _state(process.pid) == "Z", "its first thread has ended")
        assert start_time(process.pid) == began
        process.kill()
        eventually(lambda: start_time(process.pid) is None, "it is gone")


def _state(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0]
