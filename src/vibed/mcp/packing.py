"""The files of a call as a source."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Mapping

from vibed.mcp.arguments import Binary, invalid

Pack = Callable[[str], bytes]
"""Makes a source of a folder of this machine, named as a user would. Blocking; raises `VibedError`."""


async def packed(files: Mapping[str, str | Binary]) -> bytes:
    """The same files make the same bytes. Raises `VibedError` for names and contents that cannot be."""
    from vibed.sources.pack import pack_files

    content: dict[str, str | bytes] = {}
    for name, file in files.items():
        if isinstance(file, str):
            content[name] = file
            continue
        try:
            content[name] = base64.b64decode(file.base64, validate=True)
        except (binascii.Error, ValueError) as error:
            raise invalid(f"{name[:100]!r} is not base64: {error}", "encode the file's bytes, or send text") from error
    return await asyncio.to_thread(pack_files, content)
