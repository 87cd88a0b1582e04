"""Sandboxes that have a supervisor: booted, told what to run, taken over after a restart, cleaned up.

The supervisor (`vibed-agent supervise`, docs/reference/supervisor.md) owns a sandbox and outlives vibeD. Here is the
controller's side of it, which is the same for every kind: a folder for each sandbox, its group and uids, the connection
to its supervisor, and the removal of whatever is left when that supervisor was itself killed. A driver (`workerd`,
`gvisor`, `process`) says in `_lay_out` what to boot and in `_order` what to run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Protocol

from vibed import records, wire
from vibed.apps.errors import VibedError
from vibed.layout import Layout
from vibed.sandboxes.diagnosis import diagnose, exit_of
from vibed.sandboxes.driver import (
    BootFailed,
    Claimed,
    Endpoint,
    Exit,
    HeirUnreachable,
    Isolation,
    Limits,
    Mount,
    Probe,
    Prospect,
    Run,
    Sandbox,
    SandboxLost,
    Started,
    State,
)
from vibed.sources.limits import DEFAULT_LIMITS, ArchiveLimits
from vibed.supervision import mounts
from vibed.supervision.cgroups import Bounds, Cgroups, Group
from vibed.supervision.death import Death
from vibed.supervision.uids import UidPool

log = records.logger("vibed.controller")

_BOOT_S = 60.0
_CLEANUP_S = 10.0
_LAST_WORDS_S = 5.0
_HAND_OVER_S = 5.0
_FAULT_OF_APP = frozenset(
    {"InjectFailed", "StartFailed", "StartTimeout", "DiskFull", "WorkerRejected", "BuildFailed", "BundleFailed"}
)
_PIDS_OVERHEAD = 64
_SLOT_BYTES = 64 << 10
"""Mount points only."""
_WEIGHT = 100
_WEIGHT_OF_BOOTS = 25
_STAGES = frozenset({"claimed", "injected", "started"})


class Programs(Protocol):
    """Where the programs that vibeD installed are (`vibed.runtimes.tools.Tools`)."""

    def path(self, name: str) -> Path: ...


@dataclass(frozen=True, slots=True)
class Root:
    """A template as drivers see it: what a sandbox is booted from."""

    name: str
    digest: str
    image: Path | None = None
    """The EROFS image of its root file system, named by its content."""
    modules: Path | None = None
    """A `node_modules` that bundling may take packages from."""
    limits: Limits = Limits()
    """Of its sandboxes when an app says nothing; the size of their disk is decided by them at boot."""


class Roots(Protocol):
    """The templates that are built."""

    def root(self, template: str) -> Root:
        """Raises `BootFailed` when the template is unknown or not built."""
        ...


class Host:
    """What the drivers of one vibeD share."""

    def __init__(
        self,
        layout: Layout,
        programs: Programs,
        roots: Roots,
        *,
        cgroups: Cgroups | None = None,
        limits: ArchiveLimits = DEFAULT_LIMITS,
    ) -> None:
        """`limits` are those that sources were accepted by."""
        self.layout = layout
        self.limits = limits
        self.programs = programs
        self.roots = roots
        self.cgroups = cgroups or Cgroups.find(layout.runtime.name)
        self.uids = UidPool(layout.uids.sandboxes, layout.sandboxes)

    @cached_property
    def agent(self) -> Path:
        """The `vibed-agent` binary, as it was when it was first needed: a checkout's may change meanwhile."""
        return self.programs.path("vibed-agent")

    @property
    def privileged(self) -> bool:
        """Whether other uids, mounts on the host and mounts into warm sandboxes are possible."""
        return not self.layout.uids.rootless


@dataclass(frozen=True, slots=True)
class Place:
    """The folder of one sandbox, and what is where in it."""

    folder: Path
    uid: int
    app_uid: int

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def spec(self) -> Path:
        return self.folder / "spec.json"

    @property
    def state(self) -> Path:
        return self.folder / "state.json"

    @property
    def control(self) -> Path:
        return self.folder / "ctl.sock"

    @property
    def inside(self) -> Path:
        """The one directory that the host and the agent share; it holds their sockets."""
        return self.folder / "in"

    @property
    def slot(self) -> Path:
        """Below it appears what a claim adds."""
        return self.folder / "slot"


