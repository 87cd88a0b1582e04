"""Routes for what was installed for apps, for admins."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from vibed.api import metadata as meta
from vibed.api import schema
from vibed.api.context import caller, context
from vibed.api.errors import InvalidRequest, MalformedRequest
from vibed.api.routes.deploys import ERRORS
from vibed.api.upload import read_upload
from vibed.api.views import bake_view, layer_view

router = APIRouter()

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["source"],
                    "properties": {
                        "metadata": {"$ref": "#/components/schemas/BakeMetadata"},
                        "source": {"type": "string", "format": "binary", "description": "tar.gz of the lists"},
                    },
                },
                "encoding": {"metadata": {"contentType": "application/json"}},
            }
        },
    }
}


@router.get("/v1/layers", response_model=None, responses={200: {"model": schema.Layers}, **ERRORS})
async def list_layers(request: Request) -> JSONResponse:
    """Admin only. What was installed for apps, the last used first."""
    caller(request).must_be_admin()
    found = await context(request).link.layers()
    return JSONResponse({"items": [layer_view(layer) for layer in found], "total": len(found)})


@router.post(
    "/v1/layers",
    response_model=None,
    status_code=202,
    responses={202: {"model": schema.Bakes}, **ERRORS},
    openapi_extra=_BODY,
    summary="Make layers before an app asks for them",
)
async def bake(request: Request) -> JSONResponse:
    """Admin only. Of lists of packages with their lock files; each layer is made out of band, and stays until it is
    unpinned or removed.
    """
    who, ctx = caller(request), context(request)
    who.must_be_admin()
    intake = ctx.baking.intake
    upload = await read_upload(
        request,
        largest_source=intake.limits.compressed,
        receive=lambda chunks: intake.receive(chunks, who.owner),
        discard=intake.discard,
    )
    if upload.source is None:
        raise MalformedRequest("the 'source' part is missing", hint="send the lists as a tar.gz")
    try:
        raw = meta.parse(upload.metadata or b"{}")
        template, development = raw.pop("template", None), raw.pop("development", False)
        if raw or not isinstance(template, str | None) or not isinstance(development, bool):
            raise InvalidRequest("metadata may hold template and development", hint='{"template": "python-312"}')
    except BaseException:
        await intake.discard(upload.source)
        raise
    begun = await ctx.baking.begin(upload.source, template, development=development, owner=who.owner)
    return JSONResponse({"items": [bake_view(one) for one in begun], "total": len(begun)}, status_code=202)


@router.get("/v1/layers/bakes/{bake_id}", response_model=None, responses={200: {"model": schema.Bake}, **ERRORS})
async def baked(request: Request, bake_id: str) -> JSONResponse:
    """Admin only. How the making of one stands."""
    caller(request).must_be_admin()
    return JSONResponse(bake_view(await context(request).link.baked(bake_id)))


@router.post("/v1/layers/{key}/pin", response_model=None, status_code=204, responses=ERRORS)
async def pin(request: Request, key: str) -> Response:
    """Admin only. The layer stays, however long it is unused."""
    caller(request).must_be_admin()
    await context(request).link.pin_layer(key, pinned=True)
    return Response(status_code=204)


@router.post("/v1/layers/{key}/unpin", response_model=None, status_code=204, responses=ERRORS)
async def unpin(request: Request, key: str) -> Response:
    """Admin only. The layer goes when it is not used any more, as every other."""
    caller(request).must_be_admin()
    await context(request).link.pin_layer(key, pinned=False)
    return Response(status_code=204)


@router.delete("/v1/layers/{key}", response_model=None, status_code=204, responses=ERRORS)
async def remove(request: Request, key: str) -> Response:
    """Admin only; 409 while apps have it."""
    caller(request).must_be_admin()
    await context(request).link.remove_layer(key)
    return Response(status_code=204)
