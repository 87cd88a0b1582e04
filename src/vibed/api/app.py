"""The API as one ASGI application."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route

from vibed import __version__
from vibed.api import routes, schema
from vibed.api.asking import Asking, Door
from vibed.api.baking import Baking
from vibed.api.catalog import Catalog
from vibed.api.context import Context
from vibed.api.controlling import Controller
from vibed.api.deployments import Deployments
from vibed.api.edge import App, Edge, ErrorBody, error_headers
from vibed.api.errors import InvalidRequest, MalformedRequest, MethodNotAllowed
from vibed.api.housekeeping import Housekeeping
from vibed.api.identity import Keyring
from vibed.api.intake import Decide, Intake
from vibed.api.keyuse import KeyUse
from vibed.api.logs import LocalLogs, Logs
from vibed.api.measures import Measures
from vibed.api.moving import Moving
from vibed.api.naming import Naming
from vibed.api.readiness import Readiness
from vibed.api.sse import Stopping
from vibed.api.streams import EventStreams, LogStreams
from vibed.api.visible import VisibleApps
from vibed.apps.errors import NotFound, VibedError
from vibed.apps.store import AppStore
from vibed.config import Config
from vibed.layout import Layout
from vibed.runtimes.templates import Template
from vibed.sources.limits import ArchiveLimits
from vibed.sources.store import SourceStore
from vibed.tracing import NoTracer, Tracer

_STREAMING = re.compile(r"/v1/import|/v1/deploy|/v1/apps/[^/]+/redeploy|/v1/layers|/mcp")
"""Paths to which more is posted than JSON of a bounded size."""


class Surface(Protocol):
    """Another way to use the same API, at a route of its own: MCP."""

    @property
    def path(self) -> str: ...
    @property
    def route(self) -> BaseRoute: ...
    def error_body(self, error: VibedError) -> Mapping[str, Any]:
        """How a refusal is told at `path`."""
        ...

    def running(self) -> AbstractAsyncContextManager[None]:
        """Entered once, for as long as the API runs."""
        ...


Beside = Callable[[Context], Surface]
"""Makes a surface on an API's parts."""


def create_app(
    config: Config,
    layout: Layout,
    store: AppStore,
    sources: SourceStore,
    link: Controller,
    templates: Mapping[str, Template],
    *,
    decide: Decide,
    admin_digest: str | None,
    logs: Logs | None = None,
    door: Door | None = None,
    stopping: Stopping | None = None,
    tracer: Tracer | None = None,
    beside: Sequence[Beside] = (),
) -> FastAPI:
    """HTTP under /v1, and the surfaces beside it. What is passed in is the caller's to close."""
    measures = Measures()
    stopping = stopping or Stopping()
    intake = Intake(sources, decide, ArchiveLimits.of(config), config.owner_storage_mb * 1_000_000)
    housekeeping = Housekeeping(intake, store)
    apps = VisibleApps(store, intake, link, housekeeping)
    use = KeyUse(store)
    keyring = Keyring(store, admin_digest, use)
    ctx = Context(
        config=config,
        store=store,
        keyring=keyring,
        link=link,
        apps=apps,
        deployments=Deployments(config, store, apps, intake, link, tracer or NoTracer(), measures),
        catalog=Catalog(link, templates),
        logs=LogStreams(logs or LocalLogs(layout.logs), stopping, measures),
        events=EventStreams(stopping, measures),
        measures=measures,
        stopping=stopping,
        readiness=Readiness(sources.incoming, store, link, stopping),
        housekeeping=housekeeping,
        intake=intake,
        asking=Asking(config, door or layout.front_socket),
        baking=Baking(intake, store, link, templates),
        moving=Moving(store, intake, link),
        naming=Naming(config, store, apps, link),
    )
    surfaces = [make(ctx) for make in beside]

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(use.kept())
            for surface in surfaces:
                await stack.enter_async_context(surface.running())
            yield

    app = FastAPI(
        title="vibeD",
        version=__version__,
        summary="From the app an AI assistant just wrote to a live URL in seconds, in a governed sandbox",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.context = ctx
    for module in routes.ALL:
        app.include_router(module.router)
    app.router.routes.extend(surface.route for surface in surfaces)
    bodies = {surface.path: surface.error_body for surface in surfaces}
    _errors(app, bodies)
    _openapi(app)
    app.add_middleware(_edge, config=config, keyring=keyring, measures=measures, bodies=bodies)
    return app


def _edge(app: App, config: Config, keyring: Keyring, measures: Measures, bodies: Mapping[str, ErrorBody]) -> Edge:
    return Edge(app, config, keyring, measures, streaming=_STREAMING, bodies=bodies)


def _errors(app: FastAPI, bodies: Mapping[str, ErrorBody]) -> None:
    async def vibed_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, VibedError)
        told = bodies.get(request.url.path, VibedError.body)(error)
        return JSONResponse(told, status_code=error.http_status, headers=error_headers(error))

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return await vibed_error(request, _validation(error))

    async def http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return await vibed_error(request, _from_http(request, error))

    app.add_exception_handler(VibedError, vibed_error)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http_error)


def _validation(error: RequestValidationError) -> VibedError:
    problems = []
    for item in error.errors():
        place = [str(part) for part in item["loc"]]
        if item["type"] == "json_invalid":
            return MalformedRequest("the body is not JSON", hint="send a JSON object")
        name = ".".join(place[1:]) or place[0]
        problems.append({"field": name, "message": item["msg"]})
    first = problems[0]
    return InvalidRequest(
        f"{first['field']}: {first['message']}",
        hint="send JSON with Content-Type: application/json" if first["field"] == "body" else None,
        details={"field": first["field"], "errors": problems},
    )


def _from_http(request: Request, error: HTTPException) -> VibedError:
    if isinstance(error.__cause__, VibedError):
        # FastAPI calls whatever happens while it reads a body an error of the body.
        return error.__cause__
    if error.status_code == 404:
        return NotFound(f"there is nothing at {request.url.path[:200]}", hint="/openapi.json lists every route")
    if error.status_code == 405:
        return MethodNotAllowed(request.method, request.url.path, _methods(request))
    return VibedError(str(error.detail), code="MalformedRequest", status=error.status_code)


def _methods(request: Request) -> set[str]:
    """What is possible at the request's path: each method has a route of its own."""
    found: set[str] = set()
    for route in (route for module in routes.ALL for route in module.router.routes):
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            found |= route.methods or set()
    return found


def _openapi(app: FastAPI) -> None:
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            shapes = document.setdefault("components", {}).setdefault("schemas", {})
            for shape in (schema.DeployMetadata, schema.RedeployMetadata, schema.AppChange, schema.BakeMetadata):
                described = shape.model_json_schema(ref_template="#/components/schemas/{model}")
                shapes.update(described.pop("$defs", {}))
                shapes[shape.__name__] = described
            # FastAPI's own error shape: ours is `Error`.
            for name in ("HTTPValidationError", "ValidationError"):
                shapes.pop(name, None)
            document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            for path, operations in document["paths"].items():
                if path.startswith("/v1"):
                    for operation in operations.values():
                        operation["security"] = [{"key": []}]
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