class Supervised:
    """A sandbox with a supervisor."""

    def __init__(self, owner: SupervisedDriver, place: Place, root: Root, group: Group, death: Death) -> None:
        self._owner = owner
        self.place = place
        self._root = root
        self.group = group
        self._death = death
        self._connection: wire.Connection | None = None
        self._connecting = asyncio.Lock()
        self._state = State.BOOTING
        self._claimed: Claimed | None = None
        self._endpoint: Endpoint | None = None
        self._exit: Exit | None = None
        self._last: Mapping[str, Any] = {}
        self._log_dir: Path | None = None
        self._used = False
        self._on_stage: Callable[[str], None] = lambda stage: None
        self._changed = asyncio.Event()
        self._ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()

    @property
    def id(self) -> str:
        return self.place.id

    @property
    def driver(self) -> str:
        return self._owner.name

    @property
    def template(self) -> str:
        return self._root.name

    @property
    def template_digest(self) -> str:
        return self._root.digest

    @property
    def state(self) -> State:
        # what is left of one whose supervisor was killed takes a moment to clear away
        return State.EXITED if self._death.happened else self._state

    @property
    def claimed(self) -> Claimed | None:
        return self._claimed

    @property
    def endpoint(self) -> Endpoint | None:
        return self._endpoint

    @property
    def exit(self) -> Exit | None:
        return self._exit

    async def run(self, run: Run, *, socket: Path, log_dir: Path, on_stage: Callable[[str], None]) -> Started:
        """Claim, inject and start, once ever. Raises `RunFailed`, `SandboxLost`; it is then good for nothing."""
        if self._used:
            raise SandboxLost(f"sandbox {self.id} was claimed before", code="AlreadyClaimed", retryable=False)
        if self.state is not State.WARM:
            raise SandboxLost(f"sandbox {self.id} ended before it was given anything to run")
        self._used = True
        self._claimed = Claimed(run.app_id, run.version, run.number)
        self._log_dir = log_dir
        self._on_stage = on_stage
        began = time.perf_counter()
        try:
            _make_log_dir(log_dir, self._owner.host.layout.uids.serve if self._owner.host.privileged else -1)
            self.group.bound(replace(self._owner.bounds(run.limits), weight=_WEIGHT))
            for mount in run.mounts:
                await self._add(mount)
            order = await self._owner.order(self, run)
            prepared = (time.perf_counter() - began) * 1000
            answer = await self._call(
                "run",
                run.start_timeout_s + 60,
                app_id=run.app_id,
                version=run.version,
                run=run.number,
                socket=str(socket),
                log_dir=str(log_dir),
                **order,
            )
        except wire.WireError as error:
            if error.error_code in _FAULT_OF_APP:
                raise diagnose(error.error_code, error.message, await self._account(error.extra), run) from error
            raise SandboxLost(f"sandbox {self.id}: {error.message}", code=_lost_code(error)) from error
        except (wire.Disconnected, TimeoutError, OSError) as error:
            raise SandboxLost(f"sandbox {self.id} was lost while it started {run.app_id}: {error}") from error
        finally:
            self._owner.tidy(self.place)
        self._endpoint = Endpoint(socket)
        self._state = State.RUNNING
        timings = {str(k): float(v) for k, v in (answer.get("timings") or {}).items()}
        return Started(self._endpoint, answer.get("port") or None, {"bundle": prepared, **timings})

    async def hand_over(self, heir: Sandbox | None) -> None:
        """Let `heir` have the proxy's connections. Raises `HeirUnreachable`, `SandboxLost`."""
        told = {"to": "", "socket": ""}
        if heir is not None:
            if not isinstance(heir, Supervised):
                return
            if heir.endpoint is None:
                raise HeirUnreachable(f"sandbox {heir.id} has ended")
            told = {"to": str(heir.place.folder), "socket": str(heir.endpoint.path)}
        try:
            await self._call("hand_over", _HAND_OVER_S, **told)
        except wire.WireError as error:
            if error.error_code == "HeirUnreachable":
                raise HeirUnreachable(error.message) from error
            raise SandboxLost(f"sandbox {self.id}: {error.message}") from error
        except (wire.Disconnected, TimeoutError, OSError) as error:
            raise SandboxLost(f"sandbox {self.id} does not answer: {error}") from error

    async def drain(self, deadline_s: float) -> None:
        """Let open requests finish (at most `deadline_s`), then end the sandbox."""
        with contextlib.suppress(VibedError, TimeoutError):
            await self._call("drain", deadline_s + 30, deadline_s=deadline_s)
        await self.destroy()

    async def destroy(self, grace_s: float = 2.0) -> None:
        """SIGTERM, SIGKILL after the grace, and removal of everything but the log. Idempotent."""
        if not self._ended.done():
            if self._death.closed:
                raise SandboxLost(f"sandbox {self.id} is another controller's by now: its driver here was closed")
            with contextlib.suppress(VibedError, TimeoutError):
                await self._call("stop", grace_s + 10, grace_s=grace_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLEANUP_S):
                    await asyncio.shield(self._ended)
                return
            # a supervisor that does not end by itself is ended; the watcher then removes what it leaves
            self._death.kill()
        await asyncio.shield(self._ended)

    async def wait(self) -> Exit:
        """Return when the sandbox has ended and nothing of it but the log is left."""
        return await asyncio.shield(self._ended)

    async def requests(self) -> Mapping[str, Any]:
        """`{open, websockets, total, last_at}` of the app's traffic. Raises `SandboxLost`."""
        try:
            return await self._call("requests", 5.0)
        except (VibedError, TimeoutError) as error:
            raise SandboxLost(f"sandbox {self.id} does not answer: {error}") from error

    # used by the driver

    async def connect(self) -> None:
        """Connect to the supervisor. Raises `Disconnected`."""
        self._connection = await wire.Connection.open(self.place.control, self._hear)

    async def disconnect(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def become(self, *states: State) -> State:
        """Wait until the sandbox is in one of the states, or its supervisor has died."""
        while self._state not in states and not self._death.happened:
            self._changed.clear()
            waiting = [asyncio.ensure_future(self._changed.wait()), asyncio.ensure_future(self._death.wait())]
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in waiting:
                    one.cancel()
        return self._state

    def hear_state(self, state: Mapping[str, Any]) -> None:
        """Take over what the supervisor says of itself."""
        self._last = state
        self._state = State(state["state"])
        if run := state.get("run"):
            self._used = True
            self._claimed = Claimed(run["app_id"], int(run["version"]), int(run["run"]))
            self._log_dir = Path(run["log_dir"])
            if self._state in (State.RUNNING, State.DRAINING):
                self._endpoint = Endpoint(Path(run["socket"]))
        if self._state is State.EXITED:
            self._endpoint = None
            self._exit = exit_of(state.get("exit"))
        self._changed.set()

    async def bury(self) -> None:
        """Wait for the supervisor's end, then remove all that is left; the last act of every sandbox."""
        await self._death.wait()
        state = self._last
        if state.get("state") != State.EXITED:  # else it said so, and could perhaps not write it
            state = _read_json(self.place.state) or state
        ended = exit_of(state.get("exit")) if state.get("state") == State.EXITED else None
        lost = ended is None
        if ended is None:
            ended = Exit(None, None, self.group.oom_kills() > 0, time.time())
        try:
            await self._owner.clean(self.place, self.group, state, lost=lost)
            if lost and self._log_dir is not None:
                text = "the supervisor of this sandbox was killed, so the sandbox was ended too"
                await asyncio.to_thread(_append_system_line, self._log_dir, text)
        finally:
            await self.disconnect()
            self._state = State.EXITED
            self._endpoint = None
            self._exit = ended
            self._changed.set()
            if not self._ended.done():
                self._ended.set_result(ended)

    async def _account(self, details: Mapping[str, Any]) -> Mapping[str, Any]:
        """The details of a failed run with the app's last lines, which are complete when the sandbox has ended."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                await asyncio.shield(self._ended)
        if self._exit is None:
            return details
        told = dict(details)
        if ended := details.get("exit"):
            told["exit"] = {"oom": self._exit.oom, "at": self._exit.at, **ended, "tail": self._exit.tail}
        return {"log": self._exit.tail, **told}

    async def _call(self, op: str, timeout: float, **arguments: object) -> wire.Message:
        if self._ended.done() or self._death.happened:
            raise wire.Disconnected(f"sandbox {self.id} has ended")
        async with self._connecting:  # of two calls that find none, one connects
            if self._connection is None or self._connection.closed.done():
                await self.connect()
            connection = self._connection
        assert connection is not None
        return await connection.call(op, timeout=timeout, **arguments)

    def _hear(self, event: wire.Message) -> None:
        if event["event"] == "state":
            self.hear_state(event["state"])
        elif event["event"] == "stage" and event["stage"] in _STAGES:
            self._on_stage(event["stage"])

    async def _add(self, mount: Mount) -> None:
        """Make a layer or a data directory appear in the sandbox."""
        if not self._owner.takes_mounts:
            raise SandboxLost(f"driver {self.driver} takes no mounts here", code="NotSupported", retryable=False)
        if mount.target == "/data":
            target = self.place.slot / ".data"
        else:
            target = self.place.slot / PurePosixPath(mount.target).relative_to("/layers")
        target.mkdir(parents=True, exist_ok=True)
        if mount.source.is_dir():
            await asyncio.to_thread(mounts.bind, mount.source, target, writable=mount.writable)
        else:
            await asyncio.to_thread(mounts.mount_image, mount.source, target)


class SupervisedDriver(ABC):
    """The part of a driver that is the same for every kind of supervised sandbox."""

    name: ClassVar[str]
    isolation: ClassVar[Isolation]
    takes_mounts: bool = False

    def __init__(self, host: Host) -> None:
        self.host = host
        self._watching: set[asyncio.Task[None]] = set()
        self._sandboxes: set[Supervised] = set()

    @abstractmethod
    async def probe(self) -> Probe:
        """Run something real in a sandbox, under a deadline; never raises."""

    @abstractmethod
    def lay_out(self, folder: Path, place: Place, root: Root, group: Group, *, urgent: bool) -> dict[str, object]:
        """The driver's part of spec.json (kind, command, confine, sockets, cleanup).

        Files that the sandbox needs are written to `folder`, which becomes `place.folder` once all is there.
        """

    @abstractmethod
    async def order(self, sandbox: Supervised, run: Run) -> dict[str, object]:
        """The driver's part of the `run` operation. Raises `RunFailed`, OSError."""

    def tidy(self, place: Place) -> None:
        """Remove what `order` left for the supervisor to read, if anything: the run has begun, or failed."""
        return

    def bounds(self, limits: Limits) -> Bounds:
        """What the group of a sandbox with these limits is held to; pids with room for what surrounds the app."""
        return Bounds(limits.memory_mb << 20, limits.cpus, limits.pids + _PIDS_OVERHEAD)

    def default_limits(self, root: Root) -> Limits:
        """Of a warm sandbox, before it has a run."""
        return root.limits

    def open_slots(self, place: Place) -> None:
        """Blocking: mount what has to be there before the sandbox boots, when `takes_mounts`. Raises OSError."""
        # a file system of its own: of a bind, /proc/self/mountinfo inside would tell the host's path
        mounts.open_slot(place.slot, _SLOT_BYTES)

    async def boot(self, template: str, *, urgent: bool = False) -> Sandbox:
        """As every driver. Raises `BootFailed`; nothing is left behind then."""
        root = self.host.roots.root(template)
        sandbox = await self._start(root, urgent)
        try:
            async with asyncio.timeout(_BOOT_S):
                await self._reach(sandbox)
                state = await sandbox.become(State.WARM, State.EXITED)
        except TimeoutError:
            tail = _tail(sandbox.place)
            await self._discard(sandbox)
            raise BootFailed(f"sandbox {sandbox.id} of {template} was not warm within {_BOOT_S:g} s{tail}") from None
        except BaseException:
            await self._discard(sandbox)
            raise
        if state is not State.WARM:
            tail = _tail(sandbox.place)
            await self._discard(sandbox)
            raise BootFailed(f"sandbox {sandbox.id} of {template} ended while it booted{tail}")
        return sandbox

    def prepare(self, prospect: Prospect) -> None:
        """Nothing: what a run needs of its source is read inside the sandbox."""
        return

    async def adopt(self) -> Sequence[Sandbox]:
        """Those that an earlier controller left alive; whatever else it left of this driver is removed."""
        found: list[Sandbox] = []
        for folder in sorted(_folders(self.host.layout.sandboxes)):
            spec = _read_json(folder / "spec.json")
            if spec is None or spec.get("driver") != self.name:
                continue
            if any(sandbox.place.folder == folder for sandbox in self._sandboxes):
                continue
            try:
                sandbox = await self._take_over(folder, spec)
            except (OSError, VibedError) as error:
                # A process that does not end must not cost the others theirs; the sweep and the next start try again.
                log.error("a sandbox could not be taken over or removed", folder=str(folder), error=str(error))
                continue
            if sandbox is not None:
                found.append(sandbox)
        await sweep(self.host)
        return found

    async def close(self) -> None:
        """Let go of connections; sandboxes stay alive."""
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        for sandbox in list(self._sandboxes):
            await sandbox.disconnect()
            sandbox._death.close()
        self._sandboxes.clear()

    async def clean(self, place: Place, group: Group, state: Mapping[str, Any], *, lost: bool) -> None:
        """Remove all that is left of a sandbox without a supervisor."""
        if lost:
            await group.end()
            if self.host.privileged:
                await _end_uids({place.uid, place.app_uid})
            for argv in (_read_json(place.spec) or {}).get("cleanup") or ():
                await _run_briefly(argv)
        if not await group.end():
            raise SandboxLost(f"processes of sandbox {place.id} do not end: {sorted(group.processes())[:10]}")
        if self.host.privileged:
            await asyncio.to_thread(mounts.unmount_below, place.folder)
        if lost and (run := state.get("run")):
            Path(run["socket"]).unlink(missing_ok=True)
        await asyncio.to_thread(shutil.rmtree, place.folder, True)
        self.host.uids.give_back(place.uid)

    async def _start(self, root: Root, urgent: bool) -> Supervised:
        sandboxes = self.host.layout.sandboxes
        sandboxes.mkdir(mode=0o711, parents=True, exist_ok=True)
        uid = self.host.uids.take()
        place = Place(sandboxes / f"s{secrets.token_hex(6)[:11]}", uid, self.host.uids.app(uid))
        group = self.host.cgroups.get(place.id)
        try:
            self._lay_out(place, root, group, urgent)
            # boots ahead of demand leave the CPU to deploys and to apps
            weight = _WEIGHT if urgent else _WEIGHT_OF_BOOTS
            bounds = replace(self.bounds(self.default_limits(root)), weight=weight)
            self.host.cgroups.make(place.id, bounds)
            if self.takes_mounts:
                self.open_slots(place)
            argv = [str(self.host.agent), "supervise", str(place.spec)]
            pid = _spawn(argv, place.folder / "supervisor.log")
            sandbox = Supervised(self, place, root, group, Death.of_child(pid))
        except (OSError, VibedError) as error:
            await self.clean(place, group, {}, lost=True)
            raise BootFailed(f"a sandbox of {root.name} could not be made: {error}") from error
        self._watch(sandbox)
        return sandbox

    def _lay_out(self, place: Place, root: Root, group: Group, urgent: bool) -> None:
        # made under another name and renamed: a folder that has a sandbox's name is complete
        folder = place.folder.with_name(f".{place.id}")
        folder.mkdir(mode=0o700)
        try:
            for name in ("in", "slot"):
                (folder / name).mkdir(mode=0o755)
            uids = self.host.layout.uids
            spec: dict[str, object] = {
                "id": place.id,
                "driver": self.name,
                "template": root.name,
                "template_digest": root.digest,
                "uid": place.uid,
                "cgroup_procs": [str(path) for path in group.procs],
                "cgroup_oom": str(group.oom or ""),
                "cleanup": [],
                "boot_timeout_s": _BOOT_S,
                "log_owner": {"uid": os.geteuid(), "gid": uids.serve if self.host.privileged else os.getegid()},
                "socket_owner": (
                    {"uid": uids.serve, "gid": uids.caddy}
                    if self.host.privileged
                    else {"uid": os.geteuid(), "gid": os.getegid()}
                ),
            }
            spec |= self.lay_out(folder, place, root, group, urgent=urgent)
            (folder / "spec.json").write_text(json.dumps(spec))
            folder.rename(place.folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    async def _reach(self, sandbox: Supervised) -> None:
        pause = 0.001
        while not sandbox._death.happened:
            if sandbox.place.control.exists():
                with contextlib.suppress(wire.Disconnected):
                    await sandbox.connect()
                    return
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.02)

    async def _discard(self, sandbox: Supervised) -> None:
        await asyncio.shield(sandbox.destroy(0))

    def _watch(self, sandbox: Supervised) -> None:
        async def watch() -> None:
            try:
                await sandbox.bury()
            finally:
                if sandbox._ended.done():
                    self._sandboxes.discard(sandbox)

        self._sandboxes.add(sandbox)
        task = asyncio.create_task(watch(), name=f"watch {sandbox.id}")
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)

    async def _take_over(self, folder: Path, spec: Mapping[str, Any]) -> Supervised | None:
        uid = int(spec["uid"])
        place = Place(folder, uid, self.host.uids.app(uid))
        group = self.host.cgroups.get(place.id)
        state = _read_json(place.state) or {}
        death = Death.of_other(state.get("pid"), state.get("pid_start"))
        if death is None:
            await self.clean(place, group, state, lost=True)
            return None
        root = Root(spec["template"], spec["template_digest"])
        sandbox = Supervised(self, place, root, group, death)
        self._watch(sandbox)
        try:
            async with asyncio.timeout(5):
                await sandbox.connect()
                await sandbox.become(*(state for state in State if state is not State.BOOTING))
        except (wire.Disconnected, TimeoutError):
            death.kill()
            await sandbox.wait()
            return None
        if sandbox.state in (State.WARM, State.RUNNING, State.DRAINING):
            return sandbox
        await sandbox.destroy(0)
        return None


