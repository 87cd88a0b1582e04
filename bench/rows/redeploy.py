"""Redeploys under load: every request gets a whole answer, and none that begins after a switch the old version.

A request is stale when it began after somebody had seen a newer version than it got: a deploy's answer, or any answer
of the app. That is the strongest thing that a client can observe, and needs no clock of the switch itself.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from bench import sources, web
from bench.harness import Bench
from bench.instance import Instance, NotLive
from bench.report import Row, none_of
from bench.storm import Storm

KINDS: dict[str, tuple[sources.Source, tuple[str, ...]]] = {
    "static": (sources.static, ("GET",)),
    "worker": (sources.worker, ("GET", "POST", "WebSocket")),
    "python": (sources.python_echo, ("GET", "POST", "WebSocket")),
}
CLIENTS = {"GET": 3, "POST": 3, "WebSocket": 2}
BODY = b"x" * 2048
_VERSION = re.compile(rb"mark-v(\d+)")


@dataclass
class _Seen:
    """What all clients of one app know together."""

    newest: int = 0
    """The newest version that anybody was told of or answered by."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    requests: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    stale: Counter[str] = field(default_factory=Counter)
    said: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def answered(self, kind: str, known: int, version: int) -> None:
        """`known` was the newest when the request began."""
        with self.lock:
            self.requests[kind] += 1
            if version < known:
                self.stale[kind] += 1
                self._say(f"{kind}: version {version} after {known} had been seen")
            self.newest = max(self.newest, version)

    def broke(self, kind: str, why: str) -> None:
        with self.lock:
            self.requests[kind] += 1
            self.failed[kind] += 1
            self._say(f"{kind}: {why}")

    def _say(self, text: str) -> None:
        if len(self.said) < 6:
            self.said.append(text[:300])


def measure(bench: Bench) -> Row:
    row = bench.begin("redeploy", "redeploys under load of GET, POST with a body, WebSocket")
    for kind, (source, methods) in KINDS.items():
        seen, times, long = _measure(bench, kind, source, methods)
        row.time(f"{kind}: redeploy, POST ▸ 200 under load", times)
        for method in methods:
            row.figures[f"{kind}, {method}: requests"] = seen.requests[method]
        row.figures |= long
        row.notes += [f"{kind}: {said}" for said in seen.said]
        row.verdicts.append(none_of(f"{kind}: 0 failed", dict(seen.failed)))
        row.verdicts.append(none_of(f"{kind}: 0 stale", dict(seen.stale)))
    for kind, source, switches in (("worker", sources.worker, 1000), ("python", sources.python_echo, 100)):
        _storm(bench, row, kind, source, bench.count(switches, 20))
    return row


def _storm(bench: Bench, row: Row, kind: str, source: sources.Source, switches: int) -> None:
    name = f"storm-{kind}-{secrets.token_hex(2)}"
    storm = Storm(bench.instance, name, source)
    storm.run(switches, say=bench.say)
    row.figures[f"{kind}, storm: switches"] = storm.live
    row.figures[f"{kind}, storm: requests"] = len(storm.answers) + len(storm.failures)
    row.notes += [f"{kind}, storm: {said}" for said in storm.failures[:6]]
    row.verdicts.append(none_of(f"{kind}, storm: 0 failed", {"request": len(storm.failures)}))
    stale = storm.stale
    row.notes += [f"{kind}, storm, stale: {said}" for said in stale[:6]]
    row.verdicts.append(none_of(f"{kind}, storm: 0 stale", {"request": len(stale)}))
    with bench.instance.connect() as api:
        bench.instance.delete(api, name)
    bench.instance.wait_gone([name], wait_s=90)


