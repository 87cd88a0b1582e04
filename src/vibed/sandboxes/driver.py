"""The Driver port: what makes sandboxes of one kind.

A driver boots sandboxes that are *warm* (nothing of an app in them), a sandbox takes exactly one version of one app by
`run`, serves it at an `Endpoint`, and is destroyed. Nothing here knows about apps' specs, pools or routes. The
contract is proven for every driver by tests/contract/test_drivers.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from vibed.apps.app import Runtime
from vibed.apps.errors import VibedError


class Isolation(StrEnum):
    """What stands between an app and the machine; DESIGN.md, section Isolation, has the order."""

    VM = "vm"
    VM_EMULATED = "vm-emulated"
    KERNEL = "kernel"
    PROCESS = "process"
    ISOLATE = "isolate"
    NONE_NEEDED = "static"
    """A static site runs no code."""

    def satisfies(self, least: Isolation) -> bool:
        """Whether this level is at least `least`; `static` always does, `isolate` only satisfies itself."""
        if self is Isolation.NONE_NEEDED:
            return True
        if Isolation.ISOLATE in (self, least):
            return least is Isolation.ISOLATE
        order = (Isolation.PROCESS, Isolation.KERNEL, Isolation.VM_EMULATED, Isolation.VM)
        return order.index(self) >= order.index(least)


@dataclass(frozen=True, slots=True)
class Probe:
    """What a driver's start-up probe found by running something real under a deadline."""

    ok: bool
    isolation: Isolation
    detail: str
    """What was run, or why it cannot be used here and the cure."""


@dataclass(frozen=True, slots=True)
class Mount:
    """Something that a claim adds to a warm sandbox."""

    source: Path
    """An EROFS image (a read-only layer) or a directory (writable app data)."""
    target: str
    """`/layers/<name>` or `/data`."""
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one sandbox."""

    cpus: float = 1.0
    memory_mb: int = 512
    pids: int = 256
    disk_mb: int = 512


@dataclass(frozen=True, slots=True)
class Builder(Limits):
    """Bounds of a builder sandbox: one that installs and builds, with a way to the package registries and no secrets.
    What it writes is in memory, so `disk_mb` counts beside `memory_mb`.
    """

    cpus: float = 2.0
    memory_mb: int = 2048
    pids: int = 1024
    disk_mb: int = 2048


@dataclass(frozen=True, slots=True)
class Run:
    """One version of one app for one sandbox; everything that a driver needs, and no more."""

    app_id: str
    version: int
    number: int
    """Of the app's runs: every sandbox that an app gets has its own, growing."""
    source: Path
    """The tar.gz, checked by `vibed.sources` before."""
    runtime: Runtime
    env: Mapping[str, str]
    limits: Limits
    mounts: Sequence[Mount] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    """Links in the app's folder, by name, and where they lead: made where it has nothing of that name."""
    start_timeout_s: float = 60.0
    """Until it serves; of a job (a start that has build steps alone), until the last of its steps has ended."""
    app_key: str = ""
    """Which app of that id: one that is deleted and made anew is another."""
    installed: Mapping[str, str] = field(default_factory=dict)
    """Versions of the packages that it finds, by name, for telling what does not fit."""
    layer: str = ""
    """The key of what was installed for it; kept with the sandbox, so that it is known to be in use."""
    least: Isolation | None = None
    """A sandbox that measures what it stands in, and finds less than this, does not get to run it."""
    served_before: bool = False
    """Whether its version was served before: what an operator has lowered since is no reason to refuse it."""


@dataclass(frozen=True, slots=True)
class Prospect:
    """A run that will probably come: what is known of it while its version is being stored."""

    app_id: str
    source: Path
    """The file that the run's `source` will be, if it comes."""
    strip: str = ""
    root: str = ""
    entrypoint: str = ""
    bundle: bool = False
    """These four as in `vibed.apps.app.Runtime`."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a running app is reached: a Unix socket (`site` False), a directory of files (`site` True), or an
    address.
    """

    path: Path = Path()
    site: bool = False
    index: str = "index.html"
    spa: bool = False
    ruled: bool = False
    """Whether the site is more than files, so that the site server answers for it (agent/sites)."""
    address: str = ""
    """`host:port` where the sandbox is on another machine; `path` says nothing then."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a sandbox ended."""

    code: int | None
    signal: str | None
    oom: bool
    at: float
    tail: tuple[str, ...] = ()
    """The app's last lines."""

    @property
    def known(self) -> bool:
        """Whether the app ended, or was ended; otherwise its sandbox was lost with all that could tell."""
        return self.oom or self.code is not None or self.signal is not None

    def describe(self) -> str:
        """One sentence for a status message."""
        if self.oom:
            return "it used more memory than its limit and was killed"
        if self.signal:
            return f"it was ended by {self.signal}"
        if self.code is not None:
            return f"it exited with status {self.code}"
        return "its sandbox was lost"


class State(StrEnum):
    """Of a sandbox, as its supervisor tells it (docs/reference/supervisor.md)."""

    BOOTING = "booting"
    WARM = "warm"
    INJECTING = "injecting"
    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    EXITED = "exited"


class SandboxError(VibedError):
    """A sandbox could not do what was asked."""

    code = "SandboxError"
    status = 500


