"""The port to the controller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from vibed.apps.app import Runtime
from vibed.controller.link import Outcome, TemplateFigures


class Controller(Protocol):
    """What the API needs of the controller (`vibed.controller.link.ControllerLink`)."""

    async def wake(self, app_id: str) -> None: ...
    async def prepare(self, app_id: str, source_digest: str, runtime: Runtime) -> None: ...
    async def settle(self, app_id: str, version: int, *, timeout_s: float, trace: str = "") -> Outcome: ...
    async def templates(self) -> Sequence[TemplateFigures]: ...
    async def metrics(self) -> str: ...
    async def health(self) -> dict[str, Any]: ...
