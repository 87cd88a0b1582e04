"""What the tools answer, typed: an agent sees the schema before it calls. Every answer is as short as it can be."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vibed.mcp.words import for_tools

Status = Literal["pending", "deploying", "running", "suspended", "failed"]
Went = Literal["pending", "deploying", "running", "suspended", "failed", "replaced"]
"""How a version stands; replaced: it served, and another has taken its place."""

_STATUS: dict[str, Status] = {
    "Pending": "pending",
    "Claiming": "deploying",
    "Starting": "deploying",
    "Ready": "running",
    "Suspended": "suspended",
    "Failed": "failed",
}


class Result(BaseModel):
    """An answer; what has its default is left out of it."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    def structured(self) -> dict[str, Any]:
        """As JSON."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def as_text(self, structured: dict[str, Any]) -> str:
        """For clients that show an agent text alone: the same."""
        return json.dumps(structured, ensure_ascii=False, separators=(",", ":"))


class Artifact(Result):
    """How a deployed app stands. Everything is about `version`, but `serving_version`."""

    artifact_id: str = Field(description="Names the app in every other tool")
    name: str
    url: str = Field(description="Where people open it")
    status: Status = Field(
        description="Of version. running: the url shows it. pending, deploying: get_artifact_status with wait_s"
    )
    target: str = Field(description="The deployment target (template) it runs on")
    reason: str = Field(description="Why it has this status, one CamelCase word; read it before you retry")
    message: str = Field(description="What is wrong, whether a retry can help, and what to change")
    version: int
    serving_version: int | None = Field(
        description="The version that the url shows now: an earlier one while version starts, or after it failed"
    )
    created: bool | None = Field(default=None, description="Whether this call made a new app")
    changed: bool = Field(default=True, description="false: nothing would be different, so no version was made")
    why: str = Field(default="", description="Why it runs this way")
    isolation: str = Field(default="", description="How it is isolated")
    env_vars: list[str] = Field(default_factory=list, description="Names of the environment variables it has")
    restarts: int = Field(default=0, description="How often it ended by itself while it served")
    last_crash: str = Field(default="", description="When and how it did that the last time")
    notes: list[str] = Field(default_factory=list, description="What you should know about how it runs")


class Row(Result):
    """An app in a list."""

    artifact_id: str
    url: str
    status: Status
    target: str
    version: int
    serving_version: int | None = Field(default=None, description="If it is another")
    reason: str = Field(default="", description="If it does not run")


class ArtifactList(Result):
    """A page of the caller's apps."""

    artifacts: list[Row]
    total: int


class Deleted(Result):
    """An app that is going away."""

    artifact_id: str
    deleted: bool
    message: str


class Lines(Result):
    """Lines of a log, each `MONTH-DAY HOUR:MINUTE:SECOND rRUN TEXT` in UTC; RUN grows with each start of the app."""

    artifact_id: str
    lines: list[str]
    next: str = Field(description="Pass as `after` to get only what came later")
    left_out: str = Field(default="", description="What had no room in this answer, and how to get it")

    def as_text(self, structured: dict[str, Any]) -> str:
        told = [self.left_out] if self.left_out else []
        return "\n".join([*told, *self.lines, f"next: {self.next}"])


class Events(Result):
    """What happened to an app, oldest first, each `MONTH-DAY HOUR:MINUTE:SECOND vVERSION REASON: MESSAGE` in UTC."""

    artifact_id: str
    events: list[str]

    def as_text(self, structured: dict[str, Any]) -> str:
        return "\n".join(self.events) or "nothing happened yet"


class VersionInfo(Result):
    """One version of an app."""

    version: int
    status: Went
    reason: str
    message: str = Field(default="", description="If it failed")
    target: str
    created_at: str
    created_by: str
    rolled_back_from: int | None = None
    env_vars: list[str] = Field(default_factory=list)
    serving: bool


class Versions(Result):
    """An app's versions, newest first."""

    artifact_id: str
    versions: list[VersionInfo]
    total: int


class SourceFile(Result):
    """A file of a version; its content is there when it was asked for."""

    path: str
    size: int
    text: str | None = None
    base64: str | None = Field(default=None, description="Of a file that is not text")


