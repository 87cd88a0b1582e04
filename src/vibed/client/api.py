"""The HTTP API as a client calls it: JSON, uploads that are streamed, and streams of events."""

from __future__ import annotations

import io
import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import IO, Any
from urllib.parse import urlencode

from vibed.client.connection import Answer, Endpoint, Refused, Unreachable
from vibed.client.events import ServerSent, parse
from vibed.client.settings import Settings, settings

ANSWER_S = 60.0
_ASKING_S = 5.0
_SILENCE_S = 120.0
_CHUNK = 256 * 1024
_FIRST = 5_000
"""A proxy written in Go (Caddy) holds 4 KiB back: this makes it pass the request's head on, in one write."""


class Client:
    """Calls one vibeD. Raises `Unreachable` and `Refused`."""

    def __init__(self, where: Settings | None = None, *, answer_s: float = ANSWER_S) -> None:
        """`answer_s`: how long an answer may take."""
        self._where = where or settings()
        self._endpoint = Endpoint(self._where, answer_s)

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
        return self._endpoint.call(method, path + _query(query), data, {**sent, **(headers or {})})

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
        return self._endpoint.call("POST", path, chunks(), sent_headers)

    def download(self, path: str) -> AbstractContextManager[Iterator[bytes]]:
        """What a GET answers, piece by piece."""
        return self._endpoint.download(path, silence_s=_SILENCE_S)

    def send(
        self,
        path: str,
        content: IO[bytes],
        size: int,
        *,
        query: Mapping[str, object] | None = None,
        progress: Callable[[int], None] = lambda sent: None,
    ) -> Answer:
        """A POST of a file as it is."""

        def chunks() -> Iterator[bytes]:
            sent = 0
            while chunk := content.read(_CHUNK):
                yield chunk
                sent += len(chunk)
                progress(sent)

        headers = {"Content-Type": "application/x-tar", "Content-Length": str(size)}
        return self._endpoint.call("POST", path + _query(query), chunks(), headers)

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
        # A quiet stream has a heartbeat every few seconds.
        with self._endpoint.streaming(path, headers, silence_s=45.0) as lines:
            yield from parse(lines)


def _query(query: Mapping[str, object] | None) -> str:
    given = {name: _texts(value) for name, value in (query or {}).items() if value is not None}
    return f"?{urlencode(given, doseq=True)}" if given else ""


def _texts(value: object) -> str | list[str]:
    return [_text(item) for item in value] if isinstance(value, list | tuple) else _text(value)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
