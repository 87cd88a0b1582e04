"""Asking an app through its front door: what it answered, what it printed, and what is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from api_harness import Running, refused, running

TRACEBACK = ("Traceback (most recent call last):", '  File "/app/app.py", line 3, in page', "KeyError: 'x'")
ANSWERS = {
    "/": b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 5\r\n\r\nhello",
    "/redirect": b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n",
    "/picture": b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\x89PNG",
    "/long": b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n" + "ä".encode() * 45_000,
    "/error": b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
    "/hints": b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" * 3
    + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "/verbose": b"HTTP/1.1 200 OK\r\n" + b"X-A: %s\r\n" % (b"a" * 9_000) * 20 + b"X-B: b\r\nContent-Length: 0\r\n\r\n",
    "/breaks": b"",
}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path / "home", tmp_path / "run") as made:
        heard: list[bytes] = []
        made_to_wait = asyncio.Event()

        async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            heard.append(head)
            path = head.split()[1].decode()
            if path == "/echo":
                length = int(head.lower().partition(b"content-length: ")[2].split()[0])
                body = head + await reader.readexactly(length)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            else:
                if path == "/error":
                    printed(
                        made,
                        "Traceback (most recent call last):",
                        '  File "/app/app.py", line 3, in page',
                        "KeyError: 'x'",
                    )
                if path.startswith("/waits"):
                    await made_to_wait.wait()
                    path = "/"
                writer.write(ANSWERS[path])
            await writer.drain()
            writer.close()

        made.layout.front_socket.parent.mkdir(parents=True)
        server = await asyncio.start_unix_server(app, made.layout.front_socket)
        assert (await made.deploy("todo")).status_code == 200
        printed(made, "before")
        yield made
        made_to_wait.set()
        server.close()


def printed(api: Running, *texts: str) -> None:
    folder = api.layout.run_log("todo", 1)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.jsonl").open("a+") as file:
        file.seek(0)
        seq = len(file.readlines())
        for number, text in enumerate(texts, seq + 1):
            file.write(json.dumps({"seq": number, "ts": number, "stream": "stderr", "text": text}) + "\n")


async def ask(api: Running, **question: Any) -> dict[str, Any]:
    answer = await api.client.post("/v1/apps/todo/request", json=question)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_an_answer_comes_with_its_status_headers_and_body(api: Running) -> None:
    heard = await ask(api)
    assert (heard["status"], heard["body"], heard["size"], heard["base64"]) == (200, "hello", 5, False)
    assert [header["value"] for header in heard["headers"] if header["name"].lower() == "set-cookie"] == ["a=1", "b=2"]
    assert (heard["log"], heard["error"]) == ([], None), "nothing that was printed before"


async def test_a_method_headers_and_a_body_reach_the_app_as_they_are(api: Running) -> None:
    headers = {"Content-Type": "application/json", "X-Odd": "a=b; c"}
    heard = await ask(api, path="/echo", method="PATCH", headers=headers, body='{"ä": 1}')
    head, _, body = heard["body"].partition("\r\n\r\n")
    assert head.startswith("PATCH /echo HTTP/1.1")
    assert body == '{"ä": 1}'
    lines = head.split("\r\n")
    assert "X-Odd: a=b; c" in lines and "Content-Type: application/json" in lines
    assert f"Host: {api.config.app_url('todo').removeprefix('http://')}" in lines


async def test_a_redirect_is_shown_and_not_followed(api: Running) -> None:
    heard = await ask(api, path="/redirect")
    assert heard["status"] == 302
    assert {"name": "Location", "value": "/login"} in heard["headers"]


async def test_of_a_long_body_the_beginning_is_shown_and_of_a_picture_its_bytes(api: Running) -> None:
    heard = await ask(api, path="/long")
    assert len(heard["body"].encode()) <= 20_000 and heard["size"] == 90_000
    assert set(heard["body"]) == {"ä"}
    picture = await ask(api, path="/picture")
    assert (picture["base64"], picture["body"]) == (True, "iVBORw==")


async def test_behind_an_error_stands_what_the_app_printed(api: Running) -> None:
    heard = await ask(api, path="/error")
    assert heard["status"] == 500
    assert [line["text"] for line in heard["log"]][-1] == "KeyError: 'x'"
    assert "KeyError: 'x'" in heard["error"]


async def test_what_comes_before_the_answer_is_not_taken_for_it(api: Running) -> None:
    heard = await ask(api, path="/hints")
    assert (heard["status"], heard["body"]) == (200, "ok")


async def test_headers_are_shown_as_far_as_they_fit(api: Running) -> None:
    heard = await ask(api, path="/verbose")
    assert [header["name"] for header in heard["headers"]] == ["X-A", "X-A", "X-B", "Content-Length"]


async def test_an_owner_whose_apps_do_not_answer_keeps_nobody_else_from_asking(api: Running) -> None:
    bob = await api.key("bob")
    assert (await api.deploy("bobs", headers=bob)).status_code == 200
    question = {"path": "/waits"}
    waiting = [
        asyncio.create_task(api.client.post("/v1/apps/bobs/request", json=question, headers=bob)) for _ in range(40)
    ]
    await asyncio.sleep(0.1)
    assert (await ask(api))["status"] == 200
    assert not any(task.done() for task in waiting)
    for task in waiting:
        task.cancel()


async def test_an_app_that_breaks_off_is_told(api: Running) -> None:
    answer = await api.client.post("/v1/apps/todo/request", json={"path": "/breaks"})
    assert "broke off" in refused(answer, 504, "NoAnswer")["message"]


@pytest.mark.parametrize(
    "question",
    [
        {"path": "no-slash"},
        {"path": "/a b"},
        {"path": "/ä"},
        {"path": "/x\r\nX-Evil: 1"},
        {"headers": {"Host": "other.localhost"}},
        {"headers": {"X-A": "1\r\nX-B: 2"}},
        {"headers": {"X A": "1"}},
        {"headers": {"Transfer-Encoding": "chunked"}},
    ],
)
async def test_what_would_be_another_request_is_refused(api: Running, question: dict[str, Any]) -> None:
    refused(await api.client.post("/v1/apps/todo/request", json=question), 422, "InvalidRequest")


async def test_anothers_app_is_not_asked(api: Running) -> None:
    bob = await api.key("bob")
    refused(await api.client.post("/v1/apps/todo/request", json={}, headers=bob), 404, "NotFound")
