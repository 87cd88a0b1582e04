"""A program of ours that reads what may be hostile (a tarball that a builder sends, those of a registry) and writes one
file, an image mostly: in a sandbox of its own, where it sees one folder and what it needs beside that, with a uid of
its own, no network, and bounds on memory, bytes and files.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from vibed.supervision.cgroups import BUILDING, Bounds
from vibed.supervision.host import Host

IMAGE = "/made/layer.erofs"
"""What a program writes that makes an image."""
FILES = 400_000
"""The most that an image holds."""
DEADLINE_S = 300.0
TOO_LONG = f"the image was not made within {DEADLINE_S:g} s"
_MEMORY = 1 << 30
_TOLD_BYTES = 1 << 20
_THREADS = 64
"""What waits for the disk has one of its own."""


class Ended(Exception):
    """The program failed. The message is the end of what it said."""

    code = "ReadingFailed"

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
        """-1: it took too long."""


async def image_of(
    host: Host,
    place: Path,
    argv: Sequence[str],
    *,
    binds: Mapping[str, Path],
    stdin: int | None = None,
    deadline_s: float | None = DEADLINE_S,
    made: str = IMAGE,
) -> tuple[Path, bytes]:
    """`place/layer.erofs`, which `vibed-agent` with `argv` has written as `IMAGE` (or what else it has `made`, by its
    own name), and what it said. `place`: a folder of ours, of which the program gets one for itself; `binds`: what it
    sees besides, read-only, by where.

    Raises Ended, OSError.
    """
    id = f"l{secrets.token_hex(6)[:11]}"
    uid = host.uids.take()
    group = host.cgroups.get(id)
    work, spec = place / "work", place / "confine.json"
    try:
        host.cgroups.make(id, Bounds(_MEMORY, 2.0, _THREADS, BUILDING))
        work.mkdir(mode=0o755)
        if host.privileged:
            os.chown(work, uid, uid)
        spec.write_text(json.dumps(_confine(host, work, uid, [str(path) for path in group.procs], binds)))
        said = await _run(host, spec, argv, stdin, deadline_s)
        image = work / made.rpartition("/")[2]
        if not image.is_file() or image.is_symlink():
            raise Ended("no image came of it", 0)
        return image.rename(place / image.name), said
    finally:
        if await group.end():
            host.uids.give_back(uid)  # otherwise somebody else's processes would be under it


def _confine(host: Host, work: Path, uid: int, procs: list[str], binds: Mapping[str, Path]) -> dict[str, object]:
    entries: list[dict[str, object]] = [
        {"type": "tmpfs", "target": "/", "size": 1 << 20, "mode": "0755"},
        {"type": "bind", "source": str(host.agent), "target": "/vibed-agent", "ro": True},
        {"type": "bind", "source": str(work), "target": "/made"},
        *({"type": "bind", "source": str(source), "target": at, "ro": True} for at, source in binds.items()),
    ]
    confine: dict[str, object] = {
        "userns": True,
        "namespaces": ["mount", "pid", "net", "ipc", "uts", "cgroup"],
        "hostname": "layer",
        "root": entries,
        "cwd": "/made",
        "env": {"GOMAXPROCS": "2"},
        "capabilities": [],
        "seccomp": "default",
        "landlock": {"ro": ["/"], "rw": ["/made"]},
        "rlimits": {"nproc": _THREADS, "nofile": 4096, "core": 0},
        "cgroup_procs": procs,
        "die_with_parent": True,
        "oom_score_adj": 500,
    }
    if host.privileged:
        confine |= {"uid": uid, "gid": uid}
    return confine


async def _run(host: Host, spec: Path, argv: Sequence[str], stdin: int | None, deadline_s: float | None) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *(str(host.agent), "confine", str(spec), "--", "/vibed-agent", *argv),
        stdin=asyncio.subprocess.DEVNULL if stdin is None else stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.defpath},
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(deadline_s):
            said, errors = await asyncio.gather(process.stdout.read(_TOLD_BYTES), process.stderr.read(64 << 10))
            status = await process.wait()
    except TimeoutError:
        raise Ended(TOO_LONG, -1) from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    if status != 0:
        raise Ended(errors.decode("utf-8", "replace").strip()[-500:], status)
    return said
