"""Whether a deploy could be taken and served right now: asked of the things themselves, not of memory."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from pathlib import Path
from typing import Any

from vibed.api.controlling import Controller
from vibed.api.sse import Stopping
from vibed.apps.errors import VibedError
from vibed.apps.store import AppStore
from vibed.sources import room

FRESH_S = 0.5
"""The page is public: asked more often than this, it repeats itself."""

Checks = dict[str, dict[str, Any]]


class Readiness:
    """Runs the checks of `/readyz`."""

    def __init__(self, incoming: Path, store: AppStore, link: Controller, stopping: Stopping) -> None:
        """`incoming`: where sources arrive. A store that is elsewhere is not asked: while it is away everything but a
        deploy can be done.
        """
        self._incoming = incoming
        self._store = store
        self._link = link
        self._stopping = stopping
        self._lock = asyncio.Lock()
        self._last: tuple[float, Checks] | None = None

    async def checks(self) -> Checks:
        """`{name: {ok, detail}}`; details name no paths."""
        async with self._lock:
            if self._last is None or time.monotonic() - self._last[0] > FRESH_S:
                self._last = (time.monotonic(), await self._run())
            return self._last[1]

    async def _run(self) -> Checks:
        stopping = self._stopping.is_set
        checks: Checks = {"process": _check(not stopping, "on its way down" if stopping else "up")}
        checks["store"] = await self._store_check()
        try:
            free = await asyncio.to_thread(_write_something, self._incoming)
            enough = free >= room.FLOOR
            told = f"writable, {free >> 20} MiB free"
            checks["sources"] = _check(enough, told if enough else f"{told}: deploys need {room.FLOOR >> 20}")
        except OSError as error:
            checks["sources"] = _check(False, os.strerror(error.errno or 0))
        try:
            health = await self._link.health()
            checks["controller"] = _check(bool(health.get("ok")), "answers")
            for name, check in dict(health.get("checks") or {}).items():
                checks[f"controller.{name}"] = _check(bool(check.get("ok")), str(check.get("detail", "")))
        except VibedError as error:
            checks["controller"] = _check(False, error.error_code)
        return checks

    async def _store_check(self) -> dict[str, Any]:
        try:
            await self._store.list(limit=1)
            await self._store.prove()
        except VibedError as error:
            return _check(False, error.error_code)
        return _check(True, "answers and takes writes")


def _check(ok: bool, detail: str) -> dict[str, Any]:
    return {"ok": ok, "detail": detail}


def _write_something(directory: Path) -> int:
    """Write a block where sources go; returns the bytes that are free for us."""
    path = directory / f"ready-{secrets.token_hex(6)}"
    try:
        path.write_bytes(b"\0" * 4096)
    finally:
        path.unlink(missing_ok=True)
    return room.free(directory)
