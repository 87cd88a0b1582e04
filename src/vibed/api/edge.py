"""What every request passes first: Host, Origin, key, size of the body; and what every answer carries.

Plain ASGI, so that it costs microseconds and sees streams as they are. An exception that nobody foresaw ends here as
a 500 with a request id; its traceback is in vibeD's log only.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import ExitStack
from typing import Any

from vibed import records
from vibed.api.body import Body
from vibed.api.errors import CrossOrigin, MethodNotAllowed, Misdirected, TooManyAtOnce, TooManyAttempts, Unauthorized
from vibed.api.identity import Keyring
from vibed.api.measures import Measures
from vibed.api.shares import Shares
from vibed.apps.errors import VibedError
from vibed.config import EVERYWHERE, Config

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
ErrorBody = Callable[[VibedError], Mapping[str, Any]]

LARGEST_JSON = 256 * 1024
"""Bytes of a body on every route that does not stream."""

log = records.logger("vibed.api")

_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)


def error_headers(error: VibedError) -> dict[str, str]:
    """Headers that belong to an error's answer."""
    headers = {}
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = ", ".join(error.allowed)
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = 'Bearer realm="vibed"'
    if isinstance(error, TooManyAttempts | TooManyAtOnce):
        headers["retry-after"] = str(max(1, round(float(str(error.extra.get("retry_after_s", 1))))))
    elif error.may_retry and error.http_status in (429, 503, 507):
        headers["retry-after"] = "2"
    return headers


class Edge:
    """The outermost ASGI application; see the module's docstring."""

    def __init__(
        self,
        app: App,
        config: Config,
        keyring: Keyring,
        measures: Measures,
        *,
        streaming: re.Pattern[str],
        bodies: Mapping[str, ErrorBody] | None = None,
    ) -> None:
        """`streaming`: whole paths whose handlers bound the body of a POST themselves; `bodies`: how errors are told at
        paths where another form than the API's is expected.
        """
        self._bodies = bodies or {}
        self._app = app
        self._keyring = keyring
        self._measures = measures
        self._streaming = streaming
        self._shares = Shares()
        self._hosts = _hosts(config)
        # Twice what a deploy may have: a source that is somewhat too large is told so, too.
        self._largest_discarded = 2 * config.max_source_mb * 1_000_000

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = secrets.token_hex(8)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        status = 0
        lingers = replaced = False

        async def sending(message: Message) -> None:
            nonlocal status, lingers
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message.get("headers", ()))
                present = {name.lower() for name, _ in headers}
                headers += [(name, value) for name, value in _HEADERS if name not in present]
                headers.append((b"x-request-id", request_id.encode()))
                if lingers := not await body.finish():
                    headers += [(b"connection", b"close"), (b"x-vibed-unread", b"1")]
                message = {**message, "headers": headers}
            elif lingers and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await body.linger()
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        async def answering(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start" and body.failure is not None:
                # whatever a handler takes it for
                replaced = True
                await _answer(sending, body.failure, self._body_of(scope, body.failure))
            elif not replaced:
                await sending(message)

        limit = None if self._bounds_itself(scope) else LARGEST_JSON
        body = Body(scope, receive, limit, self._largest_discarded)
        try:
            with records.about(request_id=request_id):
                try:
                    await self._admit(scope)
                    with ExitStack() as held:
                        if caller := state.get("caller"):
                            for kind in _kinds(scope):
                                held.enter_context(self._shares.hold(caller.key_id, kind))
                        body.check_length()
                        await self._app(scope, body.receive, answering)
                except VibedError as error:
                    if status:
                        raise
                    await _answer(sending, error, self._body_of(scope, error))
        except Exception as error:
            if _client_left(error):
                status = status or 499
            else:
                log.exception("request_failed", request_id=request_id, method=scope["method"], path=scope["path"])
                if not status:
                    internal = _internal(request_id)
                    await _answer(sending, internal, self._body_of(scope, internal))
                else:
                    # The head is sent: only a broken connection tells the client that this is not the whole answer.
                    raise
        finally:
            self._measures.requests.labels(scope["method"], str(status)).inc()
            level = log.debug if scope["path"] in ("/healthz", "/readyz", "/metrics") else log.info
            caller = state.get("caller")
            level(
                "request",
                request_id=request_id,
                method=scope["method"],
                path=scope["path"],
                status=status,
                ms=round((time.perf_counter() - began) * 1e3, 2),
                owner=caller.owner if caller else None,
                key=caller.key_id if caller else None,
            )

    def _body_of(self, scope: Scope, error: VibedError) -> Mapping[str, Any]:
        told = self._bodies.get(scope["path"])
        return error.body() if told is None else told(error)

    def _bounds_itself(self, scope: Scope) -> bool:
        return scope["method"] == "POST" and self._streaming.fullmatch(scope["path"]) is not None

    async def _admit(self, scope: Scope) -> None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "").lower()
        if host not in self._hosts:
            raise Misdirected(
                f"this vibeD does not answer for the host {host[:80]!r}",
                hint=f"use one of {', '.join(sorted(self._hosts))}",
            )
        origin = headers.get(b"origin")
        if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
            raise CrossOrigin("a page of another origin cannot use this API", hint="call it from a terminal")
        path = scope["path"]
        if path in ("/v1", "/mcp") or path.startswith(("/v1/", "/mcp/")):
            scope["state"]["caller"] = await self._keyring.authenticate(
                headers.get(b"authorization"), _address(scope, headers)
            )


def _kinds(scope: Scope) -> Iterator[str]:
    """What of the shared a request holds while it lasts."""
    yield "requests"
    if scope["method"] == "POST" and scope["path"].endswith(("/deploy", "/redeploy")):
        yield "uploads"
    elif scope["method"] == "GET" and scope["path"].endswith(("/logs", "/events")):
        yield "streams"


def _hosts(config: Config) -> frozenset[str]:
    names = {"localhost", "127.0.0.1", "[::1]", config.domain.lower()}
    if config.host not in EVERYWHERE:
        names.add(config.host.lower())
    hosts = {f"{name}:{config.port}" for name in names} | {config.place}
    # Behind TLS, or on port 80, clients leave the port out.
    return frozenset(hosts | ({config.domain.lower()} if config.domain != "localhost" or config.port == 80 else set()))


def _address(scope: Scope, headers: dict[bytes, str]) -> str:
    # The socket can be reached by vibeD's own Caddy alone, which appends the peer's address.
    forwarded = headers.get(b"x-forwarded-for", "").rpartition(",")[2].strip()
    client = scope.get("client")
    return forwarded or (client[0] if client else "local")


def _client_left(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_client_left(inner) for inner in error.exceptions)
    return type(error).__name__ == "ClientDisconnect"


def _internal(request_id: str) -> VibedError:
    return VibedError(
        "something went wrong inside vibeD",
        hint="try again; if it stays, look for the request id in vibeD's log",
        details={"request_id": request_id},
        code="Internal",
        status=500,
        retryable=True,
    )


async def _answer(send: Send, error: VibedError, told: Mapping[str, Any]) -> None:
    body = json.dumps(told).encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **error_headers(error),
    }
    await send(
        {
            "type": "http.response.start",
            "status": error.http_status,
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})
