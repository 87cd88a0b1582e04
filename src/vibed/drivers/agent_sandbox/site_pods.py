"""The pods that sites share: which there are, how many sites each may have, and which takes the next one.

A site has no code, so that many of them may be answered for by one process (`vibed-agent site -many`), which is what
such a pod runs. It is claimed for no app and belongs to none; that it is there is known by its claim, and which sites
it has by its agent, so that a controller needs no memory. A pod without sites is let go, and one with few of them is
emptied where another has room for all (`merging`).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

from vibed import records, wire
from vibed.apps.app import Runtime, Start
from vibed.apps.errors import VibedError
from vibed.drivers.agent_sandbox import merging, sites
from vibed.drivers.agent_sandbox.claims import SITES
from vibed.drivers.agent_sandbox.line import NobodysYet
from vibed.drivers.agent_sandbox.sandbox import PodSandbox
from vibed.sandboxes.driver import Claimed, Exit, Limits, Run, SandboxLost

log = records.logger("vibed.drivers.agent_sandbox")

_IDLE_S = 60.0
"""How long a pod without sites is kept for the next one."""
_AT_ONCE = 4
"""How many sites are handed to one pod at the same time: each takes a connection of the few that it lets in."""
_MOVED_AT_ONCE = 4
"""How many sites are on their way from a pod that is emptied."""
_MOVED_WITHIN_S = 60.0
"""One that has not gone after so long keeps no other from its place any more."""
_START_S = 60.0
_ASK_S = 10.0
_PLACE_S = 330.0
_LISTED_WITHIN_S = 10.0
"""How long it is waited for what a pod that an earlier controller has claimed says of its sites; afterwards it is asked
on, beside everything else.
"""
_PAUSES_S = (0.5, 1.0, 2.0, 5.0, 15.0)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one pod."""

    sites: int
    disk_bytes: int


class Guest(Protocol):
    """A site in a pod, as the pod's end concerns it."""

    @property
    def claimed(self) -> Claimed | None: ...
    def lost(self) -> None: ...


@dataclass(eq=False)
class SitePod:
    """One of the pods."""

    pod: PodSandbox
    image: str
    """The tag of the image that it runs: one of another release takes no new sites."""
    opened: asyncio.Future[None]
    taken: dict[str, int] = field(default_factory=dict)
    """Bytes by site, from when room was promised until the files are gone."""
    guests: dict[str, Guest] = field(default_factory=dict)
    handing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))
    listed: bool = True
    """Whether all of its sites are known; until then it takes no others."""
    leaving: bool = False

    @property
    def disk_bytes(self) -> int:
        return sum(self.taken.values())