class BootFailed(SandboxError):
    """A warm sandbox did not come up; another attempt may work."""

    code = "SandboxBootFailed"
    retryable = True


class RunFailed(SandboxError):
    """The app could not be brought up: `StartFailed`, `StartTimeout`, `InjectFailed`, `DiskFull`, `WorkerRejected`,
    `BuildFailed`, `BundleFailed`, `DependenciesMissing`, `DependencyBuildFailed`. It is the app's fault, so a retry
    without a change is no help; `retryable` where a package registry failed instead.
    """

    code = "StartFailed"
    status = 422

    def __init__(
        self,
        message: str,
        *,
        exit: Exit | None = None,
        code: str | None = None,
        hint: str | None = None,
        retryable: bool | None = None,
        unmet: bool = False,
        fits: Collection[int] | None = None,
    ):
        super().__init__(message, code=code, hint=hint, retryable=retryable)
        self.exit = exit
        self.unmet = unmet or fits is not None
        """Whether another version of the language may have what it needs."""
        self.fits = fits
        """Which: minors of Python 3, majors of Node; None where that is not known."""


class SandboxLost(SandboxError):
    """The sandbox or its supervisor died under the call; it is not the app's fault and a new sandbox may work."""

    code = "SandboxLost"
    retryable = True


class HeirUnreachable(SandboxError):
    """The sandbox that is to take connections over does not: it is gone, or about to be."""

    code = "HeirUnreachable"
    retryable = True


@dataclass(frozen=True, slots=True)
class Claimed:
    """The run that a sandbox was claimed for, as kept beside the sandbox (for adoption)."""

    app_id: str
    version: int
    number: int
    app_key: str = ""
    """As in `Run`; empty when it was claimed by a vibeD that did not say."""
    layer: str = ""
    """As in `Run`."""


@dataclass(frozen=True, slots=True)
class Started:
    """What `run` returns."""

    endpoint: Endpoint
    port: int | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds: claim, bundle, inject, start."""
    note: str = ""
    """Why this port, where the app listens on several: the rest of a sentence that begins with the app."""


class Sandbox(Protocol):
    """One isolated place; see the module's docstring for its life."""

    @property
    def id(self) -> str: ...
    @property
    def driver(self) -> str: ...
    @property
    def template(self) -> str: ...
    @property
    def template_digest(self) -> str: ...
    @property
    def state(self) -> State: ...
    @property
    def claimed(self) -> Claimed | None: ...
    @property
    def endpoint(self) -> Endpoint | None: ...
    @property
    def exit(self) -> Exit | None: ...
    @property
    def isolation(self) -> Isolation | None:
        """What this one stands in, as it was measured in it; None where all of its driver are alike."""
        ...

    async def run(self, run: Run, *, socket: Path, log_dir: Path, on_stage: Callable[[str], None]) -> Started:
        """Claim, inject and start, once ever; returns when the app listens and `socket` accepts (a site: when its
        directory is complete), or, of a job, when its last step has ended well and the sandbox with it; nothing is at
        `socket` then. `on_stage` hears `claimed`, `injected`, `started`. Raises `RunFailed`, `SandboxLost`.
        """
        ...

    async def hand_over(self, heir: Sandbox | None) -> None:
        """Let `heir`, which the app's name leads to now, have the connections that the proxy keeps to this sandbox;
        returns when no request that begins after it is served here. None: the name leads here again. A site has no
        connections. Raises `HeirUnreachable` when the heir takes none, `SandboxLost` when this one does not answer.
        """
        ...

    async def drain(self, deadline_s: float) -> None:
        """Let open requests finish (at most `deadline_s`), then stop the app and end the sandbox."""
        ...

    async def destroy(self, grace_s: float = 2.0) -> None:
        """End it now (SIGTERM, then SIGKILL after the grace) and remove all of it but the app's log. Idempotent."""
        ...

    async def wait(self) -> Exit:
        """Return when the sandbox has ended, however it did."""
        ...


class Driver(Protocol):
    """Makes sandboxes of one kind."""

    @property
    def name(self) -> str: ...
    @property
    def isolation(self) -> Isolation: ...

    async def probe(self) -> Probe:
        """Run something real in a sandbox, under a deadline; never raises."""
        ...

    async def boot(self, template: str, *, urgent: bool = False, builder: Builder | None = None) -> Sandbox:
        """A warm sandbox of a template that is built. `urgent`: somebody waits for it, so it has an app's share of the
        processors, and nothing is done in it that saves time only when it was done before. `builder`: it runs a job
        and no app, in these bounds, and what it connects to at 127.0.0.1:3128 is the registry gate that a claim
        mounts. Raises `BootFailed`, also where the driver has no builders here.
        """
        ...

    def prepare(self, prospect: Prospect) -> None:
        """Begin what can be done for a run before it is certain; nothing of the app may run. The run itself depends on
        nothing of it, and what no run takes is removed after a while. Never raises.
        """
        ...

    async def adopt(self) -> Sequence[Sandbox]:
        """Those that an earlier controller left alive, claimed or warm; what is half made or dead is removed."""
        ...

    async def close(self) -> None:
        """Let go of connections; sandboxes stay alive."""
        ...
