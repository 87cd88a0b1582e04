"""Tar and gzip bytes written by hand, so that tests can make what no program would."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

BLOCK = 512
END = bytes(2 * BLOCK)


def header(
    name: bytes,
    size: int = 0,
    flag: bytes = b"0",
    *,
    link: bytes = b"",
    mode: bytes = b"0000644\0",
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    size_field: bytes | None = None,
    tail: bytes = b"",
) -> bytes:
    """One header block with a right checksum."""
    field = size_field if size_field is not None else b"%011o\0" % size
    block = struct.pack(
        "100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12s",
        name, mode, b"0000000\0", b"0000000\0", field, b"00000000000\0", b" " * 8, flag, link, magic,
        b"", b"", b"", b"", prefix, tail,
    )  # fmt: skip
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def member(name: bytes | str, data: bytes = b"", flag: bytes = b"0", **fields: bytes) -> bytes:
    raw = name.encode() if isinstance(name, str) else name
    return header(raw, len(data), flag, **fields) + padded(data)


def link(name: str, target: str | bytes) -> bytes:
    return member(name, flag=b"2", link=target.encode() if isinstance(target, str) else target)


def hard_link(name: str, target: str) -> bytes:
    return member(name, flag=b"1", link=target.encode())


def pax(records: dict[str, bytes | str], flag: bytes = b"x") -> bytes:
    data = b""
    for key, value in records.items():
        body = b" " + key.encode() + b"=" + (value.encode() if isinstance(value, str) else value) + b"\n"
        length = len(body)
        while len(str(length)) + len(body) != length:
            length = len(str(length)) + len(body)
        data += str(length).encode() + body
    return member(b"pax", data, flag)


def long_name(name: bytes, flag: bytes = b"L") -> bytes:
    return member(b"././@LongLink", name + b"\0", flag, magic=b"ustar  \0")


def archive(*members: bytes, end: bytes = END) -> bytes:
    return gzip.compress(b"".join(members) + end, 6, mtime=0)


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
