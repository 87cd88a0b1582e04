"""The classifier as the API uses it: with the templates that this vibeD has."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace

from vibed.api.intake import Decide
from vibed.api.metadata import Override
from vibed.apps.app import Runtime
from vibed.classify.classifier import classify
from vibed.classify.errors import BadConfiguration
from vibed.config import Config
from vibed.runtimes.templates import Template
from vibed.sources.table import ArchiveTable

INSTALLABLE = frozenset({"python", "node", "worker"})
"""The kinds of app for which packages can be installed, on a host that can."""

BUILDABLE = frozenset({"build"})
"""Beside them where what has to be built first is built."""


def installable(config: Config, *, rootless: bool) -> frozenset[str]:
    """What is installed and built here for apps; as the controller: what takes mounts takes root."""
    if rootless or not config.layers:
        return frozenset()
    return INSTALLABLE | BUILDABLE if config.builds else INSTALLABLE


def installable_on_cluster(config: Config) -> frozenset[str]:
    """So too: layers are kept where sources are, in a bucket."""
    return installable(config, rootless=config.source_store != "s3")


def decider(templates: Mapping[str, Template], installs: Collection[str] = ()) -> Decide:
    """A function that decides how a source runs; `installs`: the kinds of app for which packages can be installed."""

    def decide(table: ArchiveTable, override: Override) -> Runtime:
        runtime = classify(table, override, templates, installs).runtime()
        _must_be_json(runtime)
        if override.warm is None:
            return runtime
        return replace(runtime, start=replace(runtime.start, warm=override.warm))

    return decide


def _must_be_json(runtime: Runtime) -> None:
    """It is kept, passed on and answered with as JSON, so it may hold nothing that TOML has and JSON has not, nor what
    JSON can name and no text can hold: half a character, with which not even a list of apps could be answered.
    """
    try:
        json.dumps(asdict(runtime), ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise BadConfiguration(
            f"a file that says how to run it has text that is not valid Unicode: {half}",
            hint=f"look for {half} in package.json and the like, and write the character as it is",
        ) from error
    except (TypeError, ValueError, RecursionError) as error:
        raise BadConfiguration(
            f"a file that says how to run it has a value that cannot be passed on: {error}",
            hint="write dates, times and numbers that are none as strings",
        ) from error
