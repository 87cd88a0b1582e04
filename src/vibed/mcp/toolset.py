"""All tools, the same over both transports."""

from __future__ import annotations

from collections.abc import Mapping

from vibed.mcp.deploying import deploying
from vibed.mcp.guide import guide
from vibed.mcp.packing import Pack
from vibed.mcp.reading import About, reading
from vibed.mcp.results import Deleted
from vibed.mcp.tool import CHANGES, Call, Tool


def toolset(packages: Mapping[str, Mapping[str, str]], *, pack: Pack | None = None) -> list[Tool]:
    """`packages`: template name to what it brings; `pack`: where a call may name a folder of this machine."""
    delete = Tool(
        "delete_artifact", "Delete an app", "Delete an app with its versions, files and logs. This cannot be undone.",
        CHANGES, About, Deleted, _delete,
    )  # fmt: skip
    return [*deploying(guide(packages), pack), *reading(), delete]


async def _delete(call: Call, given: About) -> Deleted:
    await call.backend.delete(given.artifact_id)
    message = "its URL answers no more; its name is free in a moment"
    return Deleted(artifact_id=given.artifact_id, deleted=True, message=message)
