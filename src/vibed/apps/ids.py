"""App ids: the name of an app is its DNS label."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection

from vibed.apps.errors import InvalidName

PATTERN = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
RESERVED = frozenset({"vibed", "vibed-probe", "vibed-builder", "api", "www", "localhost"})


def nearest(name: str) -> str:
    """The valid id that is nearest to `name`, for a hint; `app` when nothing of it can be kept."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    plain = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    plain = plain[:63].rstrip("-")
    if not plain:
        return "app"
    return f"{plain[:59]}-app" if plain in RESERVED else plain


def meant(text: str) -> str:
    """The app that is named by its id, or by its URL."""
    host = re.match(r"https?://([^/:?#.\s]+)\.", text.strip())
    return host[1].lower() if host else text


def check(name: str, reserved: Collection[str] = ()) -> str:
    """Return `name` when it can be an app id; raise `InvalidName` with the nearest valid one otherwise."""
    if not PATTERN.fullmatch(name):
        raise InvalidName(
            f"{name[:80]!r} cannot be an app's name: use 1 to 63 lower-case letters, digits and hyphens, "
            "the first and the last not a hyphen",
            hint=f"use {nearest(name)!r}",
            details={"nearest": nearest(name)},
        )
    if name[2:4] == "--":
        plain = nearest(name.replace("--", "-"))
        raise InvalidName(
            f"{name!r} has hyphens where encoded international names have theirs (RFC 5891), so a browser may show "
            "another name",
            hint=f"use {plain!r}",
            details={"nearest": plain},
        )
    if name in RESERVED or name in reserved:
        raise InvalidName(f"{name!r} is reserved", hint=f"use '{name}-app'", details={"nearest": f"{name}-app"})
    return name
