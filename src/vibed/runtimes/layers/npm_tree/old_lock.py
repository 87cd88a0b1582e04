"""A lock of npm 5 or 6 (version 1) as one of today's: the same packages at the same places, with what those locks do
not say read from the packages themselves, as npm otherwise asks the registry for one by one.

What npm 6 did not see to, such as peers that nobody asks for, is then lacking in it, and seen to as in any such lock.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vibed.runtimes.gate import ADDRESS, NPM
from vibed.runtimes.layers.managers.tarballs import path_of
from vibed.runtimes.layers.npm_tree import marks
from vibed.runtimes.layers.npm_tree.graph import Graph
from vibed.runtimes.layers.npm_tree.plan import DIGESTS, FOLDER, KINDS, Left, usual

_VERSION = re.compile(r"\d+\.\d+\.\d+[0-9A-Za-z.+-]*")
_ALIAS = re.compile(r"npm:((?:@[^/@\s]+/)?[^/@\s]+)@(\S+)")
_KEPT = ("engines", "os", "cpu", "libc", "funding")
_FIRST = ("name", "version", "resolved", "integrity", "dependencies")
_DEPTH = 100


def is_old(lock: str) -> bool:
    """Whether it is one."""
    try:
        data: Any = json.loads(lock)
    except ValueError:
        return False
    return isinstance(data, dict) and data.get("lockfileVersion") == 1 and isinstance(data.get("dependencies"), dict)


@dataclass(frozen=True, slots=True)
class OldLock:
    """What one says."""

    packages: Mapping[str, Mapping[str, Any]]
    """Its entries, by their folders."""
    about: Mapping[str, Any]
    """The project's name and version."""

    @property
    def orders(self) -> Mapping[str, Any]:
        """Which `vibed-agent npmtree --manifests` is to follow."""
        return {"packages": [_fetched(at, entry) for at, entry in sorted(self.packages.items())], "lock": ""}

    def renewed(self, manifest: str, said: Mapping[str, Any]) -> str:
        """A lock of version 3. `manifest`: the project's package.json; `said`: what each package does. Raises Left."""
        project: Any = json.loads(manifest)
        kept = ("name", "version", *KINDS)
        root = {key: project[key] for key in kept if isinstance(project, dict) and project.get(key)}
        packages = {"": root} | {at: _renewed(at, entry, said.get(at)) for at, entry in self.packages.items()}
        found = marks.of(Graph(packages))
        for at, mine in found.items():
            packages[at] |= dict.fromkeys(sorted(mine), True)
        there = {at: _sorted(entry) for at, entry in sorted(packages.items()) if not entry.get("extraneous")}
        return json.dumps({**self.about, "lockfileVersion": 3, "requires": True, "packages": there}, ensure_ascii=False)


def read(lock: str) -> OldLock:
    """Raises Left where something of it is of no registry, or has no digest."""
    data = json.loads(lock)
    about = {key: data[key] for key in ("name", "version") if isinstance(data.get(key), str)}
    return OldLock(dict(_entries("", data["dependencies"], _DEPTH)), about)


