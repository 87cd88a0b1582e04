"""Addresses of packages in locks."""

from __future__ import annotations

import re

_TARBALL = re.compile(
    r"https?://.*?/((?:@[^/]+(?:/|%2[fF]))?[^/@]+)/(?:-|download)/(?:@[^/?#]+/)?([^/?#]+\.tgz)(?:\?[^#]*)?"
)
"""Mirrors have their own ways to say it, too."""


def path_of(address: str) -> str:
    """What every registry has it under (`@a/b/-/b-1.0.0.tgz`); empty where it is no registry's."""
    match = _TARBALL.fullmatch(address)
    return f"{match[1]}/-/{match[2]}" if match is not None else ""
