"""The activator: what Caddy asks when an app's socket cannot be dialled.

`GET /` with the visitor's Host and Accept: held until the app is up (204: "look again") or answered with the page that
the visitor gets. It never sees a request's body and never forwards anything; see `vibed.router.caddyfile`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

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


class Standing(Protocol):
    """How an app stands."""

    @property
    def phase(self) -> Phase: ...

    @property
    def reason(self) -> str: ...


class Waking(Protocol):
    """Brings an app up whose name leads nowhere (`vibed.controller.link.ControllerLink`)."""

    async def ensure(self, app_id: str, *, timeout_s: float) -> Standing:
        """Ready: the name reaches it now. Raises `WireError`, `Disconnected`."""
        ...


def create_activator(
    config: Config, store: AppStore, link: Waking
) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """The ASGI app for `layout.activator_socket`."""

    async def page_for(host: str) -> Page | None:
        asked = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        name = asked.lower().removesuffix(f".{config.domain}")
        if config.https and "." in name:
            try:
                domain = await store.domain(name)
            except StoreUnavailable:
                return pages.restarting()
            name = domain.app_id if domain is not None else name
        if not ids.PATTERN.fullmatch(name):
            return pages.bad_name(host)
        try:
            app = await store.get(name)
        except NotFound:
            return pages.unknown(name)
        except StoreUnavailable:
            return pages.restarting()
        if app.deleted:
            return pages.unknown(name)
        try:
            outcome = await link.ensure(name, timeout_s=HOLD_S)
        except WireError as error:
            return pages.unknown(name) if error.error_code == "NotFound" else pages.restarting()
        except Disconnected:
            return pages.restarting()
        if outcome.phase is Phase.READY:
            return None
        if outcome.phase is Phase.FAILED:
            return pages.failed(name, outcome.reason)
        return pages.starting(name, outcome.reason)

    async def activator(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await live(receive, send)
            return
        if scope["type"] != "http":
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        page = await page_for(headers.get(b"host", ""))
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
