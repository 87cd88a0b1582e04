"""yarn: 1, which is its own program, and 4, which reads the locks of 2 and 3 too.

Plug'n'Play is laid out as `node_modules`: what resolves there resolves here, and the lock is the same.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from vibed.classify import node_locks
from vibed.runtimes.gate import NPM
from vibed.runtimes.layers.managers import words
from vibed.runtimes.layers.managers.manager import PATIENCE_MS, TOOLS, Wish, placed
from vibed.runtimes.layers.managers.tarballs import path_of
from vibed.runtimes.layers.trouble import Trouble

_ADDRESS = re.compile(r'^(  resolved "?)([^"#\s]+)((?:#[0-9a-f]+)?"?)(\n  integrity \S+)?', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Yarn1:
    """Yarn 1."""

    tool: str = "yarn-1"
    lock: str = "yarn.lock"

    def resolving(self, wish: Wish) -> Mapping[str, Any]:
        # it writes no lock without installing
        return {"commands": [[*self._install, "--ignore-scripts", "--production=false"]], "env": _OWN}

    def installing(self, wish: Wish) -> Mapping[str, Any]:
        how = f"--production={'false' if wish.development else 'true'}"
        return {"commands": [[*self._install, "--frozen-lockfile", how]], "env": _OWN}

    @property
    def _install(self) -> list[str]:
        program = f"{TOOLS}/{self.tool}/bin/yarn.js"
        common = ["--non-interactive", "--no-progress", "--ignore-engines", f"--registry={NPM}"]
        return [program, "install", *common, "--cache-folder=/tmp/cache", f"--network-timeout={PATIENCE_MS}"]

    @property
    def rebuilding(self) -> Mapping[str, Any] | None:
        return None

    def pinned(self, lock: str, *, development: bool) -> dict[str, str]:
        return dict(node_locks.pinned(self.lock, lock))

    def placed(self, files: Mapping[str, str], lock: str | None) -> dict[str, str]:
        def moved(match: re.Match[str]) -> str:
            hashed = match[4] or "#" in match[3]
            path = path_of(match[2]) if hashed else ""
            return f"{match[1]}{NPM + path if path else match[2]}{match[3]}{match[4] or ''}"

        return placed(files, self.lock, None if lock is None else _ADDRESS.sub(moved, lock))

    def explain(self, said: str, node: str, unknown: Collection[str]) -> Trouble:
        return words.of_yarn(said, node, unknown)


@dataclass(frozen=True, slots=True)
class Yarn4:
    """Yarn 4."""

    tool: str = "yarn-4"
    lock: str = "yarn.lock"

    def resolving(self, wish: Wish) -> Mapping[str, Any]:
        return {"commands": [self._program("install", "--mode=update-lockfile")], "env": _SETTINGS}

    def installing(self, wish: Wish) -> Mapping[str, Any]:
        # --immutable refuses every lock of an earlier version of yarn, and `focus` none that does not fit
        check = self._program("install", "--mode=update-lockfile")
        install = ["install"] if wish.development else ["workspaces", "focus", "--all", "--production"]
        held = {"file": self.lock, "lines": '^  resolution: "(?!.*@workspace:)'}
        return {"commands": [check, self._program(*install)], "env": _SETTINGS, "held": held}

    def _program(self, *arguments: str) -> list[str]:
        return [f"{TOOLS}/{self.tool}/bin/yarn.js", *arguments]

    @property
    def rebuilding(self) -> Mapping[str, Any] | None:
        return None

    def pinned(self, lock: str, *, development: bool) -> dict[str, str]:
        return dict(node_locks.pinned(self.lock, lock))

    def placed(self, files: Mapping[str, str], lock: str | None) -> dict[str, str]:
        # a lock names versions, and the registry is a setting; without one, another project above would be meant
        return placed(files, self.lock, lock or "")

    def explain(self, said: str, node: str, unknown: Collection[str]) -> Trouble:
        return words.of_yarn(said, node, unknown)


# it is not to run another version of itself
_OWN = {"YARN_IGNORE_PATH": "1"}
_SETTINGS = {
    **_OWN,
    "YARN_NODE_LINKER": "node-modules",
    "YARN_ENABLE_SCRIPTS": "true",
    "YARN_ENABLE_IMMUTABLE_INSTALLS": "false",
    "YARN_ENABLE_HARDENED_MODE": "false",
    "YARN_ENABLE_GLOBAL_CACHE": "false",
    "YARN_ENABLE_TELEMETRY": "false",
    "YARN_ENABLE_PROGRESS_BARS": "false",
    "YARN_CACHE_FOLDER": "/tmp/cache",
    "YARN_GLOBAL_FOLDER": "/tmp/yarn",
    "YARN_COMPRESSION_LEVEL": "0",
    "YARN_NPM_MINIMAL_AGE_GATE": "0",
    "YARN_HTTP_TIMEOUT": str(PATIENCE_MS),
}
