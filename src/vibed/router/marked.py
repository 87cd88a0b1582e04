"""Names on one machine: markers that Caddy looks at (implements `vibed.controller.names.Names`)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from vibed.apps.app import Route
from vibed.router.markers import Marker, Markers
from vibed.sandboxes.driver import Endpoint

_DIAL_S = 1.0


class _Published(Protocol):
    @property
    def site(self) -> bool: ...
    @property
    def endpoint(self) -> Endpoint: ...


class MarkedNames:
    """See the module's docstring. Nothing here waits: what one task does to an app's markers is done at once."""

    def __init__(self, markers: Markers) -> None:
        self._markers = markers

    def route(self, app_id: str) -> Route | None:
        return None

    def published(self, app_id: str) -> Sequence[Marker]:
        return self._markers.published(app_id)

    def leading(self) -> Sequence[str]:
        return self._markers.with_sockets()

    def room(self, app_id: str, run: int, version: int) -> Path:
        self._markers.make_room(app_id)
        return self._markers.socket(app_id, run, version)

    async def publish(self, app_id: str, run: int, version: int, endpoint: Endpoint) -> None:
        self._markers.publish(app_id, run, version, endpoint)

    async def retire(self, app_id: str, run: int) -> None:
        self._markers.retire(app_id, run)

    async def forget(self, app_id: str, run: int, *, last: bool = True) -> None:
        self._markers.forget(app_id, run, last=last)

    async def clear(self, app_id: str) -> None:
        self._markers.clear(app_id)

    async def answers(self, published: _Published) -> bool:
        if published.site:
            return True
        try:
            async with asyncio.timeout(_DIAL_S):
                _, writer = await asyncio.open_unix_connection(str(published.endpoint.path))
            writer.close()
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except (OSError, TimeoutError):
            return True  # it is there, and busy
        return True

    async def lead(self, domains: Mapping[str, str]) -> None:
        self._markers.lead(domains)
