"""What a layer is known by. Two keys, both digests:

The *request key* is of what an app asks for; it finds the layer that the same request led to, without a network.
The *layer key* is of what decides the content: the resolution, every package pinned. Different requests that lead to
one resolution share a layer.

What else decides the content (a path, a repository, the app's own scripts) is named by neither, so such a layer
belongs to one source of one owner: both are part of its keys.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vibed.apps.app import Install

LAYOUT = "2"
"""Raised when the same resolution is laid out in another way than before."""


@dataclass(frozen=True, slots=True)
class Base:
    """The part of a template that layers are made for: what is in it, whatever vibeD's own version."""

    template: str
    kind: str
    packages: Mapping[str, str]
    debian: Mapping[str, str]

    @property
    def digest(self) -> str:
        facts = [self.kind, os.uname().machine]
        facts += [f"{name}={version}" for name, version in sorted(self.packages.items())]
        facts += [f"{name}={version}" for name, version in sorted(self.debian.items())]
        return _digest(facts)


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose source decides a private layer."""

    owner: str
    source: str
    """The source's digest; empty where the files that the install names decide it."""


def request_key(install: Install, files: Mapping[str, bytes], base: Base, installer: str, owner: Owner | None) -> str:
    """`files`: those that the install names, by path; `installer`: name and version; `owner`: of a private one."""
    facts = ["request", LAYOUT, base.digest, installer, install.kind, str(install.development), *_of(owner)]
    facts += [f"wanted {line}" for line in sorted(install.wanted)]
    facts += [f"constraint {line}" for line in sorted(install.constraints)]
    facts += [f"optional {name}" for name in sorted(install.optional)]
    facts += [f"folder {install.folder}"] if install.private and install.folder else []
    facts += [
        f"file {path} {_digest([normalised(path, content, named=install.by_files)])}"
        for path, content in sorted(files.items())
    ]
    return _digest(facts)


def layer_key(kind: str, base: Base, installer: str, resolution: Iterable[str], owner: Owner | None) -> str:
    """`resolution`: what is installed, in lines of any order."""
    return _digest(["layer", LAYOUT, base.digest, installer, kind, *_of(owner), *sorted(resolution)])


_INSTALLED_BY = (
    "dependencies",
    "optionalDependencies",
    "peerDependencies",
    "peerDependenciesMeta",
    "dependenciesMeta",
    "devDependencies",
    "bundleDependencies",
    "bundledDependencies",
    "overrides",
    "resolutions",
    "workspaces",
    "allowScripts",
    "packageManager",
    "devEngines",
    "pnpm",
    "engines",
)
"""Keys of package.json that decide what is installed."""
_MEMBERS = ("name", "version", "bin", "directories", "private")
"""What else does where others ask for the package by its name."""


def normalised(path: str, content: bytes, *, named: bool = False) -> str:
    """A file without what installs nothing: in package.json, the app's scripts (an app whose scripts run at install
    time is private, and its source is part of its key), and but for `named` its own name and version.
    """
    name = path.rpartition("/")[2]
    text = content.decode("utf-8-sig", "surrogateescape")
    if name not in ("package.json", "package-lock.json", "npm-shrinkwrap.json"):
        return text
    try:
        data = json.loads(text)
    except ValueError:
        return text
    if not isinstance(data, dict):
        return text
    return json.dumps(_manifest(data, named=named) if name == "package.json" else _lock(data), sort_keys=True)


def _manifest(data: Mapping[str, Any], *, named: bool = False) -> dict[str, Any]:
    return {key: data[key] for key in (*_INSTALLED_BY, *(_MEMBERS if named else ())) if key in data}


def _lock(data: Mapping[str, Any]) -> dict[str, Any]:
    lock = {key: value for key, value in data.items() if key not in ("name", "version")}
    packages = lock.get("packages")
    if isinstance(packages, dict):
        lock["packages"] = {
            at: _manifest(entry) if at == "" and isinstance(entry, dict) else _without_place(entry)
            for at, entry in packages.items()
        }
    return lock


def _without_place(entry: Any) -> Any:
    """What has a hash is what it is, wherever it was found."""
    if isinstance(entry, dict) and "integrity" in entry:
        return {key: value for key, value in entry.items() if key != "resolved"}
    return entry


def _of(owner: Owner | None) -> list[str]:
    return [] if owner is None else [f"owner {owner.owner}", f"source {owner.source}"]


def _digest(facts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for fact in facts:
        raw = fact.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()
