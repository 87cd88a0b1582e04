"""Health, metrics and templates."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse

from vibed import __version__
from vibed.api import schema
from vibed.api.context import context
from vibed.api.errors import NotReady
from vibed.api.routes.deploys import ERRORS
from vibed.api.views import template_view
from vibed.apps.errors import VibedError

router = APIRouter()


@router.get("/v1/templates", response_model=None, responses={200: {"model": schema.Templates}, **ERRORS})
async def list_templates(request: Request) -> JSONResponse:
    """Every template with the pool's and the probe's own figures."""
    found = await context(request).catalog.list()
    return JSONResponse({"items": [template_view(figures) for figures in found], "total": len(found)})


@router.get("/healthz", response_model=None)
async def healthz() -> JSONResponse:
    """The process is up; needs no key."""
    return JSONResponse({"ok": True, "version": __version__})


@router.get("/readyz", response_model=None, responses={503: {"model": schema.Error}})
async def readyz(request: Request) -> JSONResponse:
    """Deploys can be taken and apps be reached; needs no key, so it names checks and no paths."""
    ctx = context(request)
    checks = await ctx.readiness.checks()
    # on a cluster this is what says whether a pod gets requests: most of them need no controller
    own = ctx.config.substrate == "kubernetes"
    bad = sorted(
        name for name, check in checks.items() if not check["ok"] and not (own and name.startswith("controller"))
    )
    if bad:
        raise NotReady(f"not ready: {', '.join(bad)}", details={"checks": checks})
    return JSONResponse({"ok": True, "checks": checks})


@router.get("/metrics", response_model=None, response_class=PlainTextResponse)
async def metrics(request: Request) -> PlainTextResponse:
    """Prometheus' text format: the API's metrics, then the controller's; needs no key."""
    ctx = context(request)
    page = ctx.measures.page()
    try:
        page += await ctx.link.metrics()
    except VibedError:
        page += "# the controller does not answer\n"
    return PlainTextResponse(page, media_type="text/plain; version=0.0.4; charset=utf-8")
