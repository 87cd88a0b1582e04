"""The tools that make versions."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from vibed.apps.errors import VibedError
from vibed.mcp import results
from vibed.mcp.arguments import (
    ArtifactId,
    ChangedFiles,
    Entrypoint,
    EnvVars,
    Files,
    Folder,
    Language,
    Name,
    Port,
    RemoveFiles,
    Template,
    invalid,
)  # fmt: skip
from vibed.mcp.packing import Pack, packed
from vibed.mcp.results import Artifact
from vibed.mcp.tool import CHANGES, REPLACES, Arguments, Call, Tool

_LANGUAGES = {
    "python": "python-313",
    "py": "python-313",
    "node": "node-24",
    "nodejs": "node-24",
    "javascript": "node-24",
    "js": "node-24",
    "typescript": "node-24",
    "go": "go-123",
    "golang": "go-123",
    "html": "static-nginx",
    "static": "static-nginx",
    "worker": "workerd",
}
_UNCLEAR = frozenset({"NoEntrypoint", "AmbiguousProject", "CannotClassify", "NotAWebApp"})
"""Refusals of the classifier that knowing the language can help with."""
_NAMED = 5
"""Files that a note names."""

_DEPLOY = (
    "Deploy a web app and get its live URL. The same name again makes the next version of your app of that name "
    "(`created` tells); pass if_exists=fail to be refused instead. The same files again change nothing.\n\n"
)
_UPDATE = (
    "Make a new version of an app: `changed_files` and `remove_files` for some files, `files` to replace them all; "
    "neither to change only env_vars, port, entrypoint or template. Requests that are under way finish on the old "
    "version, and a version that fails to start leaves the old one serving."
)


class Settings(Arguments):
    env_vars: EnvVars = None
    port: Port = None
    entrypoint: Entrypoint = None
    template: Template = None

    def metadata(self) -> dict[str, Any]:
        """What the API is asked for; empty when nothing was said."""
        given = {"template": self.template, "entrypoint": self.entrypoint, "port": self.port}
        runtime = {name: value for name, value in given.items() if value is not None}
        metadata: dict[str, Any] = {"runtime": runtime} if runtime else {}
        if self.env_vars is not None:
            metadata["env"] = [{"name": name, "value": value} for name, value in self.env_vars.items()]
            metadata["env_mode"] = "merge"
        return metadata


class Deploy(Settings):
    name: Name
    files: Files
    language: Language = None
    if_exists: Literal["update", "fail"] = "update"


class DeployFolder(Settings):
    name: Name
    files: Files | None = None
    path: Folder = None
    language: Language = None
    if_exists: Literal["update", "fail"] = "update"


class Update(Settings):
    artifact_id: ArtifactId
    files: Files | None = None
    changed_files: ChangedFiles = None
    remove_files: RemoveFiles = None


class UpdateFolder(Update):
    path: Folder = None


class Rollback(Arguments):
    artifact_id: ArtifactId
    version: int


def deploying(guide: str, pack: Pack | None) -> list[Tool]:
    """`pack`: where a call may name a folder of this machine."""

    async def deploy(call: Call, given: Deploy | DeployFolder) -> Artifact:
        source = await _source(pack, given.files, getattr(given, "path", None))
        if source is None:
            raise invalid("give either files or path", "files: {path: content}, or path: a folder")
        return await _deploy(call, given, source)

    async def update(call: Call, given: Update) -> Artifact:
        return await _update(call, given, await _source(pack, given.files, getattr(given, "path", None)))

    async def rollback(call: Call, given: Rollback) -> Artifact:
        return results.from_deploy(await call.backend.rollback(given.artifact_id, given.version))

    return [
        Tool("deploy_artifact", "Deploy an app", _DEPLOY + guide, REPLACES,
             Deploy if pack is None else DeployFolder, Artifact, deploy),
        Tool("update_artifact", "Update an app", _UPDATE, REPLACES,
             Update if pack is None else UpdateFolder, Artifact, update),
        Tool("rollback_artifact", "Roll an app back",
             "Make an earlier version serve again: its files, settings and environment, as a new version.", CHANGES,
             Rollback, Artifact, rollback),
    ]  # fmt: skip


async def _deploy(call: Call, given: Deploy | DeployFolder, source: bytes) -> Artifact:
    metadata = {"name": given.name, "if_exists": given.if_exists, "if_same": "keep", **given.metadata()}
    hinted = _LANGUAGES.get((given.language or "").strip().lower())
    try:
        body = await call.backend.deploy(metadata, source)
    except VibedError as error:
        if hinted is None or given.template is not None or error.error_code not in _UNCLEAR:
            raise
        runtime = {**metadata.get("runtime", {}), "template": hinted}
        body = await call.backend.deploy({**metadata, "runtime": runtime}, source)
    notes = []
    if hinted is not None and body["runtime"]["template"] != hinted:
        notes.append(f"you said {given.language}, but the files say {body['runtime']['template']}: see why")
    if not body["created"] and body["changed"]:
        notes.append(
            f"you had an app of this name, and this is its version {body['version']}; if another was meant, "
            "rollback_artifact brings the one before back, and another name makes another app"
        )
    return results.from_deploy(body, notes=notes)


async def _update(call: Call, given: Update, source: bytes | None) -> Artifact:
    metadata = given.metadata()
    notes: list[str] = []
    if given.changed_files or given.remove_files:
        if source is not None:
            raise invalid(
                "files replaces everything, and changed_files and remove_files change some",
                "give all files in files, or only the others",
            )
        metadata |= {"files": "merge", "remove_files": given.remove_files or []}
        source = await packed(given.changed_files) if given.changed_files else None
    elif source is not None:
        notes = await _missing(call, given)
    elif not metadata:
        raise invalid(
            "nothing to change was given", "give changed_files, remove_files, files, env_vars, port, entrypoint or "
            "template"
        )  # fmt: skip
    body = await call.backend.redeploy(given.artifact_id, {**metadata, "if_same": "keep"}, source)
    return results.from_deploy(body, notes=notes)


async def _missing(call: Call, given: Update) -> list[str]:
    """A note when files of the version before are not among those that replace them."""
    if given.files is None:
        return []
    before = await call.backend.source(given.artifact_id, version=None, paths=None)
    sent = {path.removeprefix("./") for path in given.files}
    gone = [file["path"] for file in before["files"] if file["path"] not in sent]
    if not gone:
        return []
    more = f" and {len(gone) - _NAMED} more" if len(gone) > _NAMED else ""
    return [
        f"{', '.join(gone[:_NAMED])}{more} of version {before['version']} {'is' if len(gone) == 1 else 'are'} not in "
        "this one, since files replaces all; changed_files keeps the others"
    ]


async def _source(pack: Pack | None, files: Files | None, path: str | None) -> bytes | None:
    if files is not None and path is not None:
        raise invalid("files and path were both given", "give one of them")
    if path is not None and pack is not None:
        return await asyncio.to_thread(pack, path)
    return None if files is None else await packed(files)
