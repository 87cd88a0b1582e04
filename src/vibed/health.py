"""The page that a pod's probes ask: `/healthz` and `/readyz`, and `/metrics` where there are some."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Health:
    """An ASGI application. `ready` says why the process cannot take work; empty while it can. `metrics` gives
    Prometheus' text format.
    """

    def __init__(self, ready: Callable[[], str], metrics: Callable[[], Awaitable[str]] | None = None) -> None:
        self._ready = ready
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await live(receive, send)
            return
        if scope["type"] != "http":
            return
        status, kind, text = 404, "application/json", json.dumps({"code": "NotFound", "message": "no such page"})
        if scope["path"] == "/healthz":
            status, text = 200, json.dumps({"ok": True})
        elif scope["path"] == "/readyz":
            why = self._ready()
            status, text = (503 if why else 200), json.dumps({"ok": not why, "detail": why or "ready"})
        elif scope["path"] == "/metrics" and self._metrics is not None:
            status, kind, text = 200, "text/plain; version=0.0.4; charset=utf-8", await self._metrics()
        headers = [(b"content-type", kind.encode()), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text.encode()})


async def live(receive: Receive, send: Send) -> None:
    """The lifespan of an ASGI application that has nothing to open or to close."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
