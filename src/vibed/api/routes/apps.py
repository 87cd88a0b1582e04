"""Routes that read apps, and the one that deletes them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from vibed.api import schema
from vibed.api.context import caller, context
from vibed.api.routes.deploys import ERRORS
from vibed.api.views import app_view, version_view
from vibed.apps.app import Phase

router = APIRouter()

Limit = Annotated[int, Query(ge=1, le=200)]
Offset = Annotated[int, Query(ge=0, le=10_000_000)]


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
    apps, total = await ctx.apps.list(caller(request), owner=owner, phase=phase, q=q, limit=limit, offset=offset)
    sizes = await ctx.apps.storage(apps)
    items = [app_view(app, ctx.config, sizes.get(app.app_id)) for app in apps]
    return JSONResponse({"items": items, "total": total})


@router.get("/v1/apps/{app_id}", response_model=None, responses={200: {"model": schema.App}, **ERRORS})
async def get_app(request: Request, app_id: str) -> JSONResponse:
    """One app as it stands."""
    ctx = context(request)
    app = await ctx.apps.get(caller(request), app_id)
    sizes = await ctx.apps.storage([app])
    return JSONResponse(app_view(app, ctx.config, sizes.get(app_id), await ctx.logs.failing(app)))


@router.delete(
    "/v1/apps/{app_id}",
    response_model=None,
    status_code=204,
    responses={204: {"description": "The app exists no more, for anybody"}, **ERRORS},
)
async def delete_app(request: Request, app_id: str) -> Response:
    """Takes the app, its versions, events and logs away; its name is free again a moment later."""
    await context(request).apps.delete(caller(request), app_id)
    return Response(status_code=204)


@router.get("/v1/apps/{app_id}/versions", response_model=None, responses={200: {"model": schema.Versions}, **ERRORS})
async def list_versions(request: Request, app_id: str, limit: Limit = 50, offset: Offset = 0) -> JSONResponse:
    """Newest first."""
    ctx = context(request)
    app, versions, total = await ctx.apps.versions(caller(request), app_id, limit=limit, offset=offset)
    return JSONResponse({"items": [version_view(app, version) for version in versions], "total": total})


@router.get(
    "/v1/apps/{app_id}/versions/{number}",
    response_model=None,
    responses={200: {"model": schema.VersionWithEnv}, **ERRORS},
)
async def get_version(request: Request, app_id: str, number: int) -> JSONResponse:
    """One version with the values of its env."""
    ctx = context(request)
    app, version = await ctx.apps.version(caller(request), app_id, number)
    return JSONResponse(version_view(app, version, with_env=True))
