"""The activator: what Caddy asks when an app's socket cannot be dialled.

`GET /` with the visitor's Host and Accept: held until the app is up (204: "look again") or answered with the page that
the visitor gets. It never sees a request's body and never forwards anything; see `vibed.router.caddyfile`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from vibed import records
from vibed.apps import ids
from vibed.apps.app import Phase
from vibed.apps.errors import NotFound, StoreUnavailable
from vibed.apps.store import AppStore
from vibed.config import Config
from vibed.health import Receive, Scope, Send, live
from vibed.router import pages
from vibed.router.pages import Page
from vibed.wire import Disconnected, WireError

HOLD_S = 10.0
"""How long a visitor's request is held before the starting page is shown."""
STORE_S = 5.0
"""How long the app store may take: an API server that is away is asked again for longer than anybody waits."""

log = records.logger("vibed.router")


class Standing(Protocol):
    """How an app stands."""

    @property
    def phase(self) -> Phase: ...

    @property
    def reason(self) -> str: ...


class Waking(Protocol):
    """Brings an app up whose name leads nowhere (`vibed.controller.link.ControllerLink`)."""

    async def ensure(self, app_id: str, *, timeout_s: float) -> Standing:
        """Ready: the name reaches it now. Raises `WireError`, `Disconnected`, and `NotFound`,
        `StoreUnavailable`, TimeoutError where it asks the app store as well.
        """
        ...


def create_activator(
    config: Config, store: AppStore, link: Waking
) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """The ASGI app for `layout.activator_socket`."""

    async def page_for(host: str) -> Page | None:
        """What the visitor is told; None: the name leads to the app by now."""
        asked = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        name = asked.lower().removesuffix(f".{config.domain}")
        if config.https and "." in name:
            async with asyncio.timeout(STORE_S):
                domain = await store.domain(name)
            name = domain.app_id if domain is not None else name
        if not ids.PATTERN.fullmatch(name):
            return pages.bad_name(host)
        try:
            async with asyncio.timeout(STORE_S):
                app = await store.get(name)
            if app.deleted:
                return pages.unknown(name)
            outcome = await link.ensure(name, timeout_s=HOLD_S)
        except NotFound:
            return pages.unknown(name)
        except WireError as error:
            return pages.unknown(name) if error.error_code == "NotFound" else pages.restarting()
        if outcome.phase is Phase.READY:
            return None
        if outcome.phase is Phase.FAILED:
            return pages.failed(name, outcome.reason)
        return pages.starting(name, outcome.reason)

    async def told(host: str) -> Page | None:
        try:
            return await page_for(host)
        except (StoreUnavailable, Disconnected, TimeoutError) as error:
            log.warning("a name cannot be looked at", host=host, error=str(error) or "no answer in time")
            return pages.restarting()

    async def activator(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await live(receive, send)
            return
        if scope["type"] != "http":
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        page = await told(headers.get(b"host", ""))
        if page is None:
            await send({"type": "http.response.start", "status": 204, "headers": [(b"cache-control", b"no-store")]})
            await send({"type": "http.response.body", "body": b""})
            return
        wants_html = _wants_html(headers.get(b"accept", ""))
        body = page.as_html() if wants_html else page.as_json()
        answer = [
            (b"content-type", b"text/html; charset=utf-8" if wants_html else b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            (b"vary", b"accept"),
            (b"x-vibed-error", page.code.encode("ascii", "replace")),
        ]
        if page.retry_after_s is not None:
            answer.append((b"retry-after", str(page.retry_after_s).encode()))
        await send({"type": "http.response.start", "status": page.status, "headers": answer})
        await send({"type": "http.response.body", "body": body})

    return activator


def _wants_html(accept: str) -> bool:
    """Browsers name text/html; API clients name JSON, or take anything."""
    return "text/html" in accept or "application/xhtml" in accept
