"""The programs that install an app's packages, which builder sandboxes have at /layers/tools: on one machine all of
them, as an image, on a cluster those that are used together, as kits.

    uv                            installs Python packages
    npm/bin/npm-cli.js            installs npm packages, as the others do
    pnpm-10, pnpm-11/bin/pnpm.cjs
    yarn-1, yarn-4/bin/yarn.js
    bundler/node_modules/esbuild  bundles workers (its API, for the sake of plugins)
    bin/npm, npx, pnpm, yarn      for install scripts that call them

Made on first need, from what `vibed.runtimes.tools` installs by hash, and named by the versions.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from vibed.runtimes.layers.boxes import made, name_of
from vibed.runtimes.layers.kits import Kit
from vibed.runtimes.tools import Tools

NAMES = ("uv", "npm", "pnpm-10", "pnpm-11", "yarn-1", "yarn-4", "bundler")
_KINDS = {
    "installers-python": frozenset({"python"}),
    "installers-node": frozenset({"node", "build", "worker"}),
}
"""Which kinds of orders take which; Go's takes what the template has."""
_LAYOUT = "3"
_WHAT = "the package installers"
_DEADLINE_S = 600.0
_SCRIPT = '#!/bin/sh\nexec node /layers/tools/{program} "$@"\n'
_CALLED = {
    "npm": "npm/bin/npm-cli.js",
    "npx": "npm/bin/npx-cli.js",
    "pnpm": "pnpm-10/bin/pnpm.cjs",
    "yarn": "yarn-1/bin/yarn.js",
}


class Toolbox:
    """The image of one VIBED_HOME, which has all of them."""

    def __init__(self, home: Path, tools: Tools) -> None:
        self._folder = home / "layers" / "tools"
        self._tools = tools

    def version(self, name: str) -> str:
        """The pinned version of one of the programs."""
        return self._tools.version(name)

    async def image(self, kind: str = "") -> Path:
        """Make it be there, whatever it is for. Raises ToolError."""
        final = self._folder / name_of(_facts(self._tools, NAMES))
        return await made(final, self._fill, what=_WHAT, deadline_s=_DEADLINE_S)

    async def _fill(self, root: Path) -> None:
        await _filled(root, self._tools, NAMES)


def kit_for(kind: str, tools: Tools) -> Kit | None:
    """The installers that an order of a kind takes; None where it takes none of them."""
    return next((kit for kit in kits(tools) if kind in _KINDS[kit.name]), None)


def kits(tools: Tools) -> tuple[Kit, ...]:
    """All of them, each with those that are used together."""

    def kit(name: str, names: Sequence[str]) -> Kit:
        async def fill(root: Path, log: Path) -> Mapping[str, str]:
            await _filled(root, tools, names)
            return {}

        return Kit(name, _WHAT, tuple(_facts(tools, names)), fill)

    return kit("installers-python", NAMES[:1]), kit("installers-node", NAMES[1:])


async def _filled(root: Path, tools: Tools, names: Sequence[str]) -> None:
    """Make a folder with installers. Raises ToolError, OSError."""
    programs = {name: await tools.install(name) for name in names}
    await asyncio.to_thread(_copy, root, programs)


def _facts(tools: Tools, names: Sequence[str]) -> list[str]:
    return [_LAYOUT, os.uname().machine, *(f"{name} {tools.version(name)}" for name in names)]


def _copy(root: Path, programs: Mapping[str, Path]) -> None:
    root.mkdir(parents=True)
    for name, program in programs.items():
        if name == "uv":
            shutil.copyfile(program, root / name)
            (root / name).chmod(0o755)
        elif name == "bundler":  # with the program that it calls, which is a package beside it
            shutil.copytree(program.parents[2], root / name / "node_modules", symlinks=True)
        else:
            shutil.copytree(program.parent.parent, root / name, symlinks=True)
    for name, called in _CALLED.items():
        if called.partition("/")[0] in programs:
            script = root / "bin" / name
            script.parent.mkdir(exist_ok=True)
            script.write_text(_SCRIPT.format(program=called))
            script.chmod(0o755)
