"""From which size on memory is mapped by itself, rather than taken from the process' heap.

Each TLS connection of uvloop has a buffer of 256 KiB, of which it uses a page or two. What is mapped by itself takes
just those. glibc gives that up for what is as large as anything that was ever mapped and freed: the buffers of hundreds
of connections then lie where answers of the API lay before, and hold all of that.
"""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD = -3
"""malloc.h"""
_LARGE = 128 << 10
"""Bytes; glibc's own measure before it changes it."""


def map_what_is_large() -> None:
    """For processes with many TLS connections: call once, at the start. Another C library's way is left as it is."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
