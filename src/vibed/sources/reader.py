"""The one reader of source archives, for every caller: upload, drivers, bundler, CLI and MCP.

`read_table` makes one streaming pass over the gzipped tar, refuses what is unsafe or ambiguous (each reason with
its own code: `vibed.sources.errors`), and writes nothing. What it accepts every later step may trust."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path

from vibed.sources.errors import (
    ArchiveError,
    BadName,
    CorruptArchive,
    DanglingLink,
    DeviceFile,
    DirectoryLink,
    DuplicateName,
    EmptyArchive,
    ExpandedTooLarge,
    FileTooLarge,
    LinkOutside,
    NotTar,
    SparseFile,
    TooManyFiles,
    TruncatedArchive,
    UnsupportedMember,
    quoted,
)
from vibed.sources.headers import BLOCK, ZERO, checksum_fits, clean_path, header_name, number, pax_records, pax_size
from vibed.sources.inflate import READ, Inflated, size_text
from vibed.sources.limits import DEFAULT_LIMITS, ArchiveLimits
from vibed.sources.links import of_a_tool
from vibed.sources.table import ArchiveTable, Entry, Kind
from vibed.sources.texts import Kept, excerpt, read_for, wanted

_REGULAR = frozenset(b"0\x007")
_DEVICES = {ord("3"): "a character device", ord("4"): "a block device", ord("6"): "a named pipe"}
_LINK_STEPS = 40
"""As many as Linux follows (path_resolution(7))."""


def read_table(path: Path, limits: ArchiveLimits = DEFAULT_LIMITS) -> ArchiveTable:
    """Read the table of the archive at `path`. Raises `ArchiveError` subclasses; `OSError` only for the file
    itself."""
    fd = os.open(path, READ)
    try:
        return _Reading(fd, limits).run()
    finally:
        os.close(fd)


class _Reading:
    """One pass over one archive."""

    def __init__(self, fd: int, limits: ArchiveLimits) -> None:
        self._limits = limits
        self._stream = Inflated(fd, limits)
        self._entries: list[Entry] = []
        self._paths: dict[str, Kind] = {}
        self._links: dict[str, tuple[str, bool]] = {}
        self._passed_over: list[str] = []
        self._kept = Kept()
        self._long_name: bytes | None = None
        self._long_link: bytes | None = None
        self._pax: dict[str, bytes] = {}

    def run(self) -> ArchiveTable:
        stream = self._stream
        position = 0
        members = 0
        while True:
            if len(stream.buffer) - position < BLOCK:
                have = stream.fill(position, BLOCK)
                position = 0
                if have < BLOCK:
                    self._refuse_end(members, have)
            block = stream.buffer[position : position + BLOCK]
            if block == ZERO:
                break
            if not checksum_fits(block):
                self._refuse_header(members)
            members += 1
            if members > 4 * self._limits.files:
                # Headers that make no path of their own are bounded as well.
                self._refuse_count()
            position = self._member(block, position + BLOCK)
        if self._long_name is not None or self._long_link is not None or self._pax:
            raise CorruptArchive("the archive ends after an extended header, before the member it describes")
        stream.finish(position)
        return self._finish()

    def _member(self, block: bytes, position: int) -> int:
        """Take in one member whose content begins at `position` in the buffer; returns where the next header is."""
        flag = block[156]
        size = number(block[124:136])
        if flag not in _REGULAR and flag not in b"125":
            return self._special(flag, block, size, position)
        pax = self._pax
        raw, link = self._long_name, self._long_link
        if pax:
            if (raw is not None and "path" in pax) or (link is not None and "linkpath" in pax):
                raise CorruptArchive("a pax header and a GNU long name describe one member")
            if "path" in pax:
                raw = pax["path"]
            if "linkpath" in pax:
                link = pax["linkpath"]
            if "size" in pax:
                size = pax_size(pax["size"])
            if any(key.startswith("GNU.sparse") for key in pax):
                raise SparseFile(
                    f"{quoted(raw or header_name(block))} is stored as a sparse file", hint="tar without --sparse"
                )
            self._pax = {}
        if raw is None:
            raw = header_name(block)
        self._long_name = self._long_link = None
        if raw[-1:] == b"/":
            if flag == 0 or (flag == 48 and size == 0):
                flag = 53
            elif flag != 53:
                raise BadName(f"the name {quoted(raw)} of a file ends with /", hint="make the archive again with tar")
            raw = raw[:-1] or b"/"
        name = clean_path(raw, self._limits)
        if flag in b"125":
            if size:
                raise CorruptArchive(f"{quoted(name)} is not a file but has content")
            self._unfilled(name, flag, block, link)
            return position
        if not name:
            raise BadName("a file has the name of the archive's root", hint="make the archive again with tar")
        if size > self._limits.file:
            raise FileTooLarge(
                f"{quoted(name)} has {size_text(size)}; one file may have {size_text(self._limits.file)}",
                hint="leave it out or fetch it when the app starts",
            )
        self._claim(name, Kind.FILE)
        mode = number(block[100:108]) & 0o755
        stream = self._stream
        self._entries.append(Entry(name, Kind.FILE, size, mode, stream.base + position))
        head = wanted(name, bool(mode & 0o100))
        if head and size:
            read = read_for(name, head, size)
            if len(stream.buffer) - position < read:
                have = stream.fill(position, read)
                position = 0
                if have < read:
                    self._refuse_cut(name)
            self._kept.add(name, excerpt(stream.buffer[position : position + read], head))
        elif head:
            self._kept.add(name, b"")
        return self._pass(position, size, name)

    def _pass(self, position: int, size: int, name: str) -> int:
        padded = (size + BLOCK - 1) & -BLOCK
        end = position + padded
        if end <= len(self._stream.buffer):
            return end
        if self._stream.skip(position, padded):
            self._refuse_cut(name)
        return 0

    def _unfilled(self, name: str, flag: int, block: bytes, link: bytes | None) -> None:
        if flag == 53:
            if name and self._paths.get(name) is not Kind.DIRECTORY:
                self._claim(name, Kind.DIRECTORY)
            if name:
                self._entries.append(Entry(name, Kind.DIRECTORY, 0, number(block[100:108]) & 0o755, 0))
            return
        if not name:
            raise BadName("a link has the name of the archive's root", hint="make the archive again with tar")
        target = link if link is not None else block[157:257].partition(b"\0")[0]
        hard = flag == 49
        try:
            end = self._inside(name, target, hard)
        except ArchiveError:
            if not of_a_tool(name):
                raise
            self._pass_over(name)
            return
        self._claim(name, Kind.LINK)
        self._links[name] = (end, hard)
        self._entries.append(Entry(name, Kind.LINK, 0, number(block[100:108]) & 0o755, 0))

    def _inside(self, name: str, target: bytes, hard: bool) -> str:
        """Where a link points, as a path of the archive."""
        if not target:
            raise DanglingLink(f"the link {quoted(name)} points at nothing", hint="replace it by the file")
        hint = "leave it out (tar --exclude), or replace it by the file it points at (tar -h does that)"
        if hard:
            try:
                return clean_path(target, self._limits, what="the target of a hard link")
            except ArchiveError as error:
                raise LinkOutside(f"the hard link {quoted(name)}: {error.message}", hint=hint) from None
        try:
            text = target.decode("utf-8")
        except UnicodeDecodeError:
            raise BadName(f"the target of the link {quoted(name)} is not UTF-8", hint=hint) from None
        if text.startswith("/"):
            raise LinkOutside(f"the link {quoted(name)} points at {quoted(text)}, outside of the archive", hint=hint)
        joined = posixpath.normpath(posixpath.join(posixpath.dirname(name), text))
        if joined == ".." or joined.startswith("../"):
            raise LinkOutside(f"the link {quoted(name)} points at {quoted(text)}, outside of the archive", hint=hint)
        # `x/../..` leaves the tree for a moment even where it comes back: nobody needs it.
        depth = name.count("/")
        for part in text.split("/"):
            depth += -1 if part == ".." else 0 if part in ("", ".") else 1
            if depth < 0:
                raise LinkOutside(
                    f"the link {quoted(name)} points at {quoted(text)}, outside of the archive", hint=hint
                )
        return "" if joined == "." else joined

    def _pass_over(self, name: str) -> None:
        self._passed_over.append(name)
        if len(self._passed_over) > self._limits.files:
            self._refuse_count()

    def _special(self, flag: int, block: bytes, size: int, position: int) -> int:
        name = header_name(block)
        if flag in _DEVICES:
            raise DeviceFile(
                f"{quoted(name)} is {_DEVICES[flag]}", hint="leave it out; only files and folders are deployed"
            )
        if flag == ord("S"):
            raise SparseFile(f"{quoted(name)} is stored as a sparse file", hint="tar without --sparse")
        if flag not in b"xgLK":
            raise UnsupportedMember(
                f"{quoted(name)} is a member of the unknown kind {quoted(bytes([flag]))}", hint="use plain tar"
            )
        if size > self._limits.header:
            raise CorruptArchive(f"an extended header has {size_text(size)}")
        have = self._stream.fill(position, size)
        if have < size:
            self._refuse_cut("an extended header")
        data = self._stream.buffer[:size]
        if flag == ord("x"):
            if self._pax:
                raise CorruptArchive("two pax headers describe one member")
            self._pax = pax_records(data)
        elif flag == ord("g"):
            common = pax_records(data)
            refused = [key for key in common if key in ("path", "linkpath", "size") or key.startswith("GNU.sparse")]
            if refused:
                raise UnsupportedMember(f"a global header sets {refused[0]} for every member", hint="use plain tar")
        else:
            text = data.rstrip(b"\0")
            if b"\0" in text:
                raise BadName(f"a NUL byte is in the name {quoted(text)}", hint="rename the file")
            if (self._long_name if flag == ord("L") else self._long_link) is not None:
                raise CorruptArchive("two long names are given to one member")
            if flag == ord("L"):
                self._long_name = text
            else:
                self._long_link = text
        return self._pass(0, size, "an extended header")

    def _claim(self, name: str, kind: Kind) -> None:
        paths = self._paths
        parent = name.rpartition("/")[0]
        if parent and paths.get(parent) is not Kind.DIRECTORY:
            self._claim_parents(parent)
        if name in paths:
            both = kind is not paths[name] and Kind.DIRECTORY in (kind, paths[name])
            raise DuplicateName(
                f"{quoted(name)} is both a file and a folder" if both else f"{quoted(name)} is in the archive twice",
                hint="make the archive afresh instead of appending to it",
            )
        paths[name] = kind
        if len(paths) > self._limits.files:
            self._refuse_count()

    def _claim_parents(self, parent: str) -> None:
        paths = self._paths
        while parent:
            found = paths.get(parent)
            if found is Kind.DIRECTORY:
                break
            if found is not None:
                raise DuplicateName(f"{quoted(parent)} is both a file and a folder", hint="make the archive afresh")
            paths[parent] = Kind.DIRECTORY
            parent = parent.rpartition("/")[0]

    def _finish(self) -> ArchiveTable:
        entries = self._entries
        if not any(entry.kind is not Kind.DIRECTORY for entry in entries):
            raise EmptyArchive("there is no file in the archive", hint="make it from the folder that holds the app")
        if self._links:
            entries = self._resolved()
        expanded = sum(entry.size for entry in entries)
        if expanded > self._limits.expanded:
            raise ExpandedTooLarge(
                f"the archive expands to {size_text(expanded)} when its links become copies; "
                f"at most {size_text(self._limits.expanded)} are accepted",
                hint="leave out the links",
            )
        texts, complete = self._kept.result()
        return ArchiveTable(
            tuple(entries), self._stream.compressed, expanded, texts, complete, tuple(self._passed_over)
        )

    def _resolved(self) -> list[Entry]:
        files = {entry.path: entry for entry in self._entries if entry.kind is Kind.FILE}
        resolved = []
        for entry in self._entries:
            if entry.kind is Kind.LINK:
                try:
                    end = files[self._end_of(entry.path)]
                except (DanglingLink, DirectoryLink) as error:
                    if not of_a_tool(entry.path, to_folder=isinstance(error, DirectoryLink)):
                        raise
                    self._pass_over(entry.path)
                    continue
                entry = entry._replace(size=end.size, mode=end.mode, target=end.path)
            resolved.append(entry)
        return resolved

    def _end_of(self, name: str) -> str:
        at = name
        for _ in range(_LINK_STEPS):
            at = self._links[at][0]
            found = self._paths.get(at) if at else Kind.DIRECTORY
            if found is Kind.FILE:
                return at
            if found is Kind.DIRECTORY:
                raise DirectoryLink(
                    f"the link {quoted(name)} points at the folder {quoted(at or '.')}",
                    hint="replace the link by a copy of the folder (tar -h does that)",
                )
            if found is None:
                raise DanglingLink(
                    f"the link {quoted(name)} points at {quoted(at)}, which is not in the archive",
                    hint="replace the link by the file it points at (tar -h does that)",
                )
        raise DanglingLink(f"the link {quoted(name)} goes in a circle", hint="replace the link by a file")

    def _refuse_end(self, members: int, have: int) -> None:
        if not members:
            if not have:
                raise EmptyArchive("there is nothing in the archive", hint="make it from the folder that holds the app")
            raise NotTar("what is compressed is not a tar archive", hint="tar -czf source.tar.gz -C DIR .")
        raise TruncatedArchive(
            "the tar archive has no end mark" if not have else "the tar archive ends in the middle of a header",
            hint="close the archive properly before sending it (two blocks of zeros end it)",
        )

    def _refuse_header(self, members: int) -> None:
        if not members:
            raise NotTar("what is compressed is not a tar archive", hint="tar -czf source.tar.gz -C DIR .")
        raise CorruptArchive(
            f"the header of member {members + 1} of the tar archive is damaged", hint="make the archive again"
        )

    def _refuse_count(self) -> None:
        raise TooManyFiles(
            f"there are more than {self._limits.files:,} files and folders in the archive",
            hint="leave out dependencies (node_modules, virtual environments), caches and .git",
        )

    def _refuse_cut(self, name: str) -> None:
        raise TruncatedArchive(
            f"the tar archive ends in the middle of {quoted(name)}", hint="make the archive again and send all of it"
        )
