"""What passes through: WebSockets, server-sent events, large bodies, HTTP/2 in clear text, gRPC's framing."""

from __future__ import annotations

import hashlib
import os
import socket as sockets
import subprocess
import time
from collections.abc import Iterator

import h2.config
import h2.connection
import h2.events
import httpx
import pytest

from tests.e2e import samples
from tests.e2e.conftest import Apps
from tests.e2e.instance import CHECKOUT, Instance
from tests.e2e.load import connect
from tests.e2e.sse import events_of

_GRPC = """
const http2 = require("node:http2");
http2.createServer().on("stream", (stream, headers) => {
  if (headers["content-type"] !== "application/grpc") {
    stream.respond({ ":status": 415 });
    stream.end();
    return;
  }
  stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
  stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0", "x-path": headers[":path"] }));
  stream.on("data", (data) => stream.write(data));
  stream.on("end", () => stream.end());
}).listen(process.env.PORT);
"""


async def test_websocket_messages_of_every_size_pass_whole(vibed: Instance, apps: Apps) -> None:
    vibed.client.wait_for_template("node-24")
    app = apps.ready(samples.node(1))
    async with connect(vibed.client, app) as socket:
        for size in (0, 1, 125, 126, 65_535, 65_536, 900_000):
            await socket.send("x" * size)
            assert await socket.recv() == "1 " + "x" * size


async def test_a_websocket_that_the_app_refuses_is_refused(vibed: Instance, apps: Apps) -> None:
    import websockets

    vibed.client.wait_for_template("python-313")
    app = apps.ready(samples.python(1))
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with connect(vibed.client, app, "/no-such-socket"):
            pass
    assert refused.value.response.status_code == 403


