"""What installs and builds, put together: builders of the general lane's driver, this machine's registries, a store."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vibed import records
from vibed.config import Config
from vibed.controller.starts import Starts
from vibed.layout import Layout
from vibed.runtimes.builder import TemplateBuilder
from vibed.runtimes.builds.provider import Builds
from vibed.runtimes.builds.shared import SharedBuiltStore
from vibed.runtimes.builds.store import BuiltStore
from vibed.runtimes.layers.ahead import Ahead, Boots
from vibed.runtimes.layers.compilers import Compilers
from vibed.runtimes.layers.equipment import OfHost
from vibed.runtimes.layers.in_pod import CompilersOfPod, InstallersOfPod, OfPod
from vibed.runtimes.layers.keys import Base
from vibed.runtimes.layers.kits import Kits
from vibed.runtimes.layers.provider import Layers
from vibed.runtimes.layers.shared import SharedLayerStore
from vibed.runtimes.layers.store import LayerStore
from vibed.runtimes.layers.toolbox import Toolbox
from vibed.runtimes.layers.work import Workshop
from vibed.runtimes.registries import Registries, pinned
from vibed.runtimes.registry_settings import of_clients, of_environment
from vibed.runtimes.templates import Template
from vibed.runtimes.tool import ToolError
from vibed.runtimes.tools import Tools
from vibed.sandboxes.driver import Builder, Driver, Isolation
from vibed.sources.limits import TAKEN, ArchiveLimits
from vibed.sources.objects import Objects
from vibed.supervision.base import SupervisedDriver
from vibed.supervision.host import Host

log = records.logger("vibed.controller")

_STEP_S = 600.0
"""A resolution, or an installation; what is compiled takes minutes."""
_ASK_AGAIN_S = 600.0
_ON_CLUSTER = 2
"""Builders of a cluster that are at work at a time, and twice as many where the first have taken long."""
_KITS = Path("/usr/lib/vibed/kits")
"""Installers and compilers, as vibeD's image brings them (deploy/images)."""
_HOLD_S = 20.0
"""So long an installation or a build is taken for a short one, and others wait for it."""


