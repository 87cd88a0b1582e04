"""`vibed serve` as a process of its own: its sockets, its end, and what it leaves behind when it is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from api_harness import ADMIN_KEY, SITE, ScriptedController, archive, parts, scripted_controller

from vibed.layout import Layout

KEY = {"Authorization": f"Bearer {ADMIN_KEY}"}


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[tuple[Layout, ScriptedController]]:
    async with scripted_controller(tmp_path / "home", tmp_path / "run") as made:
        yield made


async def start(layout: Layout) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "vibed.cli.main", "serve",
        env={**os.environ, "VIBED_HOME": str(layout.home), "VIBED_LAYOUT": f"{layout.runtime}:{os.geteuid()}"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip


@asynccontextmanager
async def serving(layout: Layout) -> AsyncIterator[tuple[Process, httpx.AsyncClient]]:
    process = await start(layout)
    transport = httpx.AsyncHTTPTransport(uds=str(layout.serve_socket), retries=0)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:18080", headers=KEY) as client:
        try:
            async with asyncio.timeout(30):
                while True:
                    assert process.returncode is None, await _said(process)
                    try:
                        if (await client.get("/healthz")).status_code == 200:
                            break
                    except httpx.TransportError:
                        await asyncio.sleep(0.05)
            yield process, client
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _said(process: Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.read()).decode()


def incoming(layout: Layout) -> list[str]:
    return [path.name for path in (layout.sources / "incoming").iterdir()]


async def test_it_answers_on_a_socket_that_its_group_may_use(place: tuple[Layout, ScriptedController]) -> None:
    layout, _ = place
    async with serving(layout) as (_, client):
        for path in (layout.serve_socket, layout.activator_socket):
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert (await client.get("/readyz")).status_code == 200
        answer = await client.post("/v1/deploy", files=parts({"name": "todo"}, SITE))
        assert answer.status_code == 200, answer.text


async def test_the_activator_answers_for_a_name_that_nobody_has(place: tuple[Layout, ScriptedController]) -> None:
    layout, _ = place
    async with serving(layout):
        transport = httpx.AsyncHTTPTransport(uds=str(layout.activator_socket))
        async with httpx.AsyncClient(transport=transport, base_url="http://nobody.localhost:18080") as client:
            answer = await client.get("/missing")
    assert answer.status_code == 404


async def test_a_client_that_goes_away_in_the_middle_leaves_nothing(place: tuple[Layout, ScriptedController]) -> None:
    layout, _ = place
    async with serving(layout) as (_, client):
        _, writer = await asyncio.open_unix_connection(str(layout.serve_socket))
        writer.write(
            b"POST /v1/deploy HTTP/1.1\r\nHost: localhost:18080\r\nAuthorization: Bearer " + ADMIN_KEY.encode() +
            b"\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 5000000\r\n\r\n"
            b'--x\r\nContent-Disposition: form-data; name="source"\r\n\r\n' + os.urandom(2_000_000)
        )  # fmt: skip
        await writer.drain()
        async with asyncio.timeout(10):
            while not incoming(layout):
                await asyncio.sleep(0.01)
            writer.close()
            while incoming(layout):
                await asyncio.sleep(0.01)
        assert (await client.get("/v1/apps")).json()["total"] == 0
        assert (await client.get("/metrics")).status_code == 200


@pytest.mark.parametrize("key", [ADMIN_KEY, "wrong"])
async def test_a_refusal_comes_before_the_body_is_sent(place: tuple[Layout, ScriptedController], key: str) -> None:
    layout, _ = place
    async with serving(layout):
        reader, writer = await asyncio.open_unix_connection(str(layout.serve_socket))
        writer.write(
            f"POST /v1/deploy HTTP/1.1\r\nHost: localhost:18080\r\nAuthorization: Bearer {key}\r\n"
            "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 900000000\r\n"
            "Expect: 100-continue\r\n\r\n".encode()
        )
        async with asyncio.timeout(10):
            head = await reader.readline()
        assert head.split()[1] == (b"413" if key == ADMIN_KEY else b"401")
        writer.close()


async def test_it_ends_at_once_when_told_streams_or_not_and_a_reader_goes_on_at_the_next(
    place: tuple[Layout, ScriptedController],
) -> None:
    layout, _ = place

    def write(*seqs: int) -> None:
        folder = layout.run_log("todo", 1)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log.jsonl").open("a") as file:
            for seq in seqs:
                file.write(json.dumps({"seq": seq, "ts": seq, "stream": "stdout", "text": str(seq)}) + "\n")

    async def read(client: httpx.AsyncClient, last: str | None, until: int | None) -> list[str]:
        ids = []
        headers = {"Last-Event-ID": last} if last else {}
        async with client.stream("GET", "/v1/apps/todo/logs?follow=true", headers=headers) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("id: "):
                    ids.append(line.removeprefix("id: "))
                    if until is not None and len(ids) == until:
                        break
                    if until is None and len(ids) == 2:
                        process.send_signal(signal.SIGTERM)
        return ids

    async with serving(layout) as (process, client):
        await client.post("/v1/deploy", files=parts({"name": "todo"}, SITE))
        write(1, 2)
        async with asyncio.timeout(10):
            seen = await read(client, None, None)
            assert await process.wait() == 0
    assert seen == ["1-1", "1-2"]
    assert not layout.serve_socket.exists()
    write(3, 4)
    async with serving(layout) as (process, client):
        assert await read(client, seen[-1], 2) == ["1-3", "1-4"]


async def test_what_was_acknowledged_is_there_after_kill_9_and_what_was_not_is_swept(
    place: tuple[Layout, ScriptedController],
) -> None:
    layout, _ = place
    async with serving(layout) as (process, client):
        acknowledged = []

        async def deploy(number: int) -> None:
            source = archive({"index.html": f"page {number}"})
            answer = await client.post("/v1/deploy", files=parts({"name": f"app-{number}"}, source))
            acknowledged.append(answer.json()["app_id"])

        tasks = [asyncio.create_task(deploy(number)) for number in range(40)]
        while len(acknowledged) < 10:
            await asyncio.sleep(0.001)
        process.kill()
        await asyncio.gather(*tasks, return_exceptions=True)
        await process.wait()
    (layout.sources / f"{'0' * 64}.tar.gz").write_bytes(b"a source that no version names")
    async with serving(layout) as (_, client):
        listed = (await client.get("/v1/apps?limit=200")).json()["items"]
        assert set(acknowledged) <= {app["app_id"] for app in listed}
        for app in acknowledged:
            assert (await client.get(f"/v1/apps/{app}/source")).status_code == 200
        assert incoming(layout) == []
        async with asyncio.timeout(10):
            while len(list(layout.sources.glob("*.tar.gz"))) != len(listed):
                await asyncio.sleep(0.05)


async def test_its_log_is_json_with_request_ids_and_without_keys(place: tuple[Layout, ScriptedController]) -> None:
    layout, _ = place
    async with serving(layout) as (process, client):
        answer = await client.post("/v1/keys", json={"owner": "alice"})
        secret = answer.json()["secret"]
        await client.get("/v1/apps", headers={"Authorization": f"Bearer {secret}"})
        process.terminate()
        said = await _said(process)
    records = [json.loads(line) for line in said.splitlines()]
    assert all({"event", "level", "timestamp"} <= set(record) for record in records)
    requests = [record for record in records if record["event"] == "request"]
    assert answer.headers["x-request-id"] in [record["request_id"] for record in requests]
    assert [record["owner"] for record in requests if record["path"] == "/v1/apps"] == ["alice"]
    assert secret not in said
    assert ADMIN_KEY not in said


async def test_without_an_admin_key_it_does_not_start_and_says_why(place: tuple[Layout, ScriptedController]) -> None:
    layout, _ = place
    layout.admin_key.unlink()
    process = await start(layout)
    said = await _said(process)
    assert await process.wait() == 1
    assert "admin key" in said


async def test_a_successor_takes_over_the_name_of_the_socket(place: tuple[Layout, ScriptedController]) -> None:
    layout, _ = place
    async with serving(layout) as (first, _):
        before = layout.serve_socket.stat().st_ino
        second = await start(layout)
        try:
            async with asyncio.timeout(20):
                while layout.serve_socket.stat().st_ino == before:
                    await asyncio.sleep(0.05)
            first.terminate()
            await first.wait()
            transport = httpx.AsyncHTTPTransport(uds=str(layout.serve_socket))
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost:18080") as client:
                assert (await client.get("/healthz")).status_code == 200
        finally:
            second.kill()
            await second.wait()
