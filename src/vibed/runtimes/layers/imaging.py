"""A tarball that a builder sends becomes an EROFS image: unpacked and packed in a sandbox of its own.

Whoever sends the tarball may be hostile, and so the two programs that read it see an empty root with the host's /usr,
one folder, and nothing else: a uid of their own, no network, bounds on memory, bytes and files.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
from pathlib import Path

from vibed.supervision.cgroups import Bounds
from vibed.supervision.host import Host

_DEADLINE_S = 300.0
_MEMORY = 1 << 30
_FILES = 400_000
_UUID = "76696265-4400-4000-8000-000000000002"
_LIBRARIES = ("/lib", "/lib32", "/lib64", "/bin", "/sbin")


class ImageFailed(Exception):
    """The tarball was no layer, or is larger than one may be. The message says which."""

    code = "ImageFailed"


async def make_image(host: Host, place: Path, tarball: int, *, most_bytes: int) -> Path:
    """`place/layer.erofs` of what the descriptor gives; `place` is a folder of ours that the program gets for itself.

    Raises ImageFailed, OSError.
    """
    id = f"l{secrets.token_hex(6)[:11]}"
    uid = host.uids.take()
    group = host.cgroups.get(id)
    work = place / "work"
    spec = place / "confine.json"
    try:
        host.cgroups.make(id, Bounds(_MEMORY, 2.0, 32))
        (work / "tree").mkdir(parents=True)
        for folder in (work, work / "tree"):
            folder.chmod(0o755)
            if host.privileged:
                os.chown(folder, uid, uid)
        spec.write_text(json.dumps(_confine(host, work, uid, [str(path) for path in group.procs])))
        await _run(host, spec, tarball, most_bytes)
        image = work / "layer.erofs"
        if not image.is_file() or image.is_symlink():
            raise ImageFailed("no image came of it")
        return image.rename(place / "layer.erofs")
    finally:
        if await group.end():
            host.uids.give_back(uid)  # otherwise somebody else's processes would be under it


def _confine(host: Host, work: Path, uid: int, procs: list[str]) -> dict[str, object]:
    entries: list[dict[str, object]] = [
        {"type": "tmpfs", "target": "/", "size": 1 << 20, "mode": "0755"},
        {"type": "bind", "source": "/usr", "target": "/usr", "ro": True},
        {"type": "bind", "source": str(host.agent), "target": "/vibed-agent", "ro": True},
        {"type": "bind", "source": str(work), "target": "/made"},
        {"type": "tmpfs", "target": "/tmp", "size": 16 << 20, "mode": "1777"},
        {"type": "dev", "target": "/dev"},
    ]
    for place in map(Path, _LIBRARIES):
        if place.is_symlink():
            entries.append({"type": "symlink", "source": str(place.readlink()), "target": str(place)})
        elif place.is_dir():
            entries.append({"type": "bind", "source": str(place), "target": str(place), "ro": True})
    confine: dict[str, object] = {
        "userns": True,
        "namespaces": ["mount", "pid", "net", "ipc", "uts", "cgroup"],
        "hostname": "layer",
        "root": entries,
        "cwd": "/made",
        "env": {"PATH": "/usr/bin:/usr/sbin:/bin:/sbin", "LANG": "C.UTF-8"},
        "capabilities": [],
        "seccomp": "default",
        "landlock": {"ro": ["/"], "rw": ["/made", "/tmp", "/dev"]},
        "rlimits": {"nproc": 16, "nofile": 4096, "core": 0},
        "cgroup_procs": procs,
        "die_with_parent": True,
        "oom_score_adj": 500,
    }
    if host.privileged:
        confine |= {"uid": uid, "gid": uid}
    return confine


async def _run(host: Host, spec: Path, tarball: int, most_bytes: int) -> None:
    argv = [str(host.agent), "confine", str(spec), "--", "/vibed-agent", "unpack", "/made/tree", "--plain"]
    argv += ["--max-bytes", str(most_bytes), "--max-files", str(_FILES), "--"]
    # noinline_data: gVisor cannot map files whose tail lies in their inode
    argv += ["mkfs.erofs", "-E", "noinline_data", "-T0", "-U", _UUID, "-x-1", "--all-root", "--quiet"]
    argv += ["/made/layer.erofs", "/made/tree"]
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=tarball,
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
    if code == 122:
        if "no space left" in text:
            raise OSError(28, "no space left for a layer")
        raise ImageFailed(f"what was installed is too large: {text.rpartition(': ')[2]}")
    if code != 0:
        raise ImageFailed(text[-500:] or f"the image could not be made: status {code}")
