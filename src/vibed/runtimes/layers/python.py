"""A layer of Python packages: resolved and installed by uv.

Two steps. What resolving comes to is only believed for the request that it was for; installing begins with the pinned
list alone, each file verified by its hash, and the list, as this process read it, is the layer's key: nobody can put
anything else under it.

Few resolutions have to run code of packages (to learn what an old one depends on), so that is refused at first:
installing then goes on in the sandbox of resolving, in which no code of anybody has run. Where a resolution cannot do
without, it is made with it, and installing has a sandbox of its own (`vibed.runtimes.layers.workbench`).

What the template has is preferred, and only what it has not, or has in another version, is in the layer. Packages that
another layer has are taken over from it, compiled as they are there (`templates/_builder/pieces.py` says of which they
can be): most lists have something in common with one that was installed before.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from vibed.runtimes.layers import numpy_one, ready_made, twins
from vibed.runtimes.layers.ask import COMPILING, Ask, failure, unknown
from vibed.runtimes.layers.keys import Base, layer_key
from vibed.runtimes.layers.layer import Layer
from vibed.runtimes.layers.making import Making
from vibed.runtimes.layers.pins import Pin, bound, hashes_of, missing, parse, without
from vibed.runtimes.layers.python_install import Installation
from vibed.runtimes.layers.steps import StepFailed
from vibed.runtimes.layers.trouble import Trouble, no_room
from vibed.runtimes.layers.uv_words import explain
from vibed.runtimes.templates import INTERPRETER

_TRIES = 12
"""Each without a package more that nothing imports."""


@dataclass(frozen=True, slots=True)
class Gone:
    """A package that could not be had as the list asks for it."""

    why: str
    version: str
    """In which version: another package may want it in another one. Empty: in none."""
    nearest: str
    """The first later version that has a ready-made file: what asks for it was made for one of its time; or empty."""


async def make(ask: Ask, making: Making, installer: str) -> tuple[Layer, tuple[str, ...]]:
    """The layer that `ask` leads to, and notes for its owner. Raises RunFailed, VibedError, OSError."""
    gone: dict[str, Gone] = {}
    compilers = False
    listed, ask = ask.install, replace(ask, install=twins.asked_for(ask.install))
    for _ in range(_TRIES):
        pins: tuple[Pin, ...] = ()
        try:
            pins = await _resolved(ask, making, gone, compilers)
            layer = await _installed(ask, making, installer, pins, compilers)
            there = {pin.name for pin in pins}
            told = (f"left out: {name} ({one.why})" for name, one in sorted(gone.items()) if name not in there)
            return layer, (*layer.notes, *twins.notes(listed, pins), *told)
        except StepFailed as error:
            trouble = _trouble(error, ask, pins) if error.said else None
            more = dispensable(trouble, ask, [name for name, one in gone.items() if not one.version])
            if not more and trouble is not None and trouble.compiler and ask.compiles and not compilers:
                compilers = True
                ask.say(COMPILING)
                continue
            if not more:
                raise failure(error, trouble) from error
            assert trouble is not None
            # where it did not come to a resolution, the list says which
            versions = dict(line.split("==", 1) for line in ask.install.wanted if line.count("==") == 1)
            versions |= {pin.name: pin.version for pin in pins}
            newer = {one.name: one.newer for one in ready_made.read(error.answer)}
            for name in more:
                before = gone.get(name)
                version, nearest = ("", before.nearest) if before else (versions.get(name, ""), "")
                gone[name] = Gone(trouble.message, version, newer.get(name) or nearest)
            ask.say(f"left out: {', '.join(sorted(more))}")
    raise failure(StepFailed("too many of the packages cannot be had"), None)


def version_of(base: Base) -> str:
    """The language's version, such as 3.13, by Debian's package of it, or what it has instead."""
    if own := re.match(r"\d+\.\d+", base.packages.get(INTERPRETER, "")):
        return own[0]
    names = [match[1] for name in base.debian if (match := re.fullmatch(r"python(3\.\d+)", name))]
    return names[0] if names else "3"


def dispensable(trouble: Trouble | None, ask: Ask, left_out: Collection[str]) -> frozenset[str]:
    """Which packages are to blame and can be done without; nothing when that is of no use."""
    if trouble is None or trouble.retryable:
        return frozenset()
    return trouble.packages & frozenset(ask.install.optional) - frozenset(left_out)


def _trouble(error: StepFailed, ask: Ask, pins: Sequence[Pin]) -> Trouble:
    """What went wrong; `pins`: the whole resolution, as far as it came."""
    python = version_of(ask.base)
    lacking = ready_made.read(error.answer)
    if lacking and not ask.compiles:
        return ready_made.trouble(lacking, python, pins, ask.install.wanted)
    trouble = no_room(error.said) or explain(error.said, python, unknown(error))
    if to_blame := [one for one in lacking if one.name in trouble.packages]:
        return replace(trouble, hint=ready_made.cure(to_blame, python, pins, ask.install.wanted))
    return trouble


async def _resolved(ask: Ask, making: Making, gone: Mapping[str, Gone], compilers: bool) -> tuple[Pin, ...]:
    ask.say("resolving")
    constraints = without(ask.install.constraints, gone)
    if nearest := [f"{name}=={one.nearest}" for name, one in gone.items() if one.nearest]:
        with contextlib.suppress(StepFailed):  # what wants it wants a later one still
            return await _pins(ask, making, gone, (*constraints, *nearest), compilers)
    pins = await _pins(ask, making, gone, constraints, compilers)
    replaced = twins.brought(pins)
    if replaced:
        try:
            pins = await _pins(ask, making, gone, constraints, compilers, replaced)
        except StepFailed:  # the list itself asks for another version of the twin
            replaced = ()
    if numpy_one.made_for(pins):
        with contextlib.suppress(StepFailed):  # so too
            older = (*constraints, numpy_one.CONSTRAINT)
            pins, constraints = await _pins(ask, making, gone, older, compilers, replaced), older
    if newer := numpy_one.too_new(pins):
        with contextlib.suppress(StepFailed):
            return await _pins(ask, making, gone, (*constraints, *newer), compilers, replaced)
    return pins


async def _pins(
    ask: Ask,
    making: Making,
    gone: Mapping[str, Gone],
    constraints: Sequence[str],
    compilers: bool,
    replaced: Sequence[Pin] = (),
) -> tuple[Pin, ...]:
    more, overrides = twins.instead(replaced)
    request = {
        "wanted": (*without(ask.install.wanted, gone), *more),
        "constraints": constraints,
        "overrides": overrides,
        "have": {name: version for name, version in ask.base.packages.items() if name != INTERPRETER},
    }
    own = ask.owner is not None
    try:
        resolution = await making.resolve(ask, request, compilers=compilers, builds=own)
    except StepFailed as error:
        if own or not error.answer.get("barred"):
            raise
        resolution = await making.resolve(ask, request, compilers=compilers)
    # in another version than the one that could not be had, some package wants it
    return tuple(
        pin for pin in parse(resolution) if pin.name not in gone or gone[pin.name].version not in ("", pin.version)
    )


async def _installed(ask: Ask, making: Making, installer: str, resolution: Sequence[Pin], compilers: bool) -> Layer:
    pins = bound(missing(resolution, ask.base.packages), hashes_of(ask.files.values()))
    key = layer_key("python", ask.base, installer, (pin.text for pin in pins), ask.owner)
    if (found := await asyncio.to_thread(making.store.find, key)) is not None:
        return found
    ask.say(f"installing {_counted(pins)}")
    verified = all(pin.of_registry for pin in pins)
    install = Installation(ask, making, [pin.text for pin in pins], verified, compilers)
    return await making.layer(ask, key, {pin.name or pin.text: pin.version for pin in pins}, install)


def _counted(pins: tuple[Pin, ...]) -> str:
    return "1 package" if len(pins) == 1 else f"{len(pins)} packages"
