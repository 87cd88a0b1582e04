"""What the drivers of the general lane share: the layout inside a sandbox and the order to start an app.

Inside there is the template's root, read-only; `/app` (the source), `/home/app`, `/tmp` and `/dev/shm` in memory, each
bounded; `/run/vibed` with the agent's sockets; `/run/etc` with what of `/etc` a claim decides; and `/layers`, a slot
below which a claim's mounts appear. `/data` is a link to `/layers/.data` in every root image: so app data, too, can
come into a sandbox that is already warm. Without any, that is a link to `/run/data`, in memory as the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vibed.sandboxes.driver import BootFailed, Limits, Run
from vibed.supervision.cgroups import Bounds
from vibed.supervision.place import Place
from vibed.supervision.roots import Root

AGENT = "/usr/lib/vibed/vibed-agent"
REGISTRY_SOCKET = "/layers/registry/registry.sock"
"""Where a builder's claim mounts the registry gate's socket (`vibed.runtimes.gate`)."""
APP_UID = 1000
NOFILE = 4096
_NO_DATA = "/run/data"
_ETC_BYTES = 64 << 10
_OVERHEAD_MB = 48
"""The agent, its warm processes' shared part, and what surrounds them."""


def agent(*, urgent: bool, builder: bool) -> list[str]:
    """Its argv. Warm processes take ten times as long as the boot itself, and most of them are for other apps than the
    one that waits: in an urgent sandbox there are none, and the app gets a fresh process. A builder runs no app.
    """
    flags = ["-zygotes="] if urgent or builder else []
    return [AGENT, "agent", *flags, *([f"-registry={REGISTRY_SOCKET}"] if builder else [])]


def image_of(root: Root) -> Path:
    """The root's image. Raises `BootFailed`."""
    if root.image is None or not root.image.is_file():
        raise BootFailed(f"template {root.name} has no root image here", retryable=False)
    return root.image


def agent_sockets(place: Place) -> dict[str, object]:
    """Their part of spec.json."""
    return {
        "kind": "agent",
        "agent_socket": str(place.inside / "agent.sock"),
        "app_socket": str(place.inside / "app.sock"),
    }


def tmpfs_sizes(limits: Limits, *, builder: bool) -> dict[str, tuple[int, str]]:
    """Bytes and mode of the writable directories. Files are in memory, so what they may take is part of the bounds. In
    a builder any of them may be as large as all together.
    """
    disk = limits.disk_mb << 20
    return {
        "/app": (disk, "0755"),
        "/home/app": (disk if builder else disk // 4, "0755"),
        "/tmp": (disk if builder else disk // 2, "1777"),
        _NO_DATA: (disk // 2, "0755"),
        "/run/etc": (_ETC_BYTES, "0755"),
    }


def begin_slot(slot: Path) -> None:
    """What an app finds as /data until a claim brings data: a directory that ends with the sandbox. Raises OSError."""
    (slot / ".data").symlink_to(_NO_DATA)


def memory_bytes(limits: Limits) -> int:
    """The bound of the group: what processes may take, and what files may take beside it."""
    return (limits.memory_mb + limits.disk_mb + _OVERHEAD_MB) << 20


def bounds(limits: Limits, pids: int) -> Bounds:
    """Of a sandbox whose processes are at most `pids` on the host."""
    return Bounds(memory_bytes(limits), limits.cpus, pids)


def order(run: Run) -> dict[str, object]:
    """The `run` operation for a sandbox with an agent in it (docs/reference/supervisor.md)."""
    start = run.runtime.start
    return {
        "source": str(run.source),
        "strip": run.runtime.strip,
        "start": {
            "argv": list(start.argv),
            "shell": start.shell,
            "build": [list(step) for step in start.build],
            "env": {**_classified_env(run), **run.env},
            "port": start.port,
            "kind": run.runtime.kind,
            "timeout_s": run.start_timeout_s,
            "warm": start.warm,
            "expected_ports": list(start.expected_ports),
            "stop_signal": start.stop_signal,
            "links": dict(run.links),
            "uid": APP_UID,
        },
        "limits": {"disk_bytes": run.limits.disk_mb << 20, "nproc": run.limits.pids, "nofile": NOFILE},
    }


def _classified_env(run: Run) -> dict[str, str]:
    """Variables that the classifier found an app of its kind to need; the user's own come after them."""
    found = run.runtime.options.get("env")
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, Mapping) else {}
