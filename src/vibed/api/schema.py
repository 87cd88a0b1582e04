"""The shapes of the API's bodies, for OpenAPI and for those who check answers against it (our tests do)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vibed.apps import ids

Phase = Literal["Pending", "Claiming", "Starting", "Ready", "Suspended", "Failed"]


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Error(Shape):
    """Every answer with a status of 400 or more."""

    code: str = Field(description="Stable, CamelCase; safe to match on")
    message: str
    details: dict[str, Any] = Field(description="`retryable`, `hint`, `field`, `errors`, `request_id` where they help")


class EnvVariable(Shape):
    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")
    value: str


class RuntimeRequest(Shape):
    """Overrides of what the classifier would decide."""

    lane: Literal["fast", "general"] | None = None
    template: str | None = None
    entrypoint: str | None = None
    port: int | None = Field(None, ge=1, le=65535, description="PORT of the app; found by itself when left out")
    warm: bool | None = Field(None, description="false: always start in a fresh process")


class ResourcesRequest(Shape):
    cpu: float | str | None = Field(None, description='Cores: 0.5 or "500m"')
    memory: int | str | None = Field(None, description='"512Mi", or a number of MiB')


class DeployMetadata(Shape):
    """The `metadata` part of a deploy. What is left out of a redeploy stays as it was; `[]` empties env."""

    name: str = Field(pattern=f"^{ids.PATTERN.pattern}$")
    runtime: RuntimeRequest | None = None
    env: list[EnvVariable] | None = None
    resources: ResourcesRequest | None = None
    if_exists: Literal["update", "fail"] = "update"


class RedeployMetadata(Shape):
    """The `metadata` of a redeploy; everything is optional."""

    runtime: RuntimeRequest | None = None
    env: list[EnvVariable] | None = None
    resources: ResourcesRequest | None = None


class AppChange(Shape):
    """Body of PATCH: settings of the same source, as a new version."""

    env: list[EnvVariable] | None = None
    resources: ResourcesRequest | None = None


class Rollback(Shape):
    version: int = Field(ge=1)


class Runtime(Shape):
    lane: str
    template: str
    kind: str
    entrypoint: str
    why: str = Field(description="One sentence: why it runs this way")


class App(Shape):
    app_id: str
    name: str
    owner: str
    phase: Phase = Field(description="Of `version`; while it is on its way or Failed, `serving_version` may serve")
    reason: str
    message: str
    url: str
    status_url: str
    runtime: Runtime
    isolation: str
    version: int = Field(description="The version that should serve")
    serving_version: int | None = Field(description="The version that the url shows")
    settled: bool = Field(description="Nothing is under way for this app")
    restarts: int
    storage_bytes: int | None = Field(description="What its sources and its unpacked site take on the disk")
    created_at: str
    last_deployed_at: str
    updated_at: str


class Deployed(Shape):
    """200 when the version is Ready, 202 otherwise: `phase`, `reason` and `message` say how it stands."""

    app_id: str
    url: str
    status_url: str
    version: int
    created: bool
    phase: Phase
    reason: str
    message: str
    serving_version: int | None = Field(description="The version that the url shows")
    settled: bool = Field(description="Waiting is of no use: it serves, or failed, or another version took its place")
    runtime: Runtime
    isolation: str = Field(description="Empty until it serves")
    notes: list[str]
    timings: dict[str, float] = Field(description="Milliseconds by step")


class Resources(Shape):
    cpu: float | None
    memory_mb: int | None


class Version(Shape):
    app_id: str
    version: int
    phase: Phase = Field(
        description="How its deploy went, and Ready stays when another takes its place (reason Replaced)"
    )
    reason: str
    message: str
    serving: bool = Field(description="Whether the url shows it")
    serving_version: int | None = Field(description="The version that the url shows")
    settled: bool = Field(description="Waiting is of no use: it serves, or failed, or another version took its place")
    runtime: Runtime
    source_digest: str
    source_size: int
    source_kept: bool = Field(description="False when it made way for newer ones: there is no going back to it")
    env_names: list[str]
    resources: Resources
    created_at: str
    created_by: str
    rolled_back_from: int | None
    timings: dict[str, float]
    notes: list[str]


class VersionWithEnv(Version):
    env: list[EnvVariable]


class Event(Shape):
    seq: int
    at: str
    kind: Literal["Normal", "Warning"]
    reason: str
    message: str
    version: int | None


class LogLine(Shape):
    run: int
    seq: int
    ts: float
    stream: str
    text: str
    cont: bool = False


class Key(Shape):
    key_id: str
    owner: str
    admin: bool
    label: str
    created_at: str
    last_used_at: str | None = Field(description="To about a minute; null for a key that was never used")


class NewKey(Shape):
    owner: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$")
    label: str = Field("", max_length=200)
    admin: bool = False


class CreatedKey(Key):
    secret: str = Field(description="Shown this once")


class Template(Shape):
    name: str
    lane: str
    description: str
    kind: str
    warm_pool_size: int
    ready: int
    claimed: int
    isolation: str
    packages: dict[str, str]
    available: bool
    reason: str
    building: bool
    progress: float | None
    limitations: list[str] = Field(
        description="What does not hold for its sandboxes on this machine (uids, bounds), and what to do about it"
    )


class WhoAmI(Shape):
    owner: str
    admin: bool
    key_id: str
    label: str


class Apps(Shape):
    items: list[App]
    total: int


class Versions(Shape):
    items: list[Version]
    total: int


class Templates(Shape):
    items: list[Template]
    total: int


class Keys(Shape):
    items: list[Key]
    total: int


class LogPage(Shape):
    items: list[LogLine]
    next: str = Field(description="Send as `after` to go on")


class EventPage(Shape):
    items: list[Event]
    next: str = Field(description="Send as `after` to go on")
