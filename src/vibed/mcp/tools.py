"""The tools, the same over both transports."""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Literal, ParamSpec, TypeVar

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import BaseModel, ConfigDict, Field

from vibed import __version__
from vibed.apps.errors import VibedError
from vibed.mcp import results
from vibed.mcp.backend import Backend
from vibed.mcp.guide import instructions
from vibed.mcp.results import (
    Artifact,
    ArtifactList,
    Deleted,
    Failure,
    LogLine,
    Logs,
    Target,
    Targets,
    Versions,
)

P = ParamSpec("P")
R = TypeVar("R")

BackendOf = Callable[[Context[Any, Any]], Backend]
"""The backend for the caller of a request."""
Pack = Callable[[str], bytes]
"""Makes a source of a folder of this machine, named as a user would. Blocking; raises `VibedError`."""

_LANGUAGES = {
    "python": "python-313",
    "py": "python-313",
    "node": "node-24",
    "nodejs": "node-24",
    "javascript": "node-24",
    "typescript": "node-24",
    "go": "go-123",
    "golang": "go-123",
    "html": "static-nginx",
    "static": "static-nginx",
    "worker": "workerd",
}
_UNCLEAR = frozenset({"NoEntrypoint", "AmbiguousProject", "CannotClassify", "NotAWebApp"})
"""Refusals of the classifier that knowing the language can help with."""


class Binary(BaseModel):
    """A file that is not text."""

    model_config = ConfigDict(extra="forbid")

    base64: str = Field(description="The bytes, base64")


Files = Annotated[
    dict[str, str | Binary],
    Field(
        description='Every file of the app by relative path, e.g. {"app.py": "…", "templates/index.html": "…"}. '
        'Text as it is; for binary files {"base64": "…"}'
    ),
]
Path_ = Annotated[
    str | None,
    Field(description="Instead of files: a folder on this machine (.gitignore and .vibedignore are respected)"),
]
ArtifactId = Annotated[str, Field(description="As deploy_artifact or list_artifacts gave it")]
Name = Annotated[str, Field(description="1 to 63 lower-case letters, digits and hyphens; part of the URL")]
Language = Annotated[
    str | None,
    Field(
        description="A hint (python, node, go, static, worker) that is used when the files do not tell by themselves"
    ),
]
EnvVars = Annotated[
    dict[str, str] | None,
    Field(description="Environment variables. Left out of an update they stay as they were; {} removes them"),
]
Port = Annotated[int | None, Field(ge=1, le=65535, description="What PORT is set to; 8080 when left out")]
Entrypoint = Annotated[
    str | None, Field(description="What to start when it is not obvious, e.g. 'server.py' or 'uvicorn web:app'")
]
Template = Annotated[
    str | None, Field(description="A name from list_deployment_targets; found by itself when left out")
]

_READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
_MAKES = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
_CHANGES = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False)
_DELETES = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=False)


def create_server(
    backend_of: BackendOf, packages: Mapping[str, Mapping[str, str]], *, pack: Pack | None = None
) -> MCPServer[Any]:
    """An MCP server with every tool; where there is a `pack`, deploys may also name a folder of this machine."""
    server: MCPServer[Any] = MCPServer(
        "vibed", title="vibeD", version=__version__, instructions=instructions(packages), log_level="WARNING"
    )
    _Tools(server, backend_of, instructions(packages)).register(pack)
    return server


