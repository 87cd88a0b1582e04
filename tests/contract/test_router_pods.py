"""The router of a cluster with the real Caddy: names lead to addresses, one for each run, and to nobody else's."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
import pytest

from tests.contract.router_kit import Router, ended, running
from vibed.apps.app import Route
from vibed.router.addressed import AddressedMarkers

ACTIVATED = b"HTTP/1.1 204 No Content\r\n\r\n"


@dataclass(eq=False)
class Pod:
    """What an agent's ingress is to the proxy: it answers for one run alone, on connections that are kept."""

    run: str
    says: bytes
    breaks_off: bool = False
    """Whether its answers end before they are whole."""
    headers: list[bytes] = field(default_factory=list)
    server: asyncio.Server | None = None
    connections: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def address(self) -> str:
        assert self.server is not None
        return f"127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def begin(self) -> Pod:
        self.server = await asyncio.start_server(self._converse, "127.0.0.1", 0)
        return self

    async def kill(self) -> None:
        assert self.server is not None
        self.server.close()
        for connection in tuple(self.connections):
            await ended(connection)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.headers.append(head)
                lines = {
                    line.partition(b":")[0].lower(): line.partition(b":")[2].strip() for line in head.split(b"\r\n")
                }
                body = await reader.readexactly(int(lines.get(b"content-length", b"0")))
                if lines.get(b"x-vibed-run") != self.run.encode():
                    refused = b"HTTP/1.1 421 Misdirected Request\r\nX-Vibed-Error: AnotherRun\r\n"
                    writer.write(refused + b"Content-Length: 6\r\n\r\nsecret")
                else:
                    said = self.says + b" %d" % len(body)
                    length = len(said) + (1 if self.breaks_off else 0)
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (length, said))
                await writer.drain()
                if self.breaks_off:
                    break
        writer.close()


@dataclass
class Cluster:
    router: Router
    markers: AddressedMarkers
    pods: list[Pod] = field(default_factory=list)

    async def pod(self, run: str, says: bytes) -> Pod:
        self.pods.append(await Pod(run, says).begin())
        return self.pods[-1]

    async def leads(self, app_id: str, run: int, says: bytes) -> Pod:
        """A new pod, to which the name leads."""
        pod = await self.pod(f"{app_id}/{run}", says)
        self.markers.lead(app_id, Route(run, run, pod.address))
        return pod


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with running({"substrate": "kubernetes"}) as router:
        made = Cluster(router, AddressedMarkers(router.layout.apps))
        made.markers.begin()
        yield made
        for pod in made.pods:
            await pod.kill()


async def test_a_name_leads_to_the_pod_of_its_run_and_says_which_run_it_means(cluster: Cluster) -> None:
    todo, other = await cluster.leads("todo", 7, b"todo"), await cluster.leads("other", 1, b"other")
    assert (await cluster.router.ask("todo.localhost")).text == "todo 0"
    assert (await cluster.router.ask("OTHER.localhost", headers={"X-Vibed-Run": "todo/7"})).text == "other 0"
    assert b"X-Vibed-Run: todo/7" in todo.headers[0]
    assert other.headers[0].count(b"X-Vibed-Run") == 1, "a visitor cannot say which run is meant"


async def test_under_load_no_request_fails_and_none_that_begins_after_a_switch_is_answered_by_an_earlier_run(
    cluster: Cluster,
) -> None:
    await cluster.leads("todo", 1, b"1")
    now, over, asked, wrong = 1, False, 0, []

    async def visitor() -> None:
        nonlocal asked
        url = f"http://127.0.0.1:{cluster.router.config.port}/"
        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            while not over:
                least = now
                answer = await client.post(url, content=b"x" * 2000, headers={"Host": "todo.localhost"})
                asked += 1
                if answer.status_code != 200 or int(answer.text.split()[0]) < least:
                    wrong.append((least, answer.status_code, answer.text))

    visitors = [asyncio.ensure_future(visitor()) for _ in range(4)]
    for run in range(2, 30):
        pod = cluster.pods[-1]
        await cluster.leads("todo", run, b"%d" % run)
        now = run
        await asyncio.sleep(0.05)
        # an agent drains before it ends: what it was asked before the switch has been answered
        asyncio.get_running_loop().call_later(1.5, asyncio.ensure_future, pod.kill())
    await asyncio.sleep(0.2)
    over = True
    await asyncio.gather(*visitors)
    await asyncio.sleep(1.6)
    assert not wrong
    assert asked > 50


