"""The tools' backend in the API's own process: the service that the HTTP routes use, as the owner of the key."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence

from vibed.api import metadata as meta
from vibed.api.asking import Question
from vibed.api.context import Context
from vibed.api.identity import Caller
from vibed.api.routes.asking import asked
from vibed.api.steps import Steps
from vibed.api.views import app_view, contents_view, deploy_view, event_view, template_view, version_view
from vibed.mcp.backend import View
from vibed.sources.receiving import StagedSource
from vibed.supervision.runlogs import Position

_ANSWER_S = 9.6


class InProcess:
    """`vibed.mcp.backend.Backend` on the service that the HTTP routes use."""

    def __init__(self, ctx: Context, caller: Caller) -> None:
        self._ctx = ctx
        self._caller = caller

    async def deploy(self, metadata: View, source: bytes) -> View:
        wanted = meta.read(metadata)
        steps = Steps(self._ctx.deployments.tracer)
        with self._ctx.deployments.tracer.span("deploy", transport="mcp"):
            staged = await self._staged(source, steps)
            result = await self._ctx.deployments.deploy(
                self._caller, wanted, staged, steps, deadline=time.perf_counter() + _ANSWER_S
            )
        return deploy_view(result, self._ctx.config)

    async def redeploy(self, app_id: str, metadata: View, source: bytes | None) -> View:
        wanted = meta.read(metadata, allowed=meta.REDEPLOY)
        steps = Steps(self._ctx.deployments.tracer)
        with self._ctx.deployments.tracer.span("deploy", transport="mcp"):
            staged = None if source is None else await self._staged(source, steps)
            result = await self._ctx.deployments.redeploy(
                self._caller, app_id, wanted, staged, steps, deadline=time.perf_counter() + _ANSWER_S
            )
        return deploy_view(result, self._ctx.config)

    async def _staged(self, source: bytes, steps: Steps) -> StagedSource:
        async def chunks() -> AsyncIterator[bytes]:
            yield source

        with steps.step("receive"):
            return await self._ctx.deployments.intake.receive(chunks(), self._caller.owner)

    async def app(self, app_id: str) -> View:
        app = await self._ctx.apps.get(self._caller, app_id)
        return app_view(app, self._ctx.config, failing=await self._ctx.logs.failing(app))

    async def apps(self, *, q: str | None, limit: int, offset: int) -> View:
        found, total = await self._ctx.apps.list(
            self._caller, owner=self._caller.owner, phase=None, q=q, limit=limit, offset=offset
        )
        return {"items": [app_view(app, self._ctx.config) for app in found], "total": total}

    async def delete(self, app_id: str) -> None:
        await self._ctx.apps.delete(self._caller, app_id)

    async def logs(self, app_id: str, *, tail: int, after: str | None) -> View:
        await self._ctx.apps.get(self._caller, app_id)
        position = Position.parse(after) if after else None
        return await self._ctx.logs.page(app_id, after=position, tail=tail, limit=tail)

    async def events(self, app_id: str, *, tail: int) -> View:
        app = await self._ctx.apps.get(self._caller, app_id)
        found = await self._ctx.apps.events(app, after=0, limit=1_000)
        return {"items": [event_view(event) for event in found[-tail:]]}

    async def source(self, app_id: str, *, version: int | None, paths: Sequence[str] | None) -> View:
        found, number = await self._ctx.apps.contents(self._caller, app_id, version, paths)
        return contents_view(app_id, number, found)

    async def request(self, app_id: str, question: View) -> View:
        return await asked(self._ctx, self._caller, app_id, Question(**question))

    async def versions(self, app_id: str, *, limit: int) -> View:
        app, found, total = await self._ctx.apps.versions(self._caller, app_id, limit=limit)
        return {"items": [version_view(app, version) for version in found], "total": total}

    async def rollback(self, app_id: str, version: int) -> View:
        steps = Steps(self._ctx.deployments.tracer)
        result = await self._ctx.deployments.rollback(
            self._caller, app_id, version, steps, deadline=time.perf_counter() + _ANSWER_S
        )
        return deploy_view(result, self._ctx.config)

    async def templates(self) -> View:
        found = await self._ctx.catalog.list()
        return {"items": [template_view(figures) for figures in found], "total": len(found)}
