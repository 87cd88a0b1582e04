"""A storm of redeploys under load, with what serves stalled now and then: what visitors see of a thousand switches.

Deploys follow each other every tenth of a second, most of them before the one before is live. In every burst the
supervisor of the run that serves is stopped (SIGSTOP) while two more deploys are made, and goes on after a second. A
request is stale when it began after any request had been answered by a later version.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from bisect import bisect_left
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate

from bench import web
from bench.instance import Instance
from bench.sources import Source, packed

BURST = 20
PAUSE_S = 0.1
STALL_S = 1.0
BODY = b"x" * 2048
_MARK = re.compile(rb"mark-v(\d+)")


@dataclass
class Storm:
    """What was seen of one app."""

    instance: Instance
    name: str
    source: Source
    answers: list[tuple[float, float, int]] = field(default_factory=list)
    """When each request began and ended, and the mark of the version that answered."""
    failures: list[str] = field(default_factory=list)
    numbers: dict[int, int] = field(default_factory=dict)
    """By mark: which version it became."""
    live: int = 0
    """How many of them went live."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _over: threading.Event = field(default_factory=threading.Event)

    def run(self, switches: int, *, say: Callable[[str], None], clients: int = 3) -> None:
        """Deploy until so many versions have gone live; first one, then in bursts. `say` hears how far it is."""
        self._deploy(1)
        threads = [threading.Thread(target=self._ask, args=(post,)) for _ in range(clients) for post in (False, True)]
        threads.append(threading.Thread(target=self._keep_coming))
        for thread in threads:
            thread.start()
        try:
            mark = 2
            while self.live < switches:
                mark = self._burst(mark)
                say(f"{self.live} of {switches} switches, {len(self.answers)} requests, {len(self.failures)} failed")
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    @property
    def stale(self) -> list[str]:
        """The requests that were, each in words."""
        order = [(ended, self.numbers.get(mark, 0)) for _, ended, mark in self.answers]
        order.sort()
        newest = list(accumulate(order, lambda best, one: max(best, one, key=lambda entry: entry[1])))
        found = []
        for began, ended, mark in self.answers:
            before = bisect_left(order, (began, 0))
            if before and newest[before - 1][1] > (number := self.numbers.get(mark, 0)):
                at, later = newest[before - 1]
                found.append(
                    f"{(began - at) * 1000:.1f} ms after version {later} had answered, version {number} was asked,"
                    f" and answered after {(ended - began) * 1000:.1f} ms"
                )
        return found

    def _burst(self, mark: int) -> int:
        deploys = []
        stalled: int | None = None
        for number in range(BURST):
            if number == BURST // 2:
                stalled = self._stall()
            deploys.append(threading.Thread(target=self._deploy, args=(mark + number,)))
            deploys[-1].start()
            time.sleep(PAUSE_S)
            if number == BURST // 2 + 1 and stalled is not None:
                time.sleep(STALL_S)
                with suppress(ProcessLookupError):
                    os.kill(stalled, signal.SIGCONT)
        for deploy in deploys:
            deploy.join()
        return mark + BURST

    def _stall(self) -> int | None:
        states = []
        for path in self.instance.layout.sandboxes.glob("s*/state.json"):
            with suppress(OSError, ValueError):
                states.append(json.loads(path.read_text()))
        own = [s for s in states if s["state"] == "running" and s["run"]["app_id"] == self.name]
        if not own:
            return None
        pid = int(max(own, key=lambda state: int(state["run"]["run"]))["pid"])
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            return pid
        return None

    def _deploy(self, mark: int) -> None:
        try:
            with self.instance.connect() as api:
                answer = api.send(self.instance.deploy_request(self.name, packed(self.source(f"mark-v{mark}"))))
            body = answer.json()
            with self._lock:
                self.numbers[mark] = int(body["version"])
                self.live += body["phase"] == "Ready"
        except (OSError, web.Broken, ValueError, KeyError) as error:
            self._failed(f"deploy {mark}: {type(error).__name__}: {error}")

    def _keep_coming(self) -> None:
        """Somebody new every few milliseconds, whatever becomes of those who wait for what is stalled."""

        def come() -> None:
            with self.instance.connect() as connection:
                self._once(connection, web.get("/", self.instance.host(self.name)))

        visits = []
        while not self._over.is_set():
            visits.append(threading.Thread(target=come))
            visits[-1].start()
            time.sleep(0.05)
        for visit in visits:
            visit.join()

    def _ask(self, post: bool) -> None:
        host = self.instance.host(self.name)
        request = web.request("POST", "/", host, BODY) if post else web.get("/", host)
        with self.instance.connect() as connection:
            while not self._over.is_set():
                self._once(connection, request)

    def _once(self, connection: web.Connection, request: bytes) -> None:
        began = time.monotonic()
        try:
            answer = connection.send(request)
        except (OSError, web.Broken) as error:
            self._failed(f"{type(error).__name__}: {error}")
            return
        match = _MARK.search(answer.body)
        if answer.status != 200 or match is None:
            self._failed(f"{answer.status} {answer.body[:150]!r}")
            return
        with self._lock:
            self.answers.append((began, time.monotonic(), int(match[1])))

    def _failed(self, why: str) -> None:
        with self._lock:
            self.failures.append(why[:300])
