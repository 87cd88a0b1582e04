"""Routes that give an app's source back."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import FileResponse, Response

from vibed.api.context import caller, context
from vibed.api.routes.deploys import ERRORS

router = APIRouter()


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
    path, digest = await context(request).apps.source(caller(request), app_id, version)
    etag = f'"{digest}"'
    if if_none_match is not None and etag in (part.strip() for part in if_none_match.split(",")):
        return Response(status_code=304, headers={"etag": etag})
    return FileResponse(
        path,
        media_type="application/gzip",
        filename=f"{app_id}.tar.gz",
        headers={"etag": etag, "cache-control": "private, no-cache"},
    )
