"""Bundling a worker with esbuild, which runs in a sandbox of its own that ends with it.

esbuild resolves whatever a source names: on the host, `import p from "/etc/passwd" with {type: "text"}` brings that
file into the bundle. Here it sees the source, itself, and the packages of the template.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import signal
import stat
from pathlib import Path

from vibed.drivers.workerd.code import esbuild_arguments
from vibed.sandboxes.driver import Run, RunFailed, SandboxLost
from vibed.sources.inflate import READ
from vibed.supervision.cgroups import Bounds
from vibed.supervision.host import Host
from vibed.supervision.roots import Root

_DEADLINE_S = 20.0
_MEMORY = 768 << 20
_SOURCE_BYTES = 128 << 20
MAX_BUNDLE_BYTES = 16 << 20
_ERROR_BYTES = 64 << 10
_MISSING = re.compile(r'Could not resolve "([^"./][^"]*)"')


async def bundle(host: Host, root: Root, run: Run, entry: str) -> bytes:
    """The bundle of the worker whose entry is `entry` below `run.runtime.strip`. Raises `RunFailed`, `SandboxLost`."""
    id = f"b{secrets.token_hex(6)[:11]}"
    uid = host.uids.take()
    group = host.cgroups.get(id)
    # no sandbox's folder: it has no supervisor, and nothing of it may be adopted
    spec = host.layout.sandboxes / f".{id}.json"
    try:
        host.cgroups.make(id, Bounds(_MEMORY, 2.0, 128))
        host.layout.sandboxes.mkdir(mode=0o711, parents=True, exist_ok=True)
        spec.write_text(json.dumps(_confine(host, root, uid, [str(p) for p in group.procs])))
        return await _run(host, spec, run, entry)
    finally:
        spec.unlink(missing_ok=True)
        if await group.end():
            host.uids.give_back(uid)  # otherwise somebody else's processes would be under it


def _confine(host: Host, root: Root, uid: int, procs: list[str]) -> dict[str, object]:
    confine: dict[str, object] = {
        "userns": True,
        "namespaces": ["mount", "pid", "net", "ipc", "uts", "cgroup"],
        "hostname": "bundle",
        "root": [
            {"type": "tmpfs", "target": "/src", "size": _SOURCE_BYTES, "mode": "0755"},
            {"type": "tmpfs", "target": "/tmp", "size": 16 << 20, "mode": "1777"},
            {"type": "bind", "source": str(host.agent), "target": "/vibed-agent", "ro": True},
            {"type": "bind", "source": str(host.programs.path("esbuild")), "target": "/esbuild", "ro": True},
            {"type": "dev", "target": "/dev"},
        ],
        "cwd": "/src",
        "env": {"NODE_PATH": "/modules", "HOME": "/tmp", "GOMAXPROCS": "2"},
        "capabilities": [],
        "seccomp": "default",
        "landlock": {"ro": ["/"], "rw": ["/src", "/tmp", "/dev"]},
        "rlimits": {"nproc": 64, "nofile": 4096, "core": 0},
        "cgroup_procs": procs,
        "die_with_parent": True,
        "oom_score_adj": 500,
    }
    entries = confine["root"]
    assert isinstance(entries, list)
    if host.privileged:
        confine |= {"uid": uid, "gid": uid}
    if root.modules is not None:
        entries.append({"type": "bind", "source": str(root.modules), "target": "/modules", "ro": True})
    return confine


async def _run(host: Host, spec: Path, run: Run, entry: str) -> bytes:
    argv = [str(host.agent), "confine", str(spec), "--", "/vibed-agent", "unpack", "/src"]
    if run.runtime.strip:
        argv += ["--strip", run.runtime.strip]
    argv += ["--max-bytes", str(_SOURCE_BYTES), "--", "/esbuild", *esbuild_arguments(entry, run.runtime)]
    source = _open(run.source)
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=source,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.defpath},
            start_new_session=True,
        )
    finally:
        os.close(source)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(_DEADLINE_S):
            output, errors = await asyncio.gather(
                _read(process.stdout, MAX_BUNDLE_BYTES), _read(process.stderr, _ERROR_BYTES)
            )
            code = await process.wait()
    except TimeoutError:
        raise RunFailed(f"bundling took more than {_DEADLINE_S:g} s", code="BundleFailed") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    text = errors.decode("utf-8", "replace").strip()
    if code == 0:
        if len(output) >= MAX_BUNDLE_BYTES:
            raise RunFailed(f"the bundle is larger than {MAX_BUNDLE_BYTES >> 20} MB", code="BundleFailed")
        return output
    if code in (122, 123):
        raise RunFailed(text or "the source could not be unpacked", code="DiskFull" if code == 122 else "InjectFailed")
    if code == 125 or not text:
        raise SandboxLost(f"the bundler could not be run: {text or f'status {code}'}")
    raise refusal(text, run)


def _open(source: Path) -> int:
    descriptor = os.open(source, READ)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise RunFailed("the source is not a file", code="InjectFailed")


def refusal(text: str, run: Run) -> RunFailed:
    """What esbuild's errors mean."""
    missing = list(dict.fromkeys(_MISSING.findall(text)))
    if missing:
        names = ", ".join(repr(name) for name in missing)
        return RunFailed(
            f"the worker needs the npm package{'s' if len(missing) > 1 else ''} {names}, which template "
            f"{run.runtime.template} does not have and the source does not bring",
            code="DependenciesMissing",
            hint="use what the template has (vibed templates lists it), or bundle the package into the source",
        )
    return RunFailed(f"the worker cannot be bundled: {text[:2000]}", code="BundleFailed")


async def _read(stream: asyncio.StreamReader, limit: int) -> bytes:
    """All of a stream, of which at most `limit` bytes are kept."""
    kept = bytearray()
    while piece := await stream.read(1 << 16):
        kept += piece[: limit - len(kept)]
    return bytes(kept)
