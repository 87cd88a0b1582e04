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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vibed.supervision.cgroups import BUILDING, Bounds
from vibed.supervision.host import Host

_DEADLINE_S = 300.0
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


async def make_image(
    host: Host,
    place: Path,
    tarball: int | None,
    *,
    most_bytes: int,
    take: Sequence[Taken] = (),
    beyond: str = "",
) -> Path:
    """`place/layer.erofs` of what the descriptor gives (None: nothing), beside what it takes over; `place` is a folder
    of ours that the program gets for itself. `beyond`: a folder of the sandbox into which links may lead as well.

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
        await _run(host, spec, tarball, most_bytes, beyond)
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


async def _run(host: Host, spec: Path, tarball: int | None, most_bytes: int, beyond: str) -> None:
    argv = [str(host.agent), "confine", str(spec), "--", "/vibed-agent", "image", "/made/layer.erofs", "/taken.json"]
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
        async with asyncio.timeout(_DEADLINE_S):
            errors = await process.stderr.read(64 << 10)
            code = await process.wait()
    except TimeoutError:
        raise ImageFailed(f"the image was not made within {_DEADLINE_S:g} s") from None
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
