"""Where programs come from that packages fetch when they are installed, and that no package registry has.

Each source is a row of `SOURCES`: a client of it can be told of a mirror by a variable of its own, and in a builder
sandbox that is the registry gate, which asks the source as it asks registries. What the variable says on this machine
counts, before it what `[registries.binaries]` of vibed.toml says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from vibed.config import InvalidConfiguration

OFF = "off"
"""In place of an address: nothing is fetched from there."""


@dataclass(frozen=True, slots=True)
class Source:
    """One such host."""

    name: str
    """In vibed.toml, and in the gate's addresses."""
    what: str
    """For a person."""
    variable: str
    """By which its client is told of a mirror."""
    origin: str
    """Where its client looks where it is told of none."""
    digests: str = ""
    """What an address ends with that has the SHA-256 of what is there without it; empty: none are published."""
    without: str = ""
    """What an app can do that is to run without it."""


SOURCES = (
    Source(
        "prisma",
        "Prisma's engines",
        "PRISMA_ENGINES_MIRROR",
        "https://binaries.prisma.sh",
        digests=".sha256",
        without='Prisma 7 needs no engine to run, nor do 6.16 and newer with engineType = "client" in the generator,'
        " each with a driver adapter",
    ),
    Source(
        "node-sass",
        "node-sass's binding",
        "SASS_BINARY_SITE",
        "https://github.com/sass/node-sass/releases/download",
        without="the package sass needs none, and is called in the same way",
    ),
)


def of_clients(environ: Mapping[str, str]) -> Mapping[str, str]:
    """The address of each source, by its name, as this machine's environment has it."""
    return {source.name: environ.get(source.variable) or source.origin for source in SOURCES}


def pinned(known: Mapping[str, str], said: Mapping[str, str]) -> Mapping[str, str]:
    """The same with what the operator says; empty: it is switched off. Raises `InvalidConfiguration`."""
    names = [source.name for source in SOURCES]
    if unknown := sorted(said.keys() - set(names)):
        raise InvalidConfiguration(
            f"[registries.binaries] has an unknown source {unknown[0]!r}", hint=f"known sources: {', '.join(names)}"
        )
    return {**known, **{name: "" if address == OFF else address for name, address in said.items()}}


def told(gate: str) -> Mapping[str, str]:
    """What clients in a sandbox are told, whose gate is at an address: also of a source that is switched off, where
    the gate's refusal is sooner there than a host's silence."""
    return {source.variable: f"{gate}/binaries/{source.name}" for source in SOURCES}


def lacking(name: str, why: str) -> str:
    """What a source that could not be had means for a build, and what helps."""
    source = next((one for one in SOURCES if one.name == name), None)
    if source is None:
        return why
    return "; ".join(
        filter(
            None,
            (
                f"{source.what}, which no package registry has, could not be fetched: {why}",
                f'the operator can name a mirror of {urlsplit(source.origin).hostname} ({name} = "https://…" in'
                f" [registries.binaries] of vibed.toml, or {source.variable} in vibeD's environment)",
                source.without,
            ),
        )
    )
