"""A plan is carried out: tarballs from the registry gate become the image of a layer, and nothing of them runs.

So it takes no builder. What reads them (`vibed-agent npmtree`) is confined as what reads a builder's tarball is, and
reaches the gate by its socket.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vibed.runtimes.gate import Gate
from vibed.runtimes.layers.imaging import failure
from vibed.runtimes.layers.npm_tree.plan import Left, Plan
from vibed.runtimes.layers.reading import FILES, IMAGE, Ended, image_of
from vibed.supervision.host import Host


@dataclass(frozen=True, slots=True)
class Laid:
    """See the module's docstring."""

    image: Path
    scripts: tuple[str, ...]
    """Folders of packages that have install scripts, which did not run."""


async def lay(host: Host, place: Path, plan: Plan, gate: Gate, *, most_bytes: int) -> Laid:
    """`place`: an empty folder of ours. Raises Left, ImageFailed (it is too large), OSError."""
    try:
        image, said = await done_by_orders(host, place, plan.orders, gate, most_bytes=most_bytes)
    except Ended as error:
        if error.status != 122:
            raise Left(str(error)) from error
        raise failure(error) from error
    scripts: object = None
    with contextlib.suppress(ValueError, AttributeError):
        scripts = json.loads(said).get("scripts") or []
    if not isinstance(scripts, list):
        raise Left("it does not say which packages have scripts")
    return Laid(image, tuple(map(str, scripts)))


async def done_by_orders(
    host: Host,
    place: Path,
    orders: Mapping[str, Any],
    gate: Gate,
    *,
    most_bytes: int,
    made: str = IMAGE,
    options: Sequence[str] = (),
) -> tuple[Path, bytes]:
    """What `vibed-agent npmtree` makes of orders, in an empty folder, and what it says. Raises Ended, OSError."""
    told = place / "orders.json"
    told.write_text(json.dumps(orders))
    told.chmod(0o644)
    binds = {"/orders.json": told, "/gate": gate.mount.source}
    argv = ["npmtree", *options, made, "/orders.json", "/gate/registry.sock"]
    argv += ["--max-bytes", str(most_bytes), "--max-files", str(FILES)]
    return await image_of(host, place, argv, binds=binds, made=made)
