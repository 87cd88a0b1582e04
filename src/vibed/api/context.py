"""What the routes work with, and how they get at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from fastapi import Request

from vibed.api.asking import Asking
from vibed.api.baking import Baking
from vibed.api.catalog import Catalog
from vibed.api.controlling import Controller
from vibed.api.deployments import Deployments
from vibed.api.housekeeping import Housekeeping
from vibed.api.identity import Caller, Keyring
from vibed.api.intake import Intake
from vibed.api.measures import Measures
from vibed.api.moving import Moving
from vibed.api.naming import Naming
from vibed.api.readiness import Readiness
from vibed.api.sse import Stopping
from vibed.api.streams import EventStreams, LogStreams
from vibed.api.visible import VisibleApps
from vibed.apps.store import AppStore
from vibed.config import Config


@dataclass(frozen=True, slots=True)
class Context:
    """Everything that belongs to one running API."""

    config: Config
    store: AppStore
    keyring: Keyring
    link: Controller
    apps: VisibleApps
    deployments: Deployments
    catalog: Catalog
    logs: LogStreams
    events: EventStreams
    measures: Measures
    stopping: Stopping
    readiness: Readiness
    housekeeping: Housekeeping
    intake: Intake
    asking: Asking
    baking: Baking
    moving: Moving
    naming: Naming


def context(request: Request) -> Context:
    """The API's context."""
    return cast(Context, request.app.state.context)


def caller(request: Request) -> Caller:
    """Whose key the request came with; the edge has checked it."""
    return cast(Caller, request.state.caller)
