"""The package registries that builds may use: what this machine's own package clients are told.

Whoever set up pip, uv, npm or Go on a machine has said there where packages come from, through which proxy, by which
authorities and with which credentials. Builds use the same, by the registry gate (`vibed.runtimes.gate`), so none of it
enters a sandbox.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Proxy:
    """How to get out, as HTTP_PROXY, HTTPS_PROXY and NO_PROXY say it; empty: directly."""

    http: str = ""
    https: str = ""
    none: str = ""


@dataclass(frozen=True, slots=True)
class Registries:
    """Where packages come from; what is empty is not to be had. Addresses have no credentials in them: those are in
    `authorization`.
    """

    pypi: tuple[str, ...] = ()
    """Simple indexes."""
    first_index: bool = False
    """Whether an index that comes first hides a project of the others (uv's way) or the files of all count (pip's)."""
    find_links: tuple[Path, ...] = ()
    """Folders with distributions."""
    npm: str = ""
    npm_scopes: Mapping[str, str] = field(default_factory=dict)
    """Registries of scopes, such as `@acme`."""
    go: str = ""
    """A GOPROXY list."""
    sumdb: str = ""
    """A GOSUMDB value (`name`, `name+key`, `name url`); empty: module sums are not checked."""
    go_unsummed: str = ""
    """A GONOSUMDB list: modules whose sums are not checked."""
    authorization: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The Authorization header for addresses that begin so: scheme, host and the beginning of the path."""
    authorities: tuple[Path, ...] = ()
    """Files of certificates in PEM that are trusted besides the system's."""
    insecure: tuple[str, ...] = ()
    """Hosts, with a port or without, whose certificates are not checked."""
    proxy: Proxy = field(default=Proxy(), repr=False)
