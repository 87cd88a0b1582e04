"""Archives that vibeD writes for sandboxes."""

from __future__ import annotations

import asyncio
import gzip
import io
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from vibed.drivers.refused import as_a_failed_run
from vibed.sources import room
from vibed.sources.allotment import Allotment
from vibed.sources.errors import storage_error
from vibed.sources.limits import DEFAULT_LIMITS, ArchiveLimits
from vibed.sources.receiving import in_thread

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

SPARE = 256 << 20
"""Bytes beyond what the largest source takes: small ones need not wait for it."""
_HEADERS = 2048
"""Of a file in an archive, with the record of a long name."""
_ENDS = 64 << 10
"""What an archive has besides."""


def packed(files: Mapping[str, bytes]) -> bytes:
    """A tar.gz of a few small files, by their names."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in files.items():
            add(archive, name, content)
    return out.getvalue()


@contextmanager
def compressed(path: Path) -> Iterator[tarfile.TarFile]:
    """A tar.gz that is written while a run waits for it. Blocking. Raises OSError."""
    with gzip.open(path, "wb", compresslevel=1) as out, tarfile.open(fileobj=out, mode="w|") as archive:
        yield archive


def add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    """Write one file."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    archive.addfile(member, io.BytesIO(content))


def most_of(limits: ArchiveLimits) -> int:
    """Bytes that packing the largest source takes on the disk."""
    return needed((limits.expanded + (limits.files + 1) * room.BLOCK, limits.files + 1))


def room_of(limits: ArchiveLimits) -> int:
    """Bytes for packing as many as come; the chart makes the volume so large. What was taken before the operator has
    lowered `limits` is packed, too, as far as it kept to what is usual.
    """
    return max(most_of(limits), most_of(DEFAULT_LIMITS)) + SPARE


def needed(tree: tuple[int, int]) -> int:
    """Bytes that packing takes on the disk: all that is unpacked (`extraction.unpacked_tree`), beside an archive of it
    that is no smaller.
    """
    unpacked, count = tree
    return 2 * unpacked + count * _HEADERS + _ENDS


class Plan(Protocol[T_co]):
    """What is to be packed, known from its source's table."""

    @property
    def needs(self) -> int:
        """Bytes that it takes on the disk while it is packed, at most (`needed`)."""
        ...

    def pack(self, folder: Path) -> T_co:
        """Write it to an empty folder, which is all that it takes. Blocking. Raises `ArchiveError`, `RunFailed`,
        OSError.
        """
        ...


class Packing:
    """Packs apps' sources below the temporary folder: as many at a time as it has room for, whatever they are."""

    def __init__(self, most: int) -> None:
        """`most`: bytes that it takes there at a time."""
        self.room = Allotment(most)

    @asynccontextmanager
    async def of(self, planned: Callable[[], Plan[T]]) -> AsyncIterator[T]:
        """What a plan packs, while the context lasts. `planned` reads the table, and blocks. Raises `RunFailed` (for an
        `ArchiveError`, too), `VibedError`, OSError.
        """
        with _told():
            plan = await asyncio.to_thread(planned)
        async with self.room.take(plan.needs) as promise:
            with _told():
                folder = Path(tempfile.mkdtemp(prefix="vibed-packing-"))
            try:
                with _told():
                    made = await in_thread(plan.pack, folder)
                # what it was made of is gone, and it may wait for a pod
                promise.shrink(await asyncio.to_thread(_taken, folder))
                yield made
            finally:
                await in_thread(shutil.rmtree, folder, True)


def _taken(folder: Path) -> int:
    return sum(room.on_disk(path.lstat().st_size) for path in folder.rglob("*"))


@contextmanager
def _told() -> Iterator[None]:
    try:
        with as_a_failed_run():
            yield
    except OSError as error:
        raise storage_error(error, "packing the source") from error
