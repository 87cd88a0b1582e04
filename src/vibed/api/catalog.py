"""The templates that there are: with the controller's figures, or without when it is away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vibed.api.controlling import Controller
from vibed.controller.link import TemplateFigures
from vibed.runtimes.templates import Template
from vibed.wire import Disconnected


class Catalog:
    """Lists templates."""

    def __init__(self, link: Controller, templates: Mapping[str, Template]) -> None:
        self._link = link
        self._templates = templates

    async def list(self) -> Sequence[TemplateFigures]:
        """Real figures; while the controller restarts, what the definitions say, marked as not available."""
        try:
            return await self._link.templates()
        except Disconnected:
            return [
                TemplateFigures(
                    name=template.name,
                    lane=template.lane,
                    description=template.description,
                    kind=template.kind,
                    warm_pool_size=template.pool.size,
                    ready=0,
                    claimed=0,
                    isolation="",
                    packages=template.packages,
                    available=False,
                    reason=template.unavailable or "the controller is restarting: there are no figures right now",
                )
                for template in self._templates.values()
            ]

    def all_packages(self) -> Mapping[str, Mapping[str, str]]:
        """Name and version of what each template brings, by template."""
        return {name: template.packages for name, template in self._templates.items()}
