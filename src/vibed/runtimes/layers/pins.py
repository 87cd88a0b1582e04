"""A resolution of Python packages, as uv writes it, and what of it a template does not have already."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

_PINNED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*==\s*([^\s;]+)")
_VIA = re.compile(r"#(?: via)? ([A-Za-z0-9][A-Za-z0-9._-]*)")
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
    via: tuple[str, ...] = ()
    """The packages that ask for it, canonically; empty where only the app's own list does."""

    @property
    def of_registry(self) -> bool:
        """Whether name and version say what it is."""
        return bool(self.name and self.version)


def parse(resolution: str) -> tuple[Pin, ...]:
    """The pins of a requirements file whose every line is one, with the remarks that uv makes of who asks for each."""
    found: list[Pin] = []
    for line in resolution.replace("\\\n", " ").splitlines():
        text = " ".join(line.split())
        if text.startswith("#"):
            if found and (by := _VIA.fullmatch(text)):
                found[-1] = replace(found[-1], via=(*found[-1].via, canonicalize_name(by[1])))
        elif match := _PINNED.match(text):
            found.append(Pin(canonicalize_name(match[1]), match[2], text))
        elif match := _FROM.match(text):
            found.append(Pin(canonicalize_name(match[1]), "", text))
        elif text:
            found.append(Pin("", "", text))
    return tuple(found)


def asked_by(name: str, pins: Iterable[Pin], wanted: Iterable[str]) -> str:
    """The line of `wanted` for which a package is there: its own, or that of what asks for it, directly or not; without
    hashes, empty where there is none.
    """
    known = {pin.name: pin for pin in pins}
    lines = {name_of(line): line.partition(" --hash")[0].strip() for line in reversed(tuple(wanted))}
    waiting = [name]
    for one in waiting:  # grows
        if one in lines:
            return lines[one]
        waiting += [by for by in (known[one].via if one in known else ()) if by not in waiting]
    return ""


def hashes_of(files: Iterable[bytes]) -> dict[str, tuple[str, ...]]:
    """The hashes that requirement files ask for, by canonical name."""
    found: dict[str, tuple[str, ...]] = {}
    for content in files:
        text = content.decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\\\n", " ")
        for line in text.splitlines():
            if (hashes := tuple(re.findall(r"--hash[= ](\S+)", line))) and (name := name_of(line)):
                found[name] = (*found.get(name, ()), *hashes)
    return found


def bound(pins: Iterable[Pin], hashes: Mapping[str, tuple[str, ...]]) -> tuple[Pin, ...]:
    """The pins with the hashes that an app's own list asks for, where it does, instead of those of the index."""
    return tuple(
        replace(pin, text=" ".join([f"{pin.name}=={pin.version}", *(f"--hash={value}" for value in hashes[pin.name])]))
        if pin.of_registry and pin.name in hashes
        else pin
        for pin in pins
    )


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
