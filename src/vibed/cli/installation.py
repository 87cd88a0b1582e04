"""What lies on disk before vibeD's processes start: folders with their owners, the database, the admin key.

As root each process has a uid of its own (`vibed.cli.plan`); without root everything is the invoking user.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from pathlib import Path

from vibed.cli.removing import remove
from vibed.config import Config, InvalidConfiguration
from vibed.layout import Layout
from vibed.spreading import spread
from vibed.supervision import mounts

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def lay_out(config: Config, layout: Layout) -> None:
    """Make the folders of `home` and `runtime`, each with the owner that needs it. Idempotent.

    What `runtime` holds of an earlier boot of the machine is removed first: its processes are gone.
    """
    boot = _BOOT_ID.read_text().strip()
    mark = layout.runtime / "boot"
    marked = ""
    with contextlib.suppress(OSError):
        marked = mark.read_text()
        if marked != boot:
            remove_runtime(layout)
    uids = layout.uids
    root = os.geteuid()
    _folder(layout.home, 0o711, root, root)
    for path in reversed(layout.above_runtime):
        _folder(path, 0o711, root, root)
    _folder(layout.runtime, 0o711, root, root)
    if not uids.rootless and not any(layout.runtime.iterdir()) and not mounts.in_memory(layout.runtime):
        # /run is in memory on a machine, but often not in a container, where a journal would carry every switch
        with contextlib.suppress(OSError):
            mounts.put_in_memory(layout.runtime)
    fetched = [(layout.fetched_sources, 0o700, uids.serve, uids.serve)] if config.source_store == "s3" else []
    for path, mode, uid, gid in (
        *fetched,
        (layout.home / "state", 0o700, uids.serve, uids.serve),
        (layout.sources, 0o700, uids.serve, uids.serve),
        (layout.logs, 0o750, root, uids.serve),
        (layout.own_logs, 0o750, root, root),
        (layout.tools, 0o755, root, root),
        (layout.templates, 0o755, root, root),
        (layout.apps, 0o750, root, uids.caddy),
        (layout.ingress, 0o750, root, uids.caddy),
        (layout.sandboxes, 0o711, root, root),
        # set-group-ID: sockets made in it belong to Caddy's group, so that it may connect to them
        (layout.serve_socket.parent, 0o2750, uids.serve, uids.caddy),
        (layout.fallback_socket.parent, 0o700, uids.caddy, uids.caddy),
        # the same the other way round
        (layout.front_socket.parent, 0o2750, uids.caddy, uids.serve),
        (layout.controller_socket.parent, 0o750, root, uids.serve),
        *(
            ((layout.certificates, 0o700, uids.caddy, uids.caddy), (layout.acme, 0o750, root, uids.caddy))
            * config.https
        ),
    ):
        _folder(path, mode, uid, gid)
    for folder in (layout.home, layout.runtime, layout.sandboxes, layout.apps, layout.ingress, layout.logs):
        spread(folder)
    if marked != boot:
        # whole or not at all: with a mark that is cut off, what runs now would be taken for an earlier boot's
        replace(mark, boot, 0o644)
    # Both processes write it; SQLite gives its other files the owner of this one.
    _give(layout.database, uids.serve, os.O_CREAT)
    for path in layout.database.parent.glob(f"{layout.database.name}*"):
        with contextlib.suppress(FileNotFoundError):  # SQLite has just removed it
            _give(path, uids.serve)
    key = config.admin_key
    if key is not None or not layout.admin_key.exists():
        _secret(layout.admin_key, key or f"vibed_{secrets.token_urlsafe(32)}", uids.serve)


def is_of_other_uids(layout: Layout) -> bool:
    """Whether the data was kept by a vibeD with other uids than these."""
    state = layout.home / "state"
    return not layout.uids.rootless and state.exists() and state.stat().st_uid != layout.uids.serve


def hand_over(layout: Layout) -> None:
    """Give the data to the uids of `layout`; `lay_out` does the folders themselves. Nothing may be running."""
    shutil.rmtree(layout.sites, ignore_errors=True)  # they are unpacked again, for Caddy as it is now
    serve, caddy = layout.uids.serve, layout.uids.caddy
    for top, uid, gid in (
        (layout.home / "state", serve, serve),
        (layout.sources, serve, serve),
        (layout.fetched_sources, serve, serve),
        (layout.logs, -1, serve),
        (layout.certificates, caddy, caddy),
    ):
        for _, folders, files, descriptor in os.fwalk(top) if top.exists() else ():
            for name in (*folders, *files):
                os.chown(name, uid, gid, dir_fd=descriptor, follow_symlinks=False)
    if layout.admin_key.exists():
        os.chown(layout.admin_key, serve, serve)


def remove_runtime(layout: Layout) -> list[str]:
    """Remove the runtime directory; returns what stays. What it held must have ended."""
    if not layout.uids.rootless:
        mounts.unmount_below(layout.runtime)
    return remove([layout.runtime])


def _folder(path: Path, mode: int, uid: int, gid: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        os.chown(path, uid, gid)
    elif path.stat().st_uid != os.geteuid() or path.lstat().st_uid not in (os.geteuid(), 0):
        # below /tmp somebody else may have been there first, with a folder or with a link to one of ours
        raise InvalidConfiguration(
            f"{path} belongs to another user", hint="set XDG_RUNTIME_DIR or VIBED_HOME to a folder of your own"
        )
    path.chmod(mode)


def _give(path: Path, uid: int, flags: int = 0) -> None:
    """Make a file belong to `uid`, who may write to its folder and so could lead root elsewhere with a link.

    Raises InvalidConfiguration for whatever is no file, OSError.
    """
    odd = InvalidConfiguration(
        f"{path} is not a regular file", hint="vibeD puts nothing else there: see what it is, and remove it"
    )
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | flags, 0o600)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):  # a link, a socket, a folder
            raise odd from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise odd
        if os.geteuid() == 0:
            os.fchown(descriptor, uid, uid)
    finally:
        os.close(descriptor)


def _secret(path: Path, text: str, uid: int) -> None:
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        if os.geteuid() == 0:
            os.fchown(file.fileno(), uid, uid)
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def admin_key(layout: Layout) -> str:
    """The admin key, for whoever may read it. Raises OSError."""
    return layout.admin_key.read_text().strip()


def replace(path: Path, text: str, mode: int, gid: int | None = None) -> None:
    """Write a file whole; `gid` (as root) is the group of the one process of vibeD that reads it."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text)
    if gid is not None and os.geteuid() == 0:
        os.chown(fresh, 0, gid)
    fresh.chmod(mode)
    fresh.replace(path)
