"""What the harness reads from other programs: HTTP answers, wrk's report, the kernel's account of memory."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import load, memory, sources, web
from bench.rows.registry import ROWS


@contextmanager
def answering(*answers: bytes) -> Iterator[web.Address]:
    """A server that gives each connection all the answers, one a request, and then closes it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    for answer in answers:
                        if not connection.recv(65_536):
                            break
                        connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield ("127.0.0.1", server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)


def test_a_kept_connection_reads_one_answer_after_the_other() -> None:
    first = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Instance: a\r\n\r\nhello"
    second = b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    with answering(first, second) as address, web.Connection(address) as connection:
        one = connection.send(web.get("/", "a.localhost"))
        other = connection.send(web.get("/", "a.localhost"))
    assert (one.status, one.body, one.headers["x-instance"]) == (200, b"hello", "a")
    assert (other.status, other.body) == (404, b"abcde")


def test_a_get_on_a_connection_that_was_closed_meanwhile_is_sent_again_once() -> None:
    with answering(b"HTTP/1.1 204 No Content\r\n\r\n") as address, web.Connection(address) as connection:
        assert connection.send(web.get("/", "a.localhost")).status == 204
        assert connection.send(web.get("/", "a.localhost")).status == 204


def test_a_post_is_never_sent_twice() -> None:
    with answering(b"HTTP/1.1 204 No Content\r\n\r\n") as address, web.Connection(address) as connection:
        connection.send(web.get("/", "a.localhost"))
        with pytest.raises((web.Broken, ConnectionError)):
            connection.send(web.request("POST", "/", "a.localhost", b"body"))


def test_what_is_not_http_is_said_so() -> None:
    with (
        answering(b"SSH-2.0-x\r\n\r\n") as address,
        web.Connection(address) as connection,
        pytest.raises(web.Broken, match="not HTTP"),
    ):
        connection.send(web.get("/", "a.localhost"))


def test_a_frame_of_a_client_is_masked() -> None:
    made = web.frame(b"hello")
    assert made[:2] == bytes((0x81, 0x85))
    assert bytes(byte ^ made[2 + i % 4] for i, byte in enumerate(made[6:])) == b"hello"


WRK = """\
Running 4s test @ http://127.0.0.1:18080/
  1 threads and 32 connections
  Latency Distribution
     50%  750.00us
     75%    4.30ms
     90%    5.42ms
     99%    9.50ms
  34501 requests in 4.01s, 5.92MB read
  Socket errors: connect 0, read 2, write 0, timeout 1
  Non-2xx or 3xx responses: 7
Requests/sec:   8603.17
Transfer/sec:      1.48MB
"""


def test_a_report_of_wrk_is_read_with_its_units_and_all_that_failed() -> None:
    assert load.parse(WRK) == load.Throughput(8603.17, 0.75, 9.5, failed=10)


def test_a_report_that_is_not_wrks_is_refused() -> None:
    with pytest.raises(ValueError, match="not a report of wrk"):
        load.parse("unable to connect to 127.0.0.1:1 Connection refused")


def test_memory_is_read_in_megabytes() -> None:
    said = "00400000-7ffc ---p 00000000 00:00 0  [rollup]\nRss:   50000 kB\nPss:   20000 kB\nPss_Anon: 1 kB\n"
    assert memory.parse(said) == memory.Memory(rss=51.2, pss=20.48)


APPS = (
    sources.static,
    sources.tiny_static,
    sources.worker,
    sources.bundled_worker,
    sources.python,
    sources.python_echo,
    sources.node,
    sources.flask,
    sources.fastapi,
    sources.express,
)


@pytest.mark.parametrize("source", APPS)
def test_every_app_that_is_measured_carries_its_mark(source: sources.Source) -> None:
    assert any("mark-123" in text for text in source("mark-123").values())


def test_every_row_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "benchmarks.md").read_text()
    assert [name for name in ROWS if f"`{name}`" not in page] == []
