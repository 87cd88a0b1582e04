"""Whatever dies, and whenever: what was acknowledged is there, what was not touched goes on, and URLs come back.

The second vibeD is the one that is killed.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from h11 import LocalProtocolError

from tests.e2e import samples
from tests.e2e.conftest import Apps
from tests.e2e.instance import PARTS, Instance
from tests.e2e.waiting import eventually
from tests.stopping import stop
from vibed.apps.app import Resources
from vibed.apps.sqlite.store import SqliteStore
from vibed.apps.store import NewVersion
from vibed.processes import start_time

BACK_S = 30.0
"""Generous: the tests share a small machine. The bench measures how quick it is."""


@pytest.fixture(autouse=True)
def _everything(second: Instance) -> None:
    """What one test killed for good must not fail the next."""
    if set(second.pids()) != set(PARTS) or second.watchdog_pid() is None:
        second.up()
    for template in ("workerd", "python-313"):
        second.client.wait_for_template(template)


@pytest.fixture
def three(second_apps: Apps) -> list[str]:
    """One app of each kind, Ready."""
    return [
        second_apps.ready(samples.static(1), hint="s"),
        second_apps.ready(samples.worker(1), hint="w"),
        second_apps.ready(samples.python_hello(1), hint="p"),
    ]


def test_a_version_of_which_nobody_told_the_controller_is_started_all_the_same(
    second: Instance, second_apps: Apps
) -> None:
    name = second_apps.ready(samples.static(1), hint="s")

    async def write() -> None:
        store = await SqliteStore.open(second.layout.database)
        version = await store.version(name, 1)
        await store.deploy(
            NewVersion(name, (await store.get(name)).owner, version.created_by, version.source_digest,
                       version.source_size, version.runtime, {}, Resources())
        )  # fmt: skip
        await store.close()

    asyncio.run(write())
    second.client.settled(name, 2, within_s=60)
    assert second.client.app(name)["serving_version"] == 2


@contextmanager
def _visited(second: Instance, names: list[str]) -> Iterator[dict[str, list[str]]]:
    """Visit apps all the time; what went wrong, by app."""
    wrong: dict[str, list[str]] = {name: [] for name in names}
    ending = threading.Event()

    def visit(name: str) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{second.port}", trust_env=False, timeout=20) as http:
            while not ending.is_set():
                try:
                    answer = http.get("/", headers={"Host": second.client.host(name)})
                    if answer.status_code != 200 or "version" not in answer.text:
                        wrong[name].append(f"{answer.status_code} {answer.text[:100]}")
                except httpx.HTTPError as error:
                    wrong[name].append(f"{type(error).__name__}: {error}")
                time.sleep(0.01)

    threads = [threading.Thread(target=visit, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.1)
        yield wrong
        time.sleep(0.1)
    finally:
        ending.set()
        for thread in threads:
            thread.join()


def _all_serve(second: Instance, names: list[str]) -> Callable[[], bool]:
    return lambda: all(
        (answer := second.client.visit(name)).status_code == 200 and "version" in answer.text for name in names
    )


def _end(pid: int) -> None:
    born = start_time(pid)
    if born is None:
        return
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: start_time(pid) != born, f"process {pid} is gone", every_s=0.005)


@pytest.mark.parametrize("part", ["serve", "controller", "watchdog"])
def test_apps_do_not_notice_that_a_part_of_vibed_is_killed(second: Instance, three: list[str], part: str) -> None:
    before = second.pids()
    with _visited(second, three) as wrong:
        second.kill(part)
        if part == "watchdog":
            second.up()
        eventually(lambda: set(second.pids()) == set(PARTS), "all parts run again", within_s=BACK_S)
        second.wait_until_ready()
    assert wrong == {name: [] for name in three}
    if part == "watchdog":
        assert second.pids() == before, "a new watchdog takes over what runs"
    else:
        assert second.pids()[part] != before[part]
    assert second.client.deploy_ready(three[0], samples.static(2)).number == 2
    assert second.client.deploy_ready(three[2], samples.python_hello(2)).number == 2


def test_while_the_api_is_down_its_callers_are_told_to_come_back(second: Instance) -> None:
    """And an app that is not there is never an empty 200."""
    guard = second.watchdog_pid()
    assert guard is not None
    stop(guard)  # which would start the next one within a moment
    try:
        os.kill(second.pids()["serve"], signal.SIGKILL)
        answer = eventually(
            lambda: a if (a := second.client.api("GET", "/v1/apps")).status_code == 503 else None,
            "the API is seen to be down",
        )
        assert answer is not None
        assert answer.headers["retry-after"]
        assert answer.json()["code"] == "VibedUnavailable"
    finally:
        os.kill(guard, signal.SIGCONT)
        second.wait_until_ready()


def test_caddy_is_back_and_so_is_every_app(second: Instance, three: list[str]) -> None:
    second.kill("caddy")
    eventually(_all_serve(second, three), "every app serves again", within_s=BACK_S)
    assert second.client.app(three[2])["serving_version"] == 1


@pytest.mark.parametrize("kind", ["worker", "python"])
@pytest.mark.parametrize("what", ["supervisor", "sandbox"])
def test_an_app_whose_sandbox_dies_comes_back_on_a_new_one(
    second: Instance, three: list[str], kind: str, what: str
) -> None:
    name = three[1] if kind == "worker" else three[2]
    others = [other for other in three if other != name]
    before = second.sandbox_of(name)
    with _visited(second, others) as wrong:
        if what == "supervisor":
            _end(before["pid"])
        else:
            for pid in _children(before["pid"]):
                _end(pid)
        eventually(_all_serve(second, [name]), "the app serves again", within_s=BACK_S)
    after = eventually(lambda: second.sandbox_of(name), "it has a sandbox", within_s=10)
    assert after["id"] != before["id"], "a sandbox is never used again"
    assert wrong == {other: [] for other in others}
    eventually(lambda: not Path(before["folder"]).exists(), "the dead sandbox is cleared away", within_s=BACK_S)


def _children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(stat[1]) == pid:
                    found.append(int(entry.name))
    assert found, f"process {pid} has no child"
    return found


def test_everything_at_once(second: Instance, three: list[str]) -> None:
    supervisors = [second.sandbox_of(name)["pid"] for name in three[1:]]
    sandboxes = [child for pid in supervisors for child in _children(pid)]
    second.kill("watchdog", *PARTS)
    for pid in (*supervisors, *sandboxes):
        _end(pid)
    second.up()
    eventually(_all_serve(second, three), "every app serves again", within_s=BACK_S)
    for name in three:
        assert second.client.app(name)["serving_version"] == 1


def test_down_and_up_again_brings_every_app_back(second: Instance, three: list[str]) -> None:
    done = second.down()
    assert done.returncode == 0, done.stderr
    assert not list(second.layout.sandboxes.glob("s*")), "down ends the sandboxes"
    with pytest.raises(httpx.ConnectError):
        second.client.visit(three[0])
    second.up()
    for name in three:
        eventually(_all_serve(second, [name]), f"{name} comes back by being asked for", within_s=BACK_S)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["serve", "controller", "both"])
@pytest.mark.parametrize(
    ("sample", "longest_s", "rounds"),
    [(samples.static, 0.03, 3), (samples.worker, 0.08, 3), (samples.python_hello, 0.4, 2)],
)
def test_nothing_acknowledged_is_lost_at_any_point_of_a_deploy(
    second: Instance,
    second_apps: Apps,
    victim: str,
    sample: Callable[[object], samples.Files],
    longest_s: float,
    rounds: int,
) -> None:
    """A deploy is sent, a part of vibeD is killed at a random moment of it."""
    seed = random.randrange(1 << 32)
    choice = random.Random(seed)
    second.forget_deaths()
    name = second_apps.name()
    second.client.deploy_ready(name, sample(1))
    parts = ("serve", "controller") if victim == "both" else (victim,)
    acknowledged = 1
    for version in range(2, 2 + rounds):
        answers: list[httpx.Response] = []

        def send(version: int = version, answers: list[httpx.Response] = answers) -> None:
            client = second.client_with(second.admin_key)
            with suppress(httpx.HTTPError):
                answers.append(client.post_deploy(name, sample(version)))
            client.close()

        thread = threading.Thread(target=send)
        thread.start()
        time.sleep(choice.uniform(0, longest_s))
        second.kill(*parts)
        thread.join()
        second.wait_until_ready()
        said = [answer for answer in answers if answer.status_code in (200, 202)]
        if said:
            acknowledged = max(acknowledged, said[0].json()["version"])
        found = second.client.app(name)
        told = f"seed {seed}, round {version}: acknowledged {acknowledged}, found {found}"
        assert found["version"] >= acknowledged, told
        newest = second.client.settled(name, found["version"])
        assert newest["phase"] == "Ready", f"{told}: {newest}"
        eventually(
            lambda: second.client.app(name)["serving_version"] == second.client.app(name)["version"],
            told,
            within_s=BACK_S,
        )
        page = second.client.visit(name)
        assert page.status_code == 200, told
        if said and said[0].json()["version"] == found["version"]:
            assert f"version {version}" in page.text, told


def test_sources_that_no_version_names_are_collected(second: Instance, second_apps: Apps) -> None:
    """A deploy that was cut off leaves nothing for ever."""
    name = second_apps.ready(samples.static(1))
    head = b'--x\r\nContent-Disposition: form-data; name="source"; filename="s"\r\n\r\n' + os.urandom(300_000)
    with suppress(httpx.HTTPError, LocalProtocolError):  # an early answer leaves the body unsent

        def half() -> Iterator[bytes]:
            yield head
            second.kill("serve")
            yield head

        second.client.api(
            "POST",
            "/v1/deploy",
            content=half(),
            headers={"Content-Type": "multipart/form-data; boundary=x", "Content-Length": str(10 * len(head))},
        )
    second.wait_until_ready()
    kept = [path.name for path in second.layout.sources.rglob("*") if path.is_file() and path.suffix != ".gz"]
    assert kept == [], "what was half received is gone"
    assert "version 1" in second.client.visit(name).text
