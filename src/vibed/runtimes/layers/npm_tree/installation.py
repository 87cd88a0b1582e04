"""Installing by a lock of npm's: laid out without npm where that comes to the same, and by npm where not.

Install scripts run in a builder, on the tree that was laid out for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vibed import records
from vibed.runtimes.layers.ask import Ask
from vibed.runtimes.layers.making import LAID, Making, part
from vibed.runtimes.layers.npm_tree.laying import Laid
from vibed.runtimes.layers.npm_tree.plan import Left, Plan
from vibed.runtimes.layers.steps import Done, StepFailed

log = records.logger("vibed.layers")


@dataclass(frozen=True, slots=True)
class Installation:
    """Of one layer."""

    ask: Ask
    making: Making
    plan: Plan
    request: Mapping[str, Any]
    """Of the step in which npm does it all."""
    rebuild: Mapping[str, Any]
    """Of the one in which it runs scripts on what is there."""

    compilers: bool

    async def __call__(self, place: Path) -> Done:
        """`place`: an empty folder. Raises StepFailed, VibedError, OSError."""
        try:
            laid = await self.making.steps.lay(self.plan, part(place, "laid"))
        except Left as why:  # npm says what is wrong, if it fails too
            log.info("left to npm", why=str(why))
            return await self._whole(place)
        if not laid.scripts:
            return Done({"installed": True}, laid.image)
        try:
            return await self._scripts(laid, part(place, "scripts"))
        except StepFailed:
            if self.plan.optional.isdisjoint(laid.scripts):
                raise
            return await self._whole(place)  # it leaves out what fails and need not be there

    async def _scripts(self, laid: Laid, place: Path) -> Done:
        names = sorted({folder.rpartition("node_modules/")[2] for folder in laid.scripts})
        commands = [[*command, *names] for command in self.rebuild["commands"]]
        request = {**self.request, **self.rebuild, "commands": commands, "laid": LAID}
        return await self.making.install(self.ask, request, place, compilers=self.compilers, laid=laid.image)

    async def _whole(self, place: Path) -> Done:
        return await self.making.install(self.ask, self.request, part(place, "whole"), compilers=self.compilers)