class SitePods:
    """See the module's docstring. `place` makes a sandbox of a template that has claimed nothing yet."""

    def __init__(self, place: Callable[[str], PodSandbox], log_dir: Callable[[str, int], Path], image: str) -> None:
        self._place = place
        self._log_dir = log_dir
        self._image = image
        self._pods: set[SitePod] = set()
        self._emptied: SitePod | None = None
        """Which takes no more, since another has room for what it has."""
        self._moving: dict[str, float] = {}
        """Its sites that were told to go, and when."""
        self._tasks: set[asyncio.Task[Any]] = set()

    async def room(self, claimed: Claimed, size: int, template: str, bounds: Bounds) -> SitePod:
        """A pod that has room for a site, which counts as there from now on. Raises `VibedError`."""
        # the fullest of them: so that others become empty
        fit = [pod for pod in self._pods if self._fits(pod, size, template, bounds)]
        pod = max(fit, key=lambda one: len(one.taken), default=None) or self._another(template)
        pod.taken[_key(claimed)] = size
        try:
            await asyncio.shield(pod.opened)
        except BaseException:
            self._forget(pod, _key(claimed))
            raise
        return pod

    async def add(self, pod: SitePod, claimed: Claimed, guest: Guest, archive: Path, bounds: Bounds) -> None:
        """Have the pod serve a site. Raises `VibedError`, TimeoutError, OSError; it is not there then."""
        key = _key(claimed)
        try:
            async with pod.handing:
                digest = await pod.pod.give(archive)
                size = (await asyncio.to_thread(archive.stat)).st_size
                await pod.pod.ask(
                    "site",
                    _PLACE_S,
                    app_id=claimed.app_id,
                    app_key=claimed.app_key,
                    run=claimed.number,
                    version=claimed.version,
                    bytes=pod.taken[key],
                    max_bytes=bounds.disk_bytes,
                    source={"sha256": digest, "size": size},
                )
        except BaseException:
            # an answer may have been lost
            self._spawn(self._remove(pod, claimed))
            raise
        pod.guests[key] = guest
        if pod.pod.exit is not None:
            guest.lost()

    async def remove(self, pod: SitePod, claimed: Claimed, within_s: float) -> None:
        """Have the pod serve a site no more; tried on in the background when it does not answer in time."""
        pod.guests.pop(_key(claimed), None)
        await asyncio.wait({self._spawn(self._remove(pod, claimed))}, timeout=within_s)

    async def take_over(
        self,
        pod: PodSandbox,
        image: str,
        guest_of: Callable[[SitePod, Claimed], Guest],
        led_to: Callable[[], Sequence[Claimed]],
    ) -> Sequence[Guest]:
        """Go on with a pod that an earlier controller has claimed, and with the sites that it has. While it does not
        say which, they are those whose names lead there (`led_to`): it is asked on, and takes no others.
        """
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        opened.set_result(None)
        known = SitePod(pod, image, opened)
        self._pods.add(known)
        self._spawn(self._watch(known))
        try:
            async with asyncio.timeout(_LISTED_WITHIN_S):
                listed = await self._listed(pod)
        except TimeoutError:
            listed = dict.fromkeys(led_to(), 0)
            log.warning("a pod does not say which sites it has; it is asked on", sites=len(listed))
            known.listed = False
            self._spawn(self._learn(known))
        if listed is None:
            self._end(known)
            return []
        for claimed, size in listed.items():
            known.taken[_key(claimed)] = size
            known.guests[_key(claimed)] = guest_of(known, claimed)
        if pod.exit is not None:
            for guest in known.guests.values():
                guest.lost()
        self._let_go_if_empty(known)
        return list(known.guests.values())

    def to_move(self, bounds: Bounds) -> Sequence[Claimed]:
        """Sites that are to be had from another pod, a few at a time; who asks has them started there again, and
        removed here.
        """
        pods = [
            pod for pod in self._pods if pod.listed and pod.opened.done() and not pod.leaving and pod.pod.exit is None
        ]
        fills = [merging.Fill(len(pod.taken), pod.disk_bytes, pod.image == self._image) for pod in pods]
        found = merging.to_empty(fills, merging.Fill(bounds.sites, bounds.disk_bytes))
        self._emptied = None if found is None else pods[found]
        if self._emptied is None:
            return []
        # any of them: one whose app cannot be started again now keeps no other from it
        guests, now = self._emptied.guests, monotonic()
        self._moving = {key: at for key, at in self._moving.items() if key in guests and now - at < _MOVED_WITHIN_S}
        still = [key for key in guests if key not in self._moving]
        drawn = random.sample(still, min(max(0, _MOVED_AT_ONCE - len(self._moving)), len(still)))
        self._moving |= dict.fromkeys(drawn, now)
        return [claimed for key in drawn if (claimed := guests[key].claimed) is not None]

    def count(self) -> int:
        """How many sites are served."""
        return sum(len(pod.guests) for pod in tuple(self._pods))

    async def close(self) -> None:
        """Pods and their sites stay."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _fits(self, pod: SitePod, size: int, template: str, bounds: Bounds) -> bool:
        if (
            pod.leaving
            or not pod.listed
            or pod is self._emptied
            or pod.pod.exit is not None
            or (pod.pod.template, pod.image) != (template, self._image)
        ):
            return False
        return len(pod.taken) < bounds.sites and pod.disk_bytes + size <= bounds.disk_bytes

    def _another(self, template: str) -> SitePod:
        sandbox = self._place(template)
        opening = self._spawn(self._open(sandbox))
        pod = SitePod(sandbox, self._image, opening)
        self._pods.add(pod)
        opening.add_done_callback(lambda done: self._is_open(pod, done))
        return pod

    def _is_open(self, pod: SitePod, opening: asyncio.Future[None]) -> None:
        if opening.cancelled() or opening.exception() is not None:
            self._pods.discard(pod)
        else:
            self._spawn(self._watch(pod))

    async def _open(self, sandbox: PodSandbox) -> None:
        number = secrets.randbelow(10**9) + 1
        folder = await asyncio.to_thread(tempfile.mkdtemp, prefix="vibed-sites-")
        try:
            archive = Path(folder) / "source.tar.gz"
            argv = await asyncio.to_thread(sites.host, archive)
            runtime = Runtime("general", sandbox.template, "binary", "", "", start=Start(tuple(argv)))
            run = Run(SITES, 1, number, archive, runtime, {}, Limits(), start_timeout_s=_START_S, app_key=self._image)
            log_dir = self._log_dir(SITES, number)
            await sandbox.run(run, socket=Path(), log_dir=log_dir, on_stage=lambda stage: None)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, True)

    async def _watch(self, pod: SitePod) -> None:
        """Its end is the end of all its sites, each of which is brought up again by its own app's keeper."""
        ended: Exit = await pod.pod.wait()
        self._pods.discard(pod)
        if pod.guests:
            log.warning("a pod of sites has ended", sites=len(pod.guests), how=ended.describe())
        for guest in list(pod.guests.values()):
            guest.lost()

    async def _remove(self, pod: SitePod, claimed: Claimed) -> None:
        attempt = 0
        while pod.pod.exit is None:
            try:
                await pod.pod.ask("unsite", _ASK_S, app_id=claimed.app_id, app_key=claimed.app_key, run=claimed.number)
                break
            except (VibedError, TimeoutError, OSError) as error:
                log.info("a site is not removed yet", app=claimed.app_id, run=claimed.number, error=str(error))
            await asyncio.sleep(_PAUSES_S[min(attempt, len(_PAUSES_S) - 1)])
            attempt += 1
        self._forget(pod, _key(claimed))

    async def _listed(self, pod: PodSandbox) -> Mapping[Claimed, int] | None:
        """The sites of a pod, with their bytes, however long it does not say so; None: it serves none, or has ended."""
        attempt = 0
        while pod.exit is None:
            try:
                return {_claimed(one): int(one["bytes"]) for one in (await pod.ask("sites", _ASK_S))["sites"]}
            except NobodysYet as error:
                log.warning("a pod of sites is nobody's", error=error.message)
                return None
            except wire.WireError as error:
                if error.error_code == "NotRunning":
                    log.warning("a pod of sites never came to serve any", error=error.message)
                    return None
                log.warning("a pod does not say which sites it has", error=error.message)
            except (VibedError, TimeoutError, OSError):
                pass
            except (LookupError, TypeError, ValueError) as error:
                log.error("what a pod says of its sites makes no sense", error=repr(error))
            await asyncio.sleep(_PAUSES_S[min(attempt, len(_PAUSES_S) - 1)])
            attempt += 1
        return None

    async def _learn(self, pod: SitePod) -> None:
        """Have a pod say which sites it has that was taken over without."""
        listed = await self._listed(pod.pod)
        if listed is None:
            self._end(pod)
            return
        there = {_key(claimed): (claimed, size) for claimed, size in listed.items()}
        for key in [key for key in pod.guests if key not in there]:
            pod.guests.pop(key).lost()
            self._forget(pod, key)
        for key, (claimed, size) in there.items():
            # whose name leads elsewhere was not taken over, and its app has another run by now
            nobodys = key not in pod.taken
            pod.taken[key] = size
            if nobodys:
                self._spawn(self._remove(pod, claimed))
        pod.listed = True

    def _end(self, pod: SitePod) -> None:
        """Of one that serves nothing: what was thought to be there is told (`_watch`)."""
        pod.leaving = True
        self._spawn(pod.pod.destroy(0))

    def _forget(self, pod: SitePod, key: str) -> None:
        pod.taken.pop(key, None)
        self._let_go_if_empty(pod)

    def _let_go_if_empty(self, pod: SitePod) -> None:
        if not pod.taken:
            self._spawn(self._let_go(pod))

    async def _let_go(self, pod: SitePod) -> None:
        await asyncio.sleep(0 if pod is self._emptied else _IDLE_S)
        if pod.taken or pod.leaving or pod not in self._pods:
            return
        pod.leaving = True
        with contextlib.suppress(SandboxLost):
            await pod.pod.destroy()

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _claimed(said: Mapping[str, Any]) -> Claimed:
    return Claimed(str(said["app_id"]), int(said["version"]), int(said["run"]), str(said.get("app_key") or ""))


def _key(claimed: Claimed) -> str:
    # an app that is deleted and made anew has the numbers of its runs again
    return f"{claimed.app_id}/{claimed.number}/{claimed.app_key}"