class _Tools:
    def __init__(self, server: MCPServer[Any], backend_of: BackendOf, guide: str) -> None:
        self._server = server
        self._backend_of = backend_of
        self._guide = guide

    def _add(
        self, title: str, annotations: ToolAnnotations, description: str
    ) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Awaitable[R]]]:
        def register(tool: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
            self._server.tool(title=title, annotations=annotations, description=description)(_told(tool))
            return tool

        return register

    def register(self, pack: Pack | None) -> None:
        deploy = (
            "Deploy a web app and get its live URL. The same name again makes the next version of your app of that "
            "name (`created` tells); pass if_exists=fail to be refused instead.\n\n" + self._guide
        )
        update = (
            "Make a new version of an app. `files` replaces all of its files; leave it out to change only env_vars, "
            "port, entrypoint or template. Requests that are under way finish on the old version, and a version that "
            "fails to start leaves the old one serving."
        )
        if pack is not None:
            self._with_paths(pack, deploy, update)
        else:
            self._with_files(deploy, update)
        self._reading()
        self._changing()

    def _with_files(self, deploy: str, update: str) -> None:
        @self._add("Deploy an app", _MAKES, deploy)
        async def deploy_artifact(
            ctx: Context[Any, Any],
            name: Name,
            files: Files,
            language: Language = None,
            env_vars: EnvVars = None,
            port: Port = None,
            entrypoint: Entrypoint = None,
            template: Template = None,
            if_exists: Literal["update", "fail"] = "update",
        ) -> Artifact:
            runtime = _runtime(template, entrypoint, port)
            return await self._deploy(ctx, name, await _packed(files), language, env_vars, runtime, if_exists)

        @self._add("Update an app", _CHANGES, update)
        async def update_artifact(
            ctx: Context[Any, Any],
            artifact_id: ArtifactId,
            files: Files | None = None,
            env_vars: EnvVars = None,
            port: Port = None,
            entrypoint: Entrypoint = None,
            template: Template = None,
        ) -> Artifact:
            source = await _packed(files) if files is not None else None
            return await self._update(ctx, artifact_id, source, env_vars, _runtime(template, entrypoint, port))

    def _with_paths(self, pack: Pack, deploy: str, update: str) -> None:
        @self._add("Deploy an app", _MAKES, deploy)
        async def deploy_artifact(
            ctx: Context[Any, Any],
            name: Name,
            files: Files | None = None,
            path: Path_ = None,
            language: Language = None,
            env_vars: EnvVars = None,
            port: Port = None,
            entrypoint: Entrypoint = None,
            template: Template = None,
            if_exists: Literal["update", "fail"] = "update",
        ) -> Artifact:
            source = await _source(pack, files, path)
            if source is None:
                raise _wrong("give either files or path", "files: {path: content}, or path: a folder")
            runtime = _runtime(template, entrypoint, port)
            return await self._deploy(ctx, name, source, language, env_vars, runtime, if_exists)

        @self._add("Update an app", _CHANGES, update)
        async def update_artifact(
            ctx: Context[Any, Any],
            artifact_id: ArtifactId,
            files: Files | None = None,
            path: Path_ = None,
            env_vars: EnvVars = None,
            port: Port = None,
            entrypoint: Entrypoint = None,
            template: Template = None,
        ) -> Artifact:
            source = await _source(pack, files, path)
            return await self._update(ctx, artifact_id, source, env_vars, _runtime(template, entrypoint, port))

    async def _deploy(
        self,
        ctx: Context[Any, Any],
        name: str,
        source: bytes,
        language: str | None,
        env_vars: dict[str, str] | None,
        runtime: dict[str, Any],
        if_exists: str,
    ) -> Artifact:
        metadata = {"name": name, "if_exists": if_exists, **_metadata(env_vars, runtime)}
        hinted = _LANGUAGES.get((language or "").strip().lower())
        backend = self._backend_of(ctx)
        try:
            body = await backend.deploy(metadata, source)
        except VibedError as error:
            if hinted is None or "template" in runtime or error.error_code not in _UNCLEAR:
                raise
            body = await backend.deploy({**metadata, "runtime": {**runtime, "template": hinted}}, source)
        notes = []
        if hinted is not None and body["runtime"]["template"] != hinted:
            notes.append(f"you said {language}, but the files say {body['runtime']['template']}: see why")
        return results.from_deploy(body, notes=notes)

    async def _update(
        self,
        ctx: Context[Any, Any],
        artifact_id: str,
        source: bytes | None,
        env_vars: dict[str, str] | None,
        runtime: dict[str, Any],
    ) -> Artifact:
        metadata = _metadata(env_vars, runtime)
        if source is None and not metadata:
            raise _wrong("nothing to change was given", "give files, env_vars, port, entrypoint or template")
        return results.from_deploy(await self._backend_of(ctx).redeploy(artifact_id, metadata, source))

    def _reading(self) -> None:
        @self._add(
            "Show how an app stands",
            _READS,
            "Status, URL, reason and message of one app. While it is pending or deploying, ask again after a second.",
        )
        async def get_artifact_status(ctx: Context[Any, Any], artifact_id: ArtifactId) -> Artifact:
            return results.from_app(await self._backend_of(ctx).app(artifact_id))

        @self._add("List your apps", _READS, "Your apps, the one deployed last first.")
        async def list_artifacts(
            ctx: Context[Any, Any],
            query: Annotated[str | None, Field(description="Part of a name")] = None,
            limit: Annotated[int, Field(ge=1, le=200)] = 50,
            offset: Annotated[int, Field(ge=0)] = 0,
        ) -> ArtifactList:
            page = await self._backend_of(ctx).apps(q=query, limit=limit, offset=offset)
            return ArtifactList(artifacts=[results.from_app(app) for app in page["items"]], total=page["total"])

        @self._add(
            "Read an app's log",
            _READS,
            "What the app printed, across its runs, and what vibeD says about them (exit status, out of memory). The "
            "first thing to read when an app fails.",
        )
        async def get_artifact_logs(
            ctx: Context[Any, Any],
            artifact_id: ArtifactId,
            lines: Annotated[int, Field(ge=1, le=1000, description="How many of the last lines")] = 100,
            after: Annotated[str | None, Field(description="`next` of an earlier call: only what came later")] = None,
        ) -> Logs:
            page = await self._backend_of(ctx).logs(artifact_id, tail=lines, after=after)
            return Logs(
                artifact_id=artifact_id,
                lines=[
                    LogLine(stream=item["stream"], text=item["text"], run=item["run"], seq=item["seq"])
                    for item in page["items"]
                ],
                next=page["next"],
            )

        @self._add("List an app's versions", _READS, "Newest first, with how each deploy went and which one serves.")
        async def list_versions(
            ctx: Context[Any, Any],
            artifact_id: ArtifactId,
            limit: Annotated[int, Field(ge=1, le=200)] = 20,
        ) -> Versions:
            page = await self._backend_of(ctx).versions(artifact_id, limit=limit)
            return results.from_versions(artifact_id, page)

        @self._add(
            "List deployment targets",
            _READS,
            "The runtimes that apps run on: which are available, how they isolate, and every package with its version.",
        )
        async def list_deployment_targets(ctx: Context[Any, Any]) -> Targets:
            page = await self._backend_of(ctx).templates()
            return Targets(
                targets=[Target(**{name: item[name] for name in Target.model_fields}) for item in page["items"]]
            )

    def _changing(self) -> None:
        @self._add(
            "Roll an app back",
            _CHANGES,
            "Make an earlier version serve again: its files, settings and environment, as a new version.",
        )
        async def rollback_artifact(
            ctx: Context[Any, Any],
            artifact_id: ArtifactId,
            version: Annotated[int, Field(ge=1, description="From list_versions")],
        ) -> Artifact:
            return results.from_deploy(await self._backend_of(ctx).rollback(artifact_id, version))

        @self._add("Delete an app", _DELETES, "Delete an app with its versions, files and logs. This cannot be undone.")
        async def delete_artifact(ctx: Context[Any, Any], artifact_id: ArtifactId) -> Deleted:
            await self._backend_of(ctx).delete(artifact_id)
            return Deleted(
                artifact_id=artifact_id, deleted=True, message="its URL answers no more; its name is free in a moment"
            )


def _told(tool: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    """The tool with its refusals as results that an agent can act on."""

    @functools.wraps(tool)
    async def told(*args: P.args, **kwargs: P.kwargs) -> Any:
        try:
            return await tool(*args, **kwargs)
        except VibedError as error:
            failure = Failure(
                code=error.error_code,
                message=error.message,
                hint=error.hint or "",
                retryable=error.may_retry,
                details=error.extra,
            ).model_dump(mode="json")
            text = json.dumps(failure, ensure_ascii=False)
            return CallToolResult(
                content=[TextContent(type="text", text=text)], structured_content=failure, is_error=True
            )

    return told


def _wrong(message: str, hint: str) -> VibedError:
    return VibedError(message, hint=hint, code="InvalidRequest", status=422)


def _runtime(template: str | None, entrypoint: str | None, port: int | None) -> dict[str, Any]:
    given = {"template": template, "entrypoint": entrypoint, "port": port}
    return {name: value for name, value in given.items() if value is not None}


def _metadata(env_vars: dict[str, str] | None, runtime: dict[str, Any]) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    if runtime:
        metadata["runtime"] = runtime
    if env_vars is not None:
        metadata["env"] = [{"name": name, "value": value} for name, value in env_vars.items()]
    return metadata


async def _source(pack: Pack, files: dict[str, str | Binary] | None, path: str | None) -> bytes | None:
    if files is not None and path is not None:
        raise _wrong("files and path were both given", "give one of them")
    if path is not None:
        return await asyncio.to_thread(pack, path)
    return None if files is None else await _packed(files)


async def _packed(files: Mapping[str, str | Binary]) -> bytes:
    from vibed.sources.pack import pack_files

    content: dict[str, str | bytes] = {}
    for name, file in files.items():
        if isinstance(file, str):
            content[name] = file
            continue
        try:
            content[name] = base64.b64decode(file.base64, validate=True)
        except (binascii.Error, ValueError) as error:
            raise _wrong(f"{name[:100]!r} is not base64: {error}", "encode the file's bytes, or send text") from error
    return await asyncio.to_thread(pack_files, content)
