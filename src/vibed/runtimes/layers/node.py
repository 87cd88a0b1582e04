"""A layer of npm packages: `node_modules` as npm makes it from a lock.

Without a lock, or with one that does not fit its package.json, npm first writes one; no code of any package runs for
that. The lock is the layer's key, and `npm ci` follows it, every file verified by its hash. Install scripts of packages
run, whatever npm does by default: a builder is the place for them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vibed.runtimes.gate import NPM
from vibed.runtimes.layers.ask import COMPILING, Ask, failure, unknown
from vibed.runtimes.layers.keys import layer_key, normalised
from vibed.runtimes.layers.layer import Layer
from vibed.runtimes.layers.making import Making
from vibed.runtimes.layers.npm_words import explain
from vibed.runtimes.layers.work import StepFailed

LOCKS = ("npm-shrinkwrap.json", "package-lock.json")
_TARBALL = re.compile(r"https?://.*?/((?:@[^/]+(?:/|%2[fF]))?[^/@]+/-/[^/]+\.tgz)")
_OWN = "package-lock.json"


async def make(ask: Ask, making: Making, installer: str) -> tuple[Layer, tuple[str, ...]]:
    """The layer that `ask` leads to, and notes for its owner. Raises RunFailed, VibedError, OSError."""
    files = texts(ask)
    # NODE_ENV is production here
    flags = ["--include=dev"] if ask.install.development else ["--omit=dev"]
    follow = "ci"
    notes: list[str] = []
    if ask.install.manager != "npm":
        notes.append(f"installed by npm instead of {ask.install.manager}, whose lock was not followed")
    lock = given = next((files[name] for name in LOCKS if name in files), None)
    if ask.install.wanted:
        lock = None  # what there is holds where it fits, and lacks the rest
    node = next((version for name, version in ask.base.packages.items() if name.startswith("nodejs")), "24")
    compilers = False
    for _ in range(5):
        try:
            if lock is None:
                ask.say("resolving")
                lock = await making.resolve(ask, {"files": files, "flags": flags, "inPlace": ask.owner is not None})
            layer = await _install(ask, making, installer, files, lock, flags, follow, compilers)
            return layer, (*notes, *layer.notes)
        except StepFailed as error:
            trouble = explain(error.said, node, unknown(error)) if error.said else None
            if trouble is not None and trouble.stale_lock and lock is not None and lock != given and follow == "ci":
                # npm's own lock can lack optional packages of other systems, and `npm ci` then refuses it
                follow = "install"
            elif trouble is not None and trouble.stale_lock and lock is not None and lock == given:
                # as `npm install` does: what the lock says still holds where it fits
                lock = None
                notes.append("package-lock.json does not fit package.json; what it does not say was resolved anew")
            elif trouble is not None and trouble.peers and "--legacy-peer-deps" not in flags:
                flags.append("--legacy-peer-deps")
                notes.append(f"installed all the same: {trouble.message}")
            elif trouble is not None and trouble.compiler and ask.compiles and not compilers:
                compilers = True
                ask.say(COMPILING)
            else:
                raise failure(error, trouble) from error
    raise failure(StepFailed("npm fails in a new way each time"), None)


async def _install(
    ask: Ask,
    making: Making,
    installer: str,
    files: Mapping[str, str],
    lock: str,
    flags: list[str],
    follow: str,
    compilers: bool,
) -> Layer:
    manifest = normalised("package.json", files["package.json"].encode())
    facts = [
        f"lock {normalised(_OWN, lock.encode())}",
        f"manifest {manifest}",
        f"by {follow}",
        *(f"flag {flag}" for flag in flags),
    ]
    facts += [f"{name} {text}" for name, text in files.items() if name == ".npmrc"]
    key = layer_key("node", ask.base, installer, facts, ask.owner)
    if (found := making.store.find(key)) is not None:
        return found
    packages = packages_of(lock, development=ask.install.development)
    ask.say(f"installing {len(packages)} packages")
    placed = {name: text for name, text in files.items() if name not in LOCKS} | {_OWN: of_gate(lock)}
    request = {"files": placed, "flags": flags, "follow": follow, "inPlace": ask.owner is not None}
    return await making.layer(ask, key, request, packages, compilers=compilers)


def texts(ask: Ask) -> dict[str, str]:
    """The files that npm reads, by name; a package.json of what is wanted where the source has none."""
    files = {path.rpartition("/")[2]: content.decode("utf-8-sig", "replace") for path, content in ask.files.items()}
    if "package.json" not in files:
        wanted = dict(spec_of(line) for line in ask.install.wanted)
        optional = {name: spec for name, spec in wanted.items() if name in ask.install.optional}
        manifest = {
            "name": "app",
            "private": True,
            "dependencies": {name: spec for name, spec in wanted.items() if name not in optional},
            "optionalDependencies": optional,
        }
        files["package.json"] = json.dumps(manifest)
    elif ask.install.wanted:
        files["package.json"] = _with(files["package.json"], ask.install.wanted)
    if ask.owner is None:
        # its own scripts belong to who wrote them: an app whose scripts run at install time is private
        files["package.json"] = normalised("package.json", files["package.json"].encode())
    return files


def _with(manifest: str, wanted: Sequence[str]) -> str:
    """A package.json that names more: what only its build needs."""
    data = json.loads(manifest)
    data["devDependencies"] = {**(data.get("devDependencies") or {}), **dict(spec_of(line) for line in wanted)}
    return json.dumps(data)


def spec_of(line: str) -> tuple[str, str]:
    """`express@^4` ▸ name and spec; `*` where none is said."""
    name, at, spec = line.rpartition("@")
    return (name, spec or "*") if at and name else (line, "*")


def of_gate(lock: str) -> str:
    """A lock whose packages are fetched where a builder can: from the gate, wherever the lock found them, since what
    has a hash is the same everywhere. What has none, or is no registry's, stays (and is refused by its name).
    """
    try:
        data = json.loads(lock)
    except ValueError:
        return lock
    _move(data)
    return json.dumps(data)


def _move(entry: Any) -> None:
    if isinstance(entry, dict):
        found = entry.get("resolved")
        if isinstance(found, str) and entry.get("integrity") and (match := _TARBALL.fullmatch(found)):
            entry["resolved"] = NPM + match[1]
    for inner in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
        _move(inner)


def packages_of(lock: str, *, development: bool) -> dict[str, str]:
    """Name -> version of what a lock puts at the top of node_modules, with `development` what is there for that too."""
    try:
        data: Any = json.loads(lock)
    except ValueError:
        return {}
    found = data.get("packages") if isinstance(data, dict) else None
    if not isinstance(found, dict):
        return {}
    prefix = "node_modules/"
    return {
        at.removeprefix(prefix): str(entry.get("version", ""))
        for at, entry in found.items()
        if at.startswith(prefix) and f"/{prefix}" not in at and isinstance(entry, dict)
        if development or not entry.get("dev")
    }
