"""A steady load on one app that judges every answer: failed, or stale (of a version that was replaced before it began).

Nothing is ever repeated: what a visitor would see as an error is one here.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from types import TracebackType

import httpx
import websockets

from tests.e2e.client import Client

_VERSION = re.compile(r"version (\d+)")
_BODY = random.Random(7).randbytes(48 * 1024)
_DIGEST = hashlib.sha256(_BODY).hexdigest()


@dataclass(frozen=True, slots=True)
class Seen:
    """One exchange."""

    kind: str
    began: float
    version: int
    error: str = ""
    ended: float = 0.0


@dataclass(slots=True)
class Load:
    """`async with Load(client, app_id, get=2, post=1, websocket=1) as load`: tasks of each kind until it ends."""

    client: Client
    app_id: str
    get: int = 0
    post: int = 0
    websocket: int = 0
    newcomers: bool = False
    """Whether somebody new comes every few milliseconds besides, whatever becomes of those before."""
    seen: list[Seen] = field(init=False, default_factory=list)
    _switches: list[tuple[float, int]] = field(init=False, default_factory=list)
    _tasks: list[asyncio.Task[None]] = field(init=False, default_factory=list)
    _ending: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _progress: asyncio.Event = field(init=False, default_factory=asyncio.Event)

    async def __aenter__(self) -> Load:
        for count, exchange in ((self.get, self._get), (self.post, self._post), (self.websocket, self._talk)):
            self._tasks += [asyncio.create_task(self._repeat(exchange)) for _ in range(count)]
        if self.newcomers:
            self._tasks.append(asyncio.create_task(self._keep_coming()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        await asyncio.gather(*self._tasks)

    def switched(self, version: int) -> None:
        """From now on a request that begins must not reach an older version."""
        self._switches.append((time.monotonic(), version))

    async def quiet_until(self, exchanges: int) -> None:
        """Until every kind has had so many more exchanges."""
        before = self.counts()
        kinds = [kind for kind in ("get", "post", "websocket") if getattr(self, kind)]
        async with asyncio.timeout(60):
            while any(self.counts()[kind] - before[kind] < exchanges for kind in kinds):
                self._progress.clear()
                await self._progress.wait()

    def counts(self) -> Counter[str]:
        """Exchanges by kind."""
        return Counter(one.kind for one in self.seen)

    @property
    def failed(self) -> list[Seen]:
        return [one for one in self.seen if one.error]

    @property
    def stale(self) -> list[Seen]:
        return [one for one in self.seen if not one.error and one.version < self._least(one.began)]

    def behind(self, order: Mapping[int, int]) -> list[Seen]:
        """Exchanges that began after another had been answered by a later version, in the `order` in which they became
        versions: the strictest that visitors can observe.
        """
        good = [one for one in self.seen if not one.error]
        ends = sorted((one.ended, order[one.version]) for one in good)
        newest = list(accumulate((number for _, number in ends), max))
        found = []
        for one in good:
            before = bisect_left(ends, (one.began, 0))
            if before and newest[before - 1] > order[one.version]:
                found.append(one)
        return found

    def _least(self, at: float) -> int:
        return max((version for when, version in self._switches if when <= at), default=0)

    async def _repeat(self, exchange: Callable[[httpx.AsyncClient], Awaitable[int]]) -> None:
        async with self._browser() as http:
            while not self._ending.is_set():
                await self._once(exchange, http)
                await asyncio.sleep(0.004)

    async def _keep_coming(self) -> None:
        async with self._browser(kept=0) as http, asyncio.TaskGroup() as visits:
            while not self._ending.is_set():
                visits.create_task(self._once(self._get, http))
                await asyncio.sleep(0.05)

    def _browser(self, kept: int | None = None) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.client.port}",
            headers={"Host": self.client.host(self.app_id)},
            timeout=30.0,
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=kept),
        )

    async def _once(self, exchange: Callable[[httpx.AsyncClient], Awaitable[int]], http: httpx.AsyncClient) -> None:
        kind = {"_get": "get", "_post": "post", "_talk": "websocket"}[exchange.__name__]
        began = time.monotonic()
        try:
            version = await exchange(http)
            self.seen.append(Seen(kind, began, version, ended=time.monotonic()))
        except (AssertionError, OSError, httpx.HTTPError, websockets.WebSocketException) as error:
            self.seen.append(Seen(kind, began, 0, f"{type(error).__name__}: {error}"[:300]))
        self._progress.set()

    async def _get(self, http: httpx.AsyncClient) -> int:
        answer = await http.get("/")
        match = _VERSION.search(answer.text)
        assert answer.status_code == 200 and match, f"{answer.status_code} {answer.text[:200]}"
        return int(match[1])

    async def _post(self, http: httpx.AsyncClient) -> int:
        answer = await http.post("/echo", content=_BODY)
        assert answer.status_code == 200, f"{answer.status_code} {answer.text[:200]}"
        body = answer.json()
        assert body["sha256"] == _DIGEST, "the body that arrived is not the one that was sent"
        return int(body["version"])

    async def _talk(self, http: httpx.AsyncClient) -> int:
        async with connect(self.client, self.app_id) as socket:
            version = ""
            for number in range(4):
                await socket.send(f"message {number}")
                version, _, echoed = str(await asyncio.wait_for(socket.recv(), 20)).partition(" ")
                assert echoed == f"message {number}", echoed
                await asyncio.sleep(0.02)
            return int(version)


def connect(client: Client, app_id: str, path: str = "/ws") -> websockets.connect:
    """A WebSocket to an app."""
    return websockets.connect(
        f"ws://{client.host(app_id)}{path}", host="127.0.0.1", port=client.port, proxy=None, open_timeout=20
    )
