"""A pod as a sandbox: claimed, told what to run, listened to, ended."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from vibed import records, wire
from vibed.apps.errors import VibedError
from vibed.cluster.kinds import is_ready
from vibed.drivers.agent_sandbox.claims import BUILDER_APP, Claims, Got, Wanted, builders_of, killed_for_memory
from vibed.drivers.agent_sandbox.handing import sockets_of
from vibed.drivers.agent_sandbox.line import INGRESS_PORT, AgentLine, NobodysYet, NotOurs
from vibed.drivers.agent_sandbox.mirror import Mirror
from vibed.drivers.agent_sandbox.signing import ClaimKeys
from vibed.drivers.agent_sandbox.standing import Standing
from vibed.drivers.agent_sandbox.streams import Streams
from vibed.sandboxes.diagnosis import exit_of
from vibed.sandboxes.driver import (
    Claimed,
    Endpoint,
    Exit,
    HeirUnreachable,
    Isolation,
    Run,
    Sandbox,
    SandboxLost,
    Started,
    State,
)
from vibed.supervision.failed import EXIT_TOLD_S, FAULT_OF_APP, STAGES, as_told

log = records.logger("vibed.drivers.agent_sandbox")

_SEND_S = 120.0
_FETCH_S = 300.0
_HAND_OVER_S = 5.0
_LAST_BYTES_S = 120.0
"""How long what a builder has sent may take."""
_BUILDER_RUNS = 10**9
_LOG_WAIT_S = 30.0
_MEET_S = 20.0
"""How long a pod that is said to be ready may not answer."""
_BEAT_S = 15.0
"""How long an agent may say nothing until it is asked whether it is there."""
_BEAT_ANSWER_S = 10.0
"""How long it may take to say so; then its connection counts as dead, and another one is made."""
_UNREACHABLE_S = 30.0
"""How long nothing may have come from an agent, and no connection be had, until its pod counts as lost. Its node may be
without power: nobody closes connections then, and Kubernetes takes a minute to notice it, and five to delete its pods.
"""
_WITNESS_S = _BEAT_S + _BEAT_ANSWER_S
"""How much longer than it another agent has to have been heard, where the pod is still called ready: whoever hears
nobody may himself be cut off. Who was cut off from all at once has heard none of them this much longer than another.
"""
_CALM_S = 3.0
"""How long nothing may have come to a run that is drained: every router has heard by then where its name leads now."""
_PAUSES_S = (0.1, 0.3, 1.0, 2.0, 5.0)
_PROGRESS = frozenset({State.INJECTING, State.STARTING, State.RUNNING, State.DRAINING})
_IDLE = frozenset({State.BOOTING, State.WARM})
_HALF_WAY = frozenset({State.INJECTING, State.STARTING})
_LEVELS = {level.value: level for level in (Isolation.VM, Isolation.VM_EMULATED, Isolation.KERNEL, Isolation.PROCESS)}
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Owner(Protocol):
    """What a sandbox asks of its driver."""

    @property
    def name(self) -> str: ...
    @property
    def claims(self) -> Claims: ...
    @property
    def keys(self) -> ClaimKeys: ...

    async def order(
        self,
        run: Run,
        send: Callable[[Path], Awaitable[str]],
        ask: Callable[..., Awaitable[wire.Message]],
        *,
        builder: bool,
    ) -> dict[str, object]:
        """The driver's part of the operation `run`. `send` gives the agent a file, and returns its digest; `ask` has it
        do something, as `AgentLine.call`. `builder`: its pod reaches nothing. Raises `RunFailed`, `SandboxLost`,
        `WireError`, OSError.
        """
        ...

    def mirror(self, log_dir: Path) -> Mirror:
        """A copy of a run's log. Blocking."""
        ...

    def heard(self, sandbox: PodSandbox) -> None:
        """An agent has said something."""
        ...

    def others_heard_at(self, sandbox: PodSandbox) -> float:
        """When any other agent has said something last (`time.monotonic`)."""
        ...

    def forget(self, sandbox: PodSandbox) -> None: ...


