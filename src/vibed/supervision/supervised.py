"""A sandbox that has a supervisor: told what to run, listened to, ended, buried.

The supervisor (`vibed-agent supervise`, docs/reference/supervisor.md) owns a sandbox and outlives vibeD. Here is the
controller's side of it, which is the same for every kind of sandbox; what differs, its `Owner` knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from vibed import wire
from vibed.apps.errors import VibedError
from vibed.sandboxes.diagnosis import exit_of
from vibed.sandboxes.driver import (
    Builder,
    Claimed,
    Endpoint,
    Exit,
    HeirUnreachable,
    Isolation,
    Limits,
    Mount,
    Run,
    Sandbox,
    SandboxLost,
    Started,
    State,
)
from vibed.supervision import logs, mounts
from vibed.supervision.cgroups import BUILDING, SERVING, Bounds, Group
from vibed.supervision.death import Death
from vibed.supervision.failed import EXIT_TOLD_S, FAULT_OF_APP, STAGES, as_told
from vibed.supervision.host import Host
from vibed.supervision.line import Line
from vibed.supervision.place import Place, read_json
from vibed.supervision.roots import Root

_CLEANUP_S = 10.0
_HAND_OVER_S = 5.0


class Owner(Protocol):
    """What a sandbox asks of the driver that booted it (`vibed.supervision.base.SupervisedDriver`)."""

    @property
    def name(self) -> str: ...

    @property
    def host(self) -> Host: ...

    @property
    def takes_mounts(self) -> bool: ...

    def bounds(self, limits: Limits) -> Bounds:
        """What the group of a sandbox with these limits is held to."""
        ...

    async def order(self, sandbox: Supervised, run: Run) -> dict[str, object]:
        """The driver's part of the `run` operation. Raises `RunFailed`, OSError."""
        ...

    def tidy(self, place: Place) -> None:
        """Remove what `order` left for the supervisor to read, if anything."""
        ...

    async def clean(self, place: Place, group: Group, state: Mapping[str, Any], *, lost: bool) -> None:
        """Remove all that is left of a sandbox without a supervisor; as `removal.remove`."""
        ...


