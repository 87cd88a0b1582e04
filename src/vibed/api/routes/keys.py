"""Routes for API keys, and for asking whose key one has."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Request
from fastapi.responses import JSONResponse, Response

from vibed import records
from vibed.api import identity, schema
from vibed.api.context import caller, context
from vibed.api.routes.deploys import ERRORS
from vibed.api.views import key_view

router = APIRouter()

log = records.logger("vibed.api")


@router.post("/v1/keys", response_model=None, status_code=201, responses={201: {"model": schema.CreatedKey}, **ERRORS})
async def create_key(request: Request, body: Annotated[schema.NewKey, Body()]) -> JSONResponse:
    """Admin only. The secret is shown this once; only its hash is kept."""
    who = caller(request)
    who.must_be_admin()
    secret = identity.new_secret()
    key = await context(request).store.create_key(
        body.owner, admin=body.admin, label=body.label, secret_sha256=identity.digest(secret)
    )
    log.info("key_created", key_id=key.key_id, owner=key.owner, admin=key.admin, by=who.key_id)
    return JSONResponse({**key_view(key), "secret": secret}, status_code=201)


@router.get("/v1/keys", response_model=None, responses={200: {"model": schema.Keys}, **ERRORS})
async def list_keys(request: Request) -> JSONResponse:
    """Admin only."""
    caller(request).must_be_admin()
    keys = await context(request).store.keys()
    return JSONResponse({"items": [key_view(key) for key in keys], "total": len(keys)})


@router.delete("/v1/keys/{key_id}", response_model=None, status_code=204, responses=ERRORS)
async def revoke_key(request: Request, key_id: str) -> Response:
    """Admin only; the key stops working at once. What was deployed with it stays."""
    who = caller(request)
    who.must_be_admin()
    await context(request).store.revoke_key(key_id)
    log.info("key_revoked", key_id=key_id, by=who.key_id)
    return Response(status_code=204)


@router.get("/v1/whoami", response_model=None, responses={200: {"model": schema.WhoAmI}, **ERRORS})
async def whoami(request: Request) -> JSONResponse:
    """Whose key this is."""
    who = caller(request)
    return JSONResponse({"owner": who.owner, "admin": who.admin, "key_id": who.key_id, "label": who.label})
