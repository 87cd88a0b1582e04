"""The CLI's HTTP client: the standard library's, since importing a larger one takes longer than most commands."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import secrets
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import urlencode, urlsplit

from vibed import __version__
from vibed.apps.errors import VibedError
from vibed.cli.settings import Settings, settings

CONNECT_S = 10.0
ANSWER_S = 60.0
_ASKING_S = 5.0
_CHUNK = 256 * 1024
_FIRST = 5_000
"""A proxy written in Go (Caddy) holds 4 KiB back: this makes it pass the request's head on, in one write."""
_LONG = 20_000_000
"""Bytes of a body that may well be refused for its length alone."""
_REFUSAL_S = 0.3
"""How long the first part of a long body is left alone, for such a refusal to come."""


class Unreachable(VibedError):
    """Nothing answers where vibeD should be."""

    code = "Unreachable"
    status = 503
    retryable = True


class Refused(VibedError):
    """vibeD answered with an error; it carries the answer's own code."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer."""

    status: int
    body: Any
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ServerSent:
    """One server-sent event."""

    event: str
    data: dict[str, Any]
    id: str | None


class Client:
    """Calls one vibeD. Raises `Unreachable` and `Refused`."""

    def __init__(self, where: Settings | None = None, *, answer_s: float = ANSWER_S) -> None:
        """`answer_s`: how long an answer may take."""
        self._where = where or settings()
        self._answer_s = answer_s
        parts = urlsplit(self._where.url)
        self._secure = parts.scheme == "https"
        self._host = parts.netloc
        if self._where.connect and not self._secure:
            host, _, port = self._where.connect.rpartition(":")
            self._address = (host.strip("[]"), int(port))
        else:
            self._address = (parts.hostname or "", parts.port or (443 if self._secure else 80))

    @property
    def url(self) -> str:
        return self._where.url

    def get(self, path: str, **query: object) -> Any:
        """The JSON of a GET."""
        return self.call("GET", path, query=query).body

    def call(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Any call with an optional JSON body."""
        data = None if body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} if data is not None else {}
        return self._call(method, path + _query(query), data, {**sent, **(headers or {})})

    def upload(
        self,
        path: str,
        metadata: Mapping[str, Any],
        source: IO[bytes] | None,
        size: int,
        *,
        headers: Mapping[str, str] | None = None,
        progress: Callable[[int], None] = lambda sent: None,
    ) -> Answer:
        """A multipart upload that streams `source`."""
        boundary = secrets.token_hex(16)
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="metadata"\r\n'
            f"Content-Type: application/json\r\n\r\n{json.dumps(metadata)}\r\n"
        ).encode()
        if source is not None:
            head += (
                f'--{boundary}\r\nContent-Disposition: form-data; name="source"; filename="source.tar.gz"\r\n'
                "Content-Type: application/gzip\r\n\r\n"
            ).encode()
        tail = f"{'' if source is None else chr(13) + chr(10)}--{boundary}--\r\n".encode()

        def chunks() -> Iterator[bytes]:
            yield head
            sent = 0
            while source is not None and (chunk := source.read(_CHUNK if sent else _FIRST)):
                yield chunk
                sent += len(chunk)
                progress(sent)
            yield tail

        sent_headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(head) + (size if source is not None else 0) + len(tail)),
            **(headers or {}),
        }
        return self._call("POST", path, chunks(), sent_headers)

    def source_limit(self) -> int | None:
        """How many bytes a source may have at most; None when that cannot be told.

        No route tells it. A deploy that claims to be longer than any is refused before its source is read, with the
        number.
        """
        try:
            asking = Client(self._where, answer_s=_ASKING_S)
            asking.upload("/v1/deploy", {}, io.BytesIO(bytes(4 * _CHUNK)), 1 << 40)
        except (Refused, Unreachable) as error:
            limit = error.extra.get("limit_bytes")
            return limit if isinstance(limit, int) else None
        return None

    def stream(
        self,
        path: str,
        query: Mapping[str, object],
        *,
        last_id: str | None = None,
        waiting: Callable[[str], None] = lambda text: None,
        give_up_s: float = 120.0,
    ) -> Iterator[ServerSent]:
        """Server-sent events until the event `end`; comes back where it was when the connection breaks."""
        lost_at: float | None = None
        while True:
            headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_id} if last_id else {})}
            try:
                for event in self._events(path + _query(query), headers):
                    lost_at = None
                    if event.event == "end":
                        return
                    last_id = event.id or last_id
                    yield event
            except Unreachable:
                if lost_at is None and last_id is None:
                    raise
            except Refused as error:
                if not error.may_retry:
                    raise
            lost_at = lost_at or time.monotonic()
            if time.monotonic() - lost_at > give_up_s:
                raise Unreachable(f"{self.url} does not answer any more", hint="is vibeD running? `vibed doctor`")
            waiting("the stream broke off, trying again")
            time.sleep(0.5)

    def _events(self, path: str, headers: Mapping[str, str]) -> Iterator[ServerSent]:
        connection = self._connect()
        try:
            answer = self._send(connection, "GET", path, None, headers)
            if answer.status != 200:
                raise _refused(answer.status, answer.read())
            # A quiet stream has a heartbeat every few seconds.
            _set_timeout(connection, 45.0)
            event, data, place = "message", [], None
            while True:
                try:
                    line = answer.readline(1 << 20)
                except (OSError, http.client.HTTPException) as error:
                    raise Unreachable(f"the stream from {self.url} broke off: {error}") from error
                if not line:
                    return
                field, _, value = line.decode("utf-8", "replace").rstrip("\r\n").partition(":")
                value = value.removeprefix(" ")
                if field == "event":
                    event = value
                elif field == "data":
                    data.append(value)
                elif field == "id":
                    place = value
                elif not field and not value and line in (b"\n", b"\r\n"):
                    if data:
                        yield ServerSent(event, json.loads("\n".join(data)), place)
                    event, data, place = "message", [], None
        finally:
            connection.close()

    def _call(self, method: str, path: str, body: bytes | Iterator[bytes] | None, headers: Mapping[str, str]) -> Answer:
        connection = self._connect()
        try:
            answer = self._send(connection, method, path, body, headers)
            try:
                text = answer.read()
            except (OSError, http.client.HTTPException) as error:
                raise Unreachable(f"the answer of {self.url} broke off: {error}") from error
            if answer.status >= 400:
                raise _refused(answer.status, text)
            kind = answer.headers.get_content_type()
            return Answer(
                answer.status, json.loads(text) if kind == "application/json" and text else text, dict(answer.headers)
            )
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._address
        if self._secure:
            context = ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE"))
            return http.client.HTTPSConnection(host, port, timeout=CONNECT_S, context=context)
        return http.client.HTTPConnection(host, port, timeout=CONNECT_S)

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None,
        headers: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        try:
            connection.connect()
        except OSError as error:
            raise Unreachable(
                f"nothing answers at {self.url}: {error.strerror or error}", hint="start it with `vibed up`"
            ) from error
        _set_timeout(connection, self._answer_s)
        sent = {
            "Host": self._host,
            "Authorization": f"Bearer {self._where.token}",
            "User-Agent": f"vibed-cli/{__version__}",
            **headers,
        }
        try:
            if isinstance(body, Iterator):
                body = _until_answered(connection, body, int(headers["Content-Length"]))
            # A refusal that comes before the whole body is sent is read, not lost in a broken pipe.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, path, body, sent)
            return connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{self.url} went away before it answered: {error}") from error


def _until_answered(connection: http.client.HTTPConnection, body: Iterator[bytes], length: int) -> Iterator[bytes]:
    """The body, as far as anybody wants it.

    Who refuses a length closes the connection. When the rest still comes then, a proxy in between (Caddy) sees a broken
    pipe and may tell that instead of the refusal; so it gets a moment to pass the refusal on.
    """
    for number, part in enumerate(body):
        yield part
        pause = _REFUSAL_S if number == 1 and length >= _LONG else 0.0
        if isinstance(connection.sock, ssl.SSLSocket):
            time.sleep(pause)  # it may be readable without an answer: TLS has messages of its own
        elif select.select([connection.sock], [], [], pause)[0]:
            return


def _set_timeout(connection: http.client.HTTPConnection, seconds: float) -> None:
    if isinstance(connection.sock, socket.socket):
        connection.sock.settimeout(seconds)


def _query(query: Mapping[str, object] | None) -> str:
    given = {name: _text(value) for name, value in (query or {}).items() if value is not None}
    return f"?{urlencode(given)}" if given else ""


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _refused(status: int, text: bytes) -> Refused:
    try:
        body = json.loads(text)
        details = dict(body.get("details") or {})
        return Refused(
            str(body["message"]),
            code=str(body["code"]),
            hint=details.pop("hint", None),
            retryable=bool(details.pop("retryable", False)),
            details=details,
            status=status,
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        shown = text[:200].decode("utf-8", "replace")
        return Refused(
            f"the answer was {status}, not vibeD's: {shown}",
            code="Unreachable" if status in (502, 503, 504) else "UnexpectedAnswer",
            status=status,
            retryable=status in (502, 503, 504),
        )
