"""Images that builder sandboxes have beside a source: made on first need, named by what decides their content."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from vibed.apps.errors import VibedError
from vibed.runtimes import commands
from vibed.runtimes.exclusive import exclusive
from vibed.runtimes.tool import ToolError
from vibed.runtimes.trees import normalise, remove, sync

_UUID = "76696265-4400-4000-8000-000000000003"


def name_of(facts: Iterable[str]) -> str:
    """The file name of an image that these facts decide."""
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16] + ".erofs"


def log_of(image: Path) -> Path:
    """Where the programs that make an image write to."""
    return image.parent / "tools.log"


async def made(image: Path, fill: Callable[[Path], Awaitable[None]], *, what: str, deadline_s: float) -> Path:
    """`image`, there: if it was not, `fill` fills a folder (which it makes) and the image of that is kept. Earlier
    images of the same folder go.

    Raises ToolError, in which `what` names it.
    """
    if image.is_file():
        return image
    try:
        async with exclusive(image.parent / ".busy", deadline_s=deadline_s), asyncio.timeout(deadline_s):
            if not image.is_file():
                await _make(image, fill, deadline_s)
    except TimeoutError:
        raise ToolError(what, f"their image was not made within {deadline_s:g} s") from None
    except (commands.CommandFailed, OSError, ValueError) as error:
        raise ToolError(what, f"their image could not be made: {error}") from error
    except ToolError:
        raise
    except VibedError as error:
        raise ToolError(what, error.message, error.hint) from error
    return image


async def _make(image: Path, fill: Callable[[Path], Awaitable[None]], deadline_s: float) -> None:
    folder = image.parent
    for stale in folder.glob(".making-*"):
        await asyncio.to_thread(remove, stale)
    staging = Path(tempfile.mkdtemp(dir=folder, prefix=".making-"))
    try:
        root, fresh = staging / "root", staging / "fresh.erofs"
        await fill(root)
        await asyncio.to_thread(normalise, root)
        # noinline_data: gVisor cannot map files whose tail lies in their inode
        argv = ["mkfs.erofs", "-E", "noinline_data", "-T0", "-U", _UUID, "-x-1", "--all-root", "--quiet"]
        await commands.run([*argv, str(fresh), str(root)], log=log_of(image), deadline_s=deadline_s)
        fresh.chmod(0o644)
        await asyncio.to_thread(sync, fresh)
        fresh.rename(image)
        await asyncio.to_thread(sync, folder)
        for earlier in folder.glob("*.erofs"):
            if earlier != image:  # whoever has it mounted keeps it
                earlier.unlink()
    finally:
        await asyncio.to_thread(remove, staging)
