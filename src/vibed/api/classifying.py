"""The classifier as the API uses it: with the templates that this vibeD has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vibed.api.intake import Decide
from vibed.api.metadata import Override
from vibed.apps.app import Runtime
from vibed.classify.classifier import classify
from vibed.sandboxes.templates import Template
from vibed.sources.table import ArchiveTable


def decider(templates: Mapping[str, Template]) -> Decide:
    """A function that decides how a source runs."""

    def decide(table: ArchiveTable, override: Override) -> Runtime:
        runtime = classify(table, override, templates).runtime()
        if override.warm is None:
            return runtime
        return replace(runtime, start=replace(runtime.start, warm=override.warm))

    return decide