class Supervised:
    """A sandbox with a supervisor."""

    def __init__(self, owner: Owner, place: Place, root: Root, group: Group, death: Death) -> None:
        self._owner = owner
        self.place = place
        self._root = root
        self.group = group
        self._death = death
        self._line = Line(place.control, self._hear)
        self._state = State.BOOTING
        self._claimed: Claimed | None = None
        self._endpoint: Endpoint | None = None
        self._exit: Exit | None = None
        self._last: Mapping[str, Any] = {}
        self._log_dir: Path | None = None
        self._used = False
        self._deaf = False
        """Whether its supervisor did not answer what it answers at once."""
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
    def isolation(self) -> Isolation | None:
        return None

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
        self._claimed = Claimed(run.app_id, run.version, run.number, run.app_key, run.layer)
        self._log_dir = log_dir
        self._on_stage = on_stage
        began = time.perf_counter()
        try:
            logs.make_folder(log_dir, self._owner.host.layout.uids.serve if self._owner.host.privileged else -1)
            weight = BUILDING if isinstance(run.limits, Builder) else SERVING
            self.group.bound(replace(self._owner.bounds(run.limits), weight=weight))
            for mount in run.mounts:
                await self._add(mount)
            order = await self._owner.order(self, run)
            prepared = (time.perf_counter() - began) * 1000
            answer = await self._call(
                "run",
                run.start_timeout_s + 60,
                app_id=run.app_id,
                app_key=run.app_key,
                layer=run.layer,
                version=run.version,
                run=run.number,
                socket=str(socket),
                log_dir=str(log_dir),
                **order,
            )
        except wire.WireError as error:
            if error.error_code in FAULT_OF_APP:
                await self._last_words()
                raise as_told(error, self._exit, run) from error
            raise SandboxLost(f"sandbox {self.id}: {error.message}", code=_lost_code(error)) from error
        except (wire.Disconnected, TimeoutError, OSError) as error:
            raise SandboxLost(f"sandbox {self.id} was lost while it started {run.app_id}: {error}") from error
        finally:
            self._owner.tidy(self.place)
        endpoint = Endpoint(socket)
        if not run.runtime.start.job:
            self._endpoint = endpoint
            self._state = State.RUNNING
        timings = {str(k): float(v) for k, v in (answer.get("timings") or {}).items()}
        return Started(
            endpoint,
            answer.get("port") or None,
            {"bundle": prepared, **timings},
            str(answer.get("note") or ""),
        )

    async def hand_over(self, heir: Sandbox | None) -> None:
        """Let `heir` have the proxy's connections. Raises `HeirUnreachable`, `SandboxLost`."""
        # the clock of this boot: supervisors live no longer, and vibeD's processes share it
        told: dict[str, object] = {"to": "", "socket": "", "order": time.monotonic_ns()}
        if heir is not None:
            if not isinstance(heir, Supervised):
                return
            if heir.endpoint is None:
                raise HeirUnreachable(f"sandbox {heir.id} has ended")
            told |= {"to": str(heir.place.folder), "socket": str(heir.endpoint.path)}
        try:
            await self._call("hand_over", _HAND_OVER_S, **told)
        except wire.WireError as error:
            if error.error_code == "HeirUnreachable":
                raise HeirUnreachable(error.message) from error
            raise SandboxLost(f"sandbox {self.id}: {error.message}") from error
        except (wire.Disconnected, TimeoutError, OSError) as error:
            self._deaf = isinstance(error, TimeoutError)
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
            if not self._deaf:
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
        await self._line.connect()

    async def disconnect(self) -> None:
        await self._line.close()

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
            kept = (str(run.get("app_key") or ""), str(run.get("layer") or ""))
            self._claimed = Claimed(run["app_id"], int(run["version"]), int(run["run"]), *kept)
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
            state = read_json(self.place.state) or state
        ended = exit_of(state.get("exit")) if state.get("state") == State.EXITED else None
        lost = ended is None
        if ended is None:
            ended = Exit(None, None, self.group.oom_kills() > 0, time.time())
        try:
            await self._owner.clean(self.place, self.group, state, lost=lost)
            if lost and self._log_dir is not None:
                text = "the supervisor of this sandbox was killed, so the sandbox was ended too"
                await asyncio.to_thread(logs.append_system_line, self._log_dir, text)
        finally:
            await self.disconnect()
            self._state = State.EXITED
            self._endpoint = None
            self._exit = ended
            self._changed.set()
            if not self._ended.done():
                self._ended.set_result(ended)

    async def _last_words(self) -> None:
        """Wait until the app's last lines are complete: when the sandbox has ended."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EXIT_TOLD_S):
                await asyncio.shield(self._ended)

    async def _call(self, op: str, timeout: float, **arguments: object) -> wire.Message:
        if self._ended.done() or self._death.happened:
            raise wire.Disconnected(f"sandbox {self.id} has ended")
        return await self._line.call(op, timeout, **arguments)

    def _hear(self, event: wire.Message) -> None:
        if event["event"] == "state":
            self.hear_state(event["state"])
        elif event["event"] == "stage" and event["stage"] in STAGES:
            self._on_stage(event["stage"])

    async def _add(self, mount: Mount) -> None:
        """Make a layer or a data directory appear in the sandbox."""
        if not self._owner.takes_mounts:
            raise SandboxLost(f"driver {self.driver} takes no mounts here", code="NotSupported", retryable=False)
        await asyncio.to_thread(mounts.add, mount, self.place.slot)


def _lost_code(error: wire.WireError) -> str:
    return "AlreadyClaimed" if error.error_code == "AlreadyClaimed" else "SandboxLost"
