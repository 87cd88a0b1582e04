"""Routes that tell what an app printed and what happened to it."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse, Response

from vibed.api import schema, sse
from vibed.api.context import Context, caller, context
from vibed.api.errors import MalformedRequest
from vibed.api.identity import Caller
from vibed.api.routes.deploys import ERRORS
from vibed.api.streams import StillThere
from vibed.api.views import event_view
from vibed.apps.app import App
from vibed.supervision.runlogs import Position

router = APIRouter()

LastEventId = Annotated[str | None, Header(alias="Last-Event-ID", max_length=2_000)]


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
    app = await ctx.apps.get(who, app_id)
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
    app = await ctx.apps.get(who, app_id)
    place = last_event_id or after or "0"
    if not (place.isascii() and place.isdigit() and len(place) < 16):
        raise MalformedRequest(f"{place[:40]!r} is not an event's id", hint="send the id of the last event")
    begin = int(place)
    if not begin and tail is not None:
        newest = await ctx.apps.events(app, after=0, limit=1_000)
        begin = newest[-1].seq - tail if newest else 0
    if format == "json":
        events = await ctx.apps.events(app, after=begin, limit=limit)
        last = events[-1].seq if events else begin
        return JSONResponse({"items": [event_view(event) for event in events], "next": str(last)})

    stream = ctx.events.stream(
        app,
        _still_there(ctx, who, app_id),
        lambda seq: ctx.apps.events(app, after=seq),
        after=begin,
        follow=follow,
    )
    return sse.response(stream)


def _still_there(ctx: Context, who: Caller, app_id: str) -> StillThere:
    async def still_there() -> App:
        await ctx.keyring.check(who)
        return await ctx.apps.get(who, app_id)

    return still_there
