"""Which of several processes leads: the one whose name is in a Lease, for as long as it renews it.

Two never lead together, whatever their clocks say, as long as these run at the same speed: the leader stops once it
has not renewed for `renew_s`, counted from before it sent the last renewal that succeeded; a candidate begins no
earlier than `lease_s` after it saw the Lease change last, and only by replacing exactly the version that it saw. Both
count by a clock that also runs while the machine sleeps. `leading` compares times when it is asked, so that a process
that was frozen for longer knows it at its first step, before any timer has run.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import socket
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from vibed import records
from vibed.cluster.errors import KubeConflict, KubeError, KubeExists, KubeForbidden, KubeNotFound, KubeUnavailable
from vibed.cluster.informer import Informer, Lists
from vibed.cluster.kinds import LEASE, Kind, Object

log = records.logger("vibed.cluster.election")

OVERRUN = 70
"""The exit status (EX_SOFTWARE) of a process that did not stop leading in time."""

_RELEASE_S = 3.0


class Leases(Lists, Protocol):
    """What an election needs of a client."""

    async def get(self, kind: Kind, name: str, *, namespace: str | None = None) -> Object: ...

    async def create(self, kind: Kind, body: Object, *, namespace: str | None = None) -> Object: ...

    async def replace(
        self, kind: Kind, body: Object, *, namespace: str | None = None, subresource: str = ""
    ) -> Object: ...


def boot_time() -> float:
    """Seconds on a clock that nobody sets and that runs while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Leader:
    """Who holds a Lease, and what it says about itself."""

    identity: str
    annotations: Mapping[str, str]
    term: int
    """How many times the Lease changed hands before."""

    @classmethod
    def of(cls, lease: Object | None) -> Leader | None:
        """Who the Lease names; None when nobody holds it. Whether it still lives is known only to who watches."""
        spec = (lease or {}).get("spec", {})
        if lease is None or not spec.get("holderIdentity"):
            return None
        return cls(spec["holderIdentity"], lease["metadata"].get("annotations", {}), spec.get("leaseTransitions", 0))


@dataclass(slots=True)
class _Seen:
    """The Lease as it was seen last, and from when on somebody else may take it."""

    lease: Object | None = None
    free_at: float = 0.0

    def take(self, lease: Object | None, *, now: float, lease_s: float, mine: str) -> None:
        """Called whenever the Lease is seen. That it was deleted does not free it: who held it may not know yet.

        One with the name `mine` is free for who bears it: it took it, or renewed it, and did not hear the answer.
        """
        if lease is not None and (self.lease is None or _version(lease) != _version(self.lease)):
            holder = Leader.of(lease)
            promised: float = lease["spec"].get("leaseDurationSeconds") or 0
            free = holder is None or holder.identity == mine
            self.free_at = 0.0 if free else now + max(lease_s, promised)
        self.lease = lease


@dataclass(slots=True)
class _Held:
    lease: Object
    until: float
    """When it stops being ours if nothing more is heard."""
    lost: asyncio.Event = field(default_factory=asyncio.Event)