class Source(Result):
    """Files of a version of an app."""

    artifact_id: str
    version: int
    files: list[SourceFile]
    total: int = Field(description="How many there are; an answer lists no more than 2,000")
    left_out: list[str] = Field(default_factory=list, description="Had no room: ask for them by name")


class Heard(Result):
    """What an app answered to a request. Redirects are not followed."""

    artifact_id: str
    status: int
    headers: dict[str, str] = Field(description="Several of one name are joined with a comma")
    body: str = Field(description="At most 20,000 bytes of it")
    base64: bool = Field(default=False, description="Whether body is base64, since it is not text")
    size: int | None = Field(default=None, description="Bytes of the whole body; left out when it goes on")
    ms: float
    log: list[str] = Field(default_factory=list, description="What the app printed meanwhile")
    error: str = Field(default="", description="The error behind a status of 500 and more, from the log")


class Target(Result):
    """A runtime that apps run on."""

    name: str
    lane: str
    description: str
    isolation: str
    available: bool
    reason: str = Field(default="", description="Why it is not available, or what it is waiting for")
    packages: dict[str, str] = Field(default_factory=dict, description="Name and version of what is installed")


class Targets(Result):
    """Every deployment target."""

    targets: list[Target]


class Failure(BaseModel):
    """A call that did not do what was asked (the result has isError)."""

    code: str
    message: str
    hint: str
    retryable: bool
    details: dict[str, Any]


def status_of(phase: str) -> Status:
    """A phase in the words of these tools."""
    return _STATUS.get(phase, "pending")


def from_app(app: dict[str, Any], notes: list[str] | None = None) -> Artifact:
    """From the API's App."""
    crash, failing = app["last_crash"], app.get("failing")
    return Artifact(
        artifact_id=app["app_id"],
        name=app["name"],
        url=app["url"],
        status=status_of(app["phase"]),
        target=app["runtime"]["template"],
        reason=app["reason"],
        message=for_tools(app["message"]),
        version=app["version"],
        serving_version=app["serving_version"],
        why=app["runtime"]["why"],
        isolation=app["isolation"],
        env_vars=app["env_names"],
        restarts=app["restarts"],
        last_crash="" if crash is None else f"{crash['at']}, version {crash['version']}: {for_tools(crash['message'])}",
        notes=[*(notes or []), *(["its first request failed: ask it with request_artifact"] if failing else [])],
    )


def row(app: dict[str, Any]) -> Row:
    """An app in a list."""
    other = app["serving_version"] != app["version"]
    return Row(
        artifact_id=app["app_id"],
        url=app["url"],
        status=status_of(app["phase"]),
        target=app["runtime"]["template"],
        version=app["version"],
        serving_version=app["serving_version"] if other else None,
        reason=app["reason"] if app["phase"] != "Ready" else "",
    )


def from_deploy(body: dict[str, Any], *, notes: list[str] | None = None) -> Artifact:
    """From the API's answer to a deploy, redeploy or rollback."""
    return Artifact(
        artifact_id=body["app_id"],
        name=body["app_id"],
        url=body["url"],
        # one that was replaced in the same moment is not what the url shows
        status=status_of(body["phase"]) if body["reason"] != "Replaced" else "failed",
        target=body["runtime"]["template"],
        reason=body["reason"],
        message=for_tools(body["message"]) if body["changed"] else f"nothing changed: {for_tools(body['message'])}",
        version=body["version"],
        serving_version=body["serving_version"],
        created=body["created"],
        changed=body["changed"],
        why=body["runtime"]["why"],
        isolation=body["isolation"],
        env_vars=body["env_names"],
        notes=[for_tools(note) for note in [*(notes or []), *body["notes"]]],
    )


def from_versions(app_id: str, page: dict[str, Any]) -> Versions:
    """From the API's list of versions."""
    return Versions(
        artifact_id=app_id,
        versions=[
            VersionInfo(
                version=item["version"],
                status="replaced" if item["reason"] == "Replaced" else status_of(item["phase"]),
                reason=item["reason"],
                message="" if item["phase"] == "Ready" else for_tools(item["message"]),
                target=item["runtime"]["template"],
                created_at=item["created_at"],
                created_by=item["created_by"],
                rolled_back_from=item["rolled_back_from"],
                env_vars=item["env_names"],
                serving=item["serving"],
            )
            for item in page["items"]
        ],
        total=page["total"],
    )
