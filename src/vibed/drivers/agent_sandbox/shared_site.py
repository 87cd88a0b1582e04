"""A site as a sandbox: it has no pod of its own, but a place in one (`vibed.drivers.agent_sandbox.site_pods`)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from vibed.apps.errors import VibedError
from vibed.drivers.agent_sandbox import sites
from vibed.drivers.agent_sandbox.site_pods import Bounds, SitePod, SitePods
from vibed.drivers.agent_sandbox.standing import Standing
from vibed.drivers.agent_sandbox.templates import VOLUME
from vibed.drivers.packing import Packing
from vibed.sandboxes.driver import (
    Claimed,
    Exit,
    HeirUnreachable,
    Isolation,
    Run,
    RunFailed,
    Sandbox,
    SandboxLost,
    Started,
    State,
)
from vibed.sources.limits import TAKEN

_LINGER_S = 5.0
"""How long a request that a router had sent on its way before the switch may still arrive."""
_REMOVED_WITHIN_S = 12.0


class Owner(Protocol):
    """What a site asks of its driver."""

    @property
    def name(self) -> str: ...
    @property
    def site_pods(self) -> SitePods: ...
    @property
    def site_bounds(self) -> Bounds: ...
    @property
    def packing(self) -> Packing: ...


class SharedSite(Standing):
    """See the module's docstring."""

    def __init__(self, owner: Owner, id: str, template: str, template_digest: str) -> None:
        super().__init__(owner.name, id, template, template_digest)
        self._owner = owner
        self._pod: SitePod | None = None
        self._ended = asyncio.Event()

    @property
    def isolation(self) -> Isolation | None:
        return self._pod.pod.isolation if self._pod is not None else None

    async def run(self, run: Run, *, socket: Path, log_dir: Path, on_stage: Callable[[str], None]) -> Started:
        """Find a pod that has room, and have it serve the site; `socket` and `log_dir` stay unused. Raises `RunFailed`,
        `SandboxLost`. A site has no code, so that `run.least` does not concern it.
        """
        if self._state is not State.WARM:
            raise SandboxLost("this sandbox was claimed before", code="AlreadyClaimed", retryable=False)
        self._state = State.INJECTING
        self._claimed = Claimed(run.app_id, run.version, run.number, run.app_key)
        began = time.perf_counter()
        try:
            async with self._owner.packing.of(lambda: self._planned(run)) as made:
                packed = time.perf_counter()
                bounds = self._bounds(run, made)
                pod = await self._owner.site_pods.room(self._claimed, made.disk_bytes, self._template, bounds)
                found = time.perf_counter()
                on_stage("claimed")
                await self._owner.site_pods.add(pod, self._claimed, self, made.archive, bounds)
        except (RunFailed, asyncio.CancelledError):
            self._end()
            raise
        except (VibedError, TimeoutError, OSError) as error:
            self._end()
            raise SandboxLost(f"no pod took the site of {run.app_id}: {error}") from error
        self.serve(pod)
        if self._endpoint is None:
            # told to end meanwhile, or its pod has
            await self._owner.site_pods.remove(pod, self._claimed, _REMOVED_WITHIN_S)
            raise SandboxLost(f"the site of {run.app_id} was ended while it was handed to its pod")
        on_stage("injected")
        on_stage("started")
        timings = {"bundle": _ms(began, packed), "claim": _ms(packed, found), "inject": _ms(found, time.perf_counter())}
        return Started(self._endpoint, timings={**timings, "start": 0.0})

    def serve(self, pod: SitePod, claimed: Claimed | None = None) -> None:
        """It is in that pod."""
        self._pod = pod
        self._claimed = claimed or self._claimed
        if self._exit is None:
            self._endpoint = pod.pod.endpoint
            self._state = State.RUNNING

    async def hand_over(self, heir: Sandbox | None) -> None:
        """Each request says which run it means, whatever connection it comes by: there is nothing to hand over."""
        if heir is not None and heir.endpoint is None:
            raise HeirUnreachable(f"sandbox {heir.id} has ended")

    async def drain(self, deadline_s: float) -> None:
        """Remove the site when requests that were on their way to it have opened their file."""
        if self._state is State.RUNNING:
            self._state = State.DRAINING
            await asyncio.sleep(min(deadline_s, _LINGER_S))
        await self.destroy()

    async def destroy(self, grace_s: float = 2.0) -> None:
        """Remove the site. Idempotent."""
        pod, there = self._pod, self._exit is None
        self._end()
        if pod is not None and self._claimed is not None and there:
            await self._owner.site_pods.remove(pod, self._claimed, _REMOVED_WITHIN_S)

    async def wait(self) -> Exit:
        """Return when it was removed, or its pod has ended."""
        await self._ended.wait()
        assert self._exit is not None
        return self._exit

    def lost(self) -> None:
        """Its pod has ended."""
        self._end(Exit(None, None, False, time.time()))

    def _planned(self, run: Run) -> sites.Planned:
        return sites.planned(run, self._most(run), TAKEN)

    def _most(self, run: Run) -> int:
        """Bytes that it may take in its pod. One that was served before they were lowered gets a pod that it fills
        alone.
        """
        return self._owner.site_bounds.disk_bytes * (VOLUME if run.served_before else 1)

    def _bounds(self, run: Run, made: sites.Packed) -> Bounds:
        """Of the pod that it goes to. Raises `RunFailed`."""
        # once more: what the site is beyond its files is a file, too
        sites.check(made.disk_bytes, self._most(run))
        bounds = self._owner.site_bounds
        return replace(bounds, disk_bytes=max(bounds.disk_bytes, made.disk_bytes))

    def _end(self, how: Exit | None = None) -> None:
        if self._exit is None:
            self._exit = how or Exit(code=0, signal=None, oom=False, at=time.time())
        self._state = State.EXITED
        self._endpoint = None
        self._ended.set()


def _ms(since: float, until: float) -> float:
    return (until - since) * 1000
