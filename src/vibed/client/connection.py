"""One request to vibeD and its answer, with the standard library alone: a larger client takes longer to import
than most commands take.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from vibed import __version__
from vibed.apps.errors import VibedError
from vibed.client.settings import Settings

CONNECT_S = 10.0
_PIECE = 256 * 1024
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


class Endpoint:
    """Where one vibeD is reached. Raises `Unreachable` and `Refused`."""

    def __init__(self, where: Settings, answer_s: float) -> None:
        """`answer_s`: how long an answer may take."""
        self._where = where
        self._answer_s = answer_s
        parts = urlsplit(where.url)
        self._secure = parts.scheme == "https"
        self._host = parts.netloc
        if where.connect and not self._secure:
            host, _, port = where.connect.rpartition(":")
            self._address = (host.strip("[]"), int(port))
        else:
            self._address = (parts.hostname or "", parts.port or (443 if self._secure else 80))

    def call(self, method: str, path: str, body: bytes | Iterator[bytes] | None, headers: Mapping[str, str]) -> Answer:
        """A request and its whole answer."""
        connection = self._connect()
        try:
            answer = self._send(connection, method, path, body, headers)
            try:
                text = answer.read()
            except (OSError, http.client.HTTPException) as error:
                raise Unreachable(f"the answer of {self._where.url} broke off: {error}") from error
            if answer.status >= 400:
                raise _refused(answer.status, text)
            kind = answer.headers.get_content_type()
            return Answer(
                answer.status, json.loads(text) if kind == "application/json" and text else text, dict(answer.headers)
            )
        finally:
            connection.close()

    @contextlib.contextmanager
    def streaming(self, path: str, headers: Mapping[str, str], *, silence_s: float) -> Iterator[Lines]:
        """A GET whose answer is read line by line; each may be `silence_s` away from the one before."""
        connection = self._connect()
        try:
            answer = self._send(connection, "GET", path, None, headers)
            if answer.status != 200:
                raise _refused(answer.status, answer.read())
            _set_timeout(connection, silence_s)
            yield Lines(answer, self._where.url)
        finally:
            connection.close()

    @contextlib.contextmanager
    def download(self, path: str, *, silence_s: float) -> Iterator[Iterator[bytes]]:
        """A GET whose answer is taken piece by piece; each may be `silence_s` away from the one before."""
        connection = self._connect()
        try:
            answer = self._send(connection, "GET", path, None, {})
            if answer.status != 200:
                raise _refused(answer.status, answer.read())
            _set_timeout(connection, silence_s)
            yield _pieces(answer, self._where.url)
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
                f"nothing answers at {self._where.url}: {error.strerror or error}", hint="start it with `vibed up`"
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
            raise Unreachable(f"{self._where.url} went away before it answered: {error}") from error


def _pieces(answer: http.client.HTTPResponse, url: str) -> Iterator[bytes]:
    while True:
        try:
            piece = answer.read(_PIECE)
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"what {url} sends broke off: {error}") from error
        if not piece:
            return
        yield piece


class Lines:
    """The lines of an answer as they come."""

    def __init__(self, answer: http.client.HTTPResponse, url: str) -> None:
        self._answer = answer
        self._url = url

    def __iter__(self) -> Iterator[bytes]:
        while True:
            try:
                line = self._answer.readline(1 << 20)
            except (OSError, http.client.HTTPException) as error:
                raise Unreachable(f"the stream from {self._url} broke off: {error}") from error
            if not line:
                return
            yield line


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
