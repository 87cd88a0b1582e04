"""Where the data that vibeD ships lies: the agent's sources, the templates and the lock files.

In an installed wheel it is package data (`vibed/_data`), in a checkout it is the root of the checkout.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


class ShippedDataMissing(Exception):
    """This installation of vibeD is incomplete: a part that every wheel and checkout has is not there."""

    code = "ShippedDataMissing"


def shipped(part: str) -> Path:
    """Return the folder `part` ("agent", "templates", "locks"). Raises ShippedDataMissing."""
    candidates = (_PACKAGE / "_data" / part, _PACKAGE.parent.parent / part)
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise ShippedDataMissing(f"{part}/ is in none of {', '.join(map(str, candidates))}; reinstall vibeD")
