"""Outside programs run to their end, and nothing of them stays behind when they do not."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import uvloop

from vibed.runtimes import commands
from vibed.runtimes.exclusive import exclusive


async def until(condition: object, seconds: float = 5.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not become true"
        await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_what_a_program_prints_is_in_the_log_and_in_the_error(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(commands.CommandFailed) as failed:
        await commands.run(["sh", "-c", "echo words; echo last >&2; exit 3"], log=log, deadline_s=10)
    assert "status 3" in failed.value.why
    assert failed.value.tail == "words\nlast"
    assert log.read_text().startswith("$ sh -c")


def test_what_is_built_is_readable_for_all_on_the_controllers_event_loop(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        uvloop.run(commands.run(["touch", str(tmp_path / "built")], log=tmp_path / "log", deadline_s=10))
    finally:
        os.umask(before)
    assert (tmp_path / "built").stat().st_mode & 0o777 == 0o644


async def test_a_program_that_does_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    script = f"sleep 60 & echo $! > {tmp_path}/child; wait"
    with pytest.raises(commands.CommandFailed, match="did not end"):
        await commands.run(["sh", "-c", script], log=tmp_path / "log", deadline_s=0.5)
    child = int((tmp_path / "child").read_text())
    await until(lambda: not alive(child))


async def test_a_cancelled_caller_leaves_no_program_behind(tmp_path: Path) -> None:
    task = asyncio.create_task(
        commands.run(["sh", "-c", f"echo $$ > {tmp_path}/pid; sleep 60"], log=tmp_path / "log", deadline_s=60)
    )
    await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not alive(int((tmp_path / "pid").read_text()))


async def test_output_returns_what_was_printed_and_raises_what_was_complained() -> None:
    assert await commands.output(["echo", "words"], deadline_s=10) == "words\n"
    with pytest.raises(commands.CommandFailed, match="no such thing"):
        await commands.output(["sh", "-c", "echo no such thing >&2; exit 1"], deadline_s=10)


async def test_one_at_a_time(tmp_path: Path) -> None:
    inside: list[str] = []

    async def visitor(name: str) -> None:
        async with exclusive(tmp_path / "lock", deadline_s=5):
            assert not inside
            inside.append(name)
            await asyncio.sleep(0.05)
            inside.remove(name)

    await asyncio.gather(*(visitor(str(n)) for n in range(4)))


async def test_a_lock_that_stays_held_ends_the_wait(tmp_path: Path) -> None:
    async with exclusive(tmp_path / "lock", deadline_s=5):
        with pytest.raises(TimeoutError):
            async with exclusive(tmp_path / "lock", deadline_s=0.2):
                raise AssertionError("entered a lock that is held")


async def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = (
        "import asyncio, pathlib, sys\n"
        "from vibed.runtimes.exclusive import exclusive\n"
        "async def main():\n"
        "    async with exclusive(pathlib.Path(sys.argv[1]), deadline_s=5):\n"
        "        print('held', flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    holder = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        str(tmp_path / "lock"),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "src")},
    )
    assert holder.stdout is not None and await holder.stdout.readline() == b"held\n"
    holder.send_signal(signal.SIGKILL)
    await holder.wait()
    async with exclusive(tmp_path / "lock", deadline_s=1):
        pass
