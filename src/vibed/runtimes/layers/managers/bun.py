"""bun.lock, followed by npm: it says which version lies at which place, and so does npm's lock."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vibed.runtimes.gate import NPM
from vibed.runtimes.layers.managers.npm import Npm
from vibed.runtimes.layers.npm_tree import marks
from vibed.runtimes.layers.npm_tree.graph import Graph

_TRAILING = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])|//[^\n]*')
_EDGES = ("dependencies", "optionalDependencies", "peerDependencies")
_WANTED = ("dependencies", "devDependencies", "optionalDependencies", "peerDependencies")


class Unreadable(Exception):
    """It is no bun.lock, or has what npm cannot follow. The message says which."""


@dataclass(frozen=True, slots=True)
class Bun(Npm):
    """npm, following bun's lock."""

    def placed(self, files: Mapping[str, str], lock: str | None) -> dict[str, str]:
        manifest = json.loads(files["package.json"])
        followed = _as_npms(lock)
        has = json.loads(followed)["packages"] if followed else {}
        for kind in _WANTED:
            if isinstance(manifest.get(kind), dict):
                # what the lock has is what is wanted
                asked = manifest[kind].items()
                manifest[kind] = {name: "*" if f"node_modules/{name}" in has else spec for name, spec in asked}
        for kind in ("overrides", "resolutions"):
            manifest.pop(kind, None)
        if followed and not has.get("") and not any(entry.get("link") for entry in has.values()):
            followed = _marked(has, manifest)  # of several packages npm finds that out first
        return Npm.placed(self, {**files, "package.json": json.dumps(manifest)}, followed)

    def pinned(self, lock: str, *, development: bool) -> dict[str, str]:
        return Npm.pinned(self, _as_npms(lock) or "", development=development)


def _marked(packages: dict[str, Any], manifest: Mapping[str, Any]) -> str:
    """npm's lock of packages, with what the project asks for, and so what it would find out of each."""
    packages[""] = {kind: manifest[kind] for kind in (*_WANTED, "peerDependenciesMeta") if manifest.get(kind)}
    for at, mine in marks.of(Graph(packages)).items():
        packages[at] |= dict.fromkeys(sorted(mine - {"extraneous"}), True)
    return json.dumps({"name": "app", "lockfileVersion": 3, "requires": True, "packages": packages})


def _as_npms(lock: str | None) -> str | None:
    """bun's lock in npm's form; npm's, which it writes where bun's does not do, as it is."""
    if lock is None or 'lockfileVersion": 3' in lock:
        return lock
    return json.dumps(npm_lock(read(lock)))


def read(text: str) -> dict[str, Any]:
    """JSON with commas where JSON has none. Raises Unreadable."""
    try:
        data = json.loads(_TRAILING.sub(lambda match: match[1] or "", text))
    except ValueError as error:
        raise Unreadable(str(error)) from error
    if (
        not isinstance(data, dict)
        or not isinstance(data.get("packages"), dict)
        or not _is_table(data.get("workspaces"))
    ):
        raise Unreadable("it names no packages")
    return data


def fits(lock: Mapping[str, Any], manifest: Mapping[str, Any]) -> bool:
    """Whether a lock was made of a package.json that asks for the same."""
    root = lock["workspaces"].get("")
    return _is_table(root) and all((root.get(kind) or {}) == (manifest.get(kind) or {}) for kind in _WANTED[:3])


def npm_lock(lock: Mapping[str, Any]) -> dict[str, Any]:
    """npm's lock that puts the same versions at the same places. Edges say no ranges: bun has seen to those, also to
    what its overrides change. Raises Unreadable.
    """
    folders = {
        str(workspace["name"]): folder
        for folder, workspace in lock["workspaces"].items()
        if folder and _is_table(workspace) and "name" in workspace
    }
    packages = {key: entry for key, entry in lock["packages"].items() if isinstance(entry, list) and entry}
    found: dict[str, Any] = {"": {}}
    for key, entry in packages.items():
        spec = str(entry[0])
        name, version = spec[:1] + spec[1:].partition("@")[0], spec[1:].partition("@")[2]
        place = _place(key, folders)
        if version.startswith("workspace:"):
            found[place] = {"resolved": version.removeprefix("workspace:"), "link": True}
        elif re.match(r"\d", version) and len(entry) >= 4 and str(entry[3]).startswith("sha"):
            found[place] = _entry(name, version, entry, key, packages)
        else:
            raise Unreadable(f"{spec[:200]} is of no registry")
    for folder, workspace in lock["workspaces"].items():
        if folder and _is_table(workspace):
            wanted = {kind: _names(workspace.get(kind)) for kind in _WANTED[:3] if workspace.get(kind)}
            found[folder] = {"name": workspace.get("name"), "version": workspace.get("version", "0.0.0"), **wanted}
    return {"name": "app", "lockfileVersion": 3, "requires": True, "packages": found}


def _entry(name: str, version: str, entry: list[Any], key: str, packages: Mapping[str, Any]) -> dict[str, Any]:
    facts = entry[2] if _is_table(entry[2]) else {}
    short = name.rpartition("/")[2]
    made: dict[str, Any] = {
        "name": name,
        "version": version,
        "resolved": f"{NPM}{name}/-/{short}-{version.partition('+')[0]}.tgz",
        "integrity": entry[3],
        # it is looked up where it was unpacked
        "hasInstallScript": True,
    }
    for kind in _EDGES:
        # peers and optional packages may be left out
        names = [other for other in _names(facts.get(kind)) if kind == "dependencies" or _seen(key, other, packages)]
        if names:
            made[kind] = dict.fromkeys(names, "*")
    for kind in ("os", "cpu", "libc"):
        if facts.get(kind):
            made[kind] = facts[kind] if isinstance(facts[kind], list) else [facts[kind]]
    if facts.get("bin"):
        made["bin"] = {short: facts["bin"]} if isinstance(facts["bin"], str) else facts["bin"]
    if facts.get("bundled"):
        made["inBundle"] = True
    return made


def _seen(key: str, name: str, packages: Mapping[str, Any]) -> bool:
    """Whether a package is there for the one at `key`: below it, or beside one that it is below."""
    parts = list(_parts(key))
    return any("/".join([*parts[:depth], name]) in packages for depth in range(len(parts), -1, -1))


def _place(key: str, folders: Mapping[str, str]) -> str:
    """`a/@b/c` ▸ `node_modules/a/node_modules/@b/c`; what is below a workspace lies in its folder."""
    first, *rest = _parts(key)
    start = folders[first] if rest and first in folders else f"node_modules/{first}"
    return "/node_modules/".join([start, *rest])


def _parts(key: str) -> Iterator[str]:
    scope = ""
    for part in key.split("/"):
        if part.startswith("@") and not scope:
            scope = part
            continue
        yield f"{scope}/{part}" if scope else part
        scope = ""


def _names(wanted: object) -> dict[str, str]:
    return dict.fromkeys(wanted, "*") if isinstance(wanted, dict) else {}


def _is_table(value: object) -> bool:
    return isinstance(value, dict)
