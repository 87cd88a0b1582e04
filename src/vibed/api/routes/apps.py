"""Routes that read apps, and the one that deletes them."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response

from vibed.api import schema, sse
from vibed.api.context import Context, caller, context
from vibed.api.errors import MalformedRequest
from vibed.api.identity import Caller
from vibed.api.routes.deploys import ERRORS
from vibed.api.runlogs import Position
from vibed.api.streams import StillThere
from vibed.api.views import app_view, event_view, version_view
from vibed.apps.app import App, Phase

router = APIRouter()

Limit = Annotated[int, Query(ge=1, le=200)]
Offset = Annotated[int, Query(ge=0, le=10_000_000)]
LastEventId = Annotated[str | None, Header(alias="Last-Event-ID", max_length=2_000)]


@router.get("/v1/apps", response_model=None, responses={200: {"model": schema.Apps}, **ERRORS})
async def list_apps(
    request: Request,
    limit: Limit = 50,
    offset: Offset = 0,
    owner: Annotated[str | None, Query(max_length=64)] = None,
    phase: Phase | None = None,
    q: Annotated[str | None, Query(max_length=63, description="Part of a name")] = None,
) -> JSONResponse:
    """The caller's apps by last deploy; an admin sees everybody's."""
    ctx = context(request)
    apps, total = await ctx.deployments.list(caller(request), owner=owner, phase=phase, q=q, limit=limit, offset=offset)
    return JSONResponse({"items": [app_view(app, ctx.config) for app in apps], "total": total})


@router.get("/v1/apps/{app_id}", response_model=None, responses={200: {"model": schema.App}, **ERRORS})
async def get_app(request: Request, app_id: str) -> JSONResponse:
    """One app as it stands."""
    ctx = context(request)
    return JSONResponse(app_view(await ctx.deployments.get(caller(request), app_id), ctx.config))


@router.delete(
    "/v1/apps/{app_id}", response_model=None, status_code=202, responses={202: {"model": schema.App}, **ERRORS}
)
async def delete_app(request: Request, app_id: str) -> JSONResponse:
    """Takes the app, its versions, events and logs away; its name is free again when that is done."""
    ctx = context(request)
    app = await ctx.deployments.delete(caller(request), app_id)
    return JSONResponse(app_view(app, ctx.config), status_code=202)


@router.get("/v1/apps/{app_id}/versions", response_model=None, responses={200: {"model": schema.Versions}, **ERRORS})
async def list_versions(request: Request, app_id: str, limit: Limit = 50, offset: Offset = 0) -> JSONResponse:
    """Newest first."""
    ctx = context(request)
    versions, total = await ctx.deployments.versions(caller(request), app_id, limit=limit, offset=offset)
    return JSONResponse({"items": [version_view(version) for version in versions], "total": total})


@router.get(
    "/v1/apps/{app_id}/versions/{number}",
    response_model=None,
    responses={200: {"model": schema.VersionWithEnv}, **ERRORS},
)
async def get_version(request: Request, app_id: str, number: int) -> JSONResponse:
    """One version with the values of its env."""
    ctx = context(request)
    version = await ctx.deployments.version(caller(request), app_id, number)
    return JSONResponse(version_view(version, with_env=True))


@router.get(
    "/v1/apps/{app_id}/source",
    response_model=None,
    responses={
        200: {"content": {"application/gzip": {}}, "description": "The tar.gz as it was uploaded; ETag is its SHA-256"},
        304: {"description": "The caller has it already"},
        **ERRORS,
    },
)
async def get_source(
    request: Request,
    app_id: str,
    version: Annotated[int | None, Query(ge=1)] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Of the version that should serve, or of `version`."""
    path, digest = await context(request).deployments.source(caller(request), app_id, version)
    etag = f'"{digest}"'
    if if_none_match is not None and etag in (part.strip() for part in if_none_match.split(",")):
        return Response(status_code=304, headers={"etag": etag})
    return FileResponse(
        path,
        media_type="application/gzip",
        filename=f"{app_id}.tar.gz",
        headers={"etag": etag, "cache-control": "private, no-cache"},
    )


@router.get(
    "/v1/apps/{app_id}/logs",
    response_model=None,
    responses={
        200: {
            "model": schema.LogPage,
            "description": "Server-sent events `log`, `gap`, `end`; or one page with format=json",
            "content": {"text/event-stream": {}},
        },
        **ERRORS,
    },
)
async def get_logs(
    request: Request,
    app_id: str,
    follow: bool = False,
    tail: Annotated[int | None, Query(ge=0, le=100_000)] = None,
    format: Literal["sse", "json"] = "sse",
    after: Annotated[str | None, Query(max_length=2_000, description="Like Last-Event-ID")] = None,
    limit: Annotated[int, Query(ge=1, le=5_000, description="Lines of a page")] = 1_000,
    last_event_id: LastEventId = None,
) -> Response:
    """What the app printed, across its runs. `Last-Event-ID` goes on behind that line without a gap or a repeat."""
    ctx = context(request)
    who = caller(request)
    app = await ctx.deployments.get(who, app_id)
    place = last_event_id or after
    position = Position.parse(place) if place else None
    if format == "json":
        return JSONResponse(await ctx.logs.page(app_id, after=position, tail=tail, limit=limit))

    return sse.response(ctx.logs.stream(app, _still_there(ctx, who, app_id), after=position, tail=tail, follow=follow))


@router.get(
    "/v1/apps/{app_id}/events",
    response_model=None,
    responses={
        200: {
            "model": schema.EventPage,
            "description": "Server-sent events `event`, `end`; or one page with format=json",
            "content": {"text/event-stream": {}},
        },
        **ERRORS,
    },
)
async def get_events(
    request: Request,
    app_id: str,
    follow: bool = False,
    tail: Annotated[int | None, Query(ge=0, le=1_000)] = None,
    format: Literal["sse", "json"] = "sse",
    after: Annotated[str | None, Query(max_length=20, description="Like Last-Event-ID")] = None,
    limit: Annotated[int, Query(ge=1, le=1_000, description="Events of a page")] = 500,
    last_event_id: LastEventId = None,
) -> Response:
    """What happened in the app's life; the newest 1,000 events are kept."""
    ctx = context(request)
    who = caller(request)
    app = await ctx.deployments.get(who, app_id)
    place = last_event_id or after or "0"
    if not (place.isascii() and place.isdigit() and len(place) < 16):
        raise MalformedRequest(f"{place[:40]!r} is not an event's id", hint="send the id of the last event")
    begin = int(place)
    if not begin and tail is not None:
        newest = await ctx.deployments.events(app, after=0, limit=1_000)
        begin = newest[-1].seq - tail if newest else 0
    if format == "json":
        events = await ctx.deployments.events(app, after=begin, limit=limit)
        last = events[-1].seq if events else begin
        return JSONResponse({"items": [event_view(event) for event in events], "next": str(last)})

    stream = ctx.events.stream(
        app,
        _still_there(ctx, who, app_id),
        lambda seq: ctx.deployments.events(app, after=seq),
        after=begin,
        follow=follow,
    )
    return sse.response(stream)


def _still_there(ctx: Context, who: Caller, app_id: str) -> StillThere:
    async def still_there() -> App:
        await ctx.keyring.check(who)
        return await ctx.deployments.get(who, app_id)

    return still_there
