"""Which package manager installs an app: its lock's, in the version that comes nearest to the one it is made with."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vibed.classify import node_locks
from vibed.runtimes.layers.managers import bun
from vibed.runtimes.layers.managers.manager import Manager
from vibed.runtimes.layers.managers.npm import LOCKS, Npm
from vibed.runtimes.layers.managers.pnpm import Pnpm
from vibed.runtimes.layers.managers.yarn import Yarn1, Yarn4

_NAMED = re.compile(r"(npm|pnpm|yarn|bun)@[^\d]{0,3}(\d{1,4})")
_LOCK_VERSION = re.compile(r"^lockfileVersion: '?(\d{1,4})", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Choice:
    """See the module's docstring."""

    manager: Manager
    lock: str | None = None
    """The text of the app's own, where there is one that can be followed."""
    note: str = ""
    """What its owner should know of it."""


def of(name: str, files: Mapping[str, str]) -> Choice:
    """`name`: of the manager, without a version; `files`: those that decide, by name."""
    manifest = _manifest(files)
    named = _named(manifest)
    major = named.get(name)
    match name:
        case "pnpm":
            # 11 reads no more of package.json than others do, and knows settings that 10 does not
            manager: Manager = Pnpm(11 if major is not None and major >= 11 else 10)
            lock = files.get(manager.lock)
            version = _LOCK_VERSION.search(lock or "")
            if lock is not None and (version is None or version[1] != "9"):
                found = f"version {version[1]}" if version else "no version"
                return Choice(manager, None, f"{manager.lock} has {found}, which no pnpm here reads: resolved anew")
            return Choice(manager, lock, _other(name, major, (10, 11)))
        case "yarn":
            lock = files.get("yarn.lock")
            berry = node_locks.is_berry(lock) if lock is not None else major is not None and major >= 2
            chosen = 4 if berry else 1
            return Choice(Yarn4() if berry else Yarn1(), lock or None, _other(name, major, (chosen,)))
        case "npm":
            return Choice(Npm(), next((files[path] for path in LOCKS if path in files), None))
        case "bun":
            return _bun(files.get("bun.lock"), manifest)
    return Choice(Npm(), None, f"installed by npm instead of {name}, whose lock was not followed")


def _bun(lock: str | None, manifest: Mapping[str, Any]) -> Choice:
    if lock is None:
        return Choice(Npm(), None, "bun is not here: npm installed it")
    try:
        found = bun.read(lock)
        bun.npm_lock(found)
    except bun.Unreadable as error:
        return Choice(Npm(), None, f"npm installed it, and bun.lock was not followed: {error}")
    if not bun.fits(found, manifest):
        return Choice(Npm(), None, "npm installed it, and resolved it anew: bun.lock does not fit package.json")
    patched = manifest.get("patchedDependencies")
    names = ", ".join(sorted(map(str, patched))[:5]) if isinstance(patched, dict) else ""
    return Choice(bun.Bun(), lock, f"bun's patches are not applied: {names}" if names else "")


def _other(name: str, named: int | None, have: tuple[int, ...]) -> str:
    if named is None or named in have:
        return ""
    nearest = min(have, key=lambda major: abs(major - named))
    return f"package.json names {name} {named}; {name} {nearest}, which reads the same lock, installed it"


def _manifest(files: Mapping[str, str]) -> Mapping[str, Any]:
    try:
        data = json.loads(files.get("package.json", "{}"))
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _named(manifest: Mapping[str, Any]) -> dict[str, int]:
    """The major version of the manager that package.json names."""
    match = _NAMED.match(str(manifest.get("packageManager", "")))
    if match is None:
        engines = manifest.get("devEngines")
        asked = engines.get("packageManager") if isinstance(engines, dict) else None
        if isinstance(asked, dict):
            match = _NAMED.match(f"{asked.get('name')}@{asked.get('version')}")
    return {match[1]: int(match[2])} if match is not None else {}