def most_beside(at_once: int, bounds: Builder, memory_mb: int | None = None) -> int:
    """How many builders may be there at a time: what they may use of memory, which few do, fits into three quarters of
    it, as far as two do. The last place is for an owner who has none, so that two are one for everybody alone.
    """
    if memory_mb is None:
        memory_mb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    each = bounds.memory_mb + bounds.disk_mb
    return max(at_once + 1, min(3 * at_once, memory_mb * 3 // 4 // each))


def makers(
    config: Config,
    host: Host,
    driver: Driver,
    builder: TemplateBuilder,
    templates: Mapping[str, Template],
    tools: Tools,
) -> tuple[Layers | None, Builds | None]:
    """What installs, and what builds; None where the host cannot: without root nothing is put into a warm sandbox."""
    if not config.layers or not host.privileged or not isinstance(driver, SupervisedDriver) or not driver.builds:
        return None, None

    def base(template: str) -> Base | None:
        built = builder.ready(template)
        return None if built is None else Base(template, templates[template].kind, built.packages, built.debian)

    async def registries() -> Registries:
        return pinned(await of_clients(tools), config.registries)

    toolbox = Toolbox(config.home, tools)
    ahead = Ahead(driver, Builder(), lambda template: host.roots.root(template).digest)
    workshop = Workshop(
        OfHost(host),
        ahead,
        toolbox,
        Compilers(config.home, tools, templates),
        Asked(registries),
        timeout_s=max(_STEP_S, config.build_timeout_s),
    )
    # either takes a processor or two for a while; what takes minutes keeps nobody from what takes seconds
    at_once = max(1, len(os.sched_getaffinity(0)) // 2)
    turns = Starts(at_once, hold_s=_HOLD_S, most=most_beside(at_once, Builder()))
    store = LayerStore(config.home)
    layers = Layers(
        store,
        workshop,
        base=base,
        version=toolbox.version,
        turn=turns.turn,
        limits=TAKEN,
        closing=ahead.close,
    )
    builds = Builds(
        BuiltStore(config.home, store),
        workshop,
        base=base,
        layers=layers,
        turn=turns.turn,
        limits=ArchiveLimits.of(config),
    )
    return layers, builds


@dataclass(frozen=True, slots=True)
class OnCluster:
    """What installs and builds on a cluster."""

    layers: Layers
    builds: Builds | None


def makers_on_cluster(
    config: Config,
    layout: Layout,
    driver: Boots,
    templates: Mapping[str, Template],
    store: SharedLayerStore,
    objects: Objects,
) -> OnCluster | None:
    """By builders of the driver's; None where the operator wants none. `store` is in the bucket that `objects` is."""
    if not config.layers:
        return None
    tools = Tools(config.home)

    def base(template: str) -> Base | None:
        known = templates.get(template)
        if known is None or known.unavailable:
            return None
        # of which build an image is, only the cluster's nodes know: its definition decides what it is compatible with
        return Base(template, known.kind, known.packages, dict.fromkeys(known.debian, known.definition_digest[:16]))

    async def registries() -> Registries:
        return pinned(await asyncio.to_thread(of_environment), config.registries)

    agent = Path(shutil.which("vibed-agent") or tools.path("vibed-agent"))
    kits = Kits(_KITS, config.home / "kits")
    installers = InstallersOfPod(kits, tools)
    timeout_s = max(_STEP_S, config.build_timeout_s)
    workshop = Workshop(
        OfPod(agent, layout.gates, layout.downloads, store.workroom),
        driver,
        installers,
        CompilersOfPod(kits, config.home, tools, templates),
        registries,
        timeout_s=timeout_s,
        least=Isolation(config.least_general),
    )
    # what they take is the cluster's; here it is connections and a compressed stream
    turns = Starts(_ON_CLUSTER, hold_s=_HOLD_S, most=2 * _ON_CLUSTER)
    layers = Layers(store, workshop, base=base, version=installers.version, turn=turns.turn, limits=TAKEN)
    if not config.builds:
        return OnCluster(layers, None)
    built = SharedBuiltStore(config.home, store, objects)
    return OnCluster(
        layers, Builds(built, workshop, base=base, layers=layers, turn=turns.turn, limits=ArchiveLimits.of(config))
    )


async def fetch_installers(config: Config, tools: Tools) -> None:
    """Have uv and npm be there before somebody waits for them. What keeps them away is said, and tried again then."""
    try:
        await Toolbox(config.home, tools).image()
    except ToolError as error:
        log.warning("the package installers are not there yet", error=error.message, hint=error.hint)


class Asked:
    """This machine's registries, or those of vibed.toml. Its clients are asked now and then, which takes seconds where
    they are slow: who comes while they are asked again gets what they said before.
    """

    def __init__(self, ask: Callable[[], Awaitable[Registries]], again_s: float = _ASK_AGAIN_S) -> None:
        """`ask` asks the clients; what they said counts for `again_s` seconds."""
        self._ask = ask
        self._again_s = again_s
        self._known: tuple[float, Registries] | None = None
        self._asking: asyncio.Task[Registries] | None = None

    async def __call__(self) -> Registries:
        """Raises what the first asking fails with; later ones are logged."""
        if self._known is not None and time.monotonic() - self._known[0] <= self._again_s:
            return self._known[1]
        if self._asking is None:
            self._asking = asyncio.create_task(self._asked(), name="asking for registries")
            self._asking.add_done_callback(self._ended)
        return await asyncio.shield(self._asking) if self._known is None else self._known[1]

    async def _asked(self) -> Registries:
        known = await self._ask()
        self._known = (time.monotonic(), known)
        return known

    def _ended(self, asking: asyncio.Task[Registries]) -> None:
        self._asking = None
        if not asking.cancelled() and (error := asking.exception()) is not None:
            log.warning("this machine's package clients could not be asked", error=str(error))
