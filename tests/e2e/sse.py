"""Reading server-sent events."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ServerSent:
    """One event."""

    event: str
    data: str
    id: str | None

    @property
    def json(self) -> dict[str, Any]:
        """The data as an object."""
        value: dict[str, Any] = json.loads(self.data)
        return value


def events_of(lines: Iterable[str]) -> Iterator[ServerSent]:
    """Parse a stream; comments are left out."""
    event, data, place = "message", list[str](), None
    for line in lines:
        if not line:
            if data:
                yield ServerSent(event, "\n".join(data), place)
            event, data, place = "message", [], None
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            event = value
        elif name == "data":
            data.append(value)
        elif name == "id":
            place = value
