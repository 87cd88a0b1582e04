"""The tools that look: nothing changes by them, but what a request to an app does."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Annotated, Any, Literal

from pydantic import Field

from vibed.mcp import lines as told
from vibed.mcp import results
from vibed.mcp.arguments import ArtifactId
from vibed.mcp.results import (
    Artifact,
    ArtifactList,
    Events,
    Heard,
    Lines,
    Source,
    SourceFile,
    Target,
    Targets,
    Versions,
)  # fmt: skip
from vibed.mcp.tool import CHANGES, READS, Arguments, Call, Tool

_LOOKED_THROUGH = 5_000
"""Lines of a log among which `grep` looks."""
_PAUSE_S = 0.5


class About(Arguments):
    artifact_id: ArtifactId


class StatusOf(About):
    wait_s: Annotated[float, Field(ge=0, le=120)] = Field(
        0, description="Wait so many seconds at most while it is pending or deploying"
    )


class Listed(Arguments):
    query: Annotated[str | None, Field(max_length=63, description="Part of a name")] = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    offset: Annotated[int, Field(ge=0)] = 0


class LogOf(About):
    lines: Annotated[int, Field(ge=1, le=1000, description="How many of the last lines")] = 100
    grep: Annotated[str | None, Field(max_length=200, description="Only lines that have this, in any case")] = None
    after: Annotated[str | None, Field(description="`next` of an earlier call: only what came later")] = None


class EventsOf(About):
    limit: Annotated[int, Field(ge=1, le=200, description="How many of the last")] = 30


class VersionsOf(About):
    limit: Annotated[int, Field(ge=1, le=200)] = 20


class SourceOf(About):
    paths: Annotated[
        list[str] | None,
        Field(max_length=200, description="Files whose content you want, or folders for all below; ['.'] for all"),
    ] = None
    version: Annotated[int | None, Field(ge=1, description="Another than the newest")] = None


class RequestTo(About):
    path: Annotated[str, Field(description="With its query, percent-encoded")] = "/"
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = "GET"
    headers: dict[str, str] | None = None
    body: Annotated[
        str | dict[str, Any] | list[Any] | None, Field(description="Text as it is; an object or a list is sent as JSON")
    ] = None


class Nothing(Arguments):
    pass


def reading() -> list[Tool]:
    return [
        Tool("get_artifact_status", "Show how an app stands",
             "Status, URL, reason and message of an app's newest version, which version the URL shows, and its last "
             "crash. With wait_s it comes back when the version runs or has failed.", READS, StatusOf,
             Artifact, _status),
        Tool("list_artifacts", "List your apps", "Your apps, the one deployed last first.", READS, Listed, ArtifactList,
             _list),
        Tool("get_artifact_logs", "Read an app's log",
             "What the app printed, across its runs, and what vibeD says about them (exit status, out of memory). The "
             "first thing to read when an app fails.", READS, LogOf, Lines, _logs),
        Tool("get_artifact_events", "See what happened to an app",
             "Versions that were accepted, started, failed or replaced, crashes and restarts, with their times.", READS,
             EventsOf, Events, _events),
        Tool("list_versions", "List an app's versions", "Newest first, with how each stands and which one serves.",
             READS, VersionsOf, Versions, _versions),
        Tool("get_artifact_source", "Read an app's files",
             "The list of an app's files; with paths also what is in them. Read before you change what you did not "
             "just write.", READS, SourceOf, Source, _source),
        Tool("request_artifact", "Ask an app",
             "Send a request to the app, as a visitor's browser would, and see what it answers: status, headers, the "
             "beginning of the body, and what it printed meanwhile. Look at what you deployed before you say it works.",
             CHANGES, RequestTo, Heard, _request),
        Tool("list_deployment_targets", "List deployment targets",
             "The runtimes that apps run on: which are available, how they isolate, and every package with its "
             "version.", READS, Nothing, Targets, _targets),
    ]  # fmt: skip


async def _status(call: Call, given: StatusOf) -> Artifact:
    deadline = time.monotonic() + given.wait_s
    app = await call.backend.app(given.artifact_id)
    while app["phase"] in ("Pending", "Claiming", "Starting") and (left := deadline - time.monotonic()) > 0:
        await call.progress(f"{app['phase']}: {app['message'] or app['reason']}")
        await asyncio.sleep(min(_PAUSE_S, left))
        app = await call.backend.app(given.artifact_id)
    return results.from_app(app)


async def _list(call: Call, given: Listed) -> ArtifactList:
    page = await call.backend.apps(q=given.query, limit=given.limit, offset=given.offset)
    return ArtifactList(artifacts=[results.row(app) for app in page["items"]], total=page["total"])


async def _logs(call: Call, given: LogOf) -> Lines:
    if given.after is not None:
        return await _later(call, given, given.after)
    tail = given.lines if given.grep is None else _LOOKED_THROUGH
    page = await call.backend.logs(given.artifact_id, tail=tail, after=None)
    found = _matching(told.log_lines(page["items"]), given.grep)[-given.lines :]
    shown = told.newest(found)
    left = len(found) - len(shown)
    left_out = f"{left} older lines had no room; ask for fewer lines, or with grep" if left else ""
    return Lines(artifact_id=given.artifact_id, lines=shown, next=page["next"], left_out=left_out)


async def _later(call: Call, given: LogOf, after: str) -> Lines:
    """What came after a position: nothing is skipped, so what has no room comes with the next call."""
    count = given.lines
    while True:
        page = await call.backend.logs(given.artifact_id, tail=count, after=after)
        found = told.log_lines(page["items"])
        if len(told.newest(found)) == len(found) or count == 1:
            break
        count = max(1, len(page["items"]) // 2)
    more = len(page["items"]) == count
    return Lines(
        artifact_id=given.artifact_id, lines=_matching(found, given.grep), next=page["next"],
        left_out="there may be more: ask again with next" if more else "",
    )  # fmt: skip


def _matching(lines: list[str], wanted: str | None) -> list[str]:
    return lines if not wanted else [line for line in lines if wanted.casefold() in line.casefold()]


async def _events(call: Call, given: EventsOf) -> Events:
    page = await call.backend.events(given.artifact_id, tail=given.limit)
    return Events(artifact_id=given.artifact_id, events=told.newest(told.event_lines(page["items"])))


async def _versions(call: Call, given: VersionsOf) -> Versions:
    return results.from_versions(given.artifact_id, await call.backend.versions(given.artifact_id, limit=given.limit))


async def _source(call: Call, given: SourceOf) -> Source:
    view = await call.backend.source(given.artifact_id, version=given.version, paths=given.paths)
    return Source(
        artifact_id=given.artifact_id, version=view["version"], files=[SourceFile(**file) for file in view["files"]],
        total=view["total"], left_out=view["left_out"],
    )  # fmt: skip


async def _request(call: Call, given: RequestTo) -> Heard:
    headers = dict(given.headers or {})
    body = given.body
    if body is not None and not isinstance(body, str):
        body = json.dumps(body, ensure_ascii=False)
        if "content-type" not in {name.lower() for name in headers}:
            headers["Content-Type"] = "application/json"
    view = await call.backend.request(
        given.artifact_id, {"path": given.path, "method": given.method, "headers": headers, "body": body}
    )
    joined: dict[str, str] = {}
    for header in view["headers"]:
        name = header["name"].lower()
        joined[name] = f"{joined[name]}, {header['value']}" if name in joined else header["value"]
    return Heard(
        artifact_id=given.artifact_id, status=view["status"], headers=joined, body=view["body"], base64=view["base64"],
        size=view["size"], ms=view["ms"], log=told.newest(told.log_lines(view["log"]), 8_000),
        error=view["error"] or "",
    )  # fmt: skip


async def _targets(call: Call, given: Nothing) -> Targets:
    page = await call.backend.templates()
    return Targets(targets=[Target(**{name: item[name] for name in Target.model_fields}) for item in page["items"]])
