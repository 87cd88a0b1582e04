"""Routes by which apps, versions, keys and sources move from one vibeD to another, for admins."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from vibed import records
from vibed.api import schema
from vibed.api.context import caller, context
from vibed.api.routes.deploys import ERRORS

router = APIRouter()

log = records.logger("vibed.api")

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.get(
    "/v1/export",
    response_model=None,
    responses={200: {"content": {"application/x-tar": {}}, "description": "The archive, as it is read"}, **ERRORS},
)
async def export(request: Request) -> Response:
    """Admin only. All apps with their versions and sources, and the hashes of keys, as one tar
    ([its format](export.md)). It holds the values of variables. One without `end.json` is cut off.
    """
    who = caller(request)
    who.must_be_admin()
    log.info("export_begun", by=who.key_id)
    return StreamingResponse(
        await context(request).moving.export(),
        media_type="application/x-tar",
        headers={"content-disposition": 'attachment; filename="vibed.tar"', "cache-control": "no-store"},
    )


@router.post(
    "/v1/import",
    response_model=None,
    responses={200: {"model": schema.Import}, **ERRORS},
    openapi_extra=_BODY,
    summary="Take in what another vibeD has exported",
)
async def take_in(
    request: Request,
    replace: Annotated[
        bool, Query(description="Delete an app of the same name and owner first; otherwise it is skipped")
    ] = False,
) -> JSONResponse:
    """Admin only. The body is the archive. Each app is taken whole or not at all; an app whose name belongs to another
    owner here is refused, and the others go on. The same again skips what is there.
    """
    who = caller(request)
    who.must_be_admin()
    report = await context(request).moving.take_in(request.stream(), who.owner, replacing=replace)
    log.info("import_done", by=who.key_id, apps=len(report.apps), complete=report.complete)
    return JSONResponse(report.view())