def _measure(
    bench: Bench, kind: str, source: sources.Source, methods: tuple[str, ...]
) -> tuple[_Seen, list[float], dict[str, int | float | str]]:
    instance = bench.instance
    name = f"redeploy-{kind}-{secrets.token_hex(2)}"
    seen = _Seen()
    times: list[float] = []
    long: dict[str, int | float | str] = {}
    rounds = bench.count(15, 3)
    with instance.connect() as api, instance.connect() as visitor:

        def deploy(version: int) -> float:
            mark = f"mark-v{version}"
            packed = sources.packed(source(mark))
            one = instance.deploy(api, visitor, name, packed, mark)
            if one.ready:
                with seen.lock:
                    seen.newest = max(seen.newest, version)
            return one.live_ms

        instance.wait_warm()
        deploy(1)
        clients: dict[str, Callable[[Instance, str, _Seen], None]] = {
            "GET": _get, "POST": _post, "WebSocket": _websocket,
        }  # fmt: skip
        threads = [
            threading.Thread(target=clients[method], args=(instance, name, seen))
            for method in methods
            for _ in range(CLIENTS[method])
        ]
        open_one = web.WebSocket(instance.address, instance.host(name)) if "WebSocket" in methods else None
        if open_one is not None:
            open_one.receive()
        for thread in threads:
            thread.start()
        try:
            time.sleep(0.5)
            for version in range(2, rounds + 2):
                try:
                    times.append(deploy(version))
                except (NotLive, OSError, web.Broken) as error:
                    seen.broke("deploy", f"{type(error).__name__}: {error}")
                time.sleep(0.7)
                if open_one is not None:
                    try:
                        open_one.send(f"still {version}")
                        alive = open_one.receive() == f"still {version}"
                    except (OSError, web.Broken) as error:
                        alive = False
                        long[f"{kind}: the open WebSocket ended at version {version} with"] = str(error)
                    if not alive:
                        seen.broke("WebSocket", "one that was open across a switch did not echo")
                        open_one.close()
                        open_one = None
        finally:
            seen.stop.set()
            for thread in threads:
                thread.join()
        if open_one is not None:
            long[f"{kind}: a WebSocket that stayed open over all switches"] = "echoed after each"
            open_one.close()
        instance.delete(api, name)
    instance.wait_gone([name], wait_s=90)
    return seen, times, long


def _ask(instance: Instance, name: str, seen: _Seen, kind: str, request: bytes, *, ends: bytes = b"") -> None:
    with instance.connect() as connection:
        while not seen.stop.is_set():
            known = seen.newest
            try:
                answer = connection.send(request)
            except (OSError, web.Broken) as error:
                seen.broke(kind, f"{type(error).__name__}: {error}")
                continue
            match = _VERSION.search(answer.body)
            if answer.status != 200 or match is None:
                seen.broke(kind, f"{answer.status} {answer.body[:150]!r}")
            elif ends and not answer.body.endswith(ends):
                seen.broke(kind, f"the body did not arrive whole: {answer.body[:150]!r}")
            else:
                seen.answered(kind, known, int(match[1]))


def _get(instance: Instance, name: str, seen: _Seen) -> None:
    _ask(instance, name, seen, "GET", web.get("/", instance.host(name)))


def _post(instance: Instance, name: str, seen: _Seen) -> None:
    _ask(
        instance, name, seen, "POST", web.request("POST", "/", instance.host(name), BODY),
        ends=f" {len(BODY)}".encode(),
    )  # fmt: skip


def _websocket(instance: Instance, name: str, seen: _Seen) -> None:
    """Open, exchange a few messages, close; again."""
    while not seen.stop.is_set():
        known = seen.newest
        try:
            socket = web.WebSocket(instance.address, instance.host(name))
            greeting = socket.receive()
            match = _VERSION.search(greeting.encode())
            if match is None:
                raise web.Broken(f"greeted with {greeting!r}")
            for number in range(5):
                socket.send(f"n{number}")
                if (said := socket.receive()) != f"n{number}":
                    raise web.Broken(f"echoed {said!r}")
                time.sleep(0.02)
            socket.end()
        except (OSError, web.Broken) as error:
            seen.broke("WebSocket", f"{type(error).__name__}: {error}")
            time.sleep(0.01)
            continue
        seen.answered("WebSocket", known, int(match[1]))