class Election:
    """One candidate for one Lease. `annotations` are written with it while this one leads: its address, say."""

    def __init__(
        self,
        client: Leases,
        name: str,
        *,
        namespace: str | None = None,
        identity: str = "",
        annotations: Mapping[str, str] | None = None,
        lease_s: float = 15.0,
        renew_s: float = 10.0,
        every_s: float = 2.0,
        overrun: Callable[[], object] = lambda: os._exit(OVERRUN),
        clock: Callable[[], float] = boot_time,
    ) -> None:
        """A leader renews every `every_s`; it stops `renew_s` after its last renewal, and then has until `lease_s` to
        have stopped. `overrun` is called when it has not: it ends the process, since another one leads from then on.
        """
        if not every_s < renew_s < lease_s:
            raise ValueError("a leader renews more often than it must, and stops before another may begin")
        self.name = name
        # A name of its own for each process: who comes back after a crash is somebody else.
        self.identity = identity or f"{socket.gethostname()}_{uuid.uuid4()}"
        self._client, self._namespace = client, client.namespace if namespace is None else namespace
        self._annotations = dict(annotations or {})
        self._lease_s, self._renew_s, self._every_s = lease_s, renew_s, every_s
        self._overrun, self._clock = overrun, clock
        self._held: _Held | None = None
        self._seen = _Seen()
        self._changed = asyncio.Event()

    @property
    def leading(self) -> bool:
        """Whether this one leads at this moment: to be asked before each write that two must not make."""
        return self._held is not None and self._clock() < self._held.until and not self._held.lost.is_set()

    @property
    def leader(self) -> Leader | None:
        """Who leads, as far as this one has seen; None when nobody does, or who did has not renewed for too long."""
        if self._held is not None:
            return Leader.of(self._held.lease)
        return Leader.of(self._seen.lease) if self._clock() < self._seen.free_at else None

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Stand for election until cancelled; `lead` runs while this one leads.

        When the lead is lost, `lead` is cancelled, and this one stands again. When `lead` ends or raises, or this is
        cancelled, the Lease is given back, so that another need not wait for its end, and `run` ends.
        """
        informer = Informer(
            self._client,
            LEASE,
            namespace=self._namespace,
            fields=f"metadata.name={self.name}",
            on_change=self._on_change,
        )
        watching = asyncio.ensure_future(informer.run())
        try:
            await _first(watching, informer.synced())
            while True:
                held = await self._gain(watching)
                log.info("leading", lease=self.name, identity=self.identity)
                try:
                    if await self._lead(held, lead):
                        return
                finally:
                    self._held = None
                log.warning("lead lost", lease=self.name, identity=self.identity)
        finally:
            watching.cancel()
            await asyncio.wait([watching])

    def _on_change(self, old: Object | None, new: Object | None) -> None:
        self._see(new)
        self._changed.set()

    def _see(self, lease: Object | None) -> None:
        self._seen.take(lease, now=self._clock(), lease_s=self._lease_s, mine=self.identity)

    async def _gain(self, watching: asyncio.Future[None]) -> _Held:
        """Wait until the Lease is free, and take it."""
        while True:
            wait = self._seen.free_at - self._clock()
            if wait <= 0:
                began = self._clock()
                taken = await self._take()
                if taken is not None:
                    self._held = _Held(taken, began + self._renew_s)
                    return self._held
                wait = self._every_s
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                # With jitter, or all candidates would ask at the same moment.
                async with asyncio.timeout(wait * random.uniform(1.0, 1.1)):
                    await _first(watching, self._changed.wait())

    async def _take(self) -> Object | None:
        """The Lease with this one as its holder; None where another was quicker, or the API does not answer."""
        seen = self._seen.lease
        spec = (seen or {}).get("spec", {})
        transitions = spec.get("leaseTransitions", 0) + 1 if seen is not None else 0
        try:
            async with asyncio.timeout(self._renew_s):
                if seen is None:
                    body = self._body({}, transitions, acquired=_stamp())
                    return await self._client.create(LEASE, body, namespace=self._namespace)
                body = self._body(seen["metadata"], transitions, acquired=_stamp())
                return await self._client.replace(LEASE, body, namespace=self._namespace)
        except (KubeExists, KubeConflict, KubeNotFound):
            # The watch will tell, but it may be what is behind.
            with contextlib.suppress(KubeError, TimeoutError):
                async with asyncio.timeout(self._every_s):
                    self._see(await self._read())
        except TimeoutError:
            log.warning("the lease could not be taken in time", lease=self.name)
        except KubeError as error:
            log.warning("the lease could not be taken", lease=self.name, error=error.message, hint=error.hint)
        return None

    async def _lead(self, held: _Held, lead: Callable[[], Awaitable[None]]) -> bool:
        """Have `lead` run while the Lease is renewed; whether it ended by itself. It has ended when this returns."""
        leading = asyncio.ensure_future(lead())
        renewing = asyncio.ensure_future(self._renew(held))
        try:
            await asyncio.wait([leading, renewing], return_when=asyncio.FIRST_COMPLETED)
            if leading.done():
                leading.result()
                return True
            renewing.result()
            return False
        finally:
            held_still = self.leading
            await self._stop(leading, held)
            renewing.cancel()
            await asyncio.wait([renewing])
            if held_still and self.leading:
                await self._release(held)

    async def _stop(self, leading: asyncio.Future[None], held: _Held) -> None:
        """Cancel `leading` and wait until it has ended, but no longer than until another may lead.

        As long as the Lease is renewed, as it is while this process closes down, that is not yet.
        """
        leading.cancel()
        # A process that was frozen past all times gets a moment to stop, too: it knows already that it does not lead.
        least = self._clock() + 1.0
        while not leading.done():
            left = max(held.until + self._lease_s - self._renew_s, least) - self._clock()
            if left <= 0:
                log.error("it still led when another might have begun", lease=self.name)
                self._overrun()
                return
            await asyncio.wait([leading], timeout=min(left, 1.0))

    async def _renew(self, held: _Held) -> None:
        """Renew until the Lease is lost, or nothing has been heard for too long."""
        pause = self._every_s
        while (left := held.until - self._clock()) > 0:
            await asyncio.sleep(min(pause, left))
            began = self._clock()
            if began >= held.until:
                break
            pause = self._every_s
            try:
                async with asyncio.timeout(min(held.until - began, self._renew_s / 2)):
                    held.lease = await self._renewed(held.lease)
            except (TimeoutError, KubeError, _Lost) as error:
                if isinstance(error, _Lost | KubeForbidden | KubeNotFound):
                    log.warning("the lease is another's, or gone", lease=self.name, error=str(error))
                    break
                pause = min(self._every_s, self._renew_s / 10)
                log.warning("the lease could not be renewed", lease=self.name, error=str(error) or "no answer in time")
            else:
                held.until = began + self._renew_s
        held.lost.set()

    async def _renewed(self, lease: Object) -> Object:
        def renewed(now: Object) -> Object:
            spec = now["spec"]
            return self._body(now["metadata"], spec.get("leaseTransitions", 0), acquired=spec.get("acquireTime"))

        return await self._changed_to(renewed, lease)

    async def _release(self, held: _Held) -> None:
        def released(now: Object) -> Object:
            metadata = now["metadata"]
            found = metadata.get("annotations", {})
            others = {key: text for key, text in found.items() if key not in self._annotations}
            # as client-go does it: an empty holder, and a second to wait for who does not understand it
            spec = {**now["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _stamp()}
            return {"metadata": {**metadata, "annotations": others}, "spec": spec}

        try:
            async with asyncio.timeout(_RELEASE_S):
                await self._changed_to(released, held.lease)
        except (KubeError, TimeoutError, _Lost) as error:
            log.warning("the lease could not be given back; it ends by itself", lease=self.name, error=str(error))
        else:
            log.info("lead given back", lease=self.name)

    async def _changed_to(self, change: Callable[[Object], Object], lease: Object) -> Object:
        """Write the Lease, as long as it is ours. Raises `_Lost`."""
        for _ in range(5):
            try:
                return await self._client.replace(LEASE, change(lease), namespace=self._namespace)
            except KubeConflict:
                # Somebody wrote to it: an annotation, or his name; or it was a renewal whose answer was lost.
                lease = await self._client.get(LEASE, self.name, namespace=self._namespace)
                holder = Leader.of(lease)
                if holder is None or holder.identity != self.identity:
                    raise _Lost(f"it is held by {holder.identity if holder else 'nobody'}") from None
        raise KubeUnavailable("the Lease changes all the time")

    async def _read(self) -> Object | None:
        try:
            return await self._client.get(LEASE, self.name, namespace=self._namespace)
        except KubeNotFound:
            return None

    def _body(self, metadata: Object, transitions: int, *, acquired: str | None) -> Object:
        return {
            "metadata": {
                **metadata,
                "name": self.name,
                "annotations": {**metadata.get("annotations", {}), **self._annotations},
            },
            "spec": {
                "holderIdentity": self.identity,
                "leaseDurationSeconds": math.ceil(self._lease_s),
                "acquireTime": acquired,
                "renewTime": _stamp(),
                "leaseTransitions": transitions,
            },
        }


class _Lost(Exception):
    """The Lease is no longer ours."""


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _version(lease: Object) -> str:
    return str(lease["metadata"]["resourceVersion"])


async def _first(watching: asyncio.Future[None], other: Coroutine[Any, Any, object]) -> None:
    """Wait for the second; the first is not to end at all, and raises what ended it."""
    waiting = asyncio.ensure_future(other)
    both: set[asyncio.Future[Any]] = {watching, waiting}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            watching.result()
    finally:
        waiting.cancel()
