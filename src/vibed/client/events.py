"""Server-sent events as they come off a stream's lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ServerSent:
    """One server-sent event."""

    event: str
    data: dict[str, Any]
    id: str | None


def parse(lines: Iterable[bytes]) -> Iterator[ServerSent]:
    """The events in `lines`; one that is not complete at the end is left out."""
    event, data, place = "message", [], None
    for line in lines:
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
