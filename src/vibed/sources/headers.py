"""Fields of a tar header: POSIX ustar, pax, GNU and the old v7 format.

Stricter than most programs on purpose: what two programs could read differently is refused (`CorruptArchive`),
since the source is read again by the agent inside the sandbox. Sources: POSIX.1-2017 pax(1); the GNU tar manual,
"Basic Tar Format"."""

from __future__ import annotations

import re

from vibed.sources.errors import AbsolutePath, BadName, CorruptArchive, PathTooLong, PathTraversal, quoted
from vibed.sources.limits import ArchiveLimits

BLOCK = 512
ZERO = bytes(BLOCK)

_BAD_BYTES = re.compile(rb"[\x00-\x1f\x7f\\]")
_BAD_WIDE = re.compile("[\x80-\x9f\u2028\u2029\ufffe\uffff]")


def checksum_fits(block: bytes) -> bool:
    """Whether the header's checksum is right, as unsigned or (old programs) as signed bytes."""
    field = block[148:156].strip(b" \0")
    if not field.isdigit():
        return False
    try:
        wanted = int(field, 8)
    except ValueError:
        return False
    total = sum(block) - sum(block[148:156]) + 256
    if total == wanted:
        return True
    high = sum(1 for byte in block[:148] + block[156:] if byte > 127)
    return total - 256 * high == wanted


def number(field: bytes) -> int:
    """An octal or base-256 number; raises `CorruptArchive` for anything else and for negative ones."""
    if field[0] & 0x80:
        if field[0] != 0x80:
            raise CorruptArchive("a tar header holds a negative or absurd number")
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if not digits.isdigit():
        raise CorruptArchive("a tar header holds a number that is not octal")
    try:
        return int(digits, 8)
    except ValueError:
        raise CorruptArchive("a tar header holds a number that is not octal") from None


def header_name(block: bytes) -> bytes:
    """The name in the header itself, with the prefix where the format has one."""
    name = block[:100].partition(b"\0")[0]
    if block[257:263] == b"ustar\0":
        # star keeps two times behind a shorter prefix and marks it with "tar" at the very end.
        end = 476 if block[508:512] == b"tar\0" else 500
        prefix = block[345:end].partition(b"\0")[0]
        if prefix:
            return prefix + b"/" + name
    return name


def pax_records(data: bytes) -> dict[str, bytes]:
    """The records of a pax header; the last of a repeated key wins, as everywhere."""
    records: dict[str, bytes] = {}
    position = 0
    end = len(data)
    while position < end:
        space = data.find(b" ", position, position + 12)
        length = data[position:space] if space > 0 else b""
        if not length.isdigit():
            if not data[position:].strip(b"\0"):
                break
            raise CorruptArchive("a pax header is malformed")
        stop = position + int(length)
        equals = data.find(b"=", space, stop)
        if stop > end or equals < 0 or data[stop - 1 : stop] != b"\n":
            raise CorruptArchive("a pax header is malformed")
        key = data[space + 1 : equals].decode("utf-8", "replace")
        value = data[equals + 1 : stop - 1]
        if key in ("path", "linkpath") and b"\0" in value:
            raise BadName(f"a NUL byte is in the name {quoted(value)}", hint="rename the file")
        records[key] = value
        position = stop
    return records


def pax_size(value: bytes) -> int:
    """The `size` record: decimal."""
    if not value.isdigit() or len(value) > 18:
        raise CorruptArchive("a pax header holds a size that is not a number")
    return int(value)


def clean_path(raw: bytes, limits: ArchiveLimits, *, what: str = "the name") -> str:
    """A member's name as a relative POSIX path; `""` for the root itself (`.` or `./`).

    A leading `./` is dropped. Raises `AbsolutePath`, `PathTraversal`, `BadName`, `PathTooLong`.
    """
    if len(raw) > limits.path:
        raise PathTooLong(
            f"{what} {quoted(raw)} has {len(raw)} bytes; at most {limits.path} are accepted",
            hint="shorten the names of folders or files",
        )
    bad = _BAD_BYTES.search(raw)
    if bad:
        char = bad.group()
        sort = "a backslash" if char == b"\\" else f"the control character 0x{char[0]:02x}"
        raise BadName(f"{what} {quoted(raw)} contains {sort}", hint="rename it; separate folders with /")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise BadName(
            f"{what} {quoted(raw)} is not UTF-8", hint="rename it, or make the archive in a UTF-8 locale"
        ) from None
    if not text.isascii() and _BAD_WIDE.search(text):
        raise BadName(f"{what} {quoted(text)} contains a control character", hint="rename it")
    while text.startswith("./"):
        text = text[2:]
    if text in ("", "."):
        if not raw:
            raise BadName("a member has no name")
        return ""
    if text[0] == "/":
        raise AbsolutePath(
            f"{what} {quoted(text)} begins with /", hint="make the archive from inside the folder: tar -C DIR ."
        )
    parts = text.split("/")
    if ".." in parts:
        raise PathTraversal(
            f"{what} {quoted(text)} climbs out of the archive with ..", hint="use names below the folder"
        )
    if "" in parts or "." in parts:
        raise BadName(f"{what} {quoted(text)} has an empty or ‘.’ part", hint="write each path in its shortest form")
    if len(parts) > limits.depth:
        raise PathTooLong(
            f"{what} {quoted(text)} is {len(parts)} folders deep; at most {limits.depth} are accepted",
            hint="make the folders flatter",
        )
    if len(raw) > limits.component and max(len(part.encode()) for part in parts) > limits.component:
        raise PathTooLong(f"a part of {what} {quoted(text)} is longer than {limits.component} bytes", hint="shorten it")
    return text
