"""The route that asks an app, for those who cannot reach its URL."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Body, Request
from fastapi.responses import JSONResponse

from vibed.api import schema
from vibed.api.asking import Question
from vibed.api.context import Context, caller, context
from vibed.api.identity import Caller
from vibed.api.routes.deploys import ERRORS
from vibed.api.views import View, heard_view
from vibed.sandboxes.diagnosis.finding import error_in

router = APIRouter()

_LINES = 50
_PRINTED_S = 0.4
"""How long what an app printed may take until it is in its log."""


@router.post(
    "/v1/apps/{app_id}/request",
    response_model=None,
    responses={200: {"model": schema.Heard, "description": "The app answered, whatever its status"}, **ERRORS},
)
async def ask_app(request: Request, app_id: str, body: Annotated[schema.Question, Body()]) -> JSONResponse:
    """Asks the app through its front door, as a visitor would, and tells what it answered and printed."""
    question = Question(body.path, body.method, body.headers, body.body)
    return JSONResponse(await asked(context(request), caller(request), app_id, question))


async def asked(ctx: Context, who: Caller, app_id: str, question: Question) -> View:
    """Raises `NotFound`, `InvalidRequest`, `NoAnswer`."""
    await ctx.apps.get(who, app_id)
    before = await ctx.logs.end(app_id)
    heard = await ctx.asking.ask(app_id, question, by=who.owner)
    lines = (await ctx.logs.page(app_id, after=before, tail=None, limit=_LINES))["items"]
    if heard.status >= 500 and not any(line["stream"] != "system" for line in lines):
        await asyncio.sleep(_PRINTED_S)
        lines = (await ctx.logs.page(app_id, after=before, tail=None, limit=_LINES))["items"]
    # what vibeD itself notes of a first 500 is no error of the app
    printed = [line["text"] for line in lines if line["stream"] != "system"]
    error = error_in(printed) if heard.status >= 500 else None
    return heard_view(heard, lines, error)
