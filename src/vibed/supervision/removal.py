"""Removing what is left of a sandbox whose supervisor has ended, whatever that still did."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vibed.sandboxes.driver import SandboxLost
from vibed.supervision import mounts
from vibed.supervision.cgroups import Group
from vibed.supervision.host import Host
from vibed.supervision.place import Place, read_json

_CLEANUP_S = 10.0


async def remove(host: Host, place: Place, group: Group, state: Mapping[str, Any], *, lost: bool) -> None:
    """Remove all that is left of a sandbox without a supervisor; `lost`: it was killed, and did nothing of that itself.

    Raises `SandboxLost` when processes do not end, OSError.
    """
    if lost:
        await group.end()
        if host.privileged:
            await _end_uids({place.uid, place.app_uid})
        for argv in (read_json(place.spec) or {}).get("cleanup") or ():
            await _run_briefly(argv)
    if not await group.end():
        raise SandboxLost(f"processes of sandbox {place.id} do not end: {sorted(group.processes())[:10]}")
    if host.privileged:
        await asyncio.to_thread(mounts.unmount_below, place.folder)
    if lost and (run := state.get("run")):
        Path(run["socket"]).unlink(missing_ok=True)
    await asyncio.to_thread(shutil.rmtree, place.folder, True)
    host.uids.give_back(place.uid)


async def _end_uids(uids: set[int]) -> None:
    """SIGKILL whatever runs as these uids: the last resort where no cgroup holds a sandbox together."""
    for attempt in range(20):
        found = False
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if entry.stat().st_uid not in uids or (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
                    continue
                found = True
                os.kill(int(entry.name), signal.SIGKILL)
            except (OSError, IndexError):
                continue
        if not found:
            return
        await asyncio.sleep(0.005 * (attempt + 1))


async def _run_briefly(argv: Sequence[str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(_CLEANUP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
