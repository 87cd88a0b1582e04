"""Routes that make versions: deploy, redeploy, rollback, PATCH."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Request
from fastapi.responses import JSONResponse

from vibed.api import metadata as meta
from vibed.api import schema
from vibed.api.context import caller, context
from vibed.api.errors import InvalidRequest, MetadataMissing
from vibed.api.settling import DeployResult
from vibed.api.steps import Steps
from vibed.api.upload import Upload, read_upload
from vibed.api.views import deploy_view
from vibed.config import Config
from vibed.sources.receiving import StagedSource

router = APIRouter()

_MARGIN_S = 0.4
"""Of the ten seconds within which a deploy is answered, what vibeD keeps for itself."""
_ANSWER_S = 10.0


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schema.Error} for status in (400, 401, 403, 404, 408, 409, 413, 421, 422, 429, 503, 507)
}
DEPLOYED: dict[int | str, dict[str, Any]] = {
    200: {"model": schema.Deployed, "description": "Ready"},
    202: {"model": schema.Deployed, "description": "Accepted: stored for good, not Ready yet (or Failed: see reason)"},
    **ERRORS,
}

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Makes a retried request one deploy; kept for 24 hours. 1 to 255 printable ASCII characters",
        json_schema_extra={"minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
    ),
]


def _multipart(shape: str, required: list[str]) -> dict[str, Any]:
    return {
        "requestBody": {
            "required": bool(required),
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": required,
                        "properties": {
                            "metadata": {"$ref": f"#/components/schemas/{shape}"},
                            "source": {"type": "string", "format": "binary", "description": "tar.gz of the folder"},
                        },
                    },
                    "encoding": {"metadata": {"contentType": "application/json"}},
                }
            },
        }
    }


@router.post(
    "/v1/deploy",
    response_model=None,
    status_code=200,
    responses=DEPLOYED,
    openapi_extra=_multipart("DeployMetadata", ["metadata", "source"]),
    summary="Deploy an app, or its next version",
)
async def deploy(request: Request, idempotency_key: IdempotencyKey = None) -> JSONResponse:
    """Streams the source to disk, decides how it runs, stores the version, waits until it is Ready (at most 10 s)."""
    ctx = context(request)
    steps = Steps(ctx.deployments.tracer)
    with ctx.deployments.tracer.span("deploy"):
        upload = await _upload(request, steps)
        async with _discarded_on_error(request, upload):
            if upload.metadata is None:
                raise MetadataMissing("the 'metadata' part is missing", hint='add a part metadata={"name": "my-app"}')
            wanted = meta.read(meta.parse(upload.metadata))
        result = await ctx.deployments.deploy(
            caller(request),
            wanted,
            upload.source,
            steps,
            idempotency_key=idempotency_key,
            deadline=_deadline(upload.finished_at),
        )
    return answer(result, ctx.config)


@router.post(
    "/v1/apps/{app_id}/redeploy",
    response_model=None,
    status_code=200,
    responses=DEPLOYED,
    openapi_extra=_multipart("RedeployMetadata", []),
    summary="Deploy an app again: new source, other settings, or the same",
)
async def redeploy(request: Request, app_id: str, idempotency_key: IdempotencyKey = None) -> JSONResponse:
    """Parts that are left out stay as they are; without a body it is the same version again."""
    ctx = context(request)
    steps = Steps(ctx.deployments.tracer)
    with ctx.deployments.tracer.span("deploy"):
        await ctx.apps.get(caller(request), app_id)
        upload: Upload[StagedSource] = Upload(None, None, time.perf_counter(), 0)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            upload = await _upload(request, steps)
        elif kind == "application/json" or int(request.headers.get("content-length") or 0):
            upload = Upload(await _small_body(request), None, time.perf_counter(), 0)
        async with _discarded_on_error(request, upload):
            raw = meta.parse(upload.metadata or b"{}")
            if raw.get("name") == app_id:
                # A client that sends the metadata of its first deploy again means this app.
                raw.pop("name")
            wanted = meta.read(raw, allowed=meta.REDEPLOY)
        result = await ctx.deployments.redeploy(
            caller(request),
            app_id,
            wanted,
            upload.source,
            steps,
            idempotency_key=idempotency_key,
            deadline=_deadline(upload.finished_at),
        )
    return answer(result, ctx.config)


@router.patch(
    "/v1/apps/{app_id}",
    response_model=None,
    status_code=200,
    responses=DEPLOYED,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/AppChange"}}},
        }
    },
    summary="Change an app's env or resources",
)
async def change(request: Request, app_id: str, idempotency_key: IdempotencyKey = None) -> JSONResponse:
    """The same source with other settings, as a new version."""
    ctx = context(request)
    steps = Steps(ctx.deployments.tracer)
    wanted = meta.read(meta.parse(await _small_body(request)), allowed=meta.PATCH)
    if wanted.env is None and wanted.resources is None:
        raise InvalidRequest("nothing to change was named", hint="send env, resources, or both")
    result = await ctx.deployments.redeploy(
        caller(request), app_id, wanted, None, steps, idempotency_key=idempotency_key, deadline=_deadline()
    )
    return answer(result, ctx.config)


@router.post(
    "/v1/apps/{app_id}/rollback",
    response_model=None,
    status_code=200,
    responses=DEPLOYED,
    summary="Make an earlier version serve again, as a new version",
)
async def rollback(
    request: Request, app_id: str, body: Annotated[schema.Rollback, Body()], idempotency_key: IdempotencyKey = None
) -> JSONResponse:
    """Source, runtime, env and resources come from that version; `rolled_back_from` names it."""
    ctx = context(request)
    steps = Steps(ctx.deployments.tracer)
    result = await ctx.deployments.rollback(
        caller(request), app_id, body.version, steps, idempotency_key=idempotency_key, deadline=_deadline()
    )
    return answer(result, ctx.config)


def answer(result: DeployResult, config: Config) -> JSONResponse:
    """200 when it serves, else 202."""
    return JSONResponse(deploy_view(result, config), status_code=200 if result.standing.live else 202)


def _deadline(asked_at: float | None = None) -> float:
    return (time.perf_counter() if asked_at is None else asked_at) + _ANSWER_S - _MARGIN_S


async def _upload(request: Request, steps: Steps) -> Upload[StagedSource]:
    intake, owner = context(request).deployments.intake, caller(request).owner
    with steps.step("receive"):
        return await read_upload(
            request,
            largest_source=intake.limits.compressed,
            receive=lambda chunks: intake.receive(chunks, owner),
            discard=intake.discard,
        )


@asynccontextmanager
async def _discarded_on_error(request: Request, upload: Upload[StagedSource]) -> AsyncIterator[None]:
    """Leave no source behind when its metadata cannot be used; from then on it is `Deployments`' to discard."""
    try:
        yield
    except BaseException:
        if upload.source is not None:
            await context(request).deployments.intake.discard(upload.source)
        raise


async def _small_body(request: Request) -> bytes:
    text = bytearray()
    async for chunk in request.stream():
        text += chunk
        if len(text) > meta.LARGEST_METADATA:
            raise InvalidRequest("the body is larger than metadata may be", hint="send a source as multipart/form-data")
    return bytes(text)
