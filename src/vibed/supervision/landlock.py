"""Landlock, by which a process gives up files for good, without root (landlock(7)); as the kernel here has it."""

from __future__ import annotations

import ctypes

_CREATE_RULESET = 444
"""System call number, the same on x86-64 and arm64."""
_VERSION = 1
"""The flag that asks for it alone."""


def abi() -> int:
    """Of which version it is; 0 where the kernel has none, or it is switched off."""
    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, int(libc.syscall(_CREATE_RULESET, None, 0, _VERSION)))
