"""Installing pinned Python packages: taken over from earlier layers, unpacked, and built only where it has to be.

Where nothing of a package is run, the builder is vibeD's own program and what it says is believed: which files are
whose, so that a later layer takes them over (`templates/_builder/pieces.py`). Once something is built, what is in that
sandbox may be hostile, and so nothing that comes of it is anybody else's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vibed.runtimes.layers.ask import Ask
from vibed.runtimes.layers.imaging import Taken
from vibed.runtimes.layers.making import Making, part
from vibed.runtimes.layers.steps import Clashed, Done, StepFailed


@dataclass(frozen=True, slots=True)
class Installation:
    """Of one layer."""

    ask: Ask
    making: Making
    pins: Sequence[str]
    """Lines of a requirements file."""
    verified: bool
    """Whether each has hashes."""
    compilers: bool

    async def __call__(self, place: Path) -> Done:
        """`place`: an empty folder. Raises StepFailed, VibedError, OSError."""
        take: tuple[Taken, ...] = ()
        if self.verified and self.ask.owner is None:
            take = await asyncio.to_thread(self._held, place)
        try:
            return await self._beside(take, part(place, "1"))
        except Clashed:
            self.ask.say("what earlier layers have does not go together with the rest: all is installed")
            return await self._beside((), part(place, "2"))

    def _held(self, place: Path) -> tuple[Taken, ...]:
        """What earlier layers have of it; their images stay for as long as `place` does. Blocking."""
        found = []
        for number, (image, pins) in enumerate(self.making.store.holding(self.ask.base.digest, self.pins)):
            kept = place / f"held-{number}.erofs"
            with contextlib.suppress(OSError):  # it is installed then
                kept.hardlink_to(image)
                found.append(Taken(kept, pins))
        return tuple(found)

    async def _beside(self, take: tuple[Taken, ...], place: Path) -> Done:
        taken = {pin for one in take for pin in one.packages}
        new = [pin for pin in self.pins if pin not in taken]
        if taken:
            self.ask.say(f"{len(taken)} of {len(self.pins)} packages are taken over from earlier layers")
        if not new:
            return replace(await self.making.steps.compose(take, place), pieces=tuple(self.pins) if taken else ())
        if not self.verified or self.compilers:
            return await self._step(take, new, place, builds=True)
        try:
            done = await self._step(take, new, part(place, "unpacked"), builds=False)
        except StepFailed as unbuilt:
            elsewhere = unbuilt.answer.get("wheels")
            if not unbuilt.answer.get("unbuilt") or (elsewhere and not self.ask.compiles):
                raise
            try:
                return await self._step(take, new, part(place, "built"), builds=True)
            except StepFailed as failed:
                failed.answer = {**failed.answer, "wheels": elsewhere}
                raise
        known = done.answer.get("packages")
        whole = self.ask.owner is None and isinstance(known, list) and set(new) <= set(known)
        return replace(done, pieces=tuple(self.pins) if whole else ())

    async def _step(self, take: tuple[Taken, ...], pins: Collection[str], place: Path, *, builds: bool) -> Done:
        request = {"pins": list(pins), "verified": self.verified}
        return await self.making.install(self.ask, request, place, compilers=self.compilers, builds=builds, take=take)
