"""The package registries that builds may use: what this machine's own package clients are told.

Whoever set up pip, uv, npm or Go on a machine has said there where packages come from, through which proxy, by which
authorities and with which credentials. Builds use the same, by the registry gate (`vibed.runtimes.gate`), so none of it
enters a sandbox.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from vibed.config import InvalidConfiguration
from vibed.runtimes import binaries


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
    binaries: Mapping[str, str] = field(default_factory=dict)
    """Addresses of the sources that `vibed.runtimes.binaries` lists, by their names; empty: switched off."""
    authorization: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The Authorization header for addresses that begin so: scheme, host and the beginning of the path."""
    authorities: tuple[Path, ...] = ()
    """Files of certificates in PEM that are trusted besides the system's."""
    insecure: tuple[str, ...] = ()
    """Hosts, with a port or without, whose certificates are not checked."""
    proxy: Proxy = field(default=Proxy(), repr=False)


class Bare:
    """Takes the credentials out of addresses, and keeps them by the place that they are for."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}

    def __call__(self, address: str) -> str:
        parts = urlsplit(address)
        if "@" not in parts.netloc:
            return address
        name, _, host = parts.netloc.rpartition("@")
        user, _, password = name.partition(":")
        self.found[f"{parts.scheme}://{host}/"] = basic(unquote(user), unquote(password))
        return urlunsplit(parts._replace(netloc=host))

    def list(self, go_proxies: str) -> str:
        """The same of a GOPROXY list."""
        return re.sub(r"[^,|]+", lambda one: self(one[0]), go_proxies)


def basic(user: str, password: str) -> str:
    """The Authorization header of a user and a password."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def pinned(registries: Registries, settings: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Registries:
    """The registries with what `[registries]` of vibed.toml (checked before) says in place of the clients' settings.

    Raises `InvalidConfiguration` when credentials are not where it says.
    """
    bare = Bare()
    if given := settings.get("pypi"):
        indexes = [given] if isinstance(given, str) else list(given)
        registries = replace(registries, pypi=tuple(map(bare, indexes)), first_index=True, find_links=())
    if npm := settings.get("npm"):
        registries = replace(registries, npm=bare(npm), npm_scopes={})
    if scopes := settings.get("npm_scopes"):
        registries = replace(registries, npm_scopes={scope: bare(address) for scope, address in scopes.items()})
    if go := settings.get("go"):
        registries = replace(registries, go=bare.list(go))
    if sumdb := settings.get("sumdb"):
        registries = replace(registries, sumdb="" if sumdb == "off" else sumdb)
    if programs := settings.get("binaries"):
        said = {name: bare(address) for name, address in programs.items()}
        registries = replace(registries, binaries=binaries.pinned(registries.binaries, said))
    known = {address: _header(place, environ) for address, place in settings.get("credentials", {}).items()}
    return replace(registries, authorization={**registries.authorization, **bare.found, **known})


def _header(place: str, environ: Mapping[str, str]) -> str:
    """What is in a file or a variable, as a header: `user:password`, a token, or the header itself."""
    kind, _, name = place.partition(":")
    try:
        text = (Path(name).read_text() if kind == "file" else environ[name]).strip()
    except (OSError, UnicodeDecodeError, KeyError) as error:
        raise InvalidConfiguration(f"[registries] the credentials {place!r} cannot be read: {error}") from error
    if not text or "\n" in text:
        raise InvalidConfiguration(f"[registries] the credentials {place!r} are not one line")
    if text.startswith(("Basic ", "Bearer ")):
        return text
    user, colon, password = text.partition(":")
    return basic(user, password) if colon else f"Bearer {text}"
