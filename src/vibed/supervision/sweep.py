"""Removing what belongs to no sandbox: left by a controller that was killed while it made or removed one."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time

from vibed.supervision import mounts
from vibed.supervision.host import Host
from vibed.supervision.place import folders


async def sweep(host: Host) -> None:
    """Remove groups, half-made and half-removed folders and a bundler's files that belong to no sandbox; and folders of
    registry gates, which end with the vibeD that opened them.
    """
    # groups are listed first: a sandbox that is being made has its folder before it has its group
    groups = host.cgroups.ids()
    made = list(folders(host.layout.sandboxes))
    for id in groups - {folder.name for folder in made}:
        await host.cgroups.get(id).end()
    for folder in made:
        # one that is made has it from the first moment on: its removal was begun, after all else had ended
        if not (folder / "spec.json").exists():
            if host.privileged:
                await asyncio.to_thread(mounts.unmount_below, folder)
            await asyncio.to_thread(shutil.rmtree, folder, True)
    await asyncio.to_thread(shutil.rmtree, host.layout.gates, True)
    with contextlib.suppress(FileNotFoundError):
        for left in host.layout.sandboxes.glob(".[bs]*"):
            if time.time() - left.stat().st_mtime > 60:
                if left.is_dir():
                    await asyncio.to_thread(shutil.rmtree, left, True)
                else:
                    left.unlink(missing_ok=True)
