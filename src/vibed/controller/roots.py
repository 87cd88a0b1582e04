"""The templates that are built, as drivers see them: the image that sandboxes are booted from, and since when."""

from __future__ import annotations

import time
from collections.abc import Mapping

from vibed.runtimes.builder import TemplateBuilder
from vibed.runtimes.templates import Template
from vibed.sandboxes.driver import BootFailed, Limits
from vibed.supervision.roots import Root


class BuiltRoots:
    """The templates that are built, as drivers see them (`vibed.supervision.roots.Roots`)."""

    def __init__(self, builder: TemplateBuilder, templates: Mapping[str, Template]) -> None:
        self._builder = builder
        self._templates = templates
        self._known: dict[str, Root] = {}
        self._since: dict[str, float] = {}
        self._packages: dict[str, Mapping[str, str]] = {}

    def refresh(self, template: str) -> Root | None:
        """Look at the disk again; the newest image is what sandboxes are booted from from now on."""
        built = self._builder.ready(template)
        if built is None:
            return None
        bounds = self._templates[template].resources
        limits = Limits(bounds.cpus, bounds.memory_mb, bounds.pids, bounds.disk_mb)
        root = Root(template, built.digest, image=built.rootfs, modules=built.node_modules, limits=limits)
        before = self._known.get(template)
        if before is None or before.digest != root.digest:
            self._since[template] = time.monotonic()
        self._known[template] = root
        self._packages[template] = built.packages
        return root

    def packages(self, template: str) -> Mapping[str, str]:
        """Name and version of what the newest image brings; nothing when the template is not built."""
        return self._packages.get(template, {})

    def settled(self, template: str, for_s: float) -> Root | None:
        """What sandboxes of the template have been booted from for at least `for_s` seconds; None when that changed
        since, or it is not built.
        """
        if template not in self._known or time.monotonic() - self._since[template] < for_s:
            return None
        return self._known[template]

    def knows(self, template: str) -> bool:
        """Whether it is built."""
        return template in self._known

    def root(self, template: str) -> Root:
        """Raises `BootFailed` when the template is unknown or not built."""
        try:
            return self._known[template]
        except KeyError:
            raise BootFailed(f"the template {template!r} is not built yet") from None
