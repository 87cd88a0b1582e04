"""Getting ready in the background: tools, templates, probes, warm pools, in the order in which users need them.

Nothing waits for all of it: a deploy that needs a template which is not there yet is Pending with reason
`TemplateBuilding` and is woken by what happens here.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path

from vibed import records
from vibed.apps.errors import VibedError
from vibed.config import Config
from vibed.controller.placement import Placements
from vibed.controller.remembering import DRIVER_TOOLS, RememberedProbes
from vibed.controller.roots import BuiltRoots
from vibed.drivers import probing
from vibed.runtimes.builder import TemplateBuilder
from vibed.runtimes.templates import Template
from vibed.runtimes.tools import Tools
from vibed.sandboxes.driver import Driver, Isolation, Probe
from vibed.sandboxes.pool import WarmPools

log = records.logger("vibed.controller")

ORDER = ("static-nginx", "workerd", "python-313", "node-24", "base-debian", "go-123")
"""Templates that are not named here come last."""
RETRY_S = (30.0, 120.0, 600.0, 1800.0)
"""The pauses before what failed is tried again; the last one repeats."""
NEEDED_AGAIN_S = 6 * 3600.0
"""After so long a template on need that could not be had may be asked for again: until then apps run without it."""
CONFIRM_S = (1.0, 5.0)
"""The pauses before a driver that worked is tried again, and only then thought not to."""


class Preparation:
    """Runs once at start; every step is idempotent and cheap when its result is on disk."""

    def __init__(
        self,
        *,
        config: Config,
        tools: Tools,
        templates: Mapping[str, Template],
        builder: TemplateBuilder,
        roots: BuiltRoots,
        drivers: Mapping[str, Driver],
        placements: Placements,
        pools: WarmPools,
        memory: Path,
        on_ready: Callable[[], None],
    ) -> None:
        """`memory` is a file of this boot of the machine, for what probes found."""
        self._config = config
        self._tools = tools
        self._builder = builder
        self._roots = roots
        self._drivers = drivers
        self._placements = placements
        self._pools = pools
        self._remembered = RememberedProbes(memory, tools)
        self._on_ready = on_ready
        rank = {name: place for place, name in enumerate(ORDER)}
        wanted = [t for t in templates.values() if not config.templates or t.name in config.templates]
        self._templates = sorted(wanted, key=lambda t: rank.get(t.name, len(rank)))
        for template in templates.values():
            if template not in wanted:
                placements.broken(template.name, "the operator's configuration leaves it out")
        self._filled: dict[str, str] = {}
        self._failed: set[str] = set()
        """Could not be built, by something that may pass."""
        self._unfinished: set[str] = set()
        """A further stage could not be built."""
        self._awaiting: dict[str, set[str]] = {}
        """By driver: templates whose image is there, and which wait for its tools."""
        self._installing: dict[str, str] = {}
        """By driver: what the installation of its tools is at."""
        self._deferred: list[Template] = []
        """Built, but their driver cannot be tried before one of another kind is."""
        self._first_pass = asyncio.Event()
        """Set when what every vibeD has is prepared, or has failed once."""
        self._tool_locks: dict[str, asyncio.Lock] = {}
        self._probed: dict[str, asyncio.Future[None]] = {}

    def take_stock(self) -> list[str]:
        """What is on disk already: templates that can be booted at once. Synchronous and quick.

        A driver that was probed since the machine's boot, with the tools that are there now, need not be again before
        the first app comes back; it is probed again all the same, in the background.
        """
        there = []
        known = self._remembered.probes()
        for template in self._templates:
            driver = self._placements.driver_of(template)
            if template.unavailable:
                self._placements.broken(template.name, template.unavailable)
            elif self._roots.refresh(template.name) is not None:
                there.append(template.name)
                if driver in known:
                    self._placements.probed(driver, known[driver])
                    self._placements.built(template.name, self._roots.packages(template.name))
            elif template.on_need:
                self._placements.rests(template.name)
            else:
                self._placements.building(template.name, "waiting for its turn")
        return there

    async def run(self) -> None:
        """Make everything ready; returns when all that can be is. A part that fails does not stop the others, and is
        tried again: a registry may have been out of reach, the machine too busy for a probe.
        """
        there = set(self.take_stock())
        usable = [t for t in self._templates if not t.unavailable and (t.name in there or not t.on_need)]
        async with asyncio.TaskGroup() as tasks:
            for driver in {self._placements.driver_of(t) for t in usable}:
                tasks.create_task(self._install(driver))
            for template in usable:
                if template.name in there:
                    tasks.create_task(self._offer(template))
            tasks.create_task(self._build_missing([t for t in usable if t.name not in there]))
        for template in self._deferred:
            self._placements.broken(template.name, f"its driver can only be tried with {' or '.join(probing.GENERAL)}")
        for template in usable:
            await self._next_stages(template)
        self._first_pass.set()
        await self._try_again(usable)
        log.info("everything is prepared")

    async def need(self, name: str) -> None:
        """Prepare a template that an app needs and that is not prepared beforehand, behind those that are. Where that
        fails it can be asked for again after a while.
        """
        template = next(t for t in self._templates if t.name == name)
        self._placements.building(name, "waiting until the other templates are there")
        await self._first_pass.wait()
        await self._build(template)
        await self._next_stages(template)
        if name in self._failed | self._unfinished:
            self._failed.discard(name)
            self._unfinished.discard(name)
            await asyncio.sleep(NEEDED_AGAIN_S)
            if not self._placements.is_ready(name):
                self._placements.rests(name)

    async def _try_again(self, templates: list[Template]) -> None:
        for pause in itertools.chain(RETRY_S, itertools.repeat(RETRY_S[-1])):
            again = [t for t in templates if t.name in self._failed | self._unfinished or self._probe_failed(t)]
            if not again:
                return
            log.warning("to be tried again", templates=[t.name for t in again], in_s=pause)
            await asyncio.sleep(pause)
            for template in again:
                if self._probe_failed(template):
                    self._probed.pop(self._placements.driver_of(template), None)
            for template in again:
                if template.name in self._failed:
                    self._failed.discard(template.name)
                    await self._build(template)
                elif self._probe_failed(template):
                    await self._offer(template)
                await self._next_stages(template)

    def _probe_failed(self, template: Template) -> bool:
        return self._placements.driver_trouble(self._placements.driver_of(template)) is not None

    async def _build_missing(self, templates: list[Template]) -> None:
        for template in templates:
            await self._build(template)

    async def _build(self, template: Template) -> None:
        try:
            self._placements.building(template.name, "starting")
            await self._builder.build(template.name)
        except VibedError as error:
            log.error("a template could not be built", template=template.name, error=error.message, hint=error.hint)
            self._placements.broken(template.name, f"{error.message}. {error.hint or ''}".strip())
            if error.may_retry:
                self._failed.add(template.name)
            self._on_ready()
            return
        except Exception as error:
            log.exception("a template could not be built", template=template.name)
            self._placements.broken(template.name, f"{type(error).__name__}: {error}")
            self._failed.add(template.name)
            self._on_ready()
            return
        self._roots.refresh(template.name)
        await self._offer(template)

    async def _next_stages(self, template: Template) -> None:
        """The bigger images of a template; each replaces the one before while apps go on."""
        self._unfinished.discard(template.name)
        while (built := self._builder.ready(template.name)) is not None and not built.complete:
            try:
                await self._builder.build(template.name)
            except Exception as error:
                why = error.message if isinstance(error, VibedError) else f"{type(error).__name__}: {error}"
                log.error("a further stage could not be built", template=template.name, error=why)
                self._placements.building(template.name, f"it failed and is tried again: {why}")
                self._unfinished.add(template.name)
                self._on_ready()
                return
            self._fill(template)
            self._placements.built(template.name, self._roots.packages(template.name))
            self._on_ready()

    async def _offer(self, template: Template) -> None:
        """Probe the template's driver if that was not done, then let apps and pools have it."""
        driver = self._placements.driver_of(template)
        self._awaiting.setdefault(driver, set()).add(template.name)
        if driver in self._installing:
            self._placements.building(template.name, self._installing[driver])
        await self._install(driver)
        self._awaiting[driver].discard(template.name)
        if self._roots.refresh(template.name) is None:
            return
        if template.lane == "general" and not any(self._roots.knows(name) for name in probing.GENERAL):
            self._deferred.append(template)
            return
        if driver not in self._probed or not self._probed[driver].done():
            self._placements.building(template.name, "its image is there; its driver is being tried")
        await self._probe(driver, template.name)
        self._fill(template)
        self._placements.built(template.name, self._roots.packages(template.name))
        self._on_ready()
        deferred, self._deferred = self._deferred, []
        for other in deferred:
            await self._offer(other)

    def _fill(self, template: Template) -> None:
        """Have the template's pool filled from its newest image, and nothing handed out that is of an older one."""
        driver = self._placements.driver_of(template)
        before = self._filled.get(template.name)
        root = self._roots.refresh(template.name)
        if root is None or driver == "static":
            return
        if before is not None and before != root.digest:
            self._pools.drain_template(before)
        self._filled[template.name] = root.digest
        self._pools.retry(driver, template.name)
        self._pools.resize(driver, template.name, self._config.pools.get(template.name, template.pool.size))

    async def _install(self, driver: str) -> None:
        def said(step: str, fraction: float | None) -> None:
            self._installing[driver] = step
            for template in self._awaiting.get(driver, ()):
                self._placements.building(template, step)

        for name in DRIVER_TOOLS.get(driver, ()):
            async with self._tool_locks.setdefault(name, asyncio.Lock()):
                try:
                    await self._tools.install(name, said)
                except VibedError as error:
                    log.error("a tool could not be installed", tool=name, error=error.message, hint=error.hint)
                except Exception:
                    # a full disk, a damaged download: what is there goes on, and the probe tells what is missing
                    log.exception("a tool could not be installed", tool=name)
        self._installing.pop(driver, None)

    async def _probe(self, driver: str, template: str) -> None:
        future = self._probed.get(driver)
        if future is not None:
            await future
            return
        future = self._probed[driver] = asyncio.get_running_loop().create_future()
        probe = await self._run_probe(driver)
        for pause in CONFIRM_S:
            if probe.ok or not self._placements.driver_works(driver):
                break
            # A busy machine, or whoever ended its sandbox, must not take a lane away in which everything runs.
            log.warning("a driver that worked failed its probe", driver=driver, detail=probe.detail, again_in_s=pause)
            await asyncio.sleep(pause)
            probe = await self._run_probe(driver)
        self._placements.probed(driver, probe)
        with contextlib.suppress(OSError):
            self._remembered.keep(driver, probe)
        log.info("probed", driver=driver, ok=probe.ok, isolation=probe.isolation.value, detail=probe.detail)
        future.set_result(None)

    async def _run_probe(self, driver: str) -> Probe:
        try:
            return await self._drivers[driver].probe()
        except Exception as error:
            log.exception("a probe failed", driver=driver)
            return Probe(False, Isolation.PROCESS, f"{type(error).__name__}: {error}")
