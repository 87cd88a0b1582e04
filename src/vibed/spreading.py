"""Where a file system puts new directories.

ext4 puts a file near its directory, and looks for a free inode there one by one, passing over those that were deleted
within the last minutes (`recently_deleted` in fs/ext4/ialloc.c): a place where trees of files come and go gets slow.
Measured: 22 files took 21 ms where a thousand had just been removed, and 1.2 ms with this.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
from pathlib import Path

# include/uapi/linux/fs.h; the same on x86-64 and arm64
_GET_FLAGS = 0x80086601
_SET_FLAGS = 0x40086602
_TOP_DIRECTORY = 0x00020000


def spread(folder: Path) -> None:
    """Have each directory that is made in `folder` lie, with what will be in it, in a part of the disk of its own
    (`chattr +T`). A hint: on file systems that know nothing of it nothing happens.
    """
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            flags = array.array("L", [0])
            fcntl.ioctl(descriptor, _GET_FLAGS, flags, True)
            if not flags[0] & _TOP_DIRECTORY:
                flags[0] |= _TOP_DIRECTORY
                fcntl.ioctl(descriptor, _SET_FLAGS, flags)
        finally:
            os.close(descriptor)
