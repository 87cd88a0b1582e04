"""What the recipe for `node_modules` asks of a package manager."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from vibed.classify import node_locks
from vibed.runtimes.layers.trouble import Trouble

TOOLS = "/layers/tools"
"""Where a builder has the toolbox (`vibed.runtimes.layers.toolbox`)."""

PATIENCE_MS = 600_000
"""How long a client waits for an answer to go on. The gate says within a minute when a registry does not; a client's
own timer, half a minute of yarn's, also runs while it does not read, being busy with the files of a large package, and
then it begins anew with that, in vain.
"""


@dataclass(frozen=True, slots=True)
class Wish:
    """How something is to be installed."""

    development: bool = False
    """What is only needed for development, too."""
    any_peers: bool = False
    """Whether or not peer dependencies fit."""
    loose: bool = False
    """The lock is our own, and may lack packages of other systems."""


class Manager(Protocol):
    """One manager in one version. Steps are what templates/_builder/node.cjs takes: `commands`, each a program and its
    arguments, one after another; `env` for all of them; `held`, a file whose lines that begin so may not become more.
    """

    @property
    def tool(self) -> str:
        """Its name in the toolbox."""
        ...

    @property
    def lock(self) -> str:
        """The name of its lock file."""
        ...

    def resolving(self, wish: Wish) -> Mapping[str, Any]:
        """The step that writes the lock, from the one that is there where there is one. No code of packages runs."""
        ...

    def installing(self, wish: Wish) -> Mapping[str, Any]:
        """The step that makes `node_modules` of a lock, or fails where that does not fit package.json."""
        ...

    @property
    def rebuilding(self) -> Mapping[str, Any] | None:
        """The step that runs the packages' install scripts where all is laid out as its lock says, which is then one of
        npm's; None where it has to lay it out itself.
        """
        ...

    def pinned(self, lock: str, *, development: bool) -> dict[str, str]:
        """Name -> version of what a lock has installed; `development`: for that, too."""
        ...

    def placed(self, files: Mapping[str, str], lock: str | None) -> dict[str, str]:
        """The app's files and the lock as the step finds them, by name: with the packages of the lock where a builder
        can fetch them, since what has a hash is the same everywhere. What has none, or is no registry's, stays, and is
        refused by its name.
        """
        ...

    def explain(self, said: str, node: str, unknown: Collection[str]) -> Trouble:
        """What its last words come to; `node`: Node's version; `unknown`: what the registry is known not to have."""
        ...


def placed(files: Mapping[str, str], name: str, lock: str | None) -> dict[str, str]:
    """The app's files with one lock, under its name, and no other."""
    others = {file: text for file, text in files.items() if file not in node_locks.MANAGERS}
    return others if lock is None else others | {name: lock}
