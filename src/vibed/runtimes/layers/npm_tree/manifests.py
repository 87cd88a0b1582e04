"""What packages say of how they are installed, read out of their tarballs: by a program that is confined as what lays
them out is (`laying`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vibed.runtimes.gate import Gate
from vibed.runtimes.layers.npm_tree.laying import done_by_orders
from vibed.runtimes.layers.npm_tree.plan import Left
from vibed.runtimes.layers.reading import Ended
from vibed.supervision.host import Host

_MOST_SAID = 64 << 20
_OUTCOME = "/made/said.json"


async def said(host: Host, place: Path, orders: Mapping[str, Any], gate: Gate, *, most_bytes: int) -> Mapping[str, Any]:
    """What the packages of orders say, by their folders. `place`: an empty folder of ours. Raises Left, OSError."""
    try:
        file, _ = await done_by_orders(
            host, place, orders, gate, most_bytes=most_bytes, made=_OUTCOME, options=("--manifests",)
        )
    except Ended as error:
        raise Left(str(error)) from error
    if file.stat().st_size > _MOST_SAID:
        raise Left("the packages say too much")
    try:
        found: Any = json.loads(await asyncio.to_thread(file.read_bytes))
    except ValueError as error:
        raise Left(f"what the packages say makes no sense: {error}") from error
    return found if isinstance(found, dict) else {}
