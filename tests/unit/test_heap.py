"""What is large is mapped by itself, whatever was mapped and freed before."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

_MAPPED = """
import ctypes, sys
from vibed.heap import map_what_is_large

if sys.argv[1] == "told":
    map_what_is_large()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
Figures = type("Figures", (ctypes.Structure,), {"_fields_": [(str(n), ctypes.c_size_t) for n in range(10)]})
libc.mallinfo2.restype = Figures


def mapped():
    return getattr(libc.mallinfo2(), "3")


libc.free(libc.malloc(4 << 20))
before = mapped()
buffers = [libc.malloc(256 << 10) for _ in range(50)]
print(mapped() - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="this is not glibc 2.33 or newer")
@pytest.mark.parametrize(("told", "mapped"), [("told", "50"), ("not told", "0")])
def test_buffers_of_connections_do_not_lie_in_the_heap(told: str, mapped: str) -> None:
    env = {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", _MAPPED, told], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == mapped
