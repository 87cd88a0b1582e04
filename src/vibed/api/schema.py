"""The shapes of the API's bodies, for OpenAPI and for those who check answers against it (our tests do)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vibed.apps import ids

Phase = Literal["Pending", "Claiming", "Starting", "Ready", "Suspended", "Failed"]


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Error(Shape):
    """Every answer with a status of 400 or more."""

    code: str = Field(description="Stable, CamelCase; safe to match on")
    message: str
    details: dict[str, Any] = Field(description="`retryable`, `hint`, `field`, `errors`, `request_id` where they help")


EnvMode = Annotated[
    Literal["replace", "merge"], Field(description="merge: variables that are not named stay, and null takes one away")
]
IfSame = Annotated[
    Literal["deploy", "keep"], Field(description="keep: make no version when nothing of what serves would be different")
]


class EnvVariable(Shape):
    """All names and values together have at most 96 KiB."""

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")
    value: str | None = Field(description="Without NUL; null only where env_mode is merge")


class RuntimeRequest(Shape):
    """Overrides of what the classifier would decide."""

    lane: Literal["fast", "general"] | None = None
    template: str | None = None
    entrypoint: str | None = None
    port: int | None = Field(None, ge=1, le=65535, description="PORT of the app; found by itself when left out")
    warm: bool | None = Field(None, description="false: always start in a fresh process")


class ResourcesRequest(Shape):
    cpu: float | str | None = Field(None, description='Cores, from 0.05 to 64: 0.5 or "500m"')
    memory: int | str | None = Field(
        None, description='"512Mi", or a number of MiB; from 16 MiB to 64 GiB', json_schema_extra={"minimum": 16}
    )


class DeployMetadata(Shape):
    """The `metadata` part of a deploy. What is left out of a redeploy stays as it was; `[]` empties env."""

    name: str = Field(pattern=f"^{ids.PATTERN.pattern}$")
    runtime: RuntimeRequest | None = None
    env: list[EnvVariable] | None = Field(None, max_length=256)
    env_mode: EnvMode = "replace"
    resources: ResourcesRequest | None = None
    if_exists: Literal["update", "fail"] = "update"
    if_same: IfSame = "deploy"


class RedeployMetadata(Shape):
    """The `metadata` of a redeploy; everything is optional, and null is like left out."""

    runtime: RuntimeRequest | None = None
    env: list[EnvVariable] | None = Field(None, max_length=256)
    env_mode: EnvMode = "replace"
    resources: ResourcesRequest | None = None
    if_same: IfSame = "deploy"
    files: Literal["replace", "merge"] = Field(
        "replace", description="merge: `source` has the files that change, the others stay as they are"
    )
    remove_files: list[str] | None = Field(
        None, max_length=1_000, description="With files=merge: files, or folders with all below, that go"
    )


class AppChange(Shape):
    """Body of PATCH: settings of the same source, as a new version. At least one has to be there; null is left out."""

    env: list[EnvVariable] | None = Field(None, max_length=256)
    env_mode: EnvMode = "replace"
    resources: ResourcesRequest | None = None
    if_same: IfSame = "deploy"


class Rollback(Shape):
    version: int = Field(ge=1)


class Runtime(Shape):
    lane: str
    template: str
    kind: str
    entrypoint: str
    why: str = Field(description="One sentence: why it runs this way")


class Crash(Shape):
    """How a run that served ended without having been asked to."""

    at: str
    version: int
    message: str
    out_of_memory: bool
    error: str = Field(description="The app's own error, from its last lines; empty when they say nothing")


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
    storage_bytes: int | None = Field(description="What its sources and its unpacked site take on the disk")
    env_names: list[str] = Field(description="Of version; its values are where one version is asked for")
    restarts: int = Field(description="How often a run that served ended by itself, in the app's life")
    failing: str | None = Field(
        description="How its first request failed (`GET / was answered 500 …`, with the app's error), until the same"
        " request succeeds; `message` has it too; null in a list"
    )
    last_crash: Crash | None = Field(description="The last time that happened")
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
    changed: bool = Field(description="false: nothing would have been different, so no version was made (if_same)")
    phase: Phase
    reason: str
    message: str
    serving_version: int | None = Field(description="The version that the url shows")
    settled: bool = Field(description="Waiting is of no use: it serves, or failed, or another version took its place")
    runtime: Runtime
    isolation: str = Field(description="Empty until it serves")
    notes: list[str]
    env_names: list[str]
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


class SourceFile(Shape):
    path: str
    size: int
    text: str | None = None
    base64: str | None = Field(None, description="Of a file that is not text")


class Source(Shape):
    """Files of a version's source; those that were asked for with their content."""

    app_id: str
    version: int
    files: list[SourceFile]
    total: int
    left_out: list[str] = Field(description="Asked for, and without room in this answer: ask for them by name")


