"""What an installation by a lock of npm's comes to, told from the lock alone, or that npm itself has to see to it.

Everything that decides whether npm is needed is here, and decided before anything is fetched. `npm ci` does more than
lay packages out (what it refuses, and what it says then; packages from elsewhere; a project's own scripts): whatever
is not sure to come to the same without it is `Left` to it.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vibed.runtimes.gate import ADDRESS, NPM
from vibed.runtimes.layers.npm_tree.graph import Graph, name_of
from vibed.runtimes.layers.npm_tree.ranges import Unreadable, takes

FOLDER = re.compile(r"(?:node_modules/(?:@[A-Za-z0-9_.~-]+/)?[A-Za-z0-9_~-][A-Za-z0-9_.~-]*/)+")
_USUAL = re.compile(rf"{re.escape(NPM)}(?:@[\w.~-]+/)?[\w.~-]+/-/[\w.~+-]+\.tgz")
DIGESTS = re.compile(r"(?:\s*(?:sha512|sha384|sha256|sha1)-[A-Za-z0-9+/]+={0,2}(?:\?\S*)?)+\s*")
_COMMAND = re.compile(r"[A-Za-z0-9_@+~-][A-Za-z0-9_.@+~-]*")
_SORTED = "_-.@/~0123456789abcdefghijklmnopqrstuvwxyz"
"""Characters of names, as they are sorted in English."""
KINDS = ("dependencies", "devDependencies", "optionalDependencies", "peerDependencies", "peerDependenciesMeta")
_BEYOND = ("overrides", "workspaces", "packageExtensions", "patchedDependencies")
"""Of package.json: what changes how a lock is read."""
_APART = ("link", "extraneous", "hasShrinkwrap", "patched", "packageExtensionsApplied", "npmExtensionApplied")
"""Of a package: what npm does more for than unpack it."""
_SETTINGS = frozenset({
    "registry", "save-exact", "save-prefix", "save", "fund", "audit", "audit-level", "loglevel", "progress",
    "update-notifier", "prefer-offline", "legacy-peer-deps", "strict-peer-deps",
    "fetch-retries", "fetch-timeout", "fetch-retry-mintimeout", "fetch-retry-maxtimeout", "maxsockets",
})  # fmt: skip
"""Of .npmrc, those that change nothing of what a lock comes to."""


class Left(Exception):
    """It is npm's to do. The message says why."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What packages are chosen for."""

    cpu: str
    """By Node's word."""
    node: str
    npm: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What `vibed-agent npmtree` is to do."""

    packages: tuple[Mapping[str, Any], ...]
    lock: str
    """What npm keeps in node_modules."""
    optional: frozenset[str]
    """Folders of what is done without where it fails."""

    @property
    def orders(self) -> Mapping[str, Any]:
        return {"packages": self.packages, "lock": self.lock}


def of(files: Mapping[str, str], lock: str, machine: Machine, *, development: bool, fresh: bool) -> Plan:
    """`files`: those that the manager reads, by name; `lock`: with the gate's addresses; `development`: what is only
    needed for that, too; `fresh`: npm has just made the lock of these files. Raises Left.
    """
    _settings(files.get(".npmrc", ""))
    if strange := set(files) - {"package.json", "package-lock.json", "npm-shrinkwrap.json", ".npmrc"}:
        raise Left(f"there is {min(strange)}")
    data = _read(lock)
    graph = Graph(data["packages"])
    if not fresh:
        _in_step(graph, files["package.json"])
    machine_lacks = _Lacking(graph, machine)
    gone = {at for at, entry in graph.packages.items() if entry.get("dev") and not development}
    gone = graph.without(gone, machine_lacks) - {""}
    there = {at: graph.packages[at] for at in sorted(graph.packages) if at and at not in gone}
    for at, entry in there.items():
        if not entry.get("optional") and machine_lacks.system(at):
            raise Left(f"{at} is not for this machine")
    packages = tuple(_package(at, entry, there) for at, entry in there.items())
    _commands_apart(packages)
    optional = frozenset(at for at, entry in there.items() if entry.get("optional"))
    return Plan(packages, _hidden(data, there), optional)


def _read(lock: str) -> dict[str, Any]:
    try:
        data: Any = json.loads(lock)
    except ValueError as error:
        raise Left(f"the lock is no JSON: {error}") from error
    packages = data.get("packages") if isinstance(data, dict) else None
    if not isinstance(packages, dict) or data.get("lockfileVersion") not in (2, 3) or "" not in packages:
        raise Left("the lock is of another version")
    for at, entry in packages.items():
        if not isinstance(entry, dict) or (at and not FOLDER.fullmatch(f"{at}/")):
            raise Left(f"the lock has {at[:100]!r}")
        for kind in KINDS[:4]:
            if not isinstance(entry.get(kind, {}), dict):
                raise Left(f"{at} has {kind} of its own kind")
    return {**data}


def _settings(npmrc: str) -> None:
    for line in npmrc.splitlines():
        name = line.partition("=")[0].strip()
        if name and not name.startswith(("#", ";")) and name not in _SETTINGS:
            raise Left(f".npmrc has {name[:100]}")


def _in_step(graph: Graph, manifest: str) -> None:
    """What `npm ci` looks at before it follows a lock: whether that is what package.json asks for."""
    try:
        asked: Any = json.loads(manifest)
    except ValueError as error:
        raise Left(f"package.json is no JSON: {error}") from error
    if not isinstance(asked, dict):
        raise Left("package.json is no object")
    if beyond := [key for key in _BEYOND if asked.get(key)]:
        raise Left(f"package.json has {beyond[0]}")
    locked = graph.packages[""]
    for kind in KINDS:
        if (asked.get(kind) or {}) != (locked.get(kind) or {}):
            raise Left(f"the lock was made of other {kind}")
    if unwanted := set(graph.packages) - graph.reached():
        raise Left(f"nothing asks for {min(unwanted)}")
    for edges in graph.wants.values():
        for edge in edges:
            try:
                fits = graph.fits(edge)
            except Unreadable:
                fits = False
            if not fits:
                raise Left(f"{edge.by or 'package.json'} wants {edge.name}@{edge.spec[:100]}, which is not there")


@dataclass(frozen=True, slots=True)
class _Lacking:
    """Tells of a package whether this machine is not what it is for."""

    graph: Graph
    machine: Machine

    def __call__(self, at: str) -> bool:
        return self.system(at) or self._engines(at)

    def system(self, at: str) -> bool:
        entry = self.graph.packages[at]
        has = {"os": "linux", "cpu": self.machine.cpu, "libc": "glibc"}
        return any(entry.get(kind) and not _listed(value, entry[kind]) for kind, value in has.items())

    def _engines(self, at: str) -> bool:
        engines = self.graph.packages[at].get("engines")
        if not isinstance(engines, dict):
            return False
        try:
            return any(
                engines.get(name) and not takes(str(engines[name]), version)
                for name, version in (("node", self.machine.node), ("npm", self.machine.npm))
            )
        except Unreadable as error:
            raise Left(f"{at} is for {error}") from error


def _listed(value: str, said: object) -> bool:
    """As npm-install-checks has it."""
    entries = [said] if isinstance(said, str) else said
    if not isinstance(entries, list) or not all(isinstance(one, str) for one in entries):
        raise Left("a package is for systems that are no list")
    if entries == ["any"]:
        return True
    refused = [one[1:] for one in entries if one.startswith("!")]
    return value not in refused and (value in entries or len(refused) == len(entries))


def _package(at: str, entry: Mapping[str, Any], there: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    if apart := [key for key in _APART if entry.get(key)]:
        raise Left(f"{at}: {apart[0]}")
    made = {"at": at, "bin": _commands(at, entry), "scripts": bool(entry.get("hasInstallScript"))}
    if entry.get("inBundle"):
        if not any(at.startswith(f"{one}/") and there[one].get("bundleDependencies") for one in there):
            raise Left(f"{at} is brought along by nobody")
        return {**made, "from": "", "integrity": "", "bundles": False}
    resolved, integrity = entry.get("resolved", usual(at, entry)), entry.get("integrity")
    if not isinstance(resolved, str) or not _USUAL.fullmatch(resolved):
        raise Left(f"{at} is of no registry")
    if not isinstance(integrity, str) or not DIGESTS.fullmatch(integrity):
        raise Left(f"{at} has no digest")
    bundles = bool(entry.get("bundleDependencies"))
    return {**made, "from": resolved.removeprefix(ADDRESS), "integrity": integrity, "bundles": bundles}


def usual(at: str, entry: Mapping[str, Any]) -> str:
    """Where registries have it: locks can leave it out, and it is known by its digest."""
    name = name_of(at, entry)
    return f"{NPM}{name}/-/{name.rpartition('/')[2]}-{str(entry.get('version', '')).partition('+')[0]}.tgz"


def _commands(at: str, entry: Mapping[str, Any]) -> dict[str, str]:
    said = entry.get("bin") or {}
    if not isinstance(said, dict):
        raise Left(f"{at} has commands without names")
    found = {}
    for name, file in said.items():
        if not isinstance(file, str) or "\\" in file or ".." in file.split("/") or not _COMMAND.fullmatch(name):
            raise Left(f"{at} has a command {name[:100]!r}")
        found[name] = posixpath.normpath(posixpath.join("/", file)).lstrip("/")
    return found


def _commands_apart(packages: Sequence[dict[str, Any]]) -> None:
    """Of a command that several packages have in one folder, npm links the first one's, by how it sorts them."""
    seen = set()
    for package in sorted(packages, key=_sorted_at):
        home = package["at"].rpartition("node_modules/")[0]
        taken = {name for name in package["bin"] if (home, name) in seen}
        package["bin"] = {name: file for name, file in package["bin"].items() if name not in taken}
        seen |= {(home, name) for name in package["bin"]}


def _sorted_at(package: Mapping[str, Any]) -> list[int]:
    """As ICU sorts names; of two that differ in case, the one in lower case comes first."""
    return [_SORTED.index(char) for char in package["at"].lower()]


def _hidden(data: Mapping[str, Any], there: Mapping[str, Mapping[str, Any]]) -> str:
    kept = {key: data[key] for key in ("name", "version") if key in data}
    hidden = {**kept, "lockfileVersion": 3, "requires": True, "packages": dict(there)}
    return json.dumps(hidden, indent=2, ensure_ascii=False) + "\n"
