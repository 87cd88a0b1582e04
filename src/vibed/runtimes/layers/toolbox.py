"""The programs that install an app's packages, as an image that every builder sandbox has at /layers/tools.

    uv                    installs Python packages
    npm/bin/npm-cli.js    installs npm packages
    bin/npm, bin/npx      for install scripts that call them

Made on first need, from what `vibed.runtimes.tools` installs by hash, and named by the versions.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from vibed.runtimes import commands
from vibed.runtimes.exclusive import exclusive
from vibed.runtimes.tool import ToolError
from vibed.runtimes.tools import Tools
from vibed.runtimes.trees import normalise, remove

NAMES = ("uv", "npm")
_UUID = "76696265-4400-4000-8000-000000000003"
_LAYOUT = "1"
_DEADLINE_S = 600.0
_SCRIPT = '#!/bin/sh\nexec node /layers/tools/npm/bin/{name}-cli.js "$@"\n'


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
        final = self._folder / f"{self._digest()}.erofs"
        if final.is_file():
            return final
        try:
            async with exclusive(self._folder / ".busy", deadline_s=_DEADLINE_S), asyncio.timeout(_DEADLINE_S):
                if not final.is_file():
                    await self._make(final)
        except TimeoutError:
            raise ToolError("the package installers", f"their image was not made within {_DEADLINE_S:g} s") from None
        except (commands.CommandFailed, OSError) as error:
            raise ToolError("the package installers", f"their image could not be made: {error}") from error
        return final

    async def _make(self, final: Path) -> None:
        for stale in self._folder.glob(".making-*"):
            await asyncio.to_thread(remove, stale)
        programs = {name: await self._tools.install(name) for name in NAMES}
        staging = Path(tempfile.mkdtemp(dir=self._folder, prefix=".making-"))
        try:
            root = staging / "root"
            await asyncio.to_thread(_fill, root, programs)
            image = staging / "tools.erofs"
            argv = ["mkfs.erofs", "-E", "noinline_data", "-T0", "-U", _UUID, "-x-1", "--all-root", "--quiet"]
            await commands.run([*argv, str(image), str(root)], log=self._folder / "tools.log", deadline_s=_DEADLINE_S)
            image.chmod(0o644)
            os.sync()
            image.rename(final)
            for earlier in self._folder.glob("*.erofs"):
                if earlier != final:  # whoever has it mounted keeps it
                    earlier.unlink()
        finally:
            await asyncio.to_thread(remove, staging)

    def _digest(self) -> str:
        facts = [_LAYOUT, os.uname().machine, *(f"{name} {self._tools.version(name)}" for name in NAMES)]
        return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def _fill(root: Path, programs: dict[str, Path]) -> None:
    (root / "bin").mkdir(parents=True)
    shutil.copyfile(programs["uv"], root / "uv")
    (root / "uv").chmod(0o755)
    shutil.copytree(programs["npm"].parent.parent, root / "npm", symlinks=True)
    for name in ("npm", "npx"):
        script = root / "bin" / name
        script.write_text(_SCRIPT.format(name=name))
        script.chmod(0o755)
    normalise(root)
