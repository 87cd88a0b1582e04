"""Packages that have no ready-made file for a template's Python, while they have some for others: which, and the cure.

What a builder says of it (templates/_builder/wheels.py) is an index' words, and may be anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from vibed.runtimes.layers.pins import Pin, asked_by
from vibed.runtimes.layers.trouble import Trouble

_NAMED = 5
_LONGEST = 100
_MOST = 500


@dataclass(frozen=True, slots=True)
class Lacking:
    """One of them."""

    name: str
    """Canonical."""
    version: str
    fits: frozenset[int]
    """The minors of Python 3 that it has files for."""
    newer: str
    """The first release after it that has one for this Python; empty where none has."""

    @property
    def has(self) -> str:
        """For a person: `3.8 to 3.12`."""
        low, high = min(self.fits), max(self.fits)
        whole = len(self.fits) == high - low + 1
        if low == high or not whole:
            return ", ".join(f"3.{minor}" for minor in sorted(self.fits))
        return f"3.{low} to 3.{high}"


def read(answer: Mapping[str, Any]) -> tuple[Lacking, ...]:
    """What a step's answer says of it, by name."""
    said = answer.get("wheels")
    found = [_one(name, one) for name, one in said.items()] if isinstance(said, dict) else []
    return tuple(sorted((one for one in found if one is not None), key=lambda one: one.name))


def trouble(lacking: Sequence[Lacking], python: str, pins: Iterable[Pin], wanted: Iterable[str]) -> Trouble:
    """Of an installation that was not tried, since another Python may have all of it. `wanted`: the app's own list."""
    told = [f"{one.name} {one.version} has no wheel for Python {python}, but for {one.has}" for one in lacking]
    more = f" and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
    fits = frozenset.intersection(*(one.fits for one in lacking))
    return Trouble(
        f"{'; '.join(told[:_NAMED])}{more}",
        cure(lacking, python, pins, wanted),
        frozenset(one.name for one in lacking),
        unmet=True,
        fits=fits,
    )


def cure(lacking: Sequence[Lacking], python: str, pins: Iterable[Pin], wanted: Iterable[str]) -> str:
    """What of the app's own list to change."""
    pins, wanted = tuple(pins), tuple(wanted)
    hints = {}
    for one in lacking[:_NAMED]:
        line = asked_by(one.name, pins, wanted)
        own = line and canonicalize_name(line.split("=")[0].split("[")[0].strip("<>!~ ")) == one.name
        if not line:
            hints[one.name] = f"ask for a version of {one.name} that has one"
        elif own and one.newer:
            hints[line] = f"raise `{line}` to {one.newer} or later, which has one"
        elif own:
            hints[line] = f"change `{line}`: no later version has one"
        else:
            hints[line] = f"raise `{line}`, which asks for {one.name}, to a version that is made for Python {python}"
    return "; ".join(hints.values())


def _one(name: object, said: object) -> Lacking | None:
    if not isinstance(name, str) or not isinstance(said, dict):
        return None
    version, fits, made = said.get("version"), said.get("fits"), said.get("made")
    if not isinstance(version, str) or not isinstance(fits, list) or not isinstance(made, list):
        return None
    minors = frozenset(minor for minor in fits if isinstance(minor, int) and 0 <= minor < 100)
    if not minors:
        return None
    return Lacking(canonicalize_name(name[:_LONGEST]), version[:_LONGEST], minors, _newer(version, made[:_MOST]))


def _newer(version: str, made: Sequence[object]) -> str:
    """The least release above it; of several that are equal, any."""
    try:
        least = Version(version)
    except InvalidVersion:
        return ""
    found = []
    for text in made:
        try:
            one = Version(text) if isinstance(text, str) and len(text) < _LONGEST else least
        except InvalidVersion:
            continue
        if one > least and not one.is_prerelease:
            found.append(one)
    return str(min(found)) if found else ""
