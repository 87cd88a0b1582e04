"""A site as a sandbox: a directory of files that Caddy, or the site server, answers from. It has no process."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from vibed.apps.errors import VibedError
from vibed.drivers.refused import as_a_failed_run
from vibed.drivers.site_facts import FILE
from vibed.sandboxes.driver import (
    Claimed,
    Endpoint,
    Exit,
    Isolation,
    Run,
    RunFailed,
    Sandbox,
    SandboxLost,
    Started,
    State,
)

DRIVER = "static"
TEMPLATE = "static-nginx"
GONE = ".gone."
"""How the names of folders begin that are being removed."""
_LINGER_S = 5.0
"""How long a request that the proxy had routed before the switch may still look up a file."""


class Maker(Protocol):
    """The driver, as its sites need it."""

    async def unpacked(self, run: Run) -> Path:
        """The folder of a run's site, complete. Raises `ArchiveError`, `RunFailed`, OSError."""

    def forget(self, site: Site) -> None: ...


class Site:
    """A directory of files, seen as a sandbox. There may be thousands, so it holds little."""

    __slots__ = ("_claimed", "_driver", "_endpoint", "_exit", "_gone", "_id", "_state")

    def __init__(self, driver: Maker, id: str) -> None:
        self._driver = driver
        self._id = id
        self._state = State.WARM
        self._claimed: Claimed | None = None
        self._endpoint: Endpoint | None = None
        self._gone: asyncio.Event | None = None
        self._exit: Exit | None = None

    @property
    def id(self) -> str:
        return self._id

    @property
    def driver(self) -> str:
        return DRIVER

    @property
    def template(self) -> str:
        return TEMPLATE

    @property
    def template_digest(self) -> str:
        return ""

    @property
    def state(self) -> State:
        return self._state

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
        """Unpack the site; `socket` and `log_dir` stay unused. Raises `RunFailed`, `SandboxLost`."""
        if self._state is not State.WARM:
            raise SandboxLost("this sandbox was claimed before", code="AlreadyClaimed", retryable=False)
        began = time.perf_counter()
        self._state = State.INJECTING
        self._claimed = Claimed(run.app_id, run.version, run.number, run.app_key)
        on_stage("claimed")
        try:
            with as_a_failed_run():
                place = await self._driver.unpacked(run)
        except RunFailed:
            self._end()
            raise
        except (VibedError, OSError) as error:
            self._end()
            raise SandboxLost(f"the site could not be written: {error}") from error
        except asyncio.CancelledError:
            self._end()
            raise
        on_stage("injected")
        took = (time.perf_counter() - began) * 1000
        self.serve(place, run.runtime.index, run.runtime.spa)
        on_stage("started")
        assert self._endpoint is not None
        return Started(self._endpoint, timings={"claim": 0.0, "inject": took, "start": 0.0})

    def serve(self, place: Path, index: str, spa: bool, claimed: Claimed | None = None) -> None:
        self._claimed = claimed or self._claimed
        ruled = (place / FILE).exists()
        self._endpoint = Endpoint(place, site=True, index=index, spa=spa, ruled=ruled)
        self._state = State.RUNNING

    async def hand_over(self, heir: Sandbox | None) -> None:
        """Caddy reads the files itself: there is nothing to hand over."""

    async def drain(self, deadline_s: float) -> None:
        """Remove the site when requests that were on their way to it have opened their file."""
        if self._state is State.RUNNING:
            self._state = State.DRAINING
            await asyncio.sleep(min(deadline_s, _LINGER_S))
        await self.destroy()

    async def destroy(self, grace_s: float = 2.0) -> None:
        """Remove the site. Idempotent."""
        endpoint, self._endpoint = self._endpoint, None
        self._end()
        if endpoint is not None:
            await asyncio.to_thread(remove, endpoint.path)

    async def wait(self) -> Exit:
        """Return when the site was removed by `drain` or `destroy`: it does not end by itself."""
        while self._exit is None:
            self._gone = self._gone or asyncio.Event()
            await self._gone.wait()
        return self._exit

    def _end(self) -> None:
        if self._exit is None:
            self._exit = Exit(code=0, signal=None, oom=False, at=time.time())
        self._state = State.EXITED
        self._driver.forget(self)
        if self._gone is not None:
            self._gone.set()


def remove(place: Path) -> None:
    """Remove a folder so that its name is free at once: a half removed site must not be found. Blocking."""
    hidden = place.with_name(f"{GONE}{secrets.token_hex(6)}")
    try:
        place.rename(hidden)
    except FileNotFoundError:
        return
    shutil.rmtree(hidden, ignore_errors=True)
