"""npm: `npm ci` follows the lock."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from vibed.runtimes.gate import NPM
from vibed.runtimes.layers import npm_words
from vibed.runtimes.layers.managers.manager import TOOLS, Wish, placed
from vibed.runtimes.layers.managers.tarballs import path_of
from vibed.runtimes.layers.trouble import Trouble

LOCKS = ("npm-shrinkwrap.json", "package-lock.json")
_PROGRAM = f"{TOOLS}/npm/bin/npm-cli.js"
_QUIET = ("--no-audit", "--no-fund", "--no-update-notifier", "--no-progress", "--loglevel=warn")
_SCRIPTS = ("--dangerously-allow-all-scripts", "--foreground-scripts")


@dataclass(frozen=True, slots=True)
class Npm:
    """See the module's docstring."""

    tool: str = "npm"
    lock: str = "package-lock.json"

    def resolving(self, wish: Wish) -> Mapping[str, Any]:
        return {"commands": [[_PROGRAM, "install", "--package-lock-only", "--ignore-scripts", *_QUIET, *_flags(wish)]]}

    def installing(self, wish: Wish) -> Mapping[str, Any]:
        # npm's own lock can lack optional packages of other systems, and `npm ci` then refuses it
        follow = "install" if wish.loose else "ci"
        return {"commands": [[_PROGRAM, follow, *_SCRIPTS, *_QUIET, *_flags(wish)]]}

    @property
    def rebuilding(self) -> Mapping[str, Any] | None:
        return {"commands": [[_PROGRAM, "rebuild", *_SCRIPTS, *_QUIET]]}

    def pinned(self, lock: str, *, development: bool) -> dict[str, str]:
        """What is at the top of node_modules."""
        try:
            data: Any = json.loads(lock)
        except ValueError:
            return {}
        data = data if isinstance(data, dict) else {}
        prefix = "node_modules/"
        found = data.get("packages")
        if found is None and isinstance(old := data.get("dependencies"), dict):
            found = {prefix + name: entry for name, entry in old.items()}
        if not isinstance(found, dict):
            return {}
        return {
            at.removeprefix(prefix): str(entry.get("version", ""))
            for at, entry in found.items()
            if at.startswith(prefix) and f"/{prefix}" not in at and isinstance(entry, dict)
            if development or not entry.get("dev")
        }

    def placed(self, files: Mapping[str, str], lock: str | None) -> dict[str, str]:
        return placed(files, self.lock, None if lock is None else of_gate(lock))

    def explain(self, said: str, node: str, unknown: Collection[str]) -> Trouble:
        return npm_words.explain(said, node, unknown)


def of_gate(lock: str) -> str:
    """A lock whose packages are fetched from the gate."""
    try:
        data = json.loads(lock)
    except ValueError:
        return lock
    _move(data)
    return json.dumps(data)


def _flags(wish: Wish) -> list[str]:
    # NODE_ENV is production here
    flags = ["--package-lock", "--include=dev" if wish.development else "--omit=dev"]
    return [*flags, "--legacy-peer-deps"] if wish.any_peers else flags


def _move(entry: Any) -> None:
    if isinstance(entry, dict):
        found = entry.get("resolved")
        if isinstance(found, str) and entry.get("integrity") and (path := path_of(found)):
            entry["resolved"] = NPM + path
    for inner in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
        _move(inner)
