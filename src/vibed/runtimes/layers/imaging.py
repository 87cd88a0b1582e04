"""A tarball that a builder sends becomes an EROFS image while it comes, in a sandbox of its own.

Whoever sends the tarball may be hostile, and so the program that reads it (`vibed-agent image`) sees one folder and
nothing else: a uid of its own, no network, bounds on memory, bytes and files.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from vibed.supervision.cgroups import BUILDING, Bounds
from vibed.supervision.host import Host

_DEADLINE_S = 300.0
_TOO_LONG = f"the image was not made within {_DEADLINE_S:g} s"
_MEMORY = 1 << 30
_FILES = 400_000


class ImageFailed(Exception):
    """The tarball was no layer, or is larger than one may be. The message says which."""

    code = "ImageFailed"


class Clash(ImageFailed):
    """What is to be taken over and what came do not go together."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What an image takes over from an earlier layer's."""

    image: Path
    packages: tuple[str, ...]
    """Lines that pin them."""


@asynccontextmanager
async def image_beside(
    host: Host, place: Path, *, most_bytes: int, take: Sequence[Taken], beyond: str
) -> AsyncIterator[Callable[[int], Awaitable[Path]]]:
    """As `make_image`, for a tarball that comes later, by its descriptor: what is taken over is written meanwhile."""
    if not take:
        yield lambda tarball: make_image(host, place, tarball, most_bytes=most_bytes, beyond=beyond)
        return
    ours, theirs = socket.socketpair()
    early = asyncio.create_task(
        make_image(host, place, theirs.fileno(), most_bytes=most_bytes, take=take, beyond=beyond, handed=True)
    )

    async def made(tarball: int) -> Path:
        with contextlib.suppress(OSError):  # it has ended, and says why
            socket.send_fds(ours, [b"\0"], [tarball])
        try:
            async with asyncio.timeout(_DEADLINE_S):
                return await asyncio.shield(early)
        except TimeoutError:
            raise ImageFailed(_TOO_LONG) from None

    try:
        yield made
    finally:
        early.cancel()
        await asyncio.gather(early, return_exceptions=True)
        ours.close()
        theirs.close()


async def make_image(
    host: Host,
    place: Path,
    tarball: int | None,
    *,
    most_bytes: int,
    take: Sequence[Taken] = (),
    beyond: str = "",
    handed: bool = False,
) -> Path:
    """`place/layer.erofs` of what the descriptor gives (None: nothing), beside what it takes over; `place` is a folder
    of ours that the program gets for itself. `beyond`: a folder of the sandbox into which links may lead as well;
    `handed`: whether the descriptor is a socket by which that of the tarball comes.

    Raises ImageFailed, OSError.
    """
    id = f"l{secrets.token_hex(6)[:11]}"
    uid = host.uids.take()
    group = host.cgroups.get(id)
    work = place / "work"
    spec, taken = place / "confine.json", place / "taken.json"
    try:
        host.cgroups.make(id, Bounds(_MEMORY, 2.0, 32, BUILDING))
        work.mkdir(mode=0o755)
        if host.privileged:
            os.chown(work, uid, uid)
        held = {f"/held-{number}": one for number, one in enumerate(take)}
        taken.write_text(json.dumps([{"image": at, "packages": one.packages} for at, one in held.items()]))
        taken.chmod(0o644)
        binds = {"/taken.json": taken, **{at: one.image for at, one in held.items()}}
        spec.write_text(json.dumps(_confine(host, work, uid, [str(path) for path in group.procs], binds)))
        await _run(host, spec, tarball, most_bytes, beyond, handed=handed)
        image = work / "layer.erofs"
        if not image.is_file() or image.is_symlink():
            raise ImageFailed("no image came of it")
        return image.rename(place / "layer.erofs")
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
        "env": {},
        "capabilities": [],
        "seccomp": "default",
        "landlock": {"ro": ["/"], "rw": ["/made"]},
        "rlimits": {"nproc": 16, "nofile": 4096, "core": 0},
        "cgroup_procs": procs,
        "die_with_parent": True,
        "oom_score_adj": 500,
    }
    if host.privileged:
        confine |= {"uid": uid, "gid": uid}
    return confine


async def _run(host: Host, spec: Path, tarball: int | None, most_bytes: int, beyond: str, *, handed: bool) -> None:
    argv = [str(host.agent), "confine", str(spec), "--", "/vibed-agent", "image", "/made/layer.erofs", "/taken.json"]
    argv += ["--handed"] if handed else []
    argv += ["--beyond", beyond] if beyond else []
    argv += ["--max-bytes", str(most_bytes), "--max-files", str(_FILES)]
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL if tarball is None else tarball,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.defpath},
        start_new_session=True,
    )
    assert process.stderr is not None
    try:
        # one that is to be handed over may take as long as what makes it
        async with asyncio.timeout(None if handed else _DEADLINE_S):
            errors = await process.stderr.read(64 << 10)
            code = await process.wait()
    except TimeoutError:
        raise ImageFailed(_TOO_LONG) from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    text = errors.decode("utf-8", "replace").strip()
    if code == 121:
        raise Clash(text[-500:])
    if code == 122:
        if "no space left" in text:
            raise OSError(28, "no space left for a layer")
        raise ImageFailed(f"what was installed is too large: {text.rpartition(': ')[2]}")
    if code != 0:
        raise ImageFailed(text[-500:] or f"the image could not be made: status {code}")
