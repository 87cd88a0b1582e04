"""A resolution of Python packages, as uv writes it, and what of it a template does not have already."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

_PINNED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*==\s*([^\s;]+)")
_FROM = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*@\s*\S+")


@dataclass(frozen=True, slots=True)
class Pin:
    """One package of a resolution."""

    name: str
    """Canonical; empty for a path that has none (`-e ./folder`)."""
    version: str
    """Empty where a path or a repository decides it."""
    text: str
    """Its line of a requirements file, hashes included."""

    @property
    def of_registry(self) -> bool:
        """Whether name and version say what it is."""
        return bool(self.name and self.version)


def parse(resolution: str) -> tuple[Pin, ...]:
    """The pins of a requirements file whose every line is one."""
    found = []
    for line in resolution.replace("\\\n", " ").splitlines():
        text = " ".join(line.split())
        if not text or text.startswith("#"):
            continue
        if match := _PINNED.match(text):
            found.append(Pin(canonicalize_name(match[1]), match[2], text))
        elif match := _FROM.match(text):
            found.append(Pin(canonicalize_name(match[1]), "", text))
        else:
            found.append(Pin("", "", text))
    return tuple(found)


def missing(pins: Iterable[Pin], have: Mapping[str, str]) -> tuple[Pin, ...]:
    """Those that a template has not, or has in another version."""
    there: dict[str, str] = {canonicalize_name(name): version for name, version in have.items()}
    return tuple(pin for pin in pins if not (pin.version and _same(there.get(pin.name), pin.version)))


def without(lines: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    """Requirement lines but those for the packages that are named (canonically)."""
    gone = set(names)
    return tuple(line for line in lines if name_of(line) not in gone)


def name_of(line: str) -> str:
    """The canonical name of a requirement line's package; empty when it has none."""
    match = re.match(r"\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)", line)
    return canonicalize_name(match[1]) if match else ""


def _same(one: str | None, other: str) -> bool:
    if one is None:
        return False
    try:
        return Version(one) == Version(other)
    except InvalidVersion:
        return one == other
