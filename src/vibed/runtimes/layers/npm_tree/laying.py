"""A plan is carried out: tarballs from the registry gate become the image of a layer, and nothing of them runs.

So it takes no builder. What reads them (`vibed-agent npmtree`) is confined as what reads a builder's tarball is, and
reaches the gate by its socket.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

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
    orders = place / "orders.json"
    orders.write_text(json.dumps(plan.orders))
    orders.chmod(0o644)
    binds = {"/orders.json": orders, "/gate": gate.mount.source}
    argv = ["npmtree", IMAGE, "/orders.json", "/gate/registry.sock"]
    argv += ["--max-bytes", str(most_bytes), "--max-files", str(FILES)]
    try:
        image, said = await image_of(host, place, argv, binds=binds)
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
