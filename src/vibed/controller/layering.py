"""What installs and builds, put together: builders of the general lane's driver, this machine's registries, a store."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from vibed import records
from vibed.config import Config
from vibed.controller.starts import Starts
from vibed.runtimes.builder import TemplateBuilder
from vibed.runtimes.builds.provider import Builds
from vibed.runtimes.builds.store import BuiltStore
from vibed.runtimes.layers.compilers import Compilers
from vibed.runtimes.layers.keys import Base
from vibed.runtimes.layers.provider import Layers
from vibed.runtimes.layers.store import LayerStore
from vibed.runtimes.layers.toolbox import Toolbox
from vibed.runtimes.layers.work import Workshop
from vibed.runtimes.registries import Registries, pinned
from vibed.runtimes.registry_settings import of_clients
from vibed.runtimes.templates import Template
from vibed.runtimes.tool import ToolError
from vibed.runtimes.tools import Tools
from vibed.sandboxes.driver import Driver
from vibed.sources.limits import ArchiveLimits
from vibed.supervision.base import SupervisedDriver
from vibed.supervision.host import Host

log = records.logger("vibed.controller")

_STEP_S = 600.0
"""A resolution, or an installation; what is compiled takes minutes."""
_ASK_AGAIN_S = 600.0


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

    toolbox = Toolbox(config.home, tools)
    workshop = Workshop(
        host,
        driver,
        toolbox,
        Compilers(config.home, tools, templates),
        _Asked(tools, config.registries),
        timeout_s=max(_STEP_S, config.build_timeout_s),
    )
    # either takes a processor or two for a while
    turns = Starts(max(1, len(os.sched_getaffinity(0)) // 2), hold_s=None)
    limits = ArchiveLimits.of(config)
    layers = Layers(
        LayerStore(config.home),
        workshop,
        base=base,
        version=toolbox.version,
        turn=turns.turn,
        limits=limits,
    )
    builds = Builds(BuiltStore(config.home), workshop, base=base, layers=layers, turn=turns.turn, limits=limits)
    return layers, builds


async def fetch_installers(config: Config, tools: Tools) -> None:
    """Have uv and npm be there before somebody waits for them. What keeps them away is said, and tried again then."""
    try:
        await Toolbox(config.home, tools).image()
    except ToolError as error:
        log.warning("the package installers are not there yet", error=error.message, hint=error.hint)


class _Asked:
    """This machine's registries, or those of vibed.toml; its clients are asked now and then: that takes a second."""

    def __init__(self, tools: Tools, settings: Mapping[str, object]) -> None:
        self._tools = tools
        self._settings = settings
        self._known: tuple[float, Registries] | None = None

    async def __call__(self) -> Registries:
        if self._known is None or time.monotonic() - self._known[0] > _ASK_AGAIN_S:
            known = pinned(await of_clients(self._tools), self._settings)
            self._known = (time.monotonic(), known)
        return self._known[1]
