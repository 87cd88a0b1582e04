"""The app: what was asked for (spec, versions) and what is (status).

`spec` is written by the API alone and is the only source of truth; `status` is written by the controller alone.
Times are Unix seconds.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Self


class Phase(StrEnum):
    """Where an app, or one version of it, is on its way to serving."""

    PENDING = "Pending"
    CLAIMING = "Claiming"
    STARTING = "Starting"
    READY = "Ready"
    SUSPENDED = "Suspended"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Start:
    """How a sandbox turns source into a listening server (the `start` of docs/reference/supervisor.md)."""

    argv: tuple[str, ...] = ()
    shell: str | None = None
    build: tuple[tuple[str, ...], ...] = ()
    port: int = 8080
    warm: bool = True
    """Whether the app may run in a warm process that has already imported what it imports."""
    expected_ports: tuple[int, ...] = ()
    """Ports on which the source says that its site listens, the likeliest first; empty when it names none. Evidence for
    who has to choose among several that are open, never a condition."""
    stop_signal: str = ""
    """What tells it to stop; empty: SIGTERM."""

    @property
    def job(self) -> bool:
        """Whether it is build steps alone, without a server after them."""
        return bool(self.build) and not self.argv and not self.shell


@dataclass(frozen=True, slots=True)
class Install:
    """What has to be installed before a version can start. With the template it decides a layer
    (`vibed.runtimes.layers`): the same words mean the same packages, whoever says them, unless it is `private`.
    """

    kind: str
    """`python`, `node` or `go` (a toolchain)."""
    manager: str
    """What installs: `uv`, `npm`, `pnpm`, `yarn`, `bun` or `go`."""
    files: tuple[str, ...] = ()
    """Those of the source that its installer reads itself, by their paths below `Runtime.strip`: package.json, locks,
    .npmrc; lists of requirements with hashes."""
    wanted: tuple[str, ...] = ()
    """What no such file says: requirement lines, or npm's specs (`express@^4`), in order, each once; Go's least
    version (`1.25`)."""
    constraints: tuple[str, ...] = ()
    """Python: `name==version` of what a lock file has, for what is needed at all."""
    optional: tuple[str, ...] = ()
    """Names that it can do without, since nothing imports them, or the template has another version that may do: left
    out, with a note, where they cannot be had."""
    private: bool = False
    """Whether something else decides it as well (a path, a repository, the app's own scripts, an index of its own): it
    then belongs to this source of this owner alone."""
    development: bool = False
    """Whether what is only for development is wanted too: for a build."""
    folder: str = ""
    """Node: where the package.json lies that is installed, below `Runtime.strip`; empty for the root."""
    by_files: bool = False
    """Of a private one: whether `files` alone decide it, so that its installer sees nothing else of the source and
    another source of this owner with the same files has the same. What it leads to beside them (the packages of a
    workspace) is found where the source is."""

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Self:
        """As JSON has it, where lists stand for tuples. Raises TypeError for fields that it has not."""
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in said.items()
        }
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Build:
    """What makes the source that is run of the one that was sent, in a builder sandbox (`vibed.runtimes.builds`)."""

    tool: str
    """For a person: `Vite`."""
    script: str
    """A line for the shell, run in the app's folder with what was installed: `npm run build`."""
    template: str
    """Where it runs; the app itself may need another."""
    site: bool = True
    """Whether a folder that it makes is a site, and all that is run; else the whole tree is, as the build leaves it."""
    outputs: tuple[str, ...] = ()
    """Folders that may be that site, the likeliest first; where none is, the one in which it made a page is. Of a
    worker the one with its static files."""
    env: Mapping[str, str] = field(default_factory=dict)
    copied: bool = False
    """Whether the tool wants its packages inside of the app's folder, not links that lead out of it."""
    kind: str = "node"
    """Whose tools build: `node`, `go` or `worker` (the script, if there is one, then esbuild)."""
    package: str = ""
    """Go: the folder of the package main; empty for the root. A worker: the module that is its entry."""
    packages: tuple[str, ...] = ()
    """What has to be installed beside what package.json names, as npm reads it: `@sveltejs/adapter-node@^5`."""

    @property
    def doing(self) -> str:
        """For a person: what is done."""
        return self.script or f"bundling {self.package}"


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Another template of the same language, for a version whose own one cannot be had, or cannot have its packages."""

    template: str
    install: Install | None = None
    packages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Runtime:
    """The classifier's decision for one version, or the user's override of it."""

    lane: str
    template: str
    kind: str
    """`static`, `worker`, `python`, `node`, `go` or `binary`."""
    entrypoint: str
    why: str
    strip: str = ""
    """A folder that wraps everything, looked through; ends with `/` when not empty."""
    root: str = ""
    """Static: the folder below `strip` that is the site, e.g. `dist/`."""
    index: str = "index.html"
    spa: bool = False
    start: Start = Start()
    bundle: bool = False
    """Worker: whether esbuild has to bundle it."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Worker: compatibility flags and date, vars, assets, bindings."""
    packages: tuple[str, ...] = ()
    """Those of the template's packages that it declares or imports, by the template's names: it waits for an image that
    has them."""
    notes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    """Environment variables that its source reads and gives no value to."""
    fills: Mapping[str, str] = field(default_factory=dict)
    """What it gives the value of such a variable, by name: an option, an argument, a variable of its own."""
    prepares: str = ""
    """A command that its source has for making its tables, and that nothing runs; empty where it has none."""
    install: Install | None = None
    """None: it needs nothing beside its template."""
    build: Build | None = None
    """None: it runs as it was sent."""
    otherwise: Runtime | None = None
    """How else it may be meant to start: tried once where the start above ends before it serves. Of the same template,
    and it needs the same to be installed."""
    elsewhere: tuple[Elsewhere, ...] = ()
    """Other templates, in the order in which they are tried."""
    unpacked: int = 0
    """Bytes that it takes on the disk beside its source while it serves: a site's files, a worker's assets."""

    def on(self, other: Elsewhere) -> Runtime:
        """The same on another template."""
        second = self.otherwise.on(other) if self.otherwise is not None else None
        return replace(
            self,
            template=other.template,
            install=other.install,
            packages=other.packages,
            otherwise=second,
            elsewhere=(),
        )

    @property
    def ways(self) -> tuple[Runtime, ...]:
        """Itself, and itself on each other template."""
        return (self, *map(self.on, self.elsewhere))

    @property
    def site_folder(self) -> str | None:
        """Worker: the folder of static assets below `strip`, static: that of the site; with its slash (`""`: all of
        it). None when there is none.
        """
        if self.kind == "static":
            return self.root
        assets = self.options.get("assets")
        folder = assets.get("directory") if isinstance(assets, Mapping) else assets
        if not isinstance(folder, str) or not folder:
            return None
        clean = posixpath.normpath(folder).strip("/")
        return "" if clean == "." else f"{clean}/"


@dataclass(frozen=True, slots=True)
class Resources:
    """What a sandbox may use; None means the template's default."""

    cpu: float | None = None
    """Cores."""
    memory_mb: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """How the deploy of a version went so far; Ready stays when another version takes its place."""

    phase: Phase = Phase.PENDING
    reason: str = "Accepted"
    message: str = ""


@dataclass(frozen=True, slots=True)
class Version:
    """One deploy of an app; immutable but for its outcome (`phase`, `reason`, `message`, `timings`)."""

    app_id: str
    number: int
    source_digest: str
    source_size: int
    runtime: Runtime
    env: Mapping[str, str]
    resources: Resources
    created_at: float
    created_by: str
    rolled_back_from: int | None = None
    phase: Phase = Phase.PENDING
    reason: str = ""
    message: str = ""
    timings: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds by step: receive, classify, store, claim, inject, start, switch."""
    source_kept: bool = True
    """False when its source made way for newer ones (`vibed.apps.storage`)."""

    @property
    def result(self) -> Result:
        return Result(self.phase, self.reason, self.message)


@dataclass(frozen=True, slots=True)
class Crash:
    """How a run that served ended without having been asked to."""

    at: float
    version: int
    message: str
    """In a sentence or two: how it ended, and the app's own error where there is one."""
    oom: bool = False
    """Whether it was killed because it used more memory than its limit."""
    error: str = ""
    """The app's own error alone, from its last lines; empty when they say nothing."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where an app's name leads on a cluster; on one machine a marker and a socket say it."""

    run: int
    version: int
    address: str
    """`host:port` of the run's sandbox."""


@dataclass(frozen=True, slots=True)
class Status:
    """What the controller last saw."""

    phase: Phase = Phase.PENDING
    reason: str = "Accepted"
    message: str = ""
    serving_version: int | None = None
    observed_generation: int = 0
    isolation: str = ""
    driver: str = ""
    sandbox: str = ""
    restarts: int = 0
    """How often a run that served ended by itself, in the app's life."""
    last_crash: Crash | None = None
    """The last of them."""
    route: Route | None = None
    """None on one machine, where no store keeps it; on a cluster while the name leads nowhere."""
    updated_at: float = 0.0
    revision: int = 0
    """Grows with each write; a writer names the one it read."""


@dataclass(frozen=True, slots=True)
class App:
    """A deployed app: spec, status, and the version that is wanted."""

    app_id: str
    owner: str
    generation: int
    """Grows with each change of the spec; `status.observed_generation` follows."""
    version: int
    """The version that should serve."""
    created_at: float
    last_deployed_at: float
    deleted: bool
    status: Status
    runtime: Runtime
    """Of the wanted version."""
    runs: int
    """How many runs were ever begun."""
    result: Result = Result()
    """Of the wanted version."""
    env_names: tuple[str, ...] = ()
    """Of the wanted version."""

    @property
    def settled(self) -> bool:
        """Whether the controller has nothing left to do for this spec."""
        return (
            not self.deleted
            and self.status.observed_generation == self.generation
            and self.status.phase in (Phase.READY, Phase.FAILED, Phase.SUSPENDED)
        )


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in an app's life; `seq` grows without gaps within the app."""

    app_id: str
    seq: int
    at: float
    kind: str
    """`Normal` or `Warning`."""
    reason: str
    message: str
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """An API key; its secret is shown once and only its SHA-256 is kept."""

    key_id: str
    owner: str
    admin: bool
    label: str
    created_at: float
    last_used_at: float | None = None
    """To about a minute; None for one that was never used."""