async def sweep(host: Host) -> None:
    """Remove groups, half-made and half-removed folders and a bundler's files that belong to no sandbox."""
    # groups are listed first: a sandbox that is being made has its folder before it has its group
    groups = host.cgroups.ids()
    folders = list(_folders(host.layout.sandboxes))
    for id in groups - {folder.name for folder in folders}:
        await host.cgroups.get(id).end()
    for folder in folders:
        # one that is made has it from the first moment on: its removal was begun, after all else had ended
        if not (folder / "spec.json").exists():
            if host.privileged:
                await asyncio.to_thread(mounts.unmount_below, folder)
            await asyncio.to_thread(shutil.rmtree, folder, True)
    with contextlib.suppress(FileNotFoundError):
        for left in host.layout.sandboxes.glob(".[bs]*"):
            if time.time() - left.stat().st_mtime > 60:
                if left.is_dir():
                    await asyncio.to_thread(shutil.rmtree, left, True)
                else:
                    left.unlink(missing_ok=True)


def _folders(sandboxes: Path) -> Iterable[Path]:
    with contextlib.suppress(FileNotFoundError):
        return [folder for folder in sandboxes.iterdir() if not folder.name.startswith(".")]
    return []


def _spawn(argv: list[str], log: Path) -> int:
    """Start a program in a session of its own, its output in `log`, with nothing of this process inherited."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawn(
        argv[0],
        argv,
        {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
    )


async def _end_uids(uids: set[int]) -> None:
    """SIGKILL whatever runs as these uids: the last resort where no cgroup holds a sandbox together."""
    for attempt in range(20):
        found = False
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if entry.stat().st_uid not in uids or (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
                    continue
                found = True
                os.kill(int(entry.name), signal.SIGKILL)
            except (OSError, IndexError):
                continue
        if not found:
            return
        await asyncio.sleep(0.005 * (attempt + 1))


async def _run_briefly(argv: Sequence[str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(_CLEANUP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _make_log_dir(folder: Path, gid: int) -> None:
    for place in (folder.parent, folder):
        with contextlib.suppress(FileExistsError):
            place.mkdir(mode=0o750, parents=True)
        if gid not in (-1, place.stat().st_gid):  # also of one that a killed controller had just made
            os.chown(place, -1, gid)


def _append_system_line(log_dir: Path, text: str) -> None:
    """The line that the dead supervisor could not write; `seq` goes on where it stopped."""
    path = log_dir / "log.jsonl"
    seq = max(_last_seq(log_dir / "log.1.jsonl"), _last_seq(path))
    line = {"seq": seq + 1, "ts": round(time.time(), 6), "stream": "system", "text": text}
    with contextlib.suppress(OSError), path.open("ab+") as out:
        half_written = out.tell() > 0 and out.seek(-1, os.SEEK_END) >= 0 and out.read(1) != b"\n"
        out.write(b"\n" * half_written + json.dumps(line).encode() + b"\n")


def _last_seq(path: Path) -> int:
    """The number of the last whole line of a log file, 0 when there is none. A line has at most 16 KiB of text, each
    byte of which may take six.
    """
    seq = 0
    with contextlib.suppress(OSError), path.open("rb") as lines:
        lines.seek(max(0, lines.seek(0, os.SEEK_END) - 131_072))
        for line in lines.read().split(b"\n"):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                seq = max(seq, int(json.loads(line)["seq"]))
    return seq


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _tail(place: Place) -> str:
    """The last lines of what a failed boot printed."""
    lines: list[str] = []
    for name in ("boot.log", "supervisor.log"):
        with contextlib.suppress(OSError):
            lines += (place.folder / name).read_text(errors="replace").splitlines()[-5:]
    return f": {' | '.join(line.strip() for line in lines if line.strip())}" if lines else ""


def _lost_code(error: wire.WireError) -> str:
    return "AlreadyClaimed" if error.error_code == "AlreadyClaimed" else "SandboxLost"
