"""Kits: what builder sandboxes have beside a source, whoever's it is: installers, compilers, headers.

On one machine a kit is an image that is mounted (`boxes`). On a cluster it is a tar.gz, which vibeD's image brings and
a builder is sent when what it does takes it.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import os
import tarfile
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vibed.apps.errors import VibedError
from vibed.runtimes import commands
from vibed.runtimes.exclusive import exclusive
from vibed.runtimes.tool import ToolError
from vibed.runtimes.trees import normalise, remove, sync

Fill = Callable[[Path, Path], Awaitable[Mapping[str, str]]]
"""Makes a folder of what is in a kit, and says the versions of Debian's packages in it. Its programs write to the
second path. Raises `VibedError`, `CommandFailed`, OSError, ValueError.
"""
_LEVEL = 6
"""Of compression: a kit is made once, and unpacked by every builder that has it."""
_DEADLINE_S = 1800.0


@dataclass(frozen=True, slots=True)
class Kit:
    """See the module's docstring."""

    name: str
    what: str
    """As errors call it."""
    facts: tuple[str, ...]
    """They decide its content."""
    fill: Fill

    @property
    def digest(self) -> str:
        """Of its facts: 16 digits."""
        return hashlib.sha256("\n".join(self.facts).encode()).hexdigest()[:16]

    @property
    def file(self) -> str:
        """Its name, packed."""
        return f"{self.name}-{self.digest}.tar.gz"


@dataclass(frozen=True, slots=True)
class Packed:
    """A kit as a file."""

    path: Path
    debian: Mapping[str, str]
    """Debian package -> version, of what is in it."""


async def packed(kit: Kit, folder: Path, *, fresh: bool = False) -> Packed:
    """A kit in `folder`: made if it is not there, or if it is to be `fresh`; an earlier one of its name goes. Raises
    ToolError.
    """
    final = folder / kit.file
    record = final.with_suffix(".json")
    try:
        async with exclusive(folder / ".busy", deadline_s=_DEADLINE_S), asyncio.timeout(_DEADLINE_S):
            if fresh or not final.is_file() or not record.is_file():
                await _make(kit, final, record)
            return Packed(final, json.loads(record.read_text()))
    except TimeoutError:
        raise ToolError(kit.what, f"they were not packed within {_DEADLINE_S:g} s") from None
    except (commands.CommandFailed, OSError, ValueError) as error:
        raise ToolError(kit.what, f"they could not be packed: {error}") from error
    except ToolError:
        raise
    except VibedError as error:
        raise ToolError(kit.what, error.message, error.hint) from error


async def _make(kit: Kit, final: Path, record: Path) -> None:
    staging = Path(tempfile.mkdtemp(dir=final.parent, prefix=".making-"))
    try:
        debian = await kit.fill(staging / "root", final.parent / "kits.log")
        await asyncio.to_thread(normalise, staging / "root")
        await asyncio.to_thread(pack_tree, staging / "root", staging / "packed")
        await asyncio.to_thread(sync, staging / "packed")
        for earlier in final.parent.glob(f"{kit.name}-{'[0-9a-f]' * 16}.*"):
            earlier.unlink()
        record.write_text(json.dumps(dict(sorted(debian.items()))))
        (staging / "packed").rename(final)
    finally:
        await asyncio.to_thread(remove, staging)


class Kits:
    """Those of a cluster."""

    def __init__(self, brought: Path, own: Path) -> None:
        """`brought`: the folder that vibeD's image has them in; where there is none, they are made in `own`."""
        self._brought = brought
        self._own = own

    def has(self, kit: Kit) -> bool:
        """Whether it can be had. Blocking."""
        return not self._brought.is_dir() or (self._brought / kit.file).is_file()

    async def packed(self, kit: Kit) -> Path:
        """Its tar.gz. Raises ToolError."""
        if await asyncio.to_thread(self._brought.is_dir):
            return self._brought / kit.file
        return (await packed(kit, self._own)).path


def pack_tree(root: Path, into: Path) -> None:
    """A tar.gz of a folder, the same for the same files. Blocking. Raises OSError."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.mtime = 0
        member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
        return member

    with (
        into.open("wb") as out,
        gzip.GzipFile("", "wb", _LEVEL, out, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as archive,
    ):
        for path in sorted(root.iterdir()):
            archive.add(path, path.name, filter=plain)


def lead_within(root: Path) -> None:
    """Have links of a system's root lead within the folder that it is in, and not to the machine's. Blocking. Raises
    OSError.
    """
    for folder, names, files in os.walk(root):
        for path in (Path(folder, name) for name in (*names, *files)):
            if path.is_symlink() and (target := path.readlink()).is_absolute():
                path.unlink()
                path.symlink_to(os.path.relpath(root / target.relative_to("/"), folder))
