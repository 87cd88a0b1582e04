"""Asking an app through its front door, as its owner would with curl: for those who cannot open its URL themselves."""

from __future__ import annotations

import asyncio
import base64
import codecs
import http
import http.client
import re
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

from vibed.api.errors import InvalidRequest
from vibed.apps.errors import VibedError
from vibed.config import Config

ANSWER_S = 20.0
SHOWN = 20_000
"""Bytes of a body that are shown."""
LARGEST_BODY = 100_000
"""Characters that may be sent."""
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_AT_ONCE = 16
_AT_ONCE_OF_ONE = 4
"""An app that does not answer holds its turn for long: one owner's must not hold everybody's."""
_SHOWN_HEADERS = 20_000
"""Letters of names and values."""
_OURS = frozenset(
    {
        "host", "connection", "content-length", "transfer-encoding", "upgrade", "te", "trailer", "keep-alive",
        "proxy-connection", "proxy-authorization", "expect",
    }
)  # fmt: skip
"""Headers that belong to the connection."""
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}")


Door = Path | tuple[str, int]
"""Where Caddy takes requests for apps: its socket (`Layout.front_socket`), or host and port on a cluster."""


class NoAnswer(VibedError):
    """An app did not answer a request in time, or broke it off."""

    code = "NoAnswer"
    status = 504
    retryable = True


@dataclass(frozen=True, slots=True)
class Question:
    """One request."""

    path: str = "/"
    method: str = "GET"
    headers: Mapping[str, str] | None = None
    body: str | None = None

    def check(self) -> None:
        """Raises `InvalidRequest` where it could not be sent as it is."""
        if not self.path.startswith("/") or len(self.path) > 8_000:
            raise _wrong("path", "must begin with / and have at most 8000 characters", 'e.g. "/api/items?page=2"')
        if not self.path.isascii() or any(c <= " " or c in "\x7f#" for c in self.path):
            raise _wrong("path", "must be percent-encoded: no spaces, no letters beyond ASCII, no #")
        if self.method not in METHODS:
            raise _wrong("method", f"must be one of {', '.join(METHODS)}")
        for name, value in (self.headers or {}).items():
            if not _TOKEN.fullmatch(name) or name.lower() in _OURS:
                raise _wrong("headers", f"cannot have {name[:80]!r}", "leave out what belongs to the connection")
            if not value.isprintable() or not value.isascii() or len(value) > 8_000:
                raise _wrong("headers", f"has a value of {name!r} that no header can have")
        if self.body is not None and len(self.body) > LARGEST_BODY:
            raise _wrong("body", f"may have at most {LARGEST_BODY} characters")


@dataclass(frozen=True, slots=True)
class Heard:
    """The answer; of a long body its beginning."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: str
    base64: bool
    """Whether `body` is that, since it is not text."""
    size: int | None
    """Bytes of the whole body; None when it goes on."""
    ms: float


class Asking:
    """Asks apps, a few at a time."""

    def __init__(self, config: Config, door: Door) -> None:
        self._config = config
        self._door = door
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._turns_of: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def ask(self, app_id: str, question: Question, *, by: str) -> Heard:
        """`by`: who asks; they wait for their own turns first. Raises `InvalidRequest`, `NoAnswer`."""
        question.check()
        theirs = self._turns_of.setdefault(by, asyncio.Semaphore(_AT_ONCE_OF_ONE))
        async with theirs, self._turns:
            return await asyncio.to_thread(self._ask, app_id, question)

    def _ask(self, app_id: str, question: Question) -> Heard:
        connection = _Connection(self._door)
        began = time.monotonic()
        host = self._config.app_url(app_id).partition("//")[2]
        sent = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "vibed", **(question.headers or {})}
        try:
            connection.request(
                question.method,
                question.path,
                None if question.body is None else question.body.encode(),
                {**sent, "Host": host, "Connection": "close"},
            )
            answer = connection.getresponse()
            body, whole = _beginning(answer, began)
        except TimeoutError as error:
            raise NoAnswer(
                f"{app_id} did not answer {question.method} {question.path[:200]} within {ANSWER_S:g} s",
                hint="read its log: it may wait for something that does not come, or compute for long",
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(
                f"{app_id} broke off {question.method} {question.path[:200]}: {error}", hint="read its log"
            ) from error
        finally:
            connection.close()
        length = answer.getheader("content-length") or ""
        size = len(body) if whole else int(length) if length.isdigit() else None
        text, encoded = _shown(body, whole)
        ms = round((time.monotonic() - began) * 1000, 1)
        return Heard(answer.status, _few(answer.getheaders()), text, encoded, size, ms)


class _Answer(http.client.HTTPResponse):
    """The last head that comes: those before it (103, early hints) are no answer, and an app may send any number."""

    def _read_status(self) -> tuple[str, int, str]:
        began = time.monotonic()
        while time.monotonic() - began < ANSWER_S:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 100 <= status < 200 or status == http.HTTPStatus.SWITCHING_PROTOCOLS:
                return version, status, reason
            http.client.parse_headers(self.fp)
        raise TimeoutError


class _Connection(http.client.HTTPConnection):
    response_class = _Answer

    def __init__(self, door: Door) -> None:
        super().__init__("localhost", timeout=ANSWER_S)
        self._door = door

    def connect(self) -> None:
        if isinstance(self._door, tuple):
            self.sock = socket.create_connection(self._door, ANSWER_S)
            return
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(ANSWER_S)
        self.sock.connect(str(self._door))


def _beginning(answer: http.client.HTTPResponse, began: float) -> tuple[bytes, bool]:
    """The first bytes of a body, and whether they are all. A stream that goes on is left after a while."""
    body = b""
    while len(body) <= SHOWN and time.monotonic() - began < ANSWER_S:
        try:
            piece = answer.read1(SHOWN + 1 - len(body))
        except TimeoutError:
            break
        if not piece:
            return body, True
        body += piece
    return body[:SHOWN], False


def _few(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Those that fit: a hundred of 64 KiB are allowed, and who reads them pays by the word."""
    few: list[tuple[str, str]] = []
    left = _SHOWN_HEADERS
    for name, value in headers:
        size = len(name) + len(value)
        if size <= left:
            left -= size
            few.append((name, value))
    return tuple(few)


def _shown(body: bytes, whole: bool) -> tuple[str, bool]:
    try:
        # a character that the end cut in two is no sign of a picture
        return codecs.getincrementaldecoder("utf-8")().decode(body, final=whole), False
    except UnicodeDecodeError:
        return base64.b64encode(body[: SHOWN // 4]).decode(), True


def _wrong(field: str, problem: str, hint: str | None = None) -> InvalidRequest:
    return InvalidRequest(
        f"{field} {problem}", hint=hint, details={"field": field, "errors": [{"field": field, "message": problem}]}
    )
