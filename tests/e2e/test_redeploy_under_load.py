"""New versions under load: no request fails, and none that begins after a switch reaches the old version."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
from collections.abc import Callable, Iterator

import pytest
import websockets

from tests.e2e import samples
from tests.e2e.conftest import Apps
from tests.e2e.instance import Instance
from tests.e2e.load import Load, connect
from tests.stopping import stop

CASES = [
    pytest.param("static-nginx", samples.static, {"get": 4}, 12, id="static"),
    pytest.param("workerd", samples.worker, {"get": 2, "post": 1, "websocket": 1}, 10, id="worker"),
    pytest.param("python-313", samples.python, {"get": 2, "post": 1, "websocket": 1}, 5, id="python"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("template", "sample", "load", "versions"), CASES)
async def test_nothing_fails_and_nothing_is_stale(
    vibed: Instance,
    apps: Apps,
    template: str,
    sample: Callable[[object], samples.Files],
    load: dict[str, int],
    versions: int,
) -> None:
    vibed.client.wait_for_template(template)
    name = apps.name()
    await asyncio.to_thread(vibed.client.deploy_ready, name, sample(1))
    async with Load(vibed.client, name, **load) as running:
        await running.quiet_until(3)
        for version in range(2, versions + 1):
            deployed = await asyncio.to_thread(vibed.client.deploy_ready, name, sample(version))
            assert deployed.number == version
            running.switched(version)
            await running.quiet_until(3)
    assert not running.failed, f"{len(running.failed)} of {len(running.seen)}: {running.failed[:5]}"
    assert not running.stale, f"{len(running.stale)} of {len(running.seen)}: {running.stale[:5]}"
    assert {one.version for one in running.seen} == set(range(1, versions + 1))


@pytest.mark.slow
async def test_nor_when_versions_follow_each_other_faster_than_the_old_ones_end(vibed: Instance, apps: Apps) -> None:
    vibed.client.wait_for_template("workerd")
    name = apps.name()
    await asyncio.to_thread(vibed.client.deploy_ready, name, samples.worker(1))
    async with Load(vibed.client, name, get=2, post=1) as running:
        for version in range(2, 42):
            await asyncio.to_thread(vibed.client.deploy_ready, name, samples.worker(version))
            running.switched(version)
            # a drain of nothing takes 100 ms and a little: the name moves on just when the run before last ends
            await asyncio.sleep(0.07 + 0.01 * (version % 8))
    assert not running.failed, f"{len(running.failed)} of {len(running.seen)}: {running.failed[:5]}"
    assert not running.stale, f"{len(running.stale)} of {len(running.seen)}: {running.stale[:5]}"


@contextlib.contextmanager
def stalled(vibed: Instance, name: str) -> Iterator[None]:
    """The supervisor of the run that serves hears nothing meanwhile."""
    states = [json.loads(path.read_text()) for path in vibed.layout.sandboxes.glob("s*/state.json")]
    own = [state for state in states if state["state"] == "running" and state["run"]["app_id"] == name]
    pid = max(own, key=lambda state: int(state["run"]["run"]))["pid"]
    stop(pid)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


STORMS = [
    pytest.param("workerd", samples.worker, 20, id="worker"),
    pytest.param("python-313", samples.python, 6, id="python"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("template", "sample", "deploys"), STORMS)
async def test_nor_in_a_storm_of_redeploys_while_what_serves_is_stalled(
    vibed: Instance, apps: Apps, template: str, sample: Callable[[object], samples.Files], deploys: int
) -> None:
    vibed.client.wait_for_template(template)
    name = apps.name()
    numbers = {}
    marks = itertools.count(1)

    async def deploy() -> None:
        mark = next(marks)
        answer = await asyncio.to_thread(vibed.client.post_deploy, name, sample(mark))
        assert answer.status_code in (200, 202), answer.text
        numbers[mark] = int(answer.json()["version"])

    await deploy()
    steady = Load(vibed.client, name, get=2, post=1, websocket=1, newcomers=True)
    async with steady as load, asyncio.TaskGroup() as storm:
        await load.quiet_until(3)
        with stalled(vibed, name):
            for _ in range(2):
                storm.create_task(deploy())
                await asyncio.sleep(0.7)
        await load.quiet_until(3)
        for number in range(deploys):
            storm.create_task(deploy())
            await asyncio.sleep(0.1)
            if number % 8 == 5:
                with stalled(vibed, name):
                    await asyncio.sleep(1.0)
    last = max(numbers.values())
    versions = vibed.client.ask("GET", f"/v1/apps/{name}/versions?limit=100")["items"]
    assert vibed.client.settled(name, last)["phase"] == "Ready"
    assert not load.failed, f"{len(load.failed)} of {len(load.seen)}: {load.failed[:5]}"
    behind = load.behind(numbers)
    assert not behind, f"{len(behind)} of {len(load.seen)}: {behind[:5]}"
    answered = {numbers[one.version] for one in load.seen}
    failed = {item["version"]: item["reason"] for item in versions if item["phase"] == "Failed"}
    assert set(failed.values()) <= {"Superseded"}
    assert not answered & failed.keys(), "it answered, and is told never to have been ready"


@pytest.mark.parametrize(("template", "sample"), [("workerd", samples.worker), ("python-313", samples.python)])
async def test_an_open_websocket_goes_on_until_the_drain_deadline_and_is_told(
    vibed: Instance, apps: Apps, template: str, sample: Callable[[object], samples.Files]
) -> None:
    vibed.client.wait_for_template(template)
    name = apps.name()
    await asyncio.to_thread(vibed.client.deploy_ready, name, sample(1))
    async with connect(vibed.client, name) as socket:
        await socket.send("before")
        assert await socket.recv() == "1 before"
        await asyncio.to_thread(vibed.client.deploy_ready, name, sample(2))
        await socket.send("after")
        assert await socket.recv() == "1 after", "an open connection stays with the version it was made to"
        async with connect(vibed.client, name) as fresh:
            await fresh.send("new")
            assert await fresh.recv() == "2 new"
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await asyncio.wait_for(socket.recv(), 30)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012


async def test_a_request_that_is_under_way_is_finished_by_the_version_it_began_on(vibed: Instance, apps: Apps) -> None:
    vibed.client.wait_for_template("python-313")
    source = """
import asyncio
from fastapi import FastAPI
app = FastAPI()

@app.get("/slow")
async def slow():
    await asyncio.sleep(3)
    return "version @VERSION@"

@app.get("/")
async def index():
    return "version @VERSION@"
"""
    name = apps.name()
    await asyncio.to_thread(vibed.client.deploy_ready, name, {"main.py": source.replace("@VERSION@", "1")})
    slow = asyncio.create_task(asyncio.to_thread(vibed.client.visit, name, "/slow"))
    await asyncio.sleep(0.3)
    await asyncio.to_thread(vibed.client.deploy_ready, name, {"main.py": source.replace("@VERSION@", "2")})
    assert vibed.client.visit(name).json() == "version 2"
    answer = await slow
    assert (answer.status_code, answer.json()) == (200, "version 1")
