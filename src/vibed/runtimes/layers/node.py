"""A layer of npm packages: `node_modules` as the project's own package manager makes it from its lock.

Without a lock, or with one that does not fit its package.json, the manager first writes one; no code of any package
runs for that. The lock is the layer's key and is followed to the letter, every file verified by its hash. Install
scripts of packages run, whatever managers do by default: a builder is the place for them.
"""

from __future__ import annotations

import asyncio
import json
import os
import posixpath
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from vibed import records
from vibed.apps.app import Install
from vibed.classify import node_locks
from vibed.runtimes.layers.ask import COMPILING, Ask, failure, unknown
from vibed.runtimes.layers.keys import layer_key, normalised
from vibed.runtimes.layers.layer import Layer
from vibed.runtimes.layers.making import Making
from vibed.runtimes.layers.managers import choice, credentials
from vibed.runtimes.layers.managers.manager import Manager, Wish
from vibed.runtimes.layers.npm_tree import plan
from vibed.runtimes.layers.npm_tree.installation import Installation
from vibed.runtimes.layers.npm_tree.renewal import renewed
from vibed.runtimes.layers.steps import Done, StepFailed
from vibed.runtimes.layers.trouble import no_room

log = records.logger("vibed.layers")

_WORKSPACE = re.compile(r'"workspace:[^"\n]{0,60}"')


async def make(ask: Ask, making: Making, installer: str) -> tuple[Layer, tuple[str, ...]]:
    """The layer that `ask` leads to, and notes for its owner. Raises RunFailed, VibedError, OSError."""
    chosen = choice.of(ask.install.manager, _decoded(ask.install, ask.files))
    manager = chosen.manager
    files = texts(ask.install, ask.files, tool=manager.tool)
    if chosen.lock is not None and manager.tool == "npm":
        chosen = replace(chosen, lock=await renewed(ask, making, chosen.lock, files["package.json"]))
    lock = chosen.lock
    wish = Wish(ask.install.development)
    notes = [chosen.note] if chosen.note else []
    if ask.install.wanted:
        lock = None  # what there is holds where it fits, and lacks the rest
    node = _node_version(ask)
    compilers = False
    for _ in range(5):
        try:
            if lock is None:
                ask.say("resolving")
                lock = await _resolve(ask, making, manager, files, chosen.lock, wish)
            fresh = lock != chosen.lock
            layer = await _install(ask, making, manager, installer, files, lock, wish, fresh=fresh, compilers=compilers)
            return layer, (*notes, *layer.notes)
        except StepFailed as error:
            trouble = no_room(error.said) or manager.explain(error.said, node, unknown(error)) if error.said else None
            if trouble is not None and trouble.stale_lock and lock is not None and lock != chosen.lock:
                if wish.loose:
                    raise failure(error, trouble) from error
                wish = replace(wish, loose=True)
            elif trouble is not None and trouble.stale_lock and lock is not None:
                # as the managers do themselves: what the lock says still holds where it fits
                lock = None
                notes.append(f"{manager.lock} does not fit package.json; what it does not say was resolved anew")
            elif trouble is not None and trouble.peers and not wish.any_peers:
                wish = replace(wish, any_peers=True)
                notes.append(f"installed all the same: {trouble.message}")
            elif trouble is not None and trouble.compiler and ask.compiles and not compilers:
                compilers = True
                ask.say(COMPILING)
            else:
                raise failure(error, trouble) from error
    raise failure(StepFailed(f"{manager.tool} fails in a new way each time"), None)


def tool(install: Install, files: Mapping[str, bytes]) -> str:
    """The name, in the toolbox, of what installs. `files`: those that the install names, by path."""
    return choice.of(install.manager, _decoded(install, files)).manager.tool


async def _resolve(
    ask: Ask, making: Making, manager: Manager, files: Mapping[str, str], given: str | None, wish: Wish
) -> str:
    """`given`: the app's own lock, which holds where it fits."""
    request = {"files": manager.placed(files, given), "lock": manager.lock, **_place(ask)}
    return await making.resolve(ask, {**request, **manager.resolving(wish)})


def _place(ask: Ask) -> dict[str, Any]:
    """Where it is made: for what belongs to one owner's app, as that has it."""
    return {"inPlace": ask.owner is not None, "folder": ask.install.folder}