class PodSandbox(Standing):
    """A place for one run, which has no pod before that run claims one."""

    def __init__(self, owner: Owner, id: str, template: str, template_digest: str, *, builder: bool = False) -> None:
        super().__init__(owner.name, id, template, template_digest)
        self._builder = builder
        self._streams: Streams | None = None
        self._owner = owner
        self._got: Got | None = None
        self._line: AgentLine | None = None
        self._told_exit: Exit | None = None
        """How it ended, as its agent says."""
        self._mirror: Mirror | None = None
        self._on_stage: Callable[[str], None] = lambda stage: None
        self.measured: Mapping[str, Any] = {}
        """`level` and `evidence` of what it stands in, as the agent says."""
        self._exited = asyncio.Event()
        self._under_way = False
        """Whether its agent has said that it does something for the run: only then it will say how that ended."""
        self._copying: asyncio.Task[None] | None = None
        """Of its log, until that is complete."""
        self._ending = False
        self._taken_over = False
        self._unproven = False
        """Whether it was taken over, and its agent has not said yet what it does."""
        self._estranged = False
        """Whether it knows another key than ours."""
        self._heard_at = 0.0
        """When its agent has said something last."""
        self._asked = False
        """Whether it was told to end, by us."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._burying: asyncio.Task[None] | None = None
        self._ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()

    @property
    def isolation(self) -> Isolation | None:
        """As its agent has measured it, before any code of an app was there; None before it has said so."""
        return _LEVELS.get(str(self.measured.get("level")))

    async def run(self, run: Run, *, socket: Path, log_dir: Path, on_stage: Callable[[str], None]) -> Started:
        """Claim a pod and have it run; `socket` stays unused: its address is the pod's. Raises `RunFailed`,
        `SandboxLost`; nothing is left of it then.
        """
        if self._claimed is not None:
            raise SandboxLost(f"sandbox {self.id} was claimed before", code="AlreadyClaimed", retryable=False)
        if self._state is not State.WARM:
            raise SandboxLost(f"sandbox {self.id} ended before it was given anything to run")
        self._claimed = Claimed(run.app_id, run.version, run.number, run.app_key, run.layer)
        self._state = State.INJECTING
        self._on_stage = on_stage
        began = time.perf_counter()
        try:
            self._mirror = await asyncio.to_thread(self._owner.mirror, log_dir)
            answer, claimed, prepared = await self._start(run, began)
        except wire.WireError as error:
            raise await self._failed(error, run) from error
        except (wire.Disconnected, TimeoutError, OSError) as error:
            await self._bury()
            raise SandboxLost(f"sandbox {self.id} was lost while it started {run.app_id}: {error}") from error
        except BaseException:
            await asyncio.shield(self._bury())
            raise
        assert self._got is not None
        endpoint = Endpoint(address=self._got.where.address(INGRESS_PORT))
        if self._state in (State.INJECTING, State.STARTING):
            self._state = State.RUNNING
        if self._state is State.RUNNING:
            self._endpoint = endpoint
        said = {str(k): float(v) for k, v in (answer.get("timings") or {}).items()}
        timings = {**said, "claim": claimed + said.get("claim", 0.0), "bundle": prepared + said.get("fetch", 0.0)}
        return Started(endpoint, answer.get("port") or None, timings, str(answer.get("note") or ""))

    async def hand_over(self, heir: Sandbox | None) -> None:
        """Tell the proxy, with each answer, not to keep its connection: the name leads to an address for each run, so
        there is nothing that would have to move. Raises `HeirUnreachable`, `SandboxLost`.
        """
        if heir is not None and heir.endpoint is None:
            raise HeirUnreachable(f"sandbox {heir.id} has ended")
        try:
            await self._call("closing", _HAND_OVER_S, closing=heir is not None)
        except (VibedError, TimeoutError, OSError) as error:
            raise SandboxLost(f"sandbox {self.id} does not answer: {error}") from error

    async def drain(self, deadline_s: float) -> None:
        """Let open requests finish (at most `deadline_s`), then end the sandbox."""
        self._asked = True
        if self._state is State.RUNNING:
            self._state = State.DRAINING
        with contextlib.suppress(VibedError, TimeoutError, OSError):
            await self._call("drain", deadline_s + 30, deadline_s=deadline_s, calm_s=min(_CALM_S, deadline_s))
        await self.destroy()

    async def destroy(self, grace_s: float = 2.0) -> None:
        """SIGTERM, SIGKILL after the grace, and the claim is deleted; the copy of the log stays. Idempotent."""
        self._asked = True
        if self._line is not None and not self._ended.done() and not self._exited.is_set():
            with contextlib.suppress(VibedError, TimeoutError, OSError):
                await self._call("stop", grace_s + 10, grace_s=grace_s)
        await self._bury()

    async def wait(self) -> Exit:
        """Return when it has ended, and its claim was deleted."""
        return await asyncio.shield(self._ended)

    async def requests(self) -> Mapping[str, Any]:
        """`{open, websockets, total, last_at}` of the app's traffic. Raises `SandboxLost`."""
        try:
            return await self._call("requests", 5.0)
        except (VibedError, TimeoutError, OSError) as error:
            raise SandboxLost(f"sandbox {self.id} does not answer: {error}") from error

    # used by the driver

    async def ask(self, op: str, timeout: float, **arguments: object) -> wire.Message:
        """An operation of its agent. Raises `WireError`, `Disconnected`, TimeoutError."""
        return await self._call(op, timeout, **arguments)

    async def give(self, file: Path) -> str:
        """Give its agent a file; its digest. Raises `WireError`, `Disconnected`, TimeoutError, OSError."""
        if self._line is None or self._ended.done():
            raise wire.Disconnected(f"sandbox {self.id} has no pod, or has ended")
        digest = await asyncio.to_thread(_digest, file)
        await self._line.send(file, digest, _SEND_S)
        return digest

    async def take_over(self, got: Got, claimed: Claimed, mirror: Mirror) -> None:
        """Go on with what an earlier controller claimed. Raises `NobodysYet` where that one never came to tell the pod
        so.

        An agent that does not answer, or with another error (that it knows another key than ours is one), is asked
        again until it does or its pod is gone: a network that is just away is no reason to start the app anew. Until
        then this is STARTING and has an endpoint: it serves if the app's name led to it.
        """
        self._taken_over = self._unproven = True
        self._claimed = claimed
        self._got = got
        self._mirror = mirror
        self._line = AgentLine(got.where, self._owner.keys, self._hear)
        self._heard_at = time.monotonic()
        self._state = State.STARTING
        self._endpoint = Endpoint(address=got.where.address(INGRESS_PORT))
        try:
            self.hear_state(await self._call("status", 5.0))
        except NobodysYet:
            await self._line.close()
            raise
        except (VibedError, TimeoutError) as error:
            log.warning("a pod does not answer yet; it is asked again", claim=got.name, error=str(error))
        self._watch()

    async def let_go(self) -> None:
        """Close the line; the pod stays."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._line is not None:
            await self._line.close()

    def hear_state(self, state: Mapping[str, Any]) -> None:
        """Take over what the agent says of itself."""
        said = str(state.get("state"))
        believed, self._unproven = self._unproven and self._burying is None and bool(self._tasks), False
        told = state.get("isolation")
        self.measured = told if isinstance(told, dict) else self.measured
        self._template_digest = self._template_digest or str(state.get("template_digest") or "")
        self._under_way = self._under_way or said not in _IDLE
        if said == State.EXITED:
            self._told_exit = exit_of(state.get("exit"))
            self._endpoint = None
            self._exited.set()
        elif self._ended.done() or self._ending:
            return
        elif said == State.WARM and self._endpoint is not None:
            self._exited.set()  # it was taken over, and has run nothing
        elif said in _HALF_WAY and self._taken_over:
            # its controller ended in the middle of it: whoever took it over may not take it for one that serves
            self._state, self._endpoint = State(said), None
            if believed:
                self._exited.set()  # and has taken it for one already
        elif said in _PROGRESS and (self._state is not State.DRAINING or said == State.DRAINING):
            self._state = State(said)

    async def _start(self, run: Run, began: float) -> tuple[wire.Message, float, float]:
        """The answer to `run`, and milliseconds: of the claim, and of what was prepared after it."""
        if self._builder:
            # nothing of it is found again, and another controller's may be there still
            number = secrets.randbelow(_BUILDER_RUNS)
            wanted = Wanted(BUILDER_APP, number, 1, "", "", pool=builders_of(self._template), sandbox=self._id)
        else:
            wanted = Wanted(
                run.app_id, run.number, run.version, run.app_key, run.layer, pool=self._template, sandbox=self._id
            )
        got = self._got = await self._owner.claims.get_one(wanted)
        line = self._line = AgentLine(got.where, self._owner.keys, self._hear)
        await self._meet(line)
        self.hear_state(await line.call("status", _BEAT_ANSWER_S))
        self._spoke()
        self._require(run.least)
        claimed = _ms(began)
        self._watch()
        preparing = time.perf_counter()

        async def send(source: Path) -> str:
            digest = await asyncio.to_thread(_digest, source)
            await line.send(source, digest, _SEND_S)
            return digest

        order = await self._owner.order(run, send, line.call, builder=self._builder)
        if self._builder:
            streams = self._streams = Streams(line)
            for at, socket in await asyncio.to_thread(sockets_of, run.mounts):
                await streams.carry(at, socket)
        prepared = _ms(preparing)
        answer = await line.call(
            "run",
            run.start_timeout_s + _FETCH_S,
            app_id=run.app_id,
            app_key=run.app_key,
            layer=run.layer,
            version=run.version,
            run=run.number,
            **order,
        )
        return answer, claimed, prepared

    def _require(self, least: Isolation | None) -> None:
        """Raise `SandboxLost` where the pod stands in less than what has to be between apps and their node."""
        level = self.isolation
        if least is None or (level is not None and level.satisfies(least)):
            return
        evidence = "; ".join(str(one) for one in self.measured.get("evidence") or ())
        pod = self._got.where.pod if self._got is not None else "the pod"
        raise SandboxLost(
            f"the pod {pod} is at isolation {level.value if level else 'unknown'!r} ({evidence}), and this vibeD runs"
            f" apps at {least.value!r} or higher",
            code="IsolationTooLow",
            hint="the RuntimeClass of sandboxes (sandboxes.runtimeClass) has to be there on every node that they run"
            " on; or lower the minimum (least_general, least_fast)",
        )

    async def _meet(self, line: AgentLine) -> None:
        """Make the pod ours. A NetworkPolicy may take a moment until it lets us through to a pod that is new."""
        end, attempt = time.monotonic() + _MEET_S, 0
        while True:
            try:
                return await line.claim()
            except wire.Disconnected:
                if self._lost() or time.monotonic() > end:
                    raise
            await asyncio.sleep(_PAUSES_S[min(attempt, len(_PAUSES_S) - 1)])
            attempt += 1

    async def _failed(self, error: wire.WireError, run: Run) -> VibedError:
        """What a run that failed is told as; nothing is left of it."""
        if error.error_code not in FAULT_OF_APP:
            await self._bury()
            return SandboxLost(f"sandbox {self.id}: {error.message}")
        if self._under_way:
            exited: asyncio.Future[Any] = asyncio.ensure_future(self._exited.wait())
            # or its pod goes, and nobody will tell
            await asyncio.wait({exited, self._ended}, timeout=EXIT_TOLD_S, return_when=asyncio.FIRST_COMPLETED)
            exited.cancel()
        pod = self._pod()
        oom = pod is not None and killed_for_memory(pod)
        await self._bury()
        ended = self._told_exit
        return as_told(error, replace(ended, oom=ended.oom or oom) if ended is not None else None, run)

    async def _call(self, op: str, timeout: float, **arguments: object) -> wire.Message:
        if self._line is None or self._ended.done():
            raise wire.Disconnected(f"sandbox {self.id} has no pod, or has ended")
        return await self._line.call(op, timeout, **arguments)

    def _spoke(self) -> None:
        self._heard_at = time.monotonic()
        self._owner.heard(self)

    def _hear(self, event: wire.Message) -> None:
        self._spoke()
        if event.get("event") == "state":
            self.hear_state(event["state"])
        elif event.get("event") == "stage" and event.get("stage") in STAGES:
            self._on_stage(str(event["stage"]))

    def _watch(self) -> None:
        self._copying = self._spawn(self._follow_log())
        self._spawn(self._follow_agent())
        self._spawn(self._follow_pod())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _pod(self) -> Mapping[str, Any] | None:
        """The claim's pod, while it is the one that was claimed."""
        assert self._got is not None
        where = self._got.where
        pod = self._owner.claims.pod(where.pod)
        return pod if pod is not None and pod["metadata"]["uid"] == where.pod_uid else None

    def _taken_away(self) -> bool:
        """Whether somebody else has ended it: a node that is drained, a person, whoever deleted the app."""
        assert self._got is not None
        claim, pod = self._owner.claims.get(self._got.name), self._pod()
        return (
            claim is None
            or claim["metadata"]["uid"] != self._got.uid
            or "deletionTimestamp" in claim["metadata"]
            or pod is None
            or "deletionTimestamp" in pod["metadata"]
        )

    def _lost(self) -> bool:
        """Whether the pod is gone, or on its way: the agent in it has nothing more to say then."""
        pod = self._pod()
        return self._taken_away() or (pod is not None and pod["status"]["phase"] in ("Failed", "Succeeded"))

    async def _follow_pod(self) -> None:
        """End with the pod, whatever becomes of it."""
        assert self._got is not None
        with self._owner.claims.listening(self._got.name, self._got.where.pod) as changed:
            while not self._lost():
                changed.clear()
                await changed.wait()
        self._begin_end()

    async def _follow_agent(self) -> None:
        """Stay connected, and end with the app, or when nothing can be heard of it any more."""
        assert self._line is not None
        attempt = 0
        while not self._exited.is_set():
            try:
                connection = await self._line.connect()
                self._spoke()
                await self._attend(connection)
                attempt = 0
            except NobodysYet as error:
                log.error("a pod is nobody's any more", claim=self._line.where.claim, error=error.message)
                break
            except wire.WireError as error:
                if not isinstance(error, NotOurs) or error.asked:
                    self._spoke()  # something is there, and says that it cannot
                if not isinstance(error, NotOurs):
                    log.warning("an agent answers with an error", claim=self._line.where.claim, error=error.message)
                elif not self._estranged:
                    self._estranged = True
                    log.error(
                        "a pod knows another key than this controller: it serves on, and can be told nothing",
                        claim=self._line.where.claim,
                        hint="while the key is changed, a controller that has both goes on with it; else put the key"
                        " that claimed it beside the present one (previous.pem), or delete the claim",
                    )
            except (wire.Disconnected, TimeoutError):
                if self._given_up():
                    log.warning("nothing is heard of a pod any more", claim=self._line.where.claim)
                    break
            await asyncio.sleep(_PAUSES_S[min(attempt, len(_PAUSES_S) - 1)])
            attempt += 1
        self._begin_end()

    async def _attend(self, connection: wire.Connection) -> None:
        """Return when a connection has ended, or the app. Who says nothing is asked, and its connection given up when
        it does not answer. Raises `WireError`, `Disconnected`, `TimeoutError`.
        """
        assert self._line is not None
        exited: asyncio.Future[Any] = asyncio.ensure_future(self._exited.wait())
        try:
            while not exited.done() and not connection.closed.done():
                quiet = time.monotonic() - self._heard_at
                if quiet < _BEAT_S and not self._unproven:
                    await asyncio.wait(
                        (exited, connection.closed),
                        timeout=_BEAT_S - quiet,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                    continue
                try:
                    said = await connection.call("status", timeout=_BEAT_ANSWER_S)
                except TimeoutError:
                    await self._line.drop(connection)
                    raise
                self._spoke()
                self.hear_state(said)
        finally:
            exited.cancel()

    def _given_up(self) -> bool:
        """Whether an agent that cannot be reached counts as lost."""
        if time.monotonic() - self._heard_at < _UNREACHABLE_S:
            return False
        pod = self._pod()
        if pod is None or not is_ready(pod):
            return True
        return self._owner.others_heard_at(self) > self._heard_at + _WITNESS_S

    async def _follow_log(self) -> None:
        """Copy the log until it is complete."""
        assert self._line is not None and self._mirror is not None
        mirror, attempt = self._mirror, 0
        while True:
            try:
                said = await self._line.call("logs", _LOG_WAIT_S + 10, after=mirror.after, wait_s=_LOG_WAIT_S)
                self._spoke()
                await asyncio.to_thread(mirror.add, said.get("lines") or [])
                attempt = 0
                if said.get("complete"):
                    return
                if not said.get("lines"):
                    await asyncio.sleep(0.05)  # before the run there is nothing to wait for
            except (VibedError, TimeoutError):
                await asyncio.sleep(_PAUSES_S[min(attempt, len(_PAUSES_S) - 1)])
                attempt += 1
            except OSError as error:
                # a full disk, for one: the pod has the lines, and is asked again when there may be room
                if not attempt:
                    log.warning("a log cannot be copied just now", sandbox=self.id, error=str(error))
                await asyncio.sleep(_PAUSES_S[min(attempt, len(_PAUSES_S) - 1)])
                attempt += 1

    def _begin_end(self) -> None:
        if self._burying is None:
            self._burying = asyncio.create_task(self._end())

    async def _bury(self) -> None:
        self._begin_end()
        assert self._burying is not None
        await asyncio.shield(self._burying)

    async def _end(self) -> None:
        """Take what the agent has to say still, and let the claim go; the last act of every sandbox."""
        self._ending = True
        self._endpoint = None
        if self._copying is not None and self._told_exit is not None:
            await asyncio.wait({self._copying}, timeout=EXIT_TOLD_S)
        ended = self._how()
        if self._streams is not None:
            if self._exited.is_set() and not self._asked:
                await self._streams.over(_LAST_BYTES_S)
            await self._streams.close()
        if self._got is not None:
            await self._owner.claims.remove(self._got.name, self._got.uid)
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel()
        if self._line is not None:
            await self._line.close()
        if self._mirror is not None and self._got is not None and not ended.known:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self._mirror.say, ended.at, "the pod of this run was lost, and the run with it")
        self._state = State.EXITED
        self._exit = ended
        self._owner.forget(self)
        if not self._ended.done():
            self._ended.set_result(ended)

    def _how(self) -> Exit:
        """How it ended, by what its agent has said, or else its pod shows."""
        now, told = time.time(), self._told_exit
        if self._got is None:
            return Exit(0, None, False, now)
        pod = self._pod()
        oom = pod is not None and killed_for_memory(pod)
        if told is not None and (self._asked or not self._taken_away()):
            return Exit(told.code, told.signal, told.oom or oom, told.at, told.tail)
        if oom:
            return Exit(None, "SIGKILL", True, now, told.tail if told is not None else ())
        # what an app says that is ended with its pod is no word of its own
        return Exit(None, "SIGKILL" if self._asked else None, False, now)


def _ms(since: float) -> float:
    return (time.perf_counter() - since) * 1000


def _digest(path: Path) -> str:
    named = path.name.split(".")[0]
    if _DIGEST.fullmatch(named):
        return named  # as the source store names it; the agent checks it
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
