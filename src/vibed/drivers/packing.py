"""Archives that vibeD writes for sandboxes."""

from __future__ import annotations

import asyncio
import gzip
import io
import tarfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar

from vibed.drivers.refused import as_a_failed_run

T = TypeVar("T")


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


@asynccontextmanager
async def beside(packing: AbstractContextManager[T]) -> AsyncIterator[T]:
    """What blocks while it makes something of an app's source, and while that goes: in threads. Raises `RunFailed` for
    an `ArchiveError`.
    """
    with as_a_failed_run():
        made = await asyncio.to_thread(packing.__enter__)
    try:
        yield made
    finally:
        await asyncio.to_thread(packing.__exit__, None, None, None)
