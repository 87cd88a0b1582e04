"""Layers before an app asks for them: lists of packages come as a source does, and what they ask for is made."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from vibed.api.controlling import Controller
from vibed.api.intake import Intake
from vibed.apps.errors import VibedError
from vibed.apps.store import AppStore
from vibed.classify.bakeable import installs
from vibed.classify.decision import TemplateFacts
from vibed.controller.link import BakeFigures
from vibed.sources.reader import read_table
from vibed.sources.receiving import StagedSource


class Baking:
    """Who may is the caller's to check."""

    def __init__(
        self, intake: Intake, store: AppStore, link: Controller, templates: Mapping[str, TemplateFacts]
    ) -> None:
        self.intake = intake
        self._store = store
        self._link = link
        self._templates = templates

    async def begin(
        self, staged: StagedSource, template: str | None, *, development: bool, owner: str
    ) -> Sequence[BakeFigures]:
        """Have every layer made that the lists in a source ask for, out of band.

        Raises the errors of reading an archive and its lists, and the controller's.
        """
        try:
            return await self._begin(staged, template, development=development, owner=owner)
        finally:
            # what is made of it has a copy
            await self.intake.drop(staged.digest, self._store)

    async def _begin(
        self, staged: StagedSource, template: str | None, *, development: bool, owner: str
    ) -> Sequence[BakeFigures]:
        with self.intake.holding(staged.digest):
            try:
                table = await asyncio.to_thread(read_table, staged.path, self.intake.limits)
                strip, wanted = installs(table, self._templates, template, development=development)
            except VibedError:
                await self.intake.discard(staged)
                raise
            await self.intake.keep(staged, known=False)
            return [await self._link.bake(staged.digest, strip, name, install, owner) for name, install in wanted]