class Question(Shape):
    """A request to the app, which it gets through its own front door."""

    path: str = Field("/", max_length=8_000, description="With its query, percent-encoded")
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = "GET"
    headers: dict[str, str] = Field(default_factory=dict)
    body: str | None = Field(None, max_length=100_000)


class Header(Shape):
    name: str
    value: str


class Heard(Shape):
    """What the app answered. Redirects are not followed."""

    status: int
    headers: list[Header] = Field(description="Those that fit in 20,000 letters")
    body: str = Field(description="At most 20,000 bytes of it")
    base64: bool = Field(description="Whether `body` is base64, since it is not text")
    size: int | None = Field(description="Bytes of the whole body; null when it went on")
    ms: float
    log: list[LogLine] = Field(description="What the app printed meanwhile, at most 50 lines")
    error: str | None = Field(description="The error that these lines tell, after a status of 500 or more")


class Key(Shape):
    key_id: str
    owner: str
    admin: bool
    label: str
    created_at: str
    last_used_at: str | None = Field(description="To about a minute; null for a key that was never used")


class BakeMetadata(Shape):
    template: str | None = Field(None, description="For which it is made; the usual one of its language when left out")
    development: bool = Field(False, description="npm: with what an app is built with")


class NewKey(Shape):
    owner: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$")
    label: str = Field("", max_length=200)
    admin: bool = False


class NewDomain(Shape):
    name: str = Field(max_length=255, description="As browsers show it, e.g. www.example.com")


class DomainRecord(Shape):
    name: str
    type: str
    text: str


class Domain(Shape):
    name: str
    app_id: str
    url: str
    verified: bool = Field(description="Until it is, the name leads nowhere")
    record: DomainRecord = Field(description="What the domain's DNS has to say for it to be verified")
    created_at: str
    created_by: str
    verified_at: str | None


class Domains(Shape):
    items: list[Domain]
    total: int


class CreatedKey(Key):
    secret: str = Field(description="Shown this once")


class MovedApp(Shape):
    app_id: str
    owner: str
    version: int = Field(description="The one that should serve")
    outcome: Literal["imported", "replaced", "skipped", "refused"]
    code: str | None = Field(None, description="Why it was refused, as an error's code")
    message: str | None = None


class LeftOutApp(Shape):
    app_id: str
    code: str
    message: str


class MovedKeys(Shape):
    imported: int
    skipped: int = Field(description="Keys that were there already")


class Import(Shape):
    """What became of an import."""

    apps: list[MovedApp]
    keys: MovedKeys
    left_out: list[LeftOutApp] = Field(description="What could not be read when the export was made")
    complete: bool = Field(description="False: the archive is cut off; what was whole was imported")


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
    on_need: bool = Field(description="Whether it is prepared when an app first needs it, and none has yet")
    limitations: list[str] = Field(
        description="What does not hold for its sandboxes on this machine (uids, bounds), and what to do about it"
    )


class Layer(Shape):
    key: str
    kind: str
    template: str
    bytes: int
    packages: dict[str, str]
    made_at: str
    used_at: str
    took_s: float
    builds: int = Field(description="How often it was made: more than once where it had gone, or was damaged")
    private: bool = Field(description="Whether it belongs to one source of one owner")
    apps: list[str] = Field(description="Those that have it now")
    pinned: bool = Field(description="Whether it stays until it is unpinned, however long it is unused")


class Bake(Shape):
    bake_id: str
    kind: str
    template: str
    state: Literal["building", "ready", "failed"]
    message: str = Field(description="What it is at, or what went wrong")
    key: str = Field(description="Of the layer, once it is there")


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


class Layers(Shape):
    items: list[Layer]
    total: int


class Bakes(Shape):
    items: list[Bake]
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
