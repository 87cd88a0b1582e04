"""Routes for an app's own domains."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Request
from fastapi.responses import JSONResponse, Response

from vibed.api import schema
from vibed.api.context import caller, context
from vibed.api.routes.deploys import ERRORS
from vibed.api.views import domain_view

router = APIRouter()


@router.get("/v1/apps/{app_id}/domains", response_model=None, responses={200: {"model": schema.Domains}, **ERRORS})
async def list_domains(request: Request, app_id: str) -> JSONResponse:
    """The app's own domains, with the record that shows whose each is."""
    ctx = context(request)
    found = await ctx.naming.list(caller(request), app_id)
    return JSONResponse({"items": [domain_view(domain, ctx.config) for domain in found], "total": len(found)})


@router.post(
    "/v1/apps/{app_id}/domains",
    response_model=None,
    status_code=201,
    responses={201: {"model": schema.Domain}, **ERRORS},
)
async def add_domain(request: Request, app_id: str, body: Annotated[schema.NewDomain, Body()]) -> JSONResponse:
    """Has a name wait until its record is there; until it is verified it leads nowhere. One that the app has already is
    answered as it is.
    """
    ctx = context(request)
    made = await ctx.naming.add(caller(request), app_id, body.name)
    return JSONResponse(domain_view(made, ctx.config), status_code=201)


@router.post(
    "/v1/apps/{app_id}/domains/{name}/verify", response_model=None, responses={200: {"model": schema.Domain}, **ERRORS}
)
async def verify_domain(request: Request, app_id: str, name: str) -> JSONResponse:
    """Looks for the record in the DNS. When it is there the name leads to the app from now on, with a certificate that
    its first visitor waits for.
    """
    ctx = context(request)
    return JSONResponse(domain_view(await ctx.naming.verify(caller(request), app_id, name), ctx.config))


@router.delete("/v1/apps/{app_id}/domains/{name}", response_model=None, status_code=204, responses=ERRORS)
async def remove_domain(request: Request, app_id: str, name: str) -> Response:
    """The name leads nowhere from now on, and is free."""
    await context(request).naming.remove(caller(request), app_id, name)
    return Response(status_code=204)
