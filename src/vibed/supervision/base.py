"""The part of a driver that is the same for every kind of supervised sandbox: booting, watching, adopting.

A folder for each sandbox, its group and uids, and a supervisor that is started in it. A driver (`workerd`, `gvisor`,
`process`) says in `lay_out` what to boot and in `order` what to run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from vibed import wire
from vibed.apps.errors import VibedError
from vibed.sandboxes.driver import BootFailed, Builder, Isolation, Limits, Probe, Prospect, Run, Sandbox, State
from vibed.supervision import mounts
from vibed.supervision.adoption import adopt
from vibed.supervision.cgroups import AHEAD, SERVING, Bounds, Group
from vibed.supervision.death import Death
from vibed.supervision.host import Host
from vibed.supervision.place import Place
from vibed.supervision.removal import remove
from vibed.supervision.roots import Root
from vibed.supervision.spawning import spawn
from vibed.supervision.supervised import Supervised
from vibed.supervision.sweep import sweep

_BOOT_S = 60.0
_PIDS_OVERHEAD = 64
_SLOT_BYTES = 64 << 10
"""Mount points only."""


class SupervisedDriver(ABC):
    """The part of a driver that is the same for every kind of supervised sandbox."""

    name: ClassVar[str]
    isolation: ClassVar[Isolation]
    takes_mounts: bool = False
    builds: ClassVar[bool] = False
    """Whether it has builder sandboxes, where it takes mounts."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._watching: set[asyncio.Task[None]] = set()
        self._sandboxes: set[Supervised] = set()

    @abstractmethod
    async def probe(self) -> Probe:
        """Run something real in a sandbox, under a deadline; never raises."""

    @abstractmethod
    def lay_out(
        self, folder: Path, place: Place, root: Root, group: Group, *, urgent: bool, builder: bool
    ) -> dict[str, object]:
        """The driver's part of spec.json (kind, command, confine, sockets, cleanup).

        Files that the sandbox needs are written to `folder`, which becomes `place.folder` once all is there.
        """

    @abstractmethod
    async def order(self, sandbox: Supervised, run: Run) -> dict[str, object]:
        """The driver's part of the `run` operation. Raises `RunFailed`, OSError."""

    def tidy(self, place: Place) -> None:
        """Remove what `order` left for the supervisor to read, if anything: the run has begun, or failed."""
        return

    def bounds(self, limits: Limits) -> Bounds:
        """What the group of a sandbox with these limits is held to; pids with room for what surrounds the app."""
        return Bounds(limits.memory_mb << 20, limits.cpus, limits.pids + _PIDS_OVERHEAD)

    def default_limits(self, root: Root) -> Limits:
        """Of a warm sandbox, before it has a run."""
        return root.limits

    def open_slots(self, place: Place) -> None:
        """Blocking: mount what has to be there before the sandbox boots, when `takes_mounts`. Raises OSError."""
        # a file system of its own: of a bind, /proc/self/mountinfo inside would tell the host's path
        mounts.open_slot(place.slot, _SLOT_BYTES)

    async def boot(self, template: str, *, urgent: bool = False, builder: Builder | None = None) -> Sandbox:
        """As every driver. Raises `BootFailed`; nothing is left behind then."""
        root = self.host.roots.root(template)
        if builder is not None:
            if not (self.builds and self.takes_mounts):
                why = "without root" if self.builds else "at all"
                raise BootFailed(f"driver {self.name} has no builder sandboxes {why}", retryable=False)
            root = replace(root, limits=builder)
        sandbox = await self._start(root, urgent, builder is not None)
        try:
            async with asyncio.timeout(_BOOT_S):
                await self._reach(sandbox)
                state = await sandbox.become(State.WARM, State.EXITED)
        except TimeoutError:
            tail = sandbox.place.tail()
            await self._discard(sandbox)
            raise BootFailed(f"sandbox {sandbox.id} of {template} was not warm within {_BOOT_S:g} s{tail}") from None
        except BaseException:
            await self._discard(sandbox)
            raise
        if state is not State.WARM:
            tail = sandbox.place.tail()
            await self._discard(sandbox)
            raise BootFailed(f"sandbox {sandbox.id} of {template} ended while it booted{tail}")
        return sandbox

    def prepare(self, prospect: Prospect) -> None:
        """Nothing: what a run needs of its source is read inside the sandbox."""
        return

    async def adopt(self) -> Sequence[Sandbox]:
        """Those that an earlier controller left alive; whatever else it left of this driver is removed."""
        known = {sandbox.place.folder for sandbox in self._sandboxes}
        found = await adopt(self, known, self._watch)
        await sweep(self.host)
        return found

    async def close(self) -> None:
        """Let go of connections; sandboxes stay alive."""
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        for sandbox in list(self._sandboxes):
            await sandbox.disconnect()
            sandbox._death.close()
        self._sandboxes.clear()

    async def clean(self, place: Place, group: Group, state: Mapping[str, Any], *, lost: bool) -> None:
        """Remove all that is left of a sandbox without a supervisor; as `removal.remove`."""
        await remove(self.host, place, group, state, lost=lost)

    async def _start(self, root: Root, urgent: bool, builder: bool) -> Supervised:
        sandboxes = self.host.layout.sandboxes
        sandboxes.mkdir(mode=0o711, parents=True, exist_ok=True)
        uid = self.host.uids.take()
        place = Place(sandboxes / f"s{secrets.token_hex(6)[:11]}", uid, self.host.uids.app(uid))
        group = self.host.cgroups.get(place.id)
        try:
            self._lay_out(place, root, group, urgent=urgent, builder=builder)
            # boots ahead of demand leave the CPU to deploys and to apps
            weight = SERVING if urgent else AHEAD
            bounds = replace(self.bounds(self.default_limits(root)), weight=weight)
            self.host.cgroups.make(place.id, bounds)
            if self.takes_mounts:
                self.open_slots(place)
            argv = [str(self.host.agent), "supervise", str(place.spec)]
            pid = spawn(argv, place.folder / "supervisor.log")
            sandbox = Supervised(self, place, root, group, Death.of_child(pid))
        except (OSError, VibedError) as error:
            await self.clean(place, group, {}, lost=True)
            raise BootFailed(f"a sandbox of {root.name} could not be made: {error}") from error
        self._watch(sandbox)
        return sandbox

    def _lay_out(self, place: Place, root: Root, group: Group, *, urgent: bool, builder: bool) -> None:
        # made under another name and renamed: a folder that has a sandbox's name is complete
        folder = place.folder.with_name(f".{place.id}")
        folder.mkdir(mode=0o700)
        try:
            for name in ("in", "slot"):
                (folder / name).mkdir(mode=0o755)
            uids = self.host.layout.uids
            spec: dict[str, object] = {
                "id": place.id,
                "driver": self.name,
                "template": root.name,
                "template_digest": root.digest,
                "uid": place.uid,
                "cgroup_procs": [str(path) for path in group.procs],
                "cgroup_oom": str(group.oom or ""),
                "cleanup": [],
                "boot_timeout_s": _BOOT_S,
                "builder": builder,
                "log_owner": {"uid": os.geteuid(), "gid": uids.serve if self.host.privileged else os.getegid()},
                "socket_owner": (
                    {"uid": uids.serve, "gid": uids.caddy}
                    if self.host.privileged
                    else {"uid": os.geteuid(), "gid": os.getegid()}
                ),
            }
            spec |= self.lay_out(folder, place, root, group, urgent=urgent, builder=builder)
            (folder / "spec.json").write_text(json.dumps(spec))
            folder.rename(place.folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    async def _reach(self, sandbox: Supervised) -> None:
        pause = 0.001
        while not sandbox._death.happened:
            if sandbox.place.control.exists():
                with contextlib.suppress(wire.Disconnected):
                    await sandbox.connect()
                    return
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.02)

    async def _discard(self, sandbox: Supervised) -> None:
        await asyncio.shield(sandbox.destroy(0))

    def _watch(self, sandbox: Supervised) -> None:
        async def watch() -> None:
            try:
                await sandbox.bury()
            finally:
                if sandbox._ended.done():
                    self._sandboxes.discard(sandbox)

        self._sandboxes.add(sandbox)
        task = asyncio.create_task(watch(), name=f"watch {sandbox.id}")
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)
