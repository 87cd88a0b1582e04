"""What the watchdog does with its files; that it keeps processes alive is in tests/e2e too, with the real ones."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from vibed.cli import watchdog
from vibed.processes import start_time

_LIMIT = 1000
_RUN = f"""
import sys
from vibed.cli import watchdog
watchdog.LOOK_S = 0.02
watchdog.LOG_LIMIT = {_LIMIT}
sys.exit(watchdog.main(sys.argv[1:]))
"""


@contextmanager
def _watching(
    folder: Path, script: str, output: Path, argv: Sequence[str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A watchdog that keeps a shell's `script` (or the program `argv`) alive; at the end it is told to stop, and has to
    do so in order.
    """
    command = {
        "name": "it",
        "argv": argv or ["/bin/sh", "-c", script],
        "env": {},
        "log": str(folder / "log" / "it.log"),
        "fingerprint": "f",
    }
    plan = {
        "commands": [command],
        "state": str(folder / "state.json"),
        "lock": str(folder / "lock"),
        "log": str(folder / "log" / "watchdog.log"),
    }
    (folder / "plan.json").write_text(json.dumps(plan))
    with output.open("ab") as out:
        process = subprocess.Popen([sys.executable, "-c", _RUN, str(folder / "plan.json")], stdout=out)
    try:
        yield process
        assert process.poll() is None
        process.terminate()
        assert process.wait(15) == 0
    finally:
        for left in watchdog.running(folder / "state.json").values():
            os.kill(left.pid, signal.SIGKILL)
        process.kill()
        process.wait()


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Of the process that is kept alive."""
    (tmp_path / "log").mkdir()
    return tmp_path / "log" / "it.log"


@pytest.mark.usefixtures("log")
def test_on_a_full_disk_a_process_is_started_again_all_the_same(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    with _watching(tmp_path, f"echo >> {starts}", Path("/dev/full")):
        _until(lambda: starts.exists() and starts.read_text().count("\n") >= 3)


@pytest.mark.usefixtures("log")
def test_state_that_a_full_disk_had_no_room_for_is_written_later(tmp_path: Path) -> None:
    fresh, state = tmp_path / "state.new", tmp_path / "state.json"
    fresh.symlink_to("/dev/full")
    with _watching(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 60", tmp_path / "log" / "watchdog.log"):
        _until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
        assert not state.exists()
        fresh.unlink()
        _until(state.exists)
        assert watchdog.running(state)["it"].pid == int((tmp_path / "pid").read_text())


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this kernel does not group sessions")
@pytest.mark.usefixtures("log")
def test_what_everybody_waits_for_goes_before_other_sessions_where_root_may_say_so(tmp_path: Path) -> None:
    started = tmp_path / "started"
    with _watching(tmp_path, f"cat /proc/self/autogroup > {started}; exec sleep 60", tmp_path / "log" / "watchdog.log"):
        _until(lambda: started.exists() and started.read_text().endswith("\n"))
        wanted = watchdog.PRECEDENCE if os.geteuid() == 0 else 0
        assert started.read_text().split()[-2:] == ["nice", str(wanted)]


def test_a_process_whose_log_cannot_be_made_is_started_without(tmp_path: Path) -> None:
    """The folder of its log is missing."""
    with _watching(tmp_path, f"echo said; touch {tmp_path}/began; exec sleep 60", tmp_path / "out"):
        _until((tmp_path / "began").exists)


def test_a_program_that_cannot_be_started_just_now_is_started_later(tmp_path: Path) -> None:
    program, began = tmp_path / "program", tmp_path / "began"
    with _watching(tmp_path, "exec sleep 60", tmp_path / "out", [str(program)]):
        _until(lambda: "could not be started" in (tmp_path / "out").read_text())
        fresh = tmp_path / "fresh"
        fresh.write_text(f"#!/bin/sh\ntouch {began}\nexec sleep 60\n")
        fresh.chmod(0o755)
        fresh.rename(program)
        _until(began.exists)


@pytest.mark.usefixtures("log")
def test_a_watchdog_that_is_killed_while_it_starts_a_process_leaves_none_that_nobody_knows(tmp_path: Path) -> None:
    """Killed in the moment between making a process and writing down its pid."""
    script = f"""
import os, signal
from pathlib import Path
from vibed.cli import watchdog

def killed(self):
    os.kill(os.getpid(), signal.SIGKILL)

watchdog.Watchdog._save = killed
argv = ["/bin/sh", "-c", "echo >> {tmp_path}/ran; exec sleep 60"]
command = watchdog.Command("it", argv, {{}}, Path("{tmp_path}/log/it.log"), "f")
made = watchdog._make
def making(command):
    it = made(command)
    Path("{tmp_path}/made").write_text(str(it.pid))
    return it
