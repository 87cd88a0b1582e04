"""The programs that install an app's packages, as an image that every builder sandbox has at /layers/tools.

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
import hashlib
import os
import shutil
from pathlib import Path

from vibed.runtimes.layers.boxes import made, name_of
from vibed.runtimes.tools import Tools

NAMES = ("uv", "npm", "pnpm-10", "pnpm-11", "yarn-1", "yarn-4", "bundler")
_LAYOUT = "3"
_DEADLINE_S = 600.0
_SCRIPT = '#!/bin/sh\nexec node /layers/tools/{program} "$@"\n'
_CALLED = {
    "npm": "npm/bin/npm-cli.js",
    "npx": "npm/bin/npx-cli.js",
    "pnpm": "pnpm-10/bin/pnpm.cjs",
    "yarn": "yarn-1/bin/yarn.js",
}


class Toolbox:
    """The image of one VIBED_HOME."""

    def __init__(self, home: Path, tools: Tools) -> None:
        self._folder = home / "layers" / "tools"
        self._tools = tools

    def version(self, name: str) -> str:
        """The pinned version of one of the programs."""
        return self._tools.version(name)

    async def image(self) -> Path:
        """Make it be there. Raises ToolError."""
        final = self._folder / name_of(_facts(self._tools))
        return await made(final, self._fill, what="the package installers", deadline_s=_DEADLINE_S)

    @staticmethod
    def key(tools: Tools) -> str:
        """What decides its content, as a digest."""
        return hashlib.sha256("\n".join(["tools", *_facts(tools)]).encode()).hexdigest()

    async def _fill(self, root: Path) -> None:
        await filled(root, self._tools)


async def filled(root: Path, tools: Tools) -> None:
    """Make a folder with the installers. Raises ToolError, OSError."""
    programs = {name: await tools.install(name) for name in NAMES}
    await asyncio.to_thread(_copy, root, programs)


def _facts(tools: Tools) -> list[str]:
    return [_LAYOUT, os.uname().machine, *(f"{name} {tools.version(name)}" for name in NAMES)]


def _copy(root: Path, programs: dict[str, Path]) -> None:
    (root / "bin").mkdir(parents=True)
    shutil.copyfile(programs["uv"], root / "uv")
    (root / "uv").chmod(0o755)
    for name in NAMES[1:]:
        if name == "bundler":  # with the program that it calls, which is a package beside it
            shutil.copytree(programs[name].parents[2], root / name / "node_modules", symlinks=True)
        else:
            shutil.copytree(programs[name].parent.parent, root / name, symlinks=True)
    for name, program in _CALLED.items():
        script = root / "bin" / name
        script.write_text(_SCRIPT.format(program=program))
        script.chmod(0o755)