async def test_an_address_that_is_another_apps_by_now_answers_nothing_of_it(cluster: Cluster) -> None:
    pod = await cluster.pod("other/3", b"other")
    cluster.markers.lead("todo", Route(1, 1, pod.address))
    answer = await cluster.router.ask("todo.localhost", method="POST", content=b"mine")
    assert answer.status_code == 503
    assert answer.json()["code"] == "AppMoved"
    assert answer.headers["Retry-After"]
    assert "secret" not in answer.text


async def test_a_name_that_leads_nowhere_is_held_by_the_activator_and_its_body_sent_once(cluster: Cluster) -> None:
    async def activate(head: str) -> bytes:
        await asyncio.sleep(0.2)
        await cluster.leads("late", 1, b"late")
        return ACTIVATED

    cluster.router.activate = activate
    answer = await cluster.router.ask("late.localhost", method="POST", content=b"x" * 50_000)
    assert answer.text == "late 50000"
    assert len(cluster.pods[-1].headers) == 1


async def test_a_pod_that_is_gone_leads_to_the_activator_and_from_there_to_the_next(cluster: Cluster) -> None:
    gone = await cluster.leads("todo", 1, b"gone")
    assert (await cluster.router.ask("todo.localhost")).text == "gone 0"
    await gone.kill()

    async def activate(head: str) -> bytes:
        await cluster.leads("todo", 2, b"next")
        return ACTIVATED

    cluster.router.activate = activate
    assert (await cluster.router.ask("todo.localhost", method="POST", content=b"abc")).text == "next 3"


async def test_activated_and_still_nowhere_is_told_and_never_an_empty_200(cluster: Cluster) -> None:
    async def activate(head: str) -> bytes:
        return ACTIVATED

    cluster.router.activate = activate
    answer = await cluster.router.ask("nobody.localhost")
    assert (answer.status_code, answer.json()["code"]) == (503, "AppMoved")


async def test_names_that_are_patterns_lead_nowhere(cluster: Cluster) -> None:
    await cluster.leads("todo", 1, b"todo")

    async def activate(head: str) -> bytes:
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno"

    cluster.router.activate = activate
    for name in itertools.chain(
        ("*", "[t]odo", "tod?", "..", "todo%2f"),
    ):
        assert (await cluster.router.ask(f"{name}.localhost")).status_code in (400, 404)


async def test_an_apps_own_domain_is_the_same_run_of_the_same_app(cluster: Cluster) -> None:
    pod = await cluster.leads("todo", 7, b"todo")
    (cluster.router.layout.apps / "own").symlink_to("todo")
    assert (await cluster.router.ask("own.localhost")).text == "todo 0"
    assert b"X-Vibed-Run: todo/7" in pod.headers[0]


async def test_caddy_puts_no_request_into_words_for_a_log_that_may_want_them(cluster: Cluster) -> None:
    """It does for each, ahead of time, where its proxy may write a line; and an app must not be able to have lines
    written by breaking off its answers.
    """
    pod = await cluster.leads("todo", 1, b"todo")
    assert (await cluster.router.ask("todo.localhost")).text == "todo 0"
    said, pod.breaks_off = cluster.router.log.read_text(), True
    with pytest.raises(httpx.RemoteProtocolError):
        await cluster.router.ask("todo.localhost")
    assert cluster.router.log.read_text() == said
