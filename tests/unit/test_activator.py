"""The activator, when what it asks is away: every visitor is told, and none gets an empty error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from vibed.apps.app import Phase
from vibed.apps.errors import NotFound, StoreUnavailable, VibedError
from vibed.config import Config
from vibed.controller.link import Outcome
from vibed.router.activator import create_activator
from vibed.wire import Disconnected, WireError


class There:
    """An app that is there."""

    deleted = False


class Store:
    def __init__(self, fails: BaseException | None = None) -> None:
        self.fails = fails

    async def get(self, app_id: str) -> There:
        if self.fails is not None:
            raise self.fails
        return There()


class Link:
    def __init__(self, fails: BaseException | None = None) -> None:
        self.fails = fails

    async def ensure(self, app_id: str, *, timeout_s: float) -> Outcome:
        if self.fails is not None:
            raise self.fails
        return Outcome(Phase.READY)


async def visited(tmp_path: Path, store: Store, link: Link) -> tuple[int, dict[bytes, bytes], dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(dict(message))

    async def receive() -> dict[str, Any]:
        return {}

    activator = create_activator(Config(tmp_path), cast(Any, store), link)
    await activator({"type": "http", "headers": [(b"host", b"todo.localhost")]}, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), json.loads(sent[1]["body"] or b"{}")


AWAY: list[VibedError | TimeoutError] = [
    StoreUnavailable("the app store cannot be used right now"),
    Disconnected("no controller leads at this moment"),
    TimeoutError(),
]


@pytest.mark.parametrize("away", AWAY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["before the controller is asked", "after it was asked"])
async def test_what_is_away_is_told_as_an_error_that_says_when_to_come_back(
    tmp_path: Path, away: VibedError, where: str
) -> None:
    first = where.startswith("before")
    status, headers, body = await visited(tmp_path, Store(away if first else None), Link(None if first else away))
    assert (status, body["code"]) == (503, "VibedUnavailable")
    assert headers[b"retry-after"] == b"2"
    assert headers[b"content-type"] == b"application/json"


@pytest.mark.parametrize("gone", [NotFound("no app"), WireError("no app", code="NotFound")])
async def test_an_app_that_goes_while_it_is_asked_for_is_unknown(tmp_path: Path, gone: VibedError) -> None:
    status, _, body = await visited(tmp_path, Store(), Link(gone))
    assert (status, body["code"]) == (404, "AppNotFound")
