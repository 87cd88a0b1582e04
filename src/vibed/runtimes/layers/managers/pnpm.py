"""pnpm, which makes a plain tree here, as npm does. Its own links to a store would be as good in a layer, but tools
that copy packages, or look for what others brought, know plain trees. What the packages of a workspace name is linked
in their own folders all the same (templates/_builder/node.cjs).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from vibed.classify import node_locks
from vibed.runtimes.gate import NPM
from vibed.runtimes.layers.managers import words
from vibed.runtimes.layers.managers.manager import TOOLS, Wish, placed
from vibed.runtimes.layers.managers.tarballs import path_of
from vibed.runtimes.layers.trouble import Trouble

_COMMON = (
    f"--registry={NPM}",
    "--store-dir=/tmp/store",
    "--node-linker=hoisted",
    "--reporter=append-only",
    # by itself it waits ten seconds, and then a minute, also where a file is not the one that it should be
    "--config.fetch-retry-mintimeout=1000",
    "--config.fetch-retry-maxtimeout=5000",
    # it is not to fetch another version of itself
    "--config.manage-package-manager-versions=false",
    "--config.pm-on-fail=ignore",
)
_LOCKED = (
    # install scripts run in a builder, and how old something may be was judged when it was locked
    "--config.dangerously-allow-all-builds=true",
    "--config.minimum-release-age=0",
    "--config.trust-lockfile=true",
)
_ADDRESS = re.compile(r"(resolution: \{integrity: [^,}\s]+, tarball: )([^,}\s]+)")


@dataclass(frozen=True, slots=True)
class Pnpm:
    """pnpm of one major version."""

    major: int
    lock: str = "pnpm-lock.yaml"

    @property
    def tool(self) -> str:
        return f"pnpm-{self.major}"

    def resolving(self, wish: Wish) -> Mapping[str, Any]:
        return {"commands": [[*self._install, "--lockfile-only", "--no-frozen-lockfile", "--ignore-scripts"]]}

    def installing(self, wish: Wish) -> Mapping[str, Any]:
        how = "--prod=false" if wish.development else "--prod"
        return {"commands": [[*self._install, "--frozen-lockfile", how, *_LOCKED]], "linked": True}

    @property
    def _install(self) -> list[str]:
        return [f"{TOOLS}/{self.tool}/bin/pnpm.cjs", "install", *_COMMON]

    @property
    def rebuilding(self) -> Mapping[str, Any] | None:
        return None

    def pinned(self, lock: str, *, development: bool) -> dict[str, str]:
        return dict(node_locks.pinned(self.lock, lock))

    def placed(self, files: Mapping[str, str], lock: str | None) -> dict[str, str]:
        def moved(match: re.Match[str]) -> str:
            path = path_of(match[2])
            return f"{match[1]}{NPM}{path}" if path else match[0]

        return placed(files, self.lock, None if lock is None else _ADDRESS.sub(moved, lock))

    def explain(self, said: str, node: str, unknown: Collection[str]) -> Trouble:
        return words.of_pnpm(said, node, unknown)
