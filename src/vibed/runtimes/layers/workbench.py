"""A builder sandbox while it is at work, and where the steps of one piece of work are done in it, one after another.

A program that has answered may wait for the next order (`waits` in its answer). It gets one only as long as no step
before could run code of a package: until then nothing but vibeD's program and the installer has run in the sandbox, and
the next step finds it as it would a new one. Whether code could run is not asked of the sandbox, where it would be the
code that answers; it follows from what was ordered (`Order.builds`).
"""

from __future__ import annotations

import asyncio
import functools
import tempfile
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from vibed.runtimes.gate import Gate
from vibed.runtimes.layers.delivery import Delivery, Undelivered
from vibed.runtimes.layers.equipment import Equipment
from vibed.runtimes.layers.imaging import Clash, ImageFailed
from vibed.runtimes.layers.steps import Clashed, Done, Order, StepFailed
from vibed.sandboxes.driver import RunFailed, Started

_APP_FOLDER = "/app"
"""Where a sandbox has a source."""
_LAST_WORDS_S = 30.0
"""What was sent before the end is there by then."""


@dataclass(eq=False)
class Opened:
    """A builder sandbox whose program has its orders."""

    order: Order
    """The first one."""
    running: asyncio.Task[Started]
    """Until the program's end."""
    delivery: Delivery
    gate: Gate
    equipment: Equipment
    most_bytes: int
    """Of what comes of a step."""
    stack: AsyncExitStack
    """Ends it."""
    more: bool = False
    """Whether a further step may be done in it."""
    waits: bool = False
    """Whether its program does, for an order that may be given to it."""

    def fits(self, order: Order) -> bool:
        """Whether it waits for an order, and has what that one needs."""
        given = replace(self.order, request=order.request, take=order.take, builds=order.builds)
        return self.waits and given == order and not self.running.done()

    async def perform(self, order: Order, place: Path) -> Done:
        """`place`: an empty folder for what comes of it. Raises StepFailed, OSError; it may wait afterwards."""
        self.gate.forget()
        if self.waits:
            self.waits = False
            try:
                await self.delivery.order(order.request)
            except Undelivered as error:
                raise StepFailed(str(error)) from error
        try:
            return await self._attended(order, place)
        except StepFailed as error:
            error.denied = dict(self.gate.denied())
            error.unreachable = self.gate.trouble()
            error.lacking = dict(self.gate.lacking())
            raise

    async def _attended(self, order: Order, place: Path) -> Done:
        """Wait for what the program sends and, unless it waits, for its end, which may come in any order."""
        taking = asyncio.create_task(self._take(order, place))
        try:
            await asyncio.wait((taking, self.running), return_when=asyncio.FIRST_COMPLETED)
            if taking.done() and (failure := taking.exception()) is not None:
                raise _fault(failure)
            failed: RunFailed | None = None
            if not (taking.done() and self._waits(taking.result(), order)):
                try:
                    await asyncio.shield(self.running)
                except RunFailed as error:
                    failed = error
            try:
                async with asyncio.timeout(_LAST_WORDS_S if failed else None):
                    done = await taking
            except TimeoutError:
                done = Done({})
            except (Undelivered, ImageFailed) as error:
                if failed is None:
                    raise _fault(error) from error
                done = Done({})
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)
        said = done.answer.get("failed")
        if isinstance(said, str):
            fault = StepFailed("the installer failed", said=said, exit=failed.exit if failed else None)
            fault.answer = done.answer
            raise fault
        if failed is not None:
            raise StepFailed(failed.message, exit=failed.exit)
        return done

    def _waits(self, done: Done, order: Order) -> bool:
        asks = done.answer.get("waits") is True
        self.waits = asks and self.more and not order.builds
        if asks and not self.waits:
            self.delivery.no_more()
        return self.waits

    async def _take(self, order: Order, place: Path) -> Done:
        beyond = _APP_FOLDER if order.own else ""
        async with self.equipment.image_beside(
            place, most_bytes=self.most_bytes, take=order.take, beyond=beyond
        ) as image_of:
            answer = await self.delivery.answer()
            archive: Path | None = None
            if answer.get("built"):
                archive = place / "built.tar.gz"
                coming = functools.partial(self.equipment.coming, place)
                await self.delivery.save(archive, most_bytes=self.most_bytes, coming=coming)
                if not answer.get("carried"):
                    return Done(answer, archive=archive)
                answer = {**await self.delivery.answer(), **answer}
            image = await self.delivery.hand_on(image_of) if answer.get("installed") else None
            return Done(answer, image, archive=archive)


class Workbench:
    """Where the steps of one piece of work are done: at most one builder sandbox takes orders at a time."""

    def __init__(self, place: Path, stack: ExitStack | None = None) -> None:
        """`place`: an empty folder; `stack`: what is closed last."""
        self._place = place
        self._stack = stack or ExitStack()
        self._kept: Opened | None = None
        self._ending: set[asyncio.Task[None]] = set()

    def folder(self) -> Path:
        """A new one for what a sandbox gets."""
        folder = Path(tempfile.mkdtemp(dir=self._place, prefix="bench-"))
        folder.chmod(0o711)
        return folder

    def opened(self, order: Order) -> Opened | None:
        """The sandbox that waits, if this order can be given to it; it is the caller's then."""
        one, self._kept = self._kept, None
        if one is None or one.fits(order):
            return one
        self._end(one)
        return None

    def leave(self, one: Opened) -> None:
        """After a step: it is kept for the next one if it waits for that. Nobody waits for its end."""
        if one.waits:
            self._kept = one
        else:
            self._end(one)

    async def close(self) -> None:
        """End what is there."""
        if self._kept is not None:
            self._end(self._kept)
            self._kept = None
        await asyncio.gather(*self._ending, return_exceptions=True)
        await asyncio.to_thread(self._stack.close)

    def _end(self, one: Opened) -> None:
        self._ending.add(asyncio.create_task(one.stack.aclose(), name="ending a builder"))


def _fault(failure: BaseException) -> BaseException:
    if isinstance(failure, Clash):
        return Clashed(str(failure))
    if isinstance(failure, (Undelivered, ImageFailed)):
        return StepFailed(str(failure))
    return failure
