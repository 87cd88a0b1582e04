"""Driver `process`: general apps on the host's own kernel, where the operator allows that level.

The same root image and the same agent as under gVisor, confined by namespaces, uids of its own, seccomp, Landlock, a
group and rlimits. The app shares the host's kernel, so this is one level below; it needs no runsc, and costs nothing at
run time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from vibed.drivers import general, probing
from vibed.layout import Layout
from vibed.sandboxes.driver import BootFailed, Isolation, Limits, Probe, Run, Sandbox
from vibed.supervision import mounts
from vibed.supervision.base import SupervisedDriver
from vibed.supervision.cgroups import Bounds, Group
from vibed.supervision.host import Host
from vibed.supervision.place import Place
from vibed.supervision.roots import Root
from vibed.supervision.supervised import Supervised

_NEEDS_ROOT = "the process driver mounts root images, which needs root"
_PIDS_OVERHEAD = 48
_SOCKETS_BYTES = 64 << 10


def mounted_images(layout: Layout) -> Path:
    """Where root images are mounted, each below the name that its folder has."""
    return layout.runtime / "roots"


class ProcessDriver(SupervisedDriver):
    """Makes sandboxes of the general templates."""

    name = "process"
    isolation = Isolation.PROCESS
    builds = True

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.takes_mounts = host.privileged
        # mounted once and bound into each sandbox: so all of one template share its page cache
        self._images = mounted_images(host.layout)

    async def probe(self) -> Probe:
        """Run an app that tells what confines it."""
        if not self.host.privileged:
            return Probe(False, self.isolation, _NEEDS_ROOT)
        return await probing.general(self, "/proc/self/status", b"NoNewPrivs:\t1\nSeccomp:\t2")

    def bounds(self, limits: Limits) -> Bounds:
        """Processes and threads of the app are those of the host."""
        return general.bounds(limits, limits.pids + _PIDS_OVERHEAD)

    async def adopt(self) -> Sequence[Sandbox]:
        """As every driver; images are mounted again when they are needed."""
        adopted = await super().adopt()
        if self.host.privileged:
            # detached: sandboxes have their own binds
            await asyncio.to_thread(mounts.unmount_below, self._images)
        return adopted

    def lay_out(
        self, folder: Path, place: Place, root: Root, group: Group, *, urgent: bool, builder: bool
    ) -> dict[str, object]:
        if not self.host.privileged:
            raise BootFailed(_NEEDS_ROOT, retryable=False)
        tree = self._mounted(root)
        os.chown(folder / "in", place.uid, place.uid)
        entries: list[dict[str, object]] = [
            {"type": "bind", "source": str(tree), "target": "/", "ro": True},
            {"type": "proc", "target": "/proc"},
            {"type": "dev", "target": "/dev"},
            {"type": "bind", "source": str(place.inside), "target": "/run/vibed"},
        ]
        memory = general.tmpfs_sizes(root.limits, builder=builder)
        entries += [
            {"type": "tmpfs", "target": target, "size": size, "mode": mode} for target, (size, mode) in memory.items()
        ]
        ids = [[0, place.uid, 1], [general.APP_UID, place.app_uid, 1]]
        return {
            **general.agent_sockets(place),
            "command": general.agent(urgent=urgent, builder=builder),
            "confine": {
                "uid": place.uid,
                "gid": place.uid,
                "userns": True,
                "uid_map": ids,
                "gid_map": ids,
                "namespaces": ["mount", "pid", "net", "ipc", "uts", "cgroup"],
                "hostname": "app",
                "root": entries,
                "slots": [{"source": str(place.slot), "target": "/layers"}],
                "cwd": "/",
                "env": {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
                # what the agent needs to hand everything over to the app's uid (SYS_RESOURCE: to bound a warm process
                # of that uid; it raises no bound of the host's in a user namespace); the app gets none of them
                "capabilities": [
                    "CHOWN",
                    "DAC_OVERRIDE",
                    "FOWNER",
                    "KILL",
                    "SETGID",
                    "SETUID",
                    "SETPCAP",
                    "SYS_RESOURCE",
                ],
                "seccomp": "default",
                # the mounts say the same; this holds even for who finds a way to mount
                "landlock": {"ro": ["/"], "rw": [*memory, "/run/vibed", "/layers", "/dev", "/proc"]},
                "rlimits": {"nofile": general.NOFILE, "core": 0},
                "die_with_parent": True,
            },
        }

    async def order(self, sandbox: Supervised, run: Run) -> dict[str, object]:
        return general.order(run)

    def open_slots(self, place: Place) -> None:
        super().open_slots(place)
        general.begin_slot(place.slot)
        mounts.open_slot(place.inside, _SOCKETS_BYTES)
        os.chown(place.inside, place.uid, place.uid)

    def _mounted(self, root: Root) -> Path:
        image = general.image_of(root)
        target = self._images / root.digest[:16]
        if not target.is_mount():
            target.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._images.chmod(0o755)
            with contextlib.suppress(FileExistsError):
                mounts.mount_image(image, target)
        return target