async def _install(
    ask: Ask,
    making: Making,
    manager: Manager,
    installer: str,
    files: Mapping[str, str],
    lock: str,
    wish: Wish,
    *,
    fresh: bool,
    compilers: bool,
) -> Layer:
    """`fresh`: the manager has just made the lock of these files."""
    step = manager.installing(wish)
    named = ask.install.by_files
    others = {name: text for name, text in files.items() if name not in node_locks.MANAGERS}
    facts = [
        f"lock {normalised(manager.lock, lock.encode())}",
        *(f"file {name} {normalised(name, text.encode(), named=named)}" for name, text in others.items()),
        *(f"command {json.dumps(command)}" for command in step["commands"]),
        *(("what packages of it name is linked in their folders",) if step.get("linked") and ask.owner else ()),
    ]
    key = layer_key("node", ask.base, installer, facts, ask.owner)
    if (found := await asyncio.to_thread(making.store.find, key)) is not None:
        return found
    packages = manager.pinned(lock, development=wish.development)
    ask.say(f"installing {len(packages)} packages")
    placed = manager.placed(files, lock)
    request = {"files": placed, **_place(ask), **step}
    install: Callable[[Path], Awaitable[Done]] = partial(making.install, ask, request, compilers=compilers)
    if manager.rebuilding is not None and ask.owner is None and not wish.loose:
        machine = _machine(ask, installer)
        try:
            made = plan.of(placed, placed[manager.lock], machine, development=wish.development, fresh=fresh)
            install = Installation(ask, making, made, request, manager.rebuilding, compilers)
        except plan.Left as why:
            log.info("left to npm", why=str(why))
    return await making.layer(ask, key, packages, install)


def _machine(ask: Ask, installer: str) -> plan.Machine:
    """`installer`: npm, with its version."""
    cpu = {"x86_64": "x64", "aarch64": "arm64"}.get(machine := os.uname().machine, machine)
    return plan.Machine(cpu, node=_node_version(ask), npm=installer.rpartition(" ")[2])


def _node_version(ask: Ask) -> str:
    return next((version for name, version in ask.base.packages.items() if name.startswith("nodejs")), "24")


def texts(install: Install, files: Mapping[str, bytes], *, tool: str = "npm") -> dict[str, str]:
    """The files that the manager reads, by their paths from the install's folder on; a package.json of what is wanted
    where the source has none. `tool`: who reads them.
    """
    found = {path: credentials.without(path, text) for path, text in _decoded(install, files).items()}
    if tool == "npm":  # which knows the packages of a workspace by their names alone
        manifests = [path for path in found if path.endswith("package.json")]
        found |= {path: _WORKSPACE.sub('"*"', found[path]) for path in manifests}
    if "package.json" not in found:
        wanted = dict(spec_of(line) for line in install.wanted)
        optional = {name: spec for name, spec in wanted.items() if name in install.optional}
        manifest = {
            "name": "app",
            "private": True,
            "dependencies": {name: spec for name, spec in wanted.items() if name not in optional},
            "optionalDependencies": optional,
        }
        found["package.json"] = json.dumps(manifest)
    elif install.wanted:
        kind = "devDependencies" if install.development else "dependencies"
        found["package.json"] = _with(found["package.json"], install.wanted, kind)
    if not install.private or install.by_files:
        # its own scripts belong to who wrote them: an app whose scripts run at install time is private
        for path in [path for path in found if path.endswith("package.json")]:
            found[path] = normalised(path, found[path].encode(), named=install.by_files)
    found["package.json"] = _of_no_manager(found["package.json"])
    return found


def _with(manifest: str, wanted: Sequence[str], kind: str) -> str:
    """A package.json that names more: what only its build needs, or what it links to."""
    data = json.loads(manifest)
    data[kind] = {**(data.get(kind) or {}), **dict(spec_of(line) for line in wanted)}
    return json.dumps(data)


def spec_of(line: str) -> tuple[str, str]:
    """`express@^4` ▸ name and spec; `*` where none is said."""
    name, at, spec = line.rpartition("@")
    return (name, spec or "*") if at and name else (line, "*")


def _of_no_manager(manifest: str) -> str:
    """A package.json that names no manager: who has been chosen must not refuse, or fetch the other one."""
    try:
        data: Any = json.loads(manifest)
    except ValueError:
        return manifest
    if not isinstance(data, dict):
        return manifest
    engines = data.get("devEngines")
    kept = {key: value for key, value in data.items() if key != "packageManager"}
    if isinstance(engines, dict):
        kept["devEngines"] = {key: value for key, value in engines.items() if key != "packageManager"}
    return json.dumps(kept) if kept != data else manifest


def _decoded(install: Install, files: Mapping[str, bytes]) -> dict[str, str]:
    return {
        posixpath.relpath(path, install.folder or "."): content.decode("utf-8-sig", "replace")
        for path, content in files.items()
    }
