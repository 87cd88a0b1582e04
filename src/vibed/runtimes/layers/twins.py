"""Packages that another one stands in for: the same releases, imported by the same names, that need nothing of the
machine which a template does not have.

`psycopg2` is always compiled against PostgreSQL's client library, and its own documentation names `psycopg2-binary`
for everything but distributions; `opencv-python` loads OpenGL, which no server has a screen for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from vibed.apps.app import Install
from vibed.runtimes.layers.pins import Pin, name_of, without

TWINS = {
    "opencv-contrib-python": "opencv-contrib-python-headless",
    "opencv-python": "opencv-python-headless",
    "psycopg-c": "psycopg-binary",
    "psycopg2": "psycopg2-binary",
}
_NAME = re.compile(r"\s*[A-Za-z0-9][A-Za-z0-9._-]*")
_HASH = re.compile(r"\s*--hash[= ]\S+")


def asked_for(install: Install) -> Install:
    """The same with twins, where its own list names what has one; what is to come from a place of its own stays."""
    return replace(
        install,
        wanted=_lines(install.wanted),
        constraints=_lines(install.constraints),
        optional=tuple(TWINS.get(name, name) for name in install.optional),
    )


def brought(pins: Iterable[Pin]) -> Sequence[Pin]:
    """What others ask for of that kind, in a resolution."""
    return tuple(pin for pin in pins if pin.name in TWINS and pin.of_registry)


def instead(pins: Iterable[Pin]) -> tuple[Sequence[str], Sequence[str]]:
    """For resolving without them: what is wanted as well, and what takes the place of every requirement of them."""
    pins = tuple(pins)
    wanted = [f"{TWINS[pin.name]}=={pin.version}" for pin in pins]
    return wanted, [f"{pin.name} ; sys_platform == 'never'" for pin in pins]


def notes(before: Install, pins: Iterable[Pin]) -> Sequence[str]:
    """What the app's owner is told: what stands in for what."""
    named = {name_of(line) for line in before.wanted}
    there = {pin.name for pin in pins}
    return tuple(
        f"{twin} is installed for {name}: the same package, and it needs nothing that is not here"
        for name, twin in sorted(TWINS.items())
        if name in named and twin not in named and name not in there and twin in there
    )


def _lines(lines: Sequence[str]) -> tuple[str, ...]:
    """Each with the twin's name; one whose twin has a line too goes, since that says which version is meant."""
    theirs = {name_of(line) for line in lines}
    kept = without(lines, (name for name, twin in TWINS.items() if twin in theirs))
    return tuple(
        _HASH.sub("", _NAME.sub(TWINS[name_of(line)], line, count=1))
        if name_of(line) in TWINS and "@" not in line
        else line
        for line in kept
    )
