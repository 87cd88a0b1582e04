"""A tarball that a builder sends becomes an EROFS image while it comes.

Whoever sends the tarball may be hostile, and so the program that reads it (`vibed-agent image`) has a sandbox of its
own (`reading`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from vibed.runtimes.layers.reading import DEADLINE_S, FILES, IMAGE, TOO_LONG, Ended, image_of
from vibed.supervision.host import Host


class ImageFailed(Exception):
    """The tarball was no layer, or is larger than one may be. The message says which."""

    code = "ImageFailed"


class Clash(ImageFailed):
    """What is to be taken over and what came do not go together."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What an image takes over from an earlier layer's."""

    image: Path
    packages: tuple[str, ...]
    """Lines that pin them."""


@asynccontextmanager
async def image_beside(
    host: Host, place: Path, *, most_bytes: int, take: Sequence[Taken], beyond: str
) -> AsyncIterator[Callable[[int], Awaitable[Path]]]:
    """As `make_image`, for a tarball that comes later, by its descriptor: what is taken over is written meanwhile."""
    if not take:
        yield lambda tarball: make_image(host, place, tarball, most_bytes=most_bytes, beyond=beyond)
        return
    ours, theirs = socket.socketpair()
    early = asyncio.create_task(
        make_image(host, place, theirs.fileno(), most_bytes=most_bytes, take=take, beyond=beyond, handed=True)
    )

    async def made(tarball: int) -> Path:
        with contextlib.suppress(OSError):  # it has ended, and says why
            socket.send_fds(ours, [b"\0"], [tarball])
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await asyncio.shield(early)
        except TimeoutError:
            raise ImageFailed(TOO_LONG) from None

    try:
        yield made
    finally:
        early.cancel()
        await asyncio.gather(early, return_exceptions=True)
        ours.close()
        theirs.close()


async def make_image(
    host: Host,
    place: Path,
    tarball: int | None,
    *,
    most_bytes: int,
    take: Sequence[Taken] = (),
    beyond: str = "",
    handed: bool = False,
) -> Path:
    """`place/layer.erofs` of what the descriptor gives (None: nothing), beside what it takes over; `place` is a folder
    of ours that the program gets for itself. `beyond`: a folder of the sandbox into which links may lead as well;
    `handed`: whether the descriptor is a socket by which that of the tarball comes.

    Raises ImageFailed, OSError.
    """
    held = {f"/held-{number}": one for number, one in enumerate(take)}
    taken = place / "taken.json"
    taken.write_text(json.dumps([{"image": at, "packages": one.packages} for at, one in held.items()]))
    taken.chmod(0o644)
    binds = {"/taken.json": taken, **{at: one.image for at, one in held.items()}}
    argv = ["image", IMAGE, "/taken.json", *(["--handed"] if handed else []), *(["--beyond", beyond] if beyond else [])]
    argv += ["--max-bytes", str(most_bytes), "--max-files", str(FILES)]
    # one that is to be handed over may take as long as what makes it
    deadline_s = None if handed else DEADLINE_S
    try:
        return (await image_of(host, place, argv, binds=binds, stdin=tarball, deadline_s=deadline_s))[0]
    except Ended as error:
        raise failure(error) from error


def failure(error: Ended) -> Exception:
    """What the end of a program that makes an image comes to."""
    text = str(error)
    if error.status == 121:
        return Clash(text)
    if error.status == 122:
        if "no space left" in text:
            return OSError(28, "no space left for a layer")
        return ImageFailed(f"what was installed is too large: {text.rpartition(': ')[2]}")
    return ImageFailed(text or f"the image could not be made: status {error.status}")
