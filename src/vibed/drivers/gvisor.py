"""Driver `gvisor`: a sandbox with a kernel of its own in user space (gVisor, platform systrap).

runsc itself is confined: own mount, pid and network namespaces, a user namespace in which its root is this sandbox's
uid and the app's uid is another of its own, and a group that bounds all of it. Its state lies in that mount namespace,
so the end of the sandbox leaves nothing that would have to be deleted. There is no network; the agent listens on a Unix
socket in `in/`, which the sandbox creates on the host (`--host-uds=create`).

Facts and traps: notes on gVisor in the design; the ones that shape this code are named where they matter.
"""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

from vibed.drivers import general, probing
from vibed.sandboxes.driver import Isolation, Limits, Probe, Run
from vibed.supervision import mounts
from vibed.supervision.base import SupervisedDriver
from vibed.supervision.cgroups import Bounds, Group
from vibed.supervision.host import Host
from vibed.supervision.place import Place
from vibed.supervision.roots import Root
from vibed.supervision.supervised import Supervised

_NAMESPACES = ("pid", "mount", "network", "ipc", "uts")
# What the agent needs inside: to take over the app's uid and directories, to end its processes, to set the host's name.
_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_SYS_ADMIN",
    "CAP_SYS_RESOURCE",
)
_SOCKETS_BYTES = 64 << 10
_SHARED_MEMORY_BYTES = 64 << 20
"""As much as container engines give by default."""


class GVisorDriver(SupervisedDriver):
    """Makes sandboxes of the general templates."""

    name = "gvisor"
    isolation = Isolation.KERNEL
    builds = True

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.takes_mounts = host.privileged

    async def probe(self) -> Probe:
        """Run an app that tells which kernel it sees."""
        return await probing.general(self, "/proc/version", b"gvisor")

    def bounds(self, limits: Limits) -> Bounds:
        """A bound on pids that is reached kills the whole sandbox, so it only protects the host: each process of the
        app is one or more here. What the app runs into is RLIMIT_NPROC, which the agent sets.
        """
        return general.bounds(limits, limits.pids * 4 + 512)

    def lay_out(
        self, folder: Path, place: Place, root: Root, group: Group, *, urgent: bool, builder: bool
    ) -> dict[str, object]:
        image = general.image_of(root)
        memory = root.limits.memory_mb << 20
        bundle = folder / "bundle"
        (bundle / "rootfs").mkdir(parents=True)
        bundle.chmod(0o755)
        argv = general.agent(urgent=urgent, builder=builder)
        (bundle / "config.json").write_text(json.dumps(self._config(root, argv, builder=builder)))
        (bundle / "config.json").chmod(0o644)
        if self.host.privileged:
            os.chown(folder / "in", place.uid, place.uid)
        else:
            general.begin_slot(folder / "slot")
        entries = [
            {"type": "tmpfs", "target": "/", "size": 32 << 20, "mode": "0755"},
            {"type": "bind", "source": str(self.host.programs.path("runsc")), "target": "/runsc", "ro": True},
            {"type": "bind", "source": str(place.folder / "bundle"), "target": "/bundle", "ro": True},
            {"type": "bind", "source": str(image), "target": "/image.erofs", "ro": True},
            {"type": "bind", "source": str(place.inside), "target": "/in"},
            {"type": "proc", "target": "/proc"},
            # runsc tells the app the MemTotal that it finds here; programs size their heaps by it. It mounts a
            # proc for itself, which the kernel allows only where one is there of which nothing is covered: the second
            {"type": "file", "target": "/proc/meminfo", "content": f"MemTotal: {memory >> 10} kB\n"},
            {"type": "proc", "target": "/uncovered"},
            {"type": "dev", "target": "/dev"},
            {"type": "dir", "target": "/sys", "mode": "0755"},
            {"type": "dir", "target": "/state", "mode": "0700"},
            {"type": "tmpfs", "target": "/tmp", "size": 16 << 20, "mode": "1777"},
        ]
        confine: dict[str, object] = {
            "userns": True,
            "namespaces": ["mount", "pid", "net", "ipc", "uts", "cgroup"],
            "hostname": "gvisor",
            "root": entries,
            "slots": [{"source": str(place.slot), "target": "/slot"}],
            "cwd": "/",
            "env": {"PATH": "/", "TMPDIR": "/tmp", "HOME": "/"},
            "init": True,
            "no_new_privs": False,
            "capabilities": ["ALL"],
            "seccomp": "none",
            "rlimits": {"nofile": min(65_536, resource.getrlimit(resource.RLIMIT_NOFILE)[1]), "core": 0},
            "die_with_parent": True,
        }
        if self.host.privileged:
            confine |= {
                "uid": place.uid,
                "gid": place.uid,
                "uid_map": [[0, place.uid, 1], [general.APP_UID, place.app_uid, 1]],
                "gid_map": [[0, place.uid, 1], [general.APP_UID, place.app_uid, 1]],
            }
        return {
            **general.agent_sockets(place),
            "command": [
                "/runsc",
                "--root=/state",
                "--platform=systrap",
                "--network=none",
                # an app's sandbox makes sockets on the host and connects to none; a builder connects to its gate
                f"--host-uds={'all' if builder else 'create'}",
                "--ignore-cgroups",
                "run",
                "-bundle=/bundle",
                place.id,
            ],
            "confine": confine,
        }

    async def order(self, sandbox: Supervised, run: Run) -> dict[str, object]:
        return general.order(run)

    def open_slots(self, place: Place) -> None:
        super().open_slots(place)
        general.begin_slot(place.slot)
        # what a sandbox that was taken over writes into its only host directory is bounded
        mounts.open_slot(place.inside, _SOCKETS_BYTES)
        os.chown(place.inside, place.uid, place.uid)

    def _config(self, root: Root, argv: list[str], *, builder: bool) -> dict[str, object]:
        """The OCI bundle's config.json."""
        writable = [
            {"destination": target, "type": "tmpfs", "source": "tmpfs", "options": [f"size={size}", f"mode={mode}"]}
            for target, (size, mode) in general.tmpfs_sizes(root.limits, builder=builder).items()
        ]
        return {
            "ociVersion": "1.0.0",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": argv,
                "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "cwd": "/",
                "capabilities": {name: list(_CAPABILITIES) for name in ("bounding", "effective", "permitted")},
                "rlimits": [{"type": "RLIMIT_NOFILE", "soft": general.NOFILE, "hard": general.NOFILE}],
                "noNewPrivileges": True,
            },
            "root": {"path": "rootfs", "readonly": True},
            "hostname": "app",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
                # locks and queues of Python's multiprocessing are files here; Flask's debugger needs one
                {
                    "destination": "/dev/shm",
                    "type": "tmpfs",
                    "source": "tmpfs",
                    "options": [f"size={_SHARED_MEMORY_BYTES}", "mode=1777"],
                },
                *writable,
                {"destination": "/run/vibed", "type": "bind", "source": "/in", "options": ["rbind", "rw"]},
                {"destination": "/layers", "type": "bind", "source": "/slot", "options": ["rbind", "rslave", "rw"]},
            ],
            "linux": {
                "namespaces": [{"type": name} for name in _NAMESPACES],
            },
            "annotations": {
                # without a host directory as its root no process of the host has to serve files (no gofer for it)
                "dev.gvisor.spec.rootfs.type": "erofs",
                "dev.gvisor.spec.rootfs.source": "/image.erofs",
                # the overlay's size cannot be bounded, so the root stays read-only
                "dev.gvisor.spec.rootfs.overlay": "memory",
            },
        }