def _entries(above: str, entries: object, depth: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not isinstance(entries, dict) or not depth:
        raise Left(f"{above or 'the lock'} has dependencies of its own kind")
    for name, entry in entries.items():
        at = f"{above}node_modules/{name}"
        if not FOLDER.fullmatch(f"{at}/") or not isinstance(entry, dict):
            raise Left(f"the lock has {at[:100]!r}")
        package, version = _package(name, str(entry.get("version", "")))
        if not _VERSION.fullmatch(version):
            raise Left(f"{at} is of no registry")
        if not entry.get("bundled") and not DIGESTS.fullmatch(str(entry.get("integrity", ""))):
            raise Left(f"{at} has no digest")
        yield at, {**entry, "version": version, **({"name": package} if package != name else {})}
        if entry.get("dependencies"):
            yield from _entries(f"{at}/", entry["dependencies"], depth - 1)


def _package(name: str, version: str) -> tuple[str, str]:
    alias = _ALIAS.fullmatch(version)
    return (alias[1], alias[2]) if alias is not None else (name, version)


def _fetched(at: str, entry: Mapping[str, Any]) -> Mapping[str, Any]:
    if entry.get("bundled"):
        return {"at": at, "from": "", "integrity": ""}
    path = path_of(str(entry["resolved"])) if entry.get("resolved") else usual(at, entry).removeprefix(NPM)
    if not path:
        raise Left(f"{at} is of no registry")
    return {"at": at, "from": NPM.removeprefix(ADDRESS) + path, "integrity": entry["integrity"]}


def _renewed(at: str, entry: Mapping[str, Any], said: object) -> dict[str, Any]:
    said = said if isinstance(said, dict) else {}
    manifest = said.get("manifest")
    if not isinstance(manifest, dict):  # then what the lock says of it has to do
        manifest = {"dependencies": entry.get("requires") or {}}
    made = {key: entry[key] for key in ("name", "version", "resolved", "integrity") if entry.get(key)}
    optional = _table(at, manifest, "optionalDependencies")
    firm = {name: spec for name, spec in _table(at, manifest, "dependencies").items() if name not in optional}
    made |= {
        "dependencies": firm,
        "optionalDependencies": optional,
        "peerDependencies": _table(at, manifest, "peerDependencies"),
        "peerDependenciesMeta": manifest.get("peerDependenciesMeta"),
        "bundleDependencies": _bundled(manifest, firm | optional),
        "bin": _commands(manifest, said.get("programs")),
        "inBundle": bool(entry.get("bundled")),
        "hasInstallScript": bool(said.get("scripts")),
        "hasShrinkwrap": bool(said.get("shrinkwrap")),
    }
    made |= {key: manifest.get(key) for key in _KEPT}
    terms = manifest.get("license")
    made["license"] = terms.get("type") if isinstance(terms, dict) else terms
    return {key: value for key, value in made.items() if value}


def _table(at: str, manifest: Mapping[str, Any], key: str) -> dict[str, str]:
    value = manifest.get(key) or {}
    if not isinstance(value, dict) or not all(isinstance(spec, str) for spec in value.values()):
        raise Left(f"{at} has {key} of its own kind")
    return value


def _bundled(manifest: Mapping[str, Any], wanted: Mapping[str, str]) -> list[str]:
    said = manifest.get("bundleDependencies", manifest.get("bundledDependencies"))
    if said is True:
        return list(wanted)
    return [name for name in said if isinstance(name, str)] if isinstance(said, (list, dict)) else []


def _commands(manifest: Mapping[str, Any], programs: object) -> dict[str, str]:
    """As npm's normalize-package-bin has it."""
    said = manifest.get("bin")
    if isinstance(said, str) and manifest.get("name"):
        said = {str(manifest["name"]): said}
    elif isinstance(said, list):
        said = {posixpath.basename(file): file for file in said if isinstance(file, str)}
    elif said is None and isinstance(programs, Sequence):
        named = {posixpath.basename(file): file for file in programs if isinstance(file, str)}
        said = {name: file for name, file in named.items() if not name.startswith(".")}
    found = {}
    for name, file in said.items() if isinstance(said, dict) else ():
        command = posixpath.normpath("/" + posixpath.basename(re.sub(r"[\\:]", "/", name))).strip("/")
        target = posixpath.normpath("/" + file.replace("\\", "/")).strip("/") if isinstance(file, str) else ""
        if command and target:
            found[command] = target
    return found


def _sorted(entry: Mapping[str, Any]) -> dict[str, Any]:
    """In the order in which npm writes it: tables last, and some things before others."""

    def place(key: str) -> tuple[bool, int, str]:
        first = _FIRST.index(key) if key in _FIRST else len(_FIRST)
        return isinstance(entry[key], dict), first, key.lower()

    return {
        key: dict(sorted(entry[key].items())) if isinstance(entry[key], dict) else entry[key]
        for key in sorted(entry, key=place)
    }
