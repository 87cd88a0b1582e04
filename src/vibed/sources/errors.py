"""Why a source is refused: one type, and one stable code, for each reason.

docs/reference/archives.md lists them all; a test fails when one is missing there.
"""

from __future__ import annotations

import errno
import os

from vibed.apps.errors import VibedError

_SHOWN = 80


def quoted(name: str | bytes) -> str:
    """A member's name for a message: one line, printable ASCII or plain letters, at most 80 characters."""
    text = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else name
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    if len(safe) > _SHOWN:
        safe = f"{safe[:48]}…{safe[-28:]}"
    return f"‘{safe}’"


class ArchiveError(VibedError):
    """The archive is refused. It is the archive's fault, so the same bytes will be refused again."""

    code = "ArchiveRefused"
    status = 400


class NotGzip(ArchiveError):
    """The bytes are not gzip: a plain tar, a zip, something else, or none at all."""

    code = "NotGzip"


class CorruptArchive(ArchiveError):
    """The compressed data or a header inside it is damaged, or says two things at once."""

    code = "CorruptArchive"


class TruncatedArchive(ArchiveError):
    """The archive ends before its own end mark."""

    code = "TruncatedArchive"


class TrailingData(ArchiveError):
    """Something follows the end of the archive: another gzip member, or bytes that two programs may read
    differently."""

    code = "TrailingData"


class NotTar(ArchiveError):
    """What is compressed is not a tar archive."""

    code = "NotTar"


class EmptyArchive(ArchiveError):
    """There is no file in it."""

    code = "EmptyArchive"


class PathTraversal(ArchiveError):
    """A member's name climbs out of the tree with `..`."""

    code = "PathTraversal"


class AbsolutePath(ArchiveError):
    """A member's name begins with `/`."""

    code = "AbsolutePath"


class BadName(ArchiveError):
    """A member's name cannot be used as a path on every system it would meet."""

    code = "BadName"


class PathTooLong(ArchiveError):
    """A member's name, or one part of it, is too long or too deep."""

    code = "PathTooLong"


class DuplicateName(ArchiveError):
    """Two members claim one path, or one path is a file and a directory."""

    code = "DuplicateName"


class LinkOutside(ArchiveError):
    """A link points out of the tree."""

    code = "LinkOutside"


class DanglingLink(ArchiveError):
    """A link points at nothing in the archive, or in a circle."""

    code = "DanglingLink"


class DirectoryLink(ArchiveError):
    """A link points at a directory; only links to files are carried over."""

    code = "DirectoryLink"


class DeviceFile(ArchiveError):
    """A member is a device or a named pipe."""

    code = "DeviceFile"


class SparseFile(ArchiveError):
    """A member is stored sparse: a few bytes that claim to be many."""

    code = "SparseFile"


class UnsupportedMember(ArchiveError):
    """A member of a kind that no source needs (volume label, multi-volume piece, dump directory)."""

    code = "UnsupportedMember"


class TooManyFiles(ArchiveError):
    """More members than the limit."""

    code = "TooManyFiles"
    status = 413


class TooLarge(ArchiveError):
    """The compressed archive is larger than the limit."""

    code = "TooLarge"
    status = 413


class ExpandedTooLarge(ArchiveError):
    """What the archive expands to is larger than the limit."""

    code = "ExpandedTooLarge"
    status = 413


class FileTooLarge(ArchiveError):
    """One member is larger than the limit for a single file."""

    code = "FileTooLarge"
    status = 413


class CompressionRatio(ArchiveError):
    """The archive expands to so many times its size that it is a bomb, or may as well be one."""

    code = "CompressionRatio"
    status = 413


class StorageFull(VibedError):
    """The disk (or a quota on it) is full; nothing of the source was kept."""

    code = "StorageFull"
    status = 507
    retryable = True


class StorageFailed(VibedError):
    """The disk refused a write or a sync; nothing is acknowledged."""

    code = "StorageFailed"
    status = 503
    retryable = True


class SourceMissing(VibedError):
    """The store has no source of this digest."""

    code = "SourceMissing"
    status = 404


class SignatureRefused(VibedError):
    """A signed URL was altered, is for something else, or has expired."""

    code = "SignatureRefused"
    status = 403


class SourceDamaged(VibedError):
    """What the source store gave is not the source that was stored: cut off, or changed. It was not used."""

    code = "SourceDamaged"
    status = 502

    @classmethod
    def of(cls, digest: str, what: str) -> SourceDamaged:
        """`what` is wrong with the source of this digest."""
        return cls(
            f"the source {digest[:12]}… is damaged: {what}",
            hint="deploy the same source again, which stores it again; if that does not help, something between vibeD"
            " and the source store changes what passes through it",
        )


class SourceStoreUnreachable(VibedError):
    """Nothing answers where the source store should be, or it broke the connection off."""

    code = "SourceStoreUnreachable"
    status = 503
    retryable = True


class SourceStoreSlow(VibedError):
    """The source store did not do its work in time, or asked for fewer requests."""

    code = "SourceStoreSlow"
    status = 503
    retryable = True


class SourceStoreFailed(VibedError):
    """The source store said that something is wrong with itself, or what vibeD does not understand."""

    code = "SourceStoreFailed"
    status = 503
    retryable = True


class SourceStoreRefused(VibedError):
    """The source store does not let vibeD in, or not do this: for the operator to put right."""

    code = "SourceStoreRefused"
    status = 503


class BucketMissing(VibedError):
    """The source store has no bucket of that name: for the operator to put right."""

    code = "BucketMissing"
    status = 503


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def storage_error(error: OSError, doing: str) -> VibedError:
    """The error for a write that the disk refused while `doing` something."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in _FULL:
        return StorageFull(
            f"no room on the disk while {doing}: {reason}",
            hint="free some space (old versions and logs are the first to go), then deploy again",
        )
    return StorageFailed(f"the disk failed while {doing}: {reason}", hint="see the machine's kernel log")
