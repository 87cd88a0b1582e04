"""Reading a deploy's multipart body as it arrives: the source streams to the store, nothing is spooled.

The size is checked before a byte is read where the client says it, and while reading in any case. Parts may come in any
order; a part that is not known, or comes twice, is refused.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from multipart import (  # type: ignore[import-untyped]
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
    parse_options_header,
)
from starlette.requests import Request

from vibed.api.errors import BodyTooLarge, MalformedRequest
from vibed.api.metadata import LARGEST_METADATA

OVERHEAD = 64 * 1024
"""Bytes of boundaries and part headers."""

_HINT = 'curl: -F \'metadata={"name": "my-app"};type=application/json\' -F source=@source.tar.gz'

Staged = TypeVar("Staged")


@dataclass(frozen=True, slots=True)
class Upload(Generic[Staged]):
    """What came: the raw metadata and the staged source, None when the part was absent."""

    metadata: bytes | None
    source: Staged | None
    finished_at: float
    """`time.perf_counter()` of the last byte."""
    received: int
    """Bytes of the whole body."""


async def read_upload(
    request: Request,
    *,
    largest_source: int,
    receive: Callable[[AsyncIterator[bytes]], Awaitable[Staged]],
    discard: Callable[[Staged], Awaitable[None]],
) -> Upload[Staged]:
    """Read the whole body; `receive` takes the source's bytes while they come.

    Whatever goes wrong, nothing that was staged is left. Raises `MalformedRequest`, `BodyTooLarge`, starlette's
    `ClientDisconnect`, and what reading the body (`vibed.api.body`) and `receive` raise.
    """
    content_type, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get("boundary")
    if content_type != "multipart/form-data" or not boundary:
        raise MalformedRequest("the body must be multipart/form-data: 'metadata' and 'source'", hint=_HINT)
    largest = largest_source + LARGEST_METADATA + OVERHEAD
    length = request.headers.get("content-length")
    if length is not None and (not length.isdigit() or int(length) > largest):
        raise _too_large(largest_source)
    try:
        parser = PushMultipartParser(boundary, max_segment_count=8, strict=True)
    except MultipartError as error:
        raise MalformedRequest(f"the multipart boundary cannot be used: {error}", hint=_HINT) from error
    reading = _Reading(request, parser, largest, largest_source)
    metadata: bytes | None = None
    source: Staged | None = None
    try:
        async for event in reading.events:
            if not isinstance(event, MultipartSegment):
                continue
            if event.name == "metadata" and metadata is None:
                metadata = await _small(reading)
            elif event.name == "source" and source is None:
                source = await receive(reading.part(largest_source))
                await reading.skip_part()
            elif event.name in ("metadata", "source"):
                raise MalformedRequest(f"the part {event.name!r} came twice", hint=_HINT)
            else:
                raise MalformedRequest(f"there is no part {str(event.name)[:80]!r} in a deploy", hint=_HINT)
    except BaseException:
        if source is not None:
            await discard(source)
        raise
    finally:
        await reading.events.aclose()
    return Upload(metadata, source, time.perf_counter(), reading.seen)


async def _small(reading: _Reading) -> bytes:
    text = bytearray()
    async for chunk in reading.part(None):
        text += chunk
        if len(text) > LARGEST_METADATA:
            raise BodyTooLarge(f"the metadata has more than {LARGEST_METADATA // 1024} KiB", hint="send fewer fields")
    return bytes(text)


class _Reading:
    """The body as one stream of the parser's events."""

    def __init__(self, request: Request, parser: PushMultipartParser, largest: int, largest_source: int) -> None:
        self._request = request
        self._parser = parser
        self._largest = largest
        self._largest_source = largest_source
        self._open = False
        self.seen = 0
        self.events: AsyncGenerator[Any, None] = self._events()

    async def _events(self) -> AsyncGenerator[Any, None]:
        try:
            async for chunk in self._chunks():
                self.seen += len(chunk)
                if self.seen > self._largest:
                    raise _too_large(self._largest_source)
                for event in self._parser.parse(chunk):
                    self._open = event is not None
                    yield event
            self._parser.close()
        except ParserLimitReached as error:
            raise MalformedRequest(f"the multipart body is out of bounds: {error}", hint=_HINT) from error
        except MultipartError as error:
            raise MalformedRequest(f"the multipart body cannot be read: {error}", hint=_HINT) from error

    async def _chunks(self) -> AsyncIterator[bytes]:
        async for chunk in self._request.stream():
            if chunk:
                yield chunk

    async def part(self, largest: int | None) -> AsyncIterator[bytes]:
        """The bytes of the part that has just begun."""
        size = 0
        async for event in self.events:
            if event is None:
                return
            assert isinstance(event, bytes | bytearray)
            size += len(event)
            if largest is not None and size > largest:
                raise _too_large(largest)
            yield bytes(event)

    async def skip_part(self) -> None:
        """Read what a consumer left of its part."""
        while self._open:
            await anext(self.events)


def _too_large(largest: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"a source may have at most {largest / 1e6:g} MB compressed",
        hint="leave out dependencies (node_modules, virtual environments), caches and .git",
        details={"limit_bytes": largest},
    )
