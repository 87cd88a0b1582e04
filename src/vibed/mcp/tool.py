"""What a tool is: its arguments and its result as types, which an agent sees before it calls, and what it does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from mcp_types import ToolAnnotations
from pydantic import BaseModel, ConfigDict

from vibed.mcp.backend import Backend

READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
REPLACES = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False)
"""It can take the place of what is there; the same again changes nothing."""
CHANGES = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=False)


class Arguments(BaseModel):
    """What a tool takes; anything else is refused by name."""

    model_config = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class Call:
    """One call, on behalf of one caller."""

    backend: Backend
    progress: Callable[[str], Awaitable[None]]
    """Tells whoever waits what goes on, if they asked for that."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool. `run` gets an instance of `arguments` and returns one of `result`; it raises `VibedError`."""

    name: str
    title: str
    description: str
    annotations: ToolAnnotations
    arguments: type[Arguments]
    result: type[BaseModel]
    run: Callable[[Call, Any], Awaitable[BaseModel]]