def test_server_sent_events_come_one_by_one(vibed: Instance, apps: Apps) -> None:
    """Each event is there long before the next is made: nothing on the way collects them."""
    vibed.client.wait_for_template("python-313")
    app = apps.ready(CHECKOUT / "examples" / "fastapi-notes")
    with vibed.client.http.stream("GET", "/events", headers={"Host": vibed.client.host(app)}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = events_of(answer.iter_lines())
        assert next(events).event == "hello"
        other = vibed.client_with(vibed.admin_key)
        for number in range(3):
            assert other.visit(app, "/notes", "POST", json={"text": f"note {number}"}).status_code == 201
            assert next(events).json["text"] == f"note {number}"
        other.close()


@pytest.mark.parametrize(("template", "sample"), [("python-313", samples.python), ("node-24", samples.node)])
def test_64_mb_go_up_whole(vibed: Instance, apps: Apps, template: str, sample: object) -> None:
    vibed.client.wait_for_template(template)
    assert callable(sample)
    app = apps.ready(sample(1))
    piece = os.urandom(1 << 20)
    digest = hashlib.sha256(piece * 64).hexdigest()

    def pieces() -> Iterator[bytes]:
        for _ in range(64):
            yield piece

    for headers in ({}, {"Content-Length": str(64 << 20)}):
        answer = vibed.client.visit(app, "/echo", "POST", content=pieces(), headers=headers)
        assert answer.status_code == 200, answer.text
        assert (answer.json()["size"], answer.json()["sha256"]) == (64 << 20, digest)


def test_64_mb_come_down_whole(vibed: Instance, apps: Apps) -> None:
    vibed.client.wait_for_template("python-313")
    app = apps.ready(
        {
            "main.py": "from fastapi import FastAPI\nfrom fastapi.responses import StreamingResponse\napp = FastAPI()\n"
            "@app.get('/')\ndef index():\n    return StreamingResponse(bytes([n]) * (1 << 20) for n in range(64))\n"
        }
    )
    seen = hashlib.sha256()
    size = 0
    with vibed.client.http.stream("GET", "/", headers={"Host": vibed.client.host(app)}) as answer:
        for piece in answer.iter_bytes():
            seen.update(piece)
            size += len(piece)
    assert size == 64 << 20
    assert seen.hexdigest() == hashlib.sha256(b"".join(bytes([n]) * (1 << 20) for n in range(64))).hexdigest()


@pytest.mark.parametrize("kind", ["static", "worker", "python"])
def test_http2_in_clear_text_reaches_every_kind_of_app(vibed: Instance, apps: Apps, kind: str) -> None:
    vibed.client.wait_for_template({"static": "static-nginx", "worker": "workerd", "python": "python-313"}[kind])
    app = apps.ready({"static": samples.static, "worker": samples.worker, "python": samples.python}[kind](1))
    with httpx.Client(
        base_url=f"http://127.0.0.1:{vibed.port}",
        headers={"Host": vibed.client.host(app)},
        http1=False,
        http2=True,
        trust_env=False,
        timeout=30,
    ) as http:
        answer = http.get("/")
        assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
        assert "version 1" in answer.text
        if kind != "static":
            body = os.urandom(300_000)
            assert http.post("/echo", content=body).json()["sha256"] == hashlib.sha256(body).hexdigest()


def test_grpc_streams_both_ways_and_its_trailers_arrive(vibed: Instance, apps: Apps) -> None:
    vibed.client.wait_for_template("node-24")
    app = apps.ready({"index.js": _GRPC})
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    with sockets.create_connection(("127.0.0.1", vibed.port), timeout=30) as wire:
        connection.initiate_connection()
        connection.send_headers(
            1,
            [
                (":method", "POST"),
                (":path", "/pkg.Service/Talk"),
                (":scheme", "http"),
                (":authority", vibed.client.host(app)),
                ("content-type", "application/grpc"),
                ("te", "trailers"),
            ],
        )
        wire.sendall(connection.data_to_send())
        headers: dict[str, str] = {}
        trailers: dict[str, str] = {}
        for number in range(3):
            message = f"message {number}".encode()
            connection.send_data(1, message, end_stream=number == 2)
            wire.sendall(connection.data_to_send())
            came = b""
            deadline = time.monotonic() + 30
            while (came != message or (number == 2 and not trailers)) and time.monotonic() < deadline:
                for event in connection.receive_data(wire.recv(65_536)):
                    if isinstance(event, h2.events.ResponseReceived):
                        headers.update(event.headers)  # type: ignore[arg-type]
                    elif isinstance(event, h2.events.DataReceived):
                        came += event.data
                        connection.acknowledge_received_data(event.flow_controlled_length, 1)
                    elif isinstance(event, h2.events.TrailersReceived):
                        trailers.update(event.headers)  # type: ignore[arg-type]
                    assert not isinstance(event, h2.events.StreamReset), event
                wire.sendall(connection.data_to_send())
            assert came == message, f"message {number} was echoed before the next was sent"
    assert (headers[":status"], headers["content-type"]) == ("200", "application/grpc")
    assert (trailers["grpc-status"], trailers["x-path"]) == ("0", "/pkg.Service/Talk")


def test_headers_and_paths_reach_the_app_as_they_were_sent(vibed: Instance, apps: Apps) -> None:
    vibed.client.wait_for_template("node-24")
    app = apps.ready(
        {
            "index.js": "require('node:http').createServer((q, r) => { r.setHeader('set-cookie', ['a=1', 'b=2']);\n"
            "r.statusCode = 418; r.end(JSON.stringify({ url: q.url, method: q.method, headers: q.headers })); })"
            ".listen(process.env.PORT);"
        }
    )
    answer = vibed.client.visit(
        app, "/a%2Fb/c;d?q=%20x&q=y", "PUT", headers={"X-Odd": "a, b", "Cookie": "k=v"}, content=b"1"
    )
    assert answer.status_code == 418
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
    seen = answer.json()
    assert seen["method"] == "PUT"
    assert seen["url"].endswith("?q=%20x&q=y")
    assert "%2F" in seen["url"]
    assert (seen["headers"]["x-odd"], seen["headers"]["cookie"]) == ("a, b", "k=v")
    assert seen["headers"]["host"] == vibed.client.host(app)
    assert "x-forwarded-for" in seen["headers"]


def test_an_app_that_closes_without_an_answer_is_a_502_and_is_asked_once(vibed: Instance, apps: Apps) -> None:
    vibed.client.wait_for_template("node-24")
    app = apps.ready(
        {
            "index.js": """
let seen = 0;
require("node:http").createServer((request, response) => {
  if (request.url === "/count") return response.end(String(seen));
  seen += 1;
  request.socket.destroy();
}).listen(process.env.PORT);
"""
        }
    )
    for method in ("GET", "POST"):
        answer = vibed.client.visit(app, "/", method, content=b"x" if method == "POST" else None)
        assert answer.status_code == 502
    assert vibed.client.visit(app, "/count").text == "2", "a request that reached an app is never repeated"


def test_nodes_own_server_pipes_what_it_reads_and_refuses_what_it_does_not(vibed: Instance, apps: Apps) -> None:
    """The one-line converter, and the check of a header before an upload; httpx reads only when it has sent all."""
    vibed.client.wait_for_template("node-24")
    app = apps.ready(
        {
            "index.js": """
require("node:http").createServer((q, r) => {
  if (q.url === "/private") return r.writeHead(401, { "www-authenticate": "Basic" }).end();
  r.setHeader("content-type", "application/octet-stream");
  q.pipe(r);
}).listen(process.env.PORT);
"""
        }
    )
    body = os.urandom(8_000_000)
    answer = vibed.client.visit(app, "/", "POST", content=body)
    assert (answer.status_code, hashlib.sha256(answer.content).digest()) == (200, hashlib.sha256(body).digest())
    for _ in range(10):
        answer = vibed.client.visit(app, "/private", "POST", content=body)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Basic")
    curl = ["curl", "-sS", "--noproxy", "*", "-w", "%{http_code}", "-H", f"Host: {vibed.client.host(app)}"]
    for _ in range(10):  # with Expect: 100-continue, as for everything above a megabyte
        asked = [*curl, "--data-binary", "@-", f"http://127.0.0.1:{vibed.port}/private"]
        done = subprocess.run(asked, input=body, capture_output=True, timeout=60, check=False)
        assert (done.stdout, done.stderr) == (b"401", b"")
