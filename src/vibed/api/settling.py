"""From a version that is written to the answer of its deploy: durable, and as far as the controller came in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from vibed import records
from vibed.api.controlling import Controller
from vibed.api.measures import Measures
from vibed.api.steps import Steps
from vibed.apps.app import App, Phase, Version
from vibed.apps.errors import VibedError
from vibed.apps.standing import Standing, standing
from vibed.apps.store import AppStore, Deployed
from vibed.controller.link import Outcome
from vibed.tracing import Tracer
from vibed.wire import Disconnected

_LATE_S = 0.25
"""How much later than it was asked for the controller may answer, within the time that an answer may take."""

log = records.logger("vibed.api")


@dataclass(frozen=True, slots=True)
class DeployResult:
    """How a deploy stands at the moment of the answer."""

    app: App
    version: Version
    created: bool
    replayed: bool
    standing: Standing
    changed: bool = True
    """False: nothing would have been different, so no version was made."""
    notes: tuple[str, ...] = ()
    """What the caller should know, beside what is always true of the version."""
    timings: Mapping[str, float] = field(default_factory=dict)


class Settling:
    """What was acknowledged is true whatever becomes of the controller."""

    def __init__(self, wait_s: float, store: AppStore, link: Controller, tracer: Tracer, measures: Measures) -> None:
        """`wait_s`: how long a deploy waits for the controller at most."""
        self._wait_s = wait_s
        self._store = store
        self._link = link
        self._tracer = tracer
        self._measures = measures

    async def settled(
        self, deployed: Deployed, steps: Steps, deadline: float | None, notes: Sequence[str] = ()
    ) -> DeployResult:
        """Wait until the version is durable, and for the controller as long as the answer may take. Never raises what
        the client should not retry on.
        """
        known = standing(deployed.app, deployed.version.number, deployed.version.result)
        if known.final and (deployed.replayed or not deployed.changed):
            outcome = Outcome(deployed.version.phase, timings=deployed.version.timings)
            await self._store.sync()
        else:
            timeout_s = self._wait_s
            if deadline is not None:
                timeout_s = max(0.0, min(timeout_s, deadline - time.perf_counter()))
            outcome, _ = await asyncio.gather(self._settle(deployed, steps, timeout_s), self._store.sync())
        timings = {**steps.ms, **outcome.timings}
        timings["total"] = steps.elapsed_ms()
        app, version = await self._as_it_stands(deployed)
        stands = standing(app, version.number, version.result)
        if not stands.final and outcome.reason and outcome.phase is not Phase.READY:
            # what has just begun is told to who waits before it is stored
            stands = replace(stands, phase=outcome.phase, reason=outcome.reason, message=outcome.message)
        result = DeployResult(
            app, version, deployed.created, deployed.replayed, stands, deployed.changed, tuple(notes), timings
        )
        if deployed.changed and not deployed.replayed:
            # when the answer is on its way
            asyncio.get_running_loop().call_soon(self._note, result)
        return result

    async def _as_it_stands(self, deployed: Deployed) -> tuple[App, Version]:
        app_id = deployed.app.app_id
        try:
            app, version = await self._store.wanted(app_id)
            if app.created_at != deployed.app.created_at:
                return deployed.app, deployed.version
            if version.number != deployed.version.number:
                version = await self._store.version(app_id, deployed.version.number)
        except VibedError:
            # deleted meanwhile, or the store is busy: it was written, and this is how it stood then
            return deployed.app, deployed.version
        return app, version

    def _note(self, result: DeployResult) -> None:
        version, stands = result.version, result.standing
        runtime = version.runtime
        self._measures.deployed(runtime.lane, runtime.template, stands.phase.value, result.timings)
        log.info(
            "deployed",
            app_id=version.app_id,
            version=version.number,
            owner=result.app.owner,
            lane=runtime.lane,
            template=runtime.template,
            phase=stands.phase.value,
            reason=stands.reason,
            timings=result.timings,
        )

    async def _settle(self, deployed: Deployed, steps: Steps, timeout_s: float) -> Outcome:
        version = deployed.version
        try:
            with steps.step("settle"):
                async with asyncio.timeout(timeout_s + _LATE_S):
                    return await self._link.settle(
                        version.app_id, version.number, timeout_s=timeout_s, trace=self._tracer.here()
                    )
        except (Disconnected, TimeoutError):
            # gone, or it stands still: then nothing comes at all
            return Outcome(
                Phase.PENDING,
                "ControllerRestarting",
                "the version is stored and will be started as soon as the controller is back; there is no need to "
                "deploy again",
            )
        except VibedError as error:
            log.warning("settle_failed", app_id=version.app_id, version=version.number, code=error.error_code)
            return Outcome(
                Phase.PENDING,
                "Accepted",
                f"the version is stored, but how it stands is not known yet ({error.message})",
            )
