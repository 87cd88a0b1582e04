"""What the tools answer, typed: an agent sees the schema before it calls."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

Status = Literal["pending", "deploying", "running", "suspended", "failed"]
Went = Literal["pending", "deploying", "running", "suspended", "failed", "replaced"]
"""How a version stands: another has taken its place, after it served."""

_STATUS: dict[str, Status] = {
    "Pending": "pending",
    "Claiming": "deploying",
    "Starting": "deploying",
    "Ready": "running",
    "Suspended": "suspended",
    "Failed": "failed",
}


class Artifact(BaseModel):
    """How a deployed app stands."""

    artifact_id: str = Field(description="Names the app in every other tool")
    name: str
    url: str = Field(description="Where people open it")
    status: Status = Field(description="running: the url works. pending, deploying: ask get_artifact_status again")
    target: str = Field(description="The deployment target (template) it runs on")
    reason: str = Field(description="Why it has this status, one CamelCase word; read it before you retry")
    message: str = Field(description="What is wrong, whether a retry can help, and what to change")
    version: int
    serving_version: int | None = Field(
        default=None, description="The version that the url shows now; another than version while or after a failure"
    )
    created: bool | None = Field(default=None, description="Whether this call made a new app")
    why: str = Field(default="", description="Why it runs this way")
    isolation: str = Field(default="", description="How it is isolated")
    notes: list[str] = Field(default_factory=list, description="What you should know about how it runs")


class ArtifactList(BaseModel):
    """A page of the caller's apps."""

    artifacts: list[Artifact]
    total: int


class Deleted(BaseModel):
    """An app that is going away."""

    artifact_id: str
    deleted: bool
    message: str


class LogLine(BaseModel):
    """One line that the app printed."""

    stream: str = Field(description="stdout, stderr, or system for what vibeD says about the run")
    text: str
    run: int
    seq: int


class Logs(BaseModel):
    """Lines of an app's log."""

    artifact_id: str
    lines: list[LogLine]
    next: str = Field(description="Pass as `after` to get only what came later")


class VersionInfo(BaseModel):
    """One version of an app."""

    version: int
    status: Went
    reason: str
    message: str
    target: str
    created_at: str
    created_by: str
    rolled_back_from: int | None
    serving: bool


class Versions(BaseModel):
    """An app's versions, newest first."""

    artifact_id: str
    versions: list[VersionInfo]
    total: int


class Target(BaseModel):
    """A runtime that apps run on."""

    name: str
    lane: str
    description: str
    isolation: str
    available: bool
    reason: str = Field(description="Why it is not available, or what it is waiting for")
    packages: dict[str, str] = Field(description="Name and version of what is installed")


class Targets(BaseModel):
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


def from_app(app: dict[str, Any]) -> Artifact:
    """From the API's App."""
    return Artifact(
        artifact_id=app["app_id"],
        name=app["name"],
        url=app["url"],
        status=status_of(app["phase"]),
        target=app["runtime"]["template"],
        reason=app["reason"],
        message=app["message"],
        version=app["version"],
        serving_version=app["serving_version"],
        why=app["runtime"]["why"],
        isolation=app["isolation"],
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
        message=body["message"],
        version=body["version"],
        serving_version=body["serving_version"],
        created=body["created"],
        why=body["runtime"]["why"],
        isolation=body["isolation"],
        notes=[*body["notes"], *(notes or [])],
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
                message=item["message"],
                target=item["runtime"]["template"],
                created_at=item["created_at"],
                created_by=item["created_by"],
                rolled_back_from=item["rolled_back_from"],
                serving=item["serving"],
            )
            for item in page["items"]
        ],
        total=page["total"],
    )