watchdog._make = making
watchdog.Watchdog([command], Path("{tmp_path}/state.json")).run()
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    pid = int((tmp_path / "made").read_text())
    _until(lambda: start_time(pid) is None)
    assert not (tmp_path / "ran").exists()


def test_told_to_hand_over_it_leaves_its_processes_and_a_closed_terminal_ends_them(tmp_path: Path, log: Path) -> None:
    state = tmp_path / "state.json"
    plan = {
        "commands": [
            {"name": "it", "argv": ["/bin/sleep", "60"], "env": {}, "log": str(log), "fingerprint": "f"},
        ],
        "state": str(state),
        "lock": str(tmp_path / "lock"),
    }
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    pids = []
    for number in (watchdog.HAND_OVER, signal.SIGHUP):
        process = subprocess.Popen([sys.executable, "-c", _RUN, str(tmp_path / "plan.json")], stdout=subprocess.DEVNULL)
        _until(lambda: watchdog.holder(tmp_path / "lock") is not None and bool(watchdog.running(state)))
        pids.append(watchdog.running(state)["it"].pid)
        process.send_signal(number)
        assert process.wait(15) == 0
    assert pids[0] == pids[1], "it was handed over"
    assert start_time(pids[0]) is None


def test_a_log_is_turned_over_while_its_process_runs(tmp_path: Path, log: Path) -> None:
    older = log.with_suffix(".1.log")
    script = 'n=1000; while :; do n=$((n + 1)); echo "line $n"; sleep 0.001; done'
    with _watching(tmp_path, script, tmp_path / "log" / "watchdog.log"):
        _until(lambda: (tmp_path / "state.json").exists())
        before = watchdog.running(tmp_path / "state.json")
        _until(older.exists)
        _until(lambda: 0 < log.stat().st_size < _LIMIT)
        assert watchdog.running(tmp_path / "state.json") == before
    lines = (older.read_text() + log.read_text()).splitlines()
    assert all(len(line) == len("line 1000") for line in lines)


def test_its_own_log_is_turned_over_too(tmp_path: Path, log: Path) -> None:
    own = log.with_name("watchdog.log")
    own.write_text("x" * _LIMIT + "\n")
    with _watching(tmp_path, "exec sleep 60", own):
        _until(lambda: own.with_suffix(".1.log").exists() and own.stat().st_size < _LIMIT)


def test_whoever_looks_for_a_watchdog_keeps_none_from_starting(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("a") as looking:
        fcntl.flock(looking, fcntl.LOCK_EX)
        threading.Timer(0.1, fcntl.flock, (looking, fcntl.LOCK_UN)).start()
        held = watchdog.lock(path)
    assert held is not None
    assert watchdog.holder(path) == os.getpid()
    assert watchdog.lock(path) is None, "there is one now"
    held.close()


class TestTurningOver:
    """A log that somebody appends to meanwhile."""

    @pytest.fixture(autouse=True)
    def _limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(watchdog, "LOG_LIMIT", _LIMIT)

    def test_what_it_had_is_kept_and_its_writer_goes_on_at_the_beginning(self, log: Path) -> None:
        with log.open("a") as writer:
            for number in range(3):
                writer.write(f"{number}" * (_LIMIT + 1))
                writer.flush()
                watchdog.turn_over(log)
            writer.write("and on")
        assert log.read_text() == "and on"
        assert [path.name for path in log.parent.iterdir() if path != log] == ["it.1.log"]
        assert log.with_suffix(".1.log").read_text() == "2" * (_LIMIT + 1)

    def test_up_to_the_limit_it_stays(self, log: Path) -> None:
        log.write_text("x" * _LIMIT)
        watchdog.turn_over(log)
        assert log.stat().st_size == _LIMIT
        assert not log.with_suffix(".1.log").exists()

    def test_of_one_that_grew_while_nobody_looked_the_end_is_kept(self, log: Path) -> None:
        log.write_text("old" * 100 * _LIMIT + "new")
        watchdog.turn_over(log)
        kept = log.with_suffix(".1.log").read_text()
        assert kept.endswith("new")
        assert len(kept) == 2 * _LIMIT

    def test_nothing_is_thrown_away_when_there_is_no_room_for_the_copy(self, log: Path) -> None:
        log.with_suffix(".1.log").symlink_to("/dev/full")
        log.write_text("x" * (_LIMIT + 1))
        watchdog.turn_over(log)
        assert log.stat().st_size == _LIMIT + 1
