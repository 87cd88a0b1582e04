"""mount(2) for the host's side of a sandbox: slots that stay open to a running sandbox, and what is put into them.

A slot is a directory that is a shared mount of its own; a sandbox has it bound `rslave`, so what is mounted below it
later appears inside. A layer must be read-only by itself (an EROFS image): a bind that was remounted read-only was seen
to stay writable inside gVisor.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import subprocess
from pathlib import Path, PurePosixPath

from vibed.sandboxes.driver import Mount

_MS_RDONLY = 0x1
_MS_NOSUID = 0x2
_MS_NODEV = 0x4
_MS_REMOUNT = 0x20
_MS_BIND = 0x1000
_MS_PRIVATE = 0x40000
_MS_SHARED = 0x100000
_MNT_DETACH = 0x2
_UMOUNT_NOFOLLOW = 0x8

_libc = ctypes.CDLL(None, use_errno=True)


def open_slot(folder: Path, size_bytes: int | None = None) -> None:
    """Make `folder` a mount of its own that propagates to those who have it bound as a slave. Raises OSError.

    With a size it is a tmpfs of that size, else it is the folder itself.
    """
    if size_bytes is None:
        _mount(str(folder), folder, None, _MS_BIND)
    else:
        _mount("tmpfs", folder, "tmpfs", _MS_NOSUID | _MS_NODEV, f"size={size_bytes},mode=0755")
    # private first: below a shared parent (systemd's default) the new mount would else share with every namespace
    _mount("none", folder, None, _MS_PRIVATE)
    _mount("none", folder, None, _MS_SHARED)


def mount_image(image: Path, target: Path) -> None:
    """Mount an EROFS image read-only. Raises OSError.

    Kernels from 6.12 on mount the file itself; for older ones mount(8) finds a loop device.
    """
    flags = _MS_RDONLY | _MS_NOSUID | _MS_NODEV
    try:
        _mount(str(image), target, "erofs", flags)
    except OSError as error:
        if error.errno != errno.ENOTBLK:
            raise
        argv = ["mount", "-t", "erofs", "-o", "loop,ro,nosuid,nodev", str(image), str(target)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
        if done.returncode != 0:
            raise OSError(errno.EIO, f"mount of {image}: {done.stderr.strip()}") from error


def bind(source: Path, target: Path, *, writable: bool) -> None:
    """Bind a directory. Raises OSError."""
    _mount(str(source), target, None, _MS_BIND)
    flags = _MS_REMOUNT | _MS_BIND | _MS_NOSUID | _MS_NODEV | (0 if writable else _MS_RDONLY)
    _mount("none", target, None, flags)


def add(mount: Mount, slot: Path) -> None:
    """Make a layer or a data directory appear in the sandbox that has this slot. Raises OSError."""
    if mount.target == "/data":
        target = slot / ".data"
    else:
        target = slot / PurePosixPath(mount.target).relative_to("/layers")
    if target.is_symlink():
        target.unlink()  # what stands in for data where none comes
    target.mkdir(parents=True, exist_ok=True)
    if mount.source.is_dir():
        bind(mount.source, target, writable=mount.writable)
    else:
        mount_image(mount.source, target)


def in_memory(folder: Path) -> bool:
    """Whether a folder is on a tmpfs."""
    device = folder.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, system = line.partition(" - ")
        if mount.split(" ", 3)[2] == number:
            return system.startswith("tmpfs ")
    return False


def put_in_memory(folder: Path) -> None:
    """Mount a tmpfs on an empty folder, as large as systemd makes /run. Raises OSError."""
    _mount("tmpfs", folder, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0711,size=20%,nr_inodes=800k")


def unmount_below(folder: Path) -> None:
    """Unmount `folder` and all that is mounted below it, busy or not."""
    prefix = str(folder)
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        # octal escapes of space, tab, newline and backslash: proc(5)
        place = line.split(" ", 5)[4].encode().decode("unicode_escape") if "\\" in line else line.split(" ", 5)[4]
        if place == prefix or place.startswith(f"{prefix}/"):
            found.append(place)
    for place in reversed(found):
        with contextlib.suppress(OSError):
            _check(_libc.umount2(os.fsencode(place), _MNT_DETACH | _UMOUNT_NOFOLLOW), place)


def _mount(source: str, target: Path, kind: str | None, flags: int, data: str = "") -> None:
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        None if kind is None else kind.encode(),
        ctypes.c_ulong(flags),
        data.encode() if data else None,
    )
    _check(result, f"mount of {source} on {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
