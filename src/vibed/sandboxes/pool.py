"""Warm pools: sandboxes booted ahead of demand.

`decide` is the whole policy: it looks at the shelves, changes them, and returns what has to be done. `WarmPools` does
it: a thin loop around `decide` that boots, hands out and destroys. A sandbox leaves a shelf once and never comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from vibed.apps.errors import VibedError
from vibed.sandboxes.driver import BootFailed, Driver, Sandbox, State

Key = tuple[str, str]
"""(driver, template)."""

_BACKOFF_S = 1.0
_BACKOFF_MAX_S = 60.0
_CALM_S = 180.0
"""Sandboxes that end on their shelf further apart than this have nothing to do with each other."""


class Claim:
    """Somebody who waits for a sandbox."""

    def __init__(self, answer: asyncio.Future[Sandbox] | None = None) -> None:
        self.answer = answer

    @property
    def gone(self) -> bool:
        """Whether nobody waits any more."""
        return self.answer is not None and self.answer.done()


@dataclass(slots=True)
class Shelf:
    """The pool of one (driver, template)."""

    size: int = 0
    """How many should be warm."""
    warm: deque[Sandbox] = field(default_factory=deque)
    """Ready to be claimed, oldest first."""
    waiting: deque[Claim] = field(default_factory=deque)
    booting: int = 0
    urgent: int = 0
    """How many of these were begun because somebody waited."""
    failures: int = 0
    """Boots that failed since one last succeeded."""
    retry_at: float = 0.0
    """No boot ahead of demand before this (on the clock that `decide` is given)."""
    last_error: str = ""
    ended: int = 0
    """How many ended on it by themselves, each soon after the one before."""
    ended_at: float = 0.0
    rest_until: float = 0.0
    """As `retry_at`, for what boots and then does not last."""
    claimed: int = 0
    """Handed out since the start."""


@dataclass(frozen=True, slots=True)
class Actions:
    """What `decide` wants done."""

    give: tuple[tuple[Claim, Sandbox], ...] = ()
    boot: tuple[Key, ...] = ()
    urgent: tuple[Key, ...] = ()
    """To boot for somebody who waits."""
    destroy: tuple[Sandbox, ...] = ()
    wake_at: float | None = None
    """When to decide again even if nothing happens until then."""


def decide(
    shelves: Mapping[Key, Shelf], *, now: float, boots_at_once: int, busy: int, stale: Iterable[str] = ()
) -> Actions:
    """The policy, without I/O.

    1. What died, what is of a stale template digest and what is too much leaves the shelf.
    2. Whoever waits gets the oldest warm sandbox, else a boot of their own: nothing bounds these but demand. Such a
       boot takes a tenth of the time of one for the shelf, so it is worth while beside one that is under way.
    3. Shelves below their size are refilled, the emptiest first, at most `boots_at_once` at a time. While deploys are
       under way (`busy`) only a shelf with nothing on it is, and one whose boots fail, or do not last, waits for its
       back-off.
    """
    give: list[tuple[Claim, Sandbox]] = []
    boot: list[Key] = []
    urgent: list[Key] = []
    destroy: list[Sandbox] = []
    wake_at: float | None = None
    stale = frozenset(stale)

    for shelf in shelves.values():
        kept: deque[Sandbox] = deque()
        for sandbox in shelf.warm:
            if sandbox.state is not State.WARM:
                # its driver clears it away
                _note_end(shelf, now)
                continue
            if sandbox.template_digest in stale:
                destroy.append(sandbox)
            else:
                kept.append(sandbox)
        shelf.warm = kept

    for key, shelf in shelves.items():
        shelf.waiting = deque(claim for claim in shelf.waiting if not claim.gone)
        while shelf.waiting and shelf.warm:
            give.append((shelf.waiting.popleft(), shelf.warm.popleft()))
            shelf.claimed += 1
        while len(shelf.waiting) > shelf.urgent:
            urgent.append(key)
            shelf.urgent += 1
            shelf.booting += 1
        while len(shelf.warm) > max(shelf.size, 0):
            destroy.append(shelf.warm.pop())

    under_way = sum(shelf.booting for shelf in shelves.values())
    while under_way < boots_at_once:
        wanting: list[tuple[float, Key]] = []
        wake_at = None
        for key, shelf in shelves.items():
            have = len(shelf.warm) + shelf.booting - len(shelf.waiting)
            if have >= shelf.size or (busy and (have > 0 or shelf.booting)):
                continue
            if (not_before := max(shelf.retry_at, shelf.rest_until)) > now:
                wake_at = not_before if wake_at is None else min(wake_at, not_before)
                continue
            wanting.append((have / shelf.size, key))
        if not wanting:
            break
        _, key = min(wanting)
        boot.append(key)
        shelves[key].booting += 1
        under_way += 1

    return Actions(tuple(give), tuple(boot), tuple(urgent), tuple(destroy), wake_at)


def _note_end(shelf: Shelf, now: float) -> None:
    """A sandbox that ended is replaced at once; but a shelf on which they go on ending would boot without a pause."""
    shelf.ended = 1 + (shelf.ended if now - shelf.ended_at < _CALM_S else 0)
    shelf.ended_at = now
    if (too_many := shelf.ended - max(shelf.size, 1)) > 0:
        shelf.rest_until = now + _pause(too_many)
        shelf.last_error = "its sandboxes end by themselves while they wait"


def _pause(failures: int) -> float:
    return float(min(_BACKOFF_S * 2 ** min(failures - 1, 16), _BACKOFF_MAX_S))


@dataclass(frozen=True, slots=True)
class Figures:
    """What is to be told of one pool."""

    size: int
    ready: int
    booting: int
    claimed: int
    failures: int
    last_error: str


class WarmPools:
    """The pools of one vibeD. `sizes` says how many sandboxes of each (driver, template) are kept warm.

    `digest` tells the current digest of a template: what is adopted has to have it.
    """

    def __init__(
        self,
        drivers: Mapping[str, Driver],
        sizes: Mapping[Key, int],
        *,
        digest: Callable[[str], str] | None = None,
        boots_at_once: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._drivers = drivers
        self._shelves = {key: Shelf(size) for key, size in sizes.items()}
        self._digest = digest
        self._boots_at_once = boots_at_once
        self._clock = clock
        self._busy = 0
        self._stale: set[str] = set()
        self._tasks: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._open = False

    async def __aenter__(self) -> WarmPools:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def start(self) -> None:
        """Begin to keep the pools filled. Adopt before, so that nothing is booted that is there."""
        self._open = True
        self._go_on()

    async def close(self) -> None:
        """Stop booting. Warm sandboxes stay alive, for the next controller to adopt."""
        self._open = False
        if self._timer is not None:
            self._timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for shelf in self._shelves.values():
            for claim in shelf.waiting:
                if claim.answer is not None and not claim.gone:
                    claim.answer.set_exception(BootFailed("vibeD is being stopped"))

    async def claim(self, driver: str, template: str) -> Sandbox:
        """A warm sandbox that nobody else gets, or a freshly booted one. Raises `BootFailed`."""
        if driver not in self._drivers:
            raise BootFailed(f"there is no driver {driver!r} here", retryable=False)
        shelf = self._shelves.setdefault((driver, template), Shelf())
        answer: asyncio.Future[Sandbox] = asyncio.get_running_loop().create_future()
        claim = Claim(answer)
        shelf.waiting.append(claim)
        with self.deploying():
            try:
                self._go_on()
                return await answer
            except asyncio.CancelledError:
                self._give_up(shelf, claim)
                raise

    @contextlib.contextmanager
    def deploying(self) -> Iterator[None]:
        """Held from the claim until the app listens: no pool that has something is refilled meanwhile."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            if not self._busy:
                self._go_on()

    async def adopt(self, sandboxes: Iterable[Sandbox]) -> None:
        """Put what an earlier controller left warm on the shelves, and destroy those of another template digest.

        Claimed ones are none of the pools' business and are left alone.
        """
        unwanted = []
        for sandbox in sandboxes:
            if sandbox.claimed is not None or sandbox.state is not State.WARM:
                continue
            key = (sandbox.driver, sandbox.template)
            if key in self._shelves and self._is_current(sandbox):
                self._shelves[key].warm.append(sandbox)
                self._do(self._miss(sandbox))
            else:
                unwanted.append(sandbox)
        await asyncio.gather(*(sandbox.destroy(0) for sandbox in unwanted))
        self._go_on()

    def resize(self, driver: str, template: str, size: int) -> None:
        """Keep `size` of them warm from now on."""
        self._shelves.setdefault((driver, template), Shelf()).size = size
        self._go_on()

    def retry(self, driver: str, template: str) -> None:
        """What made boots fail was removed (a template is built now): forget the back-off."""
        shelf = self._shelves.setdefault((driver, template), Shelf())
        shelf.failures, shelf.retry_at, shelf.last_error = 0, 0.0, ""
        shelf.ended, shelf.rest_until = 0, 0.0
        self._go_on()

    def drain_template(self, old_digest: str) -> None:
        """A template was built anew: destroy what is warm, and what is still booting, of its old digest."""
        self._stale.add(old_digest)
        self._go_on()

    def figures(self) -> dict[Key, Figures]:
        """Real figures of every pool."""
        return {
            key: Figures(
                shelf.size,
                sum(sandbox.state is State.WARM for sandbox in shelf.warm),
                shelf.booting,
                shelf.claimed,
                shelf.failures,
                shelf.last_error,
            )
            for key, shelf in self._shelves.items()
        }

    def _is_current(self, sandbox: Sandbox) -> bool:
        if self._digest is None:
            return sandbox.template_digest not in self._stale
        try:
            return sandbox.template_digest == self._digest(sandbox.template)
        except VibedError:
            return False

    def _go_on(self) -> None:
        if not self._open and not any(shelf.waiting for shelf in self._shelves.values()):
            return
        actions = decide(
            self._shelves,
            now=self._clock(),
            boots_at_once=self._boots_at_once if self._open else 0,
            busy=self._busy,
            stale=self._stale,
        )
        for claim, sandbox in actions.give:
            assert claim.answer is not None
            claim.answer.set_result(sandbox)
        for key in actions.boot:
            self._do(self._boot(key))
        for key in actions.urgent:
            self._do(self._boot(key, urgent=True))
        for sandbox in actions.destroy:
            self._do(sandbox.destroy(0))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if actions.wake_at is not None:
            delay = max(0.0, actions.wake_at - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay, self._go_on)

    def _do(self, work: Coroutine[object, object, object]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _boot(self, key: Key, *, urgent: bool = False) -> None:
        driver, template = key
        shelf = self._shelves[key]
        try:
            sandbox = await self._drivers[driver].boot(template, urgent=urgent)
        except Exception as error:
            self._failed(shelf, template, error, urgent=urgent)
        else:
            shelf.failures, shelf.retry_at, shelf.last_error = 0, 0.0, ""
            if urgent and not any(not claim.gone for claim in shelf.waiting):
                # whoever it was for gave up or got another: for those who come later it lacks what was left out
                self._do(sandbox.destroy(0))
            else:
                shelf.warm.append(sandbox)
                self._do(self._miss(sandbox))
        finally:
            shelf.booting -= 1
            shelf.urgent -= urgent
        self._go_on()

    async def _miss(self, sandbox: Sandbox) -> None:
        """Refill when a warm sandbox dies on its shelf."""
        await sandbox.wait()
        self._go_on()

    def _failed(self, shelf: Shelf, template: str, error: Exception, *, urgent: bool) -> None:
        shelf.failures += 1
        shelf.retry_at = self._clock() + _pause(shelf.failures)
        shelf.last_error = error.message if isinstance(error, VibedError) else f"{type(error).__name__}: {error}"
        if urgent and shelf.waiting:
            claim = shelf.waiting.popleft()
            if claim.answer is not None and not claim.gone:
                failure = error if isinstance(error, VibedError) else BootFailed(shelf.last_error)
                claim.answer.set_exception(failure)
        if not isinstance(error, VibedError):
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"a sandbox of {template} could not be booted", "exception": error}
            )

    def _give_up(self, shelf: Shelf, claim: Claim) -> None:
        if claim in shelf.waiting:
            shelf.waiting.remove(claim)
            return
        answer = claim.answer
        if answer is not None and answer.done() and not answer.cancelled() and answer.exception() is None:
            # handed over in the very moment in which the claimant went away: it has run nothing and stays warm
            shelf.warm.appendleft(answer.result())
            shelf.claimed -= 1
