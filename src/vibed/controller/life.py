"""The life of an app's runs: claimed, started, switched to, watched; drained or stopped; and why one failed.

Each method that takes time is the body of a task of its own. What the runs of an app came to (`troubles`) is kept here
for the decision about what follows.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from vibed import records
from vibed.apps.app import App, Crash, Version
from vibed.apps.errors import NotFound, VibedError
from vibed.apps.store import NewEvent
from vibed.controller.building import Material, built
from vibed.controller.decision import Stage
from vibed.controller.ending import account, how_it_ended
from vibed.controller.furnishing import Furnished, Furnishing
from vibed.controller.installing import Layer
from vibed.controller.means import Means, destroy
from vibed.controller.name import Name
from vibed.controller.placement import Placement
from vibed.controller.run import LiveRun, Runs
from vibed.controller.second_start import failed_on_both, launch_either
from vibed.controller.starts import PLACE_S
from vibed.controller.trouble import SOUND_AFTER_S, Trouble, backoff
from vibed.sandboxes.driver import Exit, RunFailed, Sandbox
from vibed.supervision.logs import append_system_line
from vibed.tracing import Step

log = records.logger("vibed.controller")

RETIRE_AFTER_S = 1.0
"""How long an old marker stays beside the new one: Caddy lists a directory, then looks (shared note data-path.md)."""
RUN_LOGS_KEPT = 5
REFILL_AFTER_S = 0.1


class Life:
    """Of the runs of one app. `wake` is called when something happened that the keeper should look at; `waited_for`
    tells whether somebody waits for a run of a version.
    """

    def __init__(
        self, means: Means, app_id: str, *, wake: Callable[[], None], waited_for: Callable[[int], bool]
    ) -> None:
        self._means = means
        self._app_id = app_id
        self._wake = wake
        self._waited_for = waited_for
        self.runs: Runs = {}
        self.name = Name(means.names, app_id, self.runs, on_deaf=self._end_deaf)
        self.troubles: dict[int, Trouble] = {}
        """By version."""
        self.lived: dict[int, Mapping[str, float]] = {}
        """The versions that went live since this was made, with milliseconds by step."""
        self.sound: set[int] = set()
        """The versions of which a run has served for `SOUND_AFTER_S`."""
        self.restarts = 0
        self.last_crash: Crash | None = None
        self._noted: set[int] = set()
        """The versions of which was told what their installation left out."""
        self.traces: dict[int, str] = {}
        """What the first runs of versions are a part of, where somebody traces it."""

    # Beginning

    async def begin(self, version: Version, app: App, *, served_before: bool) -> None:
        """Start a run of a version beside whatever there is."""
        number = await self._means.store.next_run(self._app_id)
        run = LiveRun(number, version.number, served_before=served_before)
        self.runs[run.number] = run
        self._means.tasks.spawn(self._bring_up(run, version, app))

    async def _bring_up(self, run: LiveRun, version: Version, app: App) -> None:
        """One run from claim to switch. Ends with the run serving, or gone and its trouble noted."""
        began = time.perf_counter()
        log_dir = self._means.layout.run_log(self._app_id, run.number)
        try:
            furnishing = Furnishing(
                self._means.placements,
                self._means.layers,
                run,
                version,
                app,
                await self._means.sources.open_path(version.source_digest),
                log_dir,
                self._wake,
            )
            version = await self._up(run, app, furnishing)
            total = (time.perf_counter() - began) * 1000
            self._means.metrics.deployed(version.runtime.lane, version.runtime.template, run.timings, total)
            self._trace(run)
            self._wake()
        except RunFailed as error:
            if run.sandbox is None and not run.leaving:
                # it did not come so far that its supervisor would say so
                await asyncio.to_thread(append_system_line, log_dir, f"{error.error_code}: {error.message}")
            await self._failed(run, error.error_code, _sentence(error), app_fault=not error.may_retry)
        except VibedError as error:
            await self._failed(run, error.error_code, _sentence(error), app_fault=not error.may_retry)
        except Exception as error:
            log.exception("a run failed in the controller", app=self._app_id, run=run.number)
            await self._failed(run, "Internal", f"{type(error).__name__}: {error}", app_fault=False)
        finally:
            run.over.set()

    async def _up(self, run: LiveRun, app: App, furnishing: Furnishing) -> Version:
        """Bring a run up on the first template that does; returns its version as it is run there."""
        found = await furnishing.first()
        try:
            await self._on(run, app, found, furnishing)
        except RunFailed as failed:
            template = found.version.runtime.template
            other = None if run.leaving else await furnishing.after(failed, template)
            if other is None:
                raise
            if run.sandbox is not None:
                await destroy(run.sandbox)
            try:
                await self._on(run, app, other, furnishing)
            except RunFailed as again:
                raise failed_on_both(template, other.version.runtime.template, failed, again) from again
            await furnishing.remember(failed)
            return other.version
        return found.version

    async def _on(self, run: LiveRun, app: App, found: Furnished, furnishing: Furnishing) -> None:
        """Build and start it where it was furnished."""
        version, layer, placement = found.version, found.layer, found.placement
        if layer is not None:
            run.layer = layer.key
            await self._tell_notes(version, layer)
        material = await built(
            self._means.builds,
            run,
            version,
            app,
            layer,
            source=furnishing.source,
            log_dir=furnishing.log_dir,
            on_step=self._wake,
        )
        # not what only a build needed
        run.layer = material.layer.key if material.layer is not None else ""
        if placement.driver == "static":
            run.timings = await self._launch(run, material, placement, app)
            return
        busy = contextlib.ExitStack()
        busy.enter_context(self._means.pools.deploying())
        # what takes longer hangs, and keeps nobody's pool from being filled
        asyncio.get_running_loop().call_later(PLACE_S, busy.close)
        try:
            async with self._means.starts[placement.driver, bool(version.runtime.start.build)].turn(
                owner=app.owner,
                app_id=self._app_id,
                wanted=lambda: self._waited_for(run.version),
                over=lambda: run.leaving,
                on_wait=lambda why: setattr(run, "waits_for", why),
            ):
                run.waits_for = None
                run.timings = await self._launch(run, material, placement, app)
        finally:
            # a moment later: whoever waits is answered before the pool is refilled
            asyncio.get_running_loop().call_later(REFILL_AFTER_S, busy.close)

    async def _launch(self, run: LiveRun, material: Material, placement: Placement, app: App) -> Mapping[str, float]:
        timings = await launch_either(self._means, app, run, material, placement, self.name, on_step=self._wake)
        if run.version not in self.lived:
            # what it took until it lived for the first time says nothing of how it does
            self.troubles.pop(run.version, None)
        self.serve(run)
        self.lived[run.version] = timings
        return timings

    async def _tell_notes(self, version: Version, layer: Layer) -> None:
        """What its owner should know of how its packages were installed, once a version."""
        if not layer.notes or version.number in self._noted:
            return
        self._noted.add(version.number)
        told = f"version {version.number}: {'; '.join(layer.notes)}"
        with contextlib.suppress(VibedError):
            await self._means.store.record(
                self._app_id, None, events=[NewEvent("Normal", "Dependencies", told, version.number)]
            )

    def _trace(self, run: LiveRun) -> None:
        """Make the first run of a traced deploy a part of its trace, before anybody is told how it went."""
        within = self.traces.pop(run.version, "")
        if not within:
            return
        ended = time.time()
        times = [at for _, at in run.entered] + [ended]
        trouble = None if run.stage is Stage.SERVING else self.troubles.get(run.version)
        self._means.tracer.record(
            Step("run", times[0], ended),
            within=within,
            steps=[Step(f"run.{name}", at, until) for (name, at), until in zip(run.entered, times[1:], strict=True)],
            error=trouble.message if trouble is not None else "",
            app_id=self._app_id,
            version=run.version,
            run=run.number,
            driver=run.sandbox.driver if run.sandbox is not None else "",
            template=run.sandbox.template if run.sandbox is not None else "",
        )

    # Serving

    def serve(self, run: LiveRun) -> None:
        """A run serves from now on, and is watched."""
        run.stage = Stage.SERVING
        self.lived.setdefault(run.version, run.timings)
        run.serving_since = time.monotonic()
        self.runs[run.number] = run
        assert run.sandbox is not None
        if not run.is_site:
            self._means.tasks.spawn(self._watch(run, run.sandbox))

    def doubt(self, run: LiveRun) -> None:
        """Nobody answers at the socket of a run that serves: it is over, whether or not its end was noticed yet."""
        if run.stage is Stage.SERVING and run.sandbox is not None and not run.doubted:
            run.doubted = True
            self._means.tasks.spawn(self._lost(run, run.sandbox))

    async def _watch(self, run: LiveRun, sandbox: Sandbox) -> None:
        """Wait for a serving sandbox to end; if nobody asked for it, that is trouble."""
        await self._crashed(run, await sandbox.wait())

    async def _lost(self, run: LiveRun, sandbox: Sandbox) -> None:
        await self._crashed(run, await how_it_ended(sandbox))

    async def _crashed(self, run: LiveRun, ended: Exit) -> None:
        if run.stage is not Stage.SERVING:
            return
        await self._means.names.retire(self._app_id, run.number)
        assert run.sandbox is not None
        self._means.metrics.died(run.sandbox.driver, run.sandbox.template)
        self.restarts += 1
        message, error = account(ended)
        self.last_crash = Crash(ended.at, run.version, message, oom=ended.oom, error=error)
        served_s = run.served_s
        if served_s > SOUND_AFTER_S:
            self.sound.add(run.version)
            self.troubles.pop(run.version, None)
        await self._failed(run, "Crashed", message, app_fault=ended.known, served_s=served_s)

    # Ending

    async def _failed(
        self, run: LiveRun, reason: str, message: str, *, app_fault: bool, served_s: float | None = None
    ) -> None:
        """Note why a run is over and let the keeper decide what follows."""
        if run.leaving:
            return
        was_live, run.stage = run.live, Stage.STOPPING
        if was_live:
            # one that it has just replaced may not have begun to drain
            self._means.tasks.spawn(self.name.lead_to_newest())
        before = self.troubles.get(run.version)
        count = 1 + (before.count if before is not None else 0)
        retry_at = time.monotonic() + backoff(count)
        self.troubles[run.version] = Trouble(reason, message, count, retry_at, app_fault=app_fault, served_s=served_s)
        self._means.metrics.failed(reason)
        self._trace(run)
        log.warning("a run ended", app=self._app_id, run=run.number, version=run.version, reason=reason, count=count)
        self._wake()
        try:
            event = NewEvent("Warning", reason, f"version {run.version}: {message}", run.version)
            await self._means.store.record(self._app_id, None, events=[event])
        except NotFound:
            pass
        except VibedError as error:
            # A full disk, for one. The keeper goes on telling how the app stands; what the run holds has to go now.
            log.error("an event could not be written", app=self._app_id, run=run.number, error=error.message)
        finally:
            if run.sandbox is not None:
                await destroy(run.sandbox)
            await self._over(run)

    def drain(self, number: int) -> None:
        """Let a replaced run finish its requests, then end it."""
        run = self.runs[number]
        run.stage = Stage.DRAINING
        self._means.tasks.spawn(self._drain(run))

    async def _drain(self, run: LiveRun) -> None:
        assert run.sandbox is not None
        if run.is_site:
            await asyncio.sleep(RETIRE_AFTER_S)
            if run.stage is not Stage.DRAINING:
                return  # it was stopped meanwhile; its number may be that of a run of the next app of this name
        await self._means.names.retire(self._app_id, run.number)
        try:
            await run.sandbox.drain(self._means.config.drain_s)
        except VibedError as error:
            log.warning("a drain did not end cleanly", app=self._app_id, run=run.number, error=error.message)
        await destroy(run.sandbox)
        await self._over(run)

    def stop(self, number: int) -> None:
        """End a run now, wherever it is: one that is just starting notices when its sandbox goes."""
        run = self.runs[number]
        begun = run.coming
        run.stage = Stage.STOPPING
        run.left.set()
        self._means.look_at_starts()
        self._means.tasks.spawn(self._stop(run, begun=begun))

    def _end_deaf(self, run: LiveRun) -> None:
        run.stage = Stage.STOPPING
        self._means.tasks.spawn(self._stop(run, begun=False))

    async def _stop(self, run: LiveRun, *, begun: bool) -> None:
        await self._means.names.retire(self._app_id, run.number)
        await self.name.lead_to_newest()  # it may have led to this one already
        if run.sandbox is not None:
            await destroy(run.sandbox)
        if begun:
            await run.over.wait()
            if run.sandbox is not None:
                await destroy(run.sandbox)
        await self._over(run)

    async def _over(self, run: LiveRun) -> None:
        if self.runs.get(run.number) is not run:
            return  # it was drained and stopped; by now its number may be that of a run of the next app of this name
        del self.runs[run.number]
        await self._means.names.forget(self._app_id, run.number, last=not self.runs)
        self._wake()
        logs = self._means.layout.logs / self._app_id
        alive = {self._means.layout.run_log(self._app_id, number) for number in self.runs}
        self._means.tasks.spawn(asyncio.to_thread(_prune_logs, logs, alive))


def _prune_logs(logs: Path, alive: Collection[Path]) -> None:
    runs = sorted(path for path in logs.glob("[0-9]*") if path.is_dir())
    for old in runs[:-RUN_LOGS_KEPT]:
        if old in alive:
            continue  # it serves, whatever was tried since
        shutil.rmtree(old, ignore_errors=True)


def _sentence(error: VibedError) -> str:
    text = error.message if error.message.endswith((".", "!", "?")) else f"{error.message}."
    return f"{text} {error.hint[0].upper()}{error.hint[1:]}." if error.hint else text
