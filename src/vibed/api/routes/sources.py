"""The route that gives an app's source back: the archive, or its files as JSON."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response

from vibed.api import schema
from vibed.api.context import caller, context
from vibed.api.routes.deploys import ERRORS
from vibed.api.views import contents_view

router = APIRouter()


@router.get(
    "/v1/apps/{app_id}/source",
    response_model=None,
    responses={
        200: {
            "model": schema.Source,
            "content": {"application/gzip": {}},
            "description": "The tar.gz as it was uploaded, ETag is its SHA-256; or its files with format=json",
        },
        304: {"description": "The caller has it already"},
        **ERRORS,
    },
)
async def get_source(
    request: Request,
    app_id: str,
    version: Annotated[int | None, Query(ge=1)] = None,
    format: Literal["archive", "json"] = "archive",
    path: Annotated[
        list[str] | None,
        Query(max_length=200, description="With format=json: show what is in this file, or below this folder; repeat"),
    ] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Of the version that should serve, or of `version`. `format=json` lists the files, and shows those of `path`: at
    most 200,000 bytes of content.
    """
    ctx = context(request)
    if format == "json":
        found, number = await ctx.apps.contents(caller(request), app_id, version, path)
        return JSONResponse(contents_view(app_id, number, found))
    archive, digest = await ctx.apps.source(caller(request), app_id, version)
    etag = f'"{digest}"'
    if if_none_match is not None and etag in (part.strip() for part in if_none_match.split(",")):
        return Response(status_code=304, headers={"etag": etag})
    return FileResponse(
        archive,
        media_type="application/gzip",
        filename=f"{app_id}.tar.gz",
        headers={"etag": etag, "cache-control": "private, no-cache"},
    )
