"""Which driver a version runs on, and whether it may: the least isolation is refused, never silently lowered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from vibed.apps.app import Resources, Runtime
from vibed.config import Config
from vibed.runtimes.templates import Template
from vibed.sandboxes.driver import Driver, Isolation, Limits, Probe, Sandbox


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a version runs."""

    driver: str
    template: str
    limits: Limits
    packages: Mapping[str, str] = field(default_factory=dict)
    """Versions of what the template has, by name."""
    beyond: str = ""
    """What the app asks for and cannot be given here, a sentence: a new version is refused for it, one that was served
    before goes on with less.
    """


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a version cannot run on this vibeD, as it is configured."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class NotYet:
    """Why a version has to wait."""

    reason: str
    message: str


class Placements:
    """Decides by configuration, templates and what the drivers' probes found."""

    def __init__(
        self,
        config: Config,
        templates: Mapping[str, Template],
        drivers: Mapping[str, Driver],
        *,
        only: str | None = None,
        fixed: bool = False,
    ) -> None:
        """`only`: the driver of every template, whatever they say. `fixed`: its sandboxes have their template's limits,
        and no app's own: a pod that waits warm cannot be given more.
        """
        self._only = only
        self._fixed = fixed
        self._config = config
        self._templates = templates
        self._drivers = drivers
        self._probes: dict[str, Probe] = {}
        self._building: dict[str, tuple[str, float | None]] = {}
        self._ready: dict[str, frozenset[str]] = {}
        """Templates that can be booted, each with the packages that its newest image has."""
        self._broken: dict[str, str] = {}
        self._resting: set[str] = set()
        self.on_need: Callable[[str], None] = lambda template: None
        """Called when an app needs a template that rests."""

    def probed(self, driver: str, probe: Probe) -> None:
        """Remember what a driver's probe found."""
        self._probes[driver] = probe

    def rests(self, template: str) -> None:
        """A template is prepared when an app first needs it, and none has."""
        self._resting.add(template)
        self._building.pop(template, None)
        self._broken.pop(template, None)

    def is_resting(self, template: str) -> bool:
        return template in self._resting

    def building(self, template: str, step: str, fraction: float | None = None) -> None:
        """A template is being built and is at `step`."""
        self._building[template] = (step, fraction)
        self._resting.discard(template)
        self._broken.pop(template, None)

    def built(self, template: str, packages: Iterable[str] = ()) -> None:
        """A template can be booted, from an image that has `packages`."""
        self._ready[template] = frozenset(packages)
        self._resting.discard(template)
        self._building.pop(template, None)
        self._broken.pop(template, None)

    def broken(self, template: str, why: str) -> None:
        """A template could not be built."""
        self._broken[template] = why
        self._resting.discard(template)
        self._building.pop(template, None)

    def is_ready(self, template: str) -> bool:
        return template in self._ready

    def is_coming(self, template: str) -> bool:
        """Whether an image of a template is on its way; one that rests is asked for."""
        if template in self._resting:
            self.building(template, "waiting for its turn")
            self.on_need(template)
        return template in self._building

    def progress(self, template: str) -> tuple[str, float | None] | None:
        """The build step a template is at, if it is being built or waits for it."""
        return self._building.get(template)

    def trouble(self, template: str) -> str | None:
        """Why a template cannot be used, if that is so."""
        known = self._templates.get(template)
        if known is None:
            return f"there is no template {template!r}"
        return known.unavailable or self._broken.get(template)

    def driver_trouble(self, driver: str) -> str | None:
        """Why a driver does not work here, once its probe has found out."""
        probe = self._probes.get(driver)
        return probe.detail if probe is not None and not probe.ok else None

    def driver_works(self, driver: str) -> bool:
        """Whether a probe found that it does."""
        probe = self._probes.get(driver)
        return probe is not None and probe.ok

    def driver_of(self, template: Template) -> str:
        """The driver that makes this template's sandboxes."""
        return self._only or template.driver or self._config.general_driver

    def isolation(self, template: Template) -> Isolation | None:
        """The level that the driver's probe measured; None while it has not run or did not succeed."""
        probe = self._probes.get(self.driver_of(template))
        return probe.isolation if probe is not None and probe.ok else None

    def level(self, driver: str) -> str:
        """The level that a driver's probe has measured; empty when unknown."""
        probe = self._probes.get(driver)
        return probe.isolation.value if probe is not None else ""

    def level_of(self, sandbox: Sandbox) -> str:
        """The level that a sandbox is at, as measured in it, or else by its driver's probe."""
        return sandbox.isolation.value if sandbox.isolation is not None else self.level(sandbox.driver)

    def least(self, template: str) -> Isolation:
        """The least isolation that the operator lets apps of a template have. Raises KeyError."""
        fast = self._templates[template].lane == "fast"
        return Isolation(self._config.least_fast if fast else self._config.least_general)

    def suffices(self, probe: Probe) -> bool:
        """Whether what was probed is enough for every template."""
        return probe.ok and all(probe.isolation.satisfies(self.least(name)) for name in self._templates)

    def can_be_had(self, template: str) -> bool:
        """Whether a template is there, or may be: nothing is known to keep it away."""
        return template in self._ready or self.trouble(template) is None

    def number(self, template: str) -> int | None:
        """Of its language's version: the minor of Python 3, the major of Node; None where it has none."""
        known = self._templates.get(template)
        last = known.version.rpartition(".")[2] if known is not None else ""
        return int(last) if last.isdecimal() else None

    def ways(self, runtime: Runtime) -> tuple[Runtime, ...]:
        """A runtime on each of its templates that can be had, the first choice first; itself if there is none."""
        return tuple(way for way in runtime.ways if self.can_be_had(way.template)) or (runtime,)

    def place(self, runtime: Runtime, resources: Resources) -> Placement | Refusal | NotYet:
        """Where a version runs, why it never can, or why not yet: on the first of its templates that can be had."""
        runtime = self.ways(runtime)[0]
        template = self._templates.get(runtime.template)
        trouble = self.trouble(runtime.template)
        if template is None or (trouble is not None and runtime.template not in self._ready):
            known = ", ".join(name for name in self._templates if self.trouble(name) is None)
            return Refusal("TemplateUnavailable", f"{trouble}; templates that work here: {known}.")
        if template.name in self._resting:
            self.building(template.name, "waiting for its turn")
            self.on_need(template.name)
        name = self.driver_of(template)
        probe = self._probes.get(name)
        step = self._building.get(runtime.template, ("waiting for its turn", None))[0]
        if probe is None or runtime.template not in self._ready:
            return NotYet(
                "TemplateBuilding",
                f"the template {runtime.template} is being prepared ({step}); the app becomes Ready by itself",
            )
        to_come = template.packages.keys() - self._ready[runtime.template]
        if waited_for := [name for name in runtime.packages if name in to_come]:
            return NotYet(
                "TemplateBuilding",
                f"{', '.join(waited_for)} will be in the next image of the template {runtime.template} ({step}); "
                f"the app becomes Ready by itself",
            )
        if not probe.ok:
            return Refusal("DriverUnavailable", f"the driver {name} does not work on this machine: {probe.detail}")
        least = self.least(template.name)
        if not probe.isolation.satisfies(least):
            return Refusal(
                "IsolationTooLow",
                f"this vibeD runs {template.lane} apps at isolation {least.value!r} or higher, and the driver {name} "
                f"offers {probe.isolation.value!r}; the operator decides",
            )
        defaults = template.resources
        cpus, memory_mb = resources.cpu or defaults.cpus, resources.memory_mb or defaults.memory_mb
        beyond = ""
        if self._fixed:
            if cpus > defaults.cpus or memory_mb > defaults.memory_mb:
                beyond = (
                    f"each sandbox of {runtime.template} has {defaults.cpus:g} CPUs and {defaults.memory_mb} MB of"
                    f" memory, since one that waits warm cannot be given more; this app asks for {cpus:g} CPUs and"
                    f" {memory_mb} MB"
                )
            cpus, memory_mb = defaults.cpus, defaults.memory_mb
        return Placement(
            name,
            runtime.template,
            Limits(
                cpus=cpus,
                memory_mb=memory_mb,
                pids=defaults.pids,
                disk_mb=defaults.disk_mb,
            ),
            template.packages,
            beyond,
        )
