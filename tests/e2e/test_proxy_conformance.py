"""The proxy is transparent: what an app's own socket gives, the front door gives, over HTTP/1.1, h2c and h2.

`SAME` is sent to both and compared. `CHANGED` is what differs all the same, as docs/reference/proxy.md lists it. What
needs more than one exchange follows below. An app's own socket is the one that its supervisor dials.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Apps
from tests.e2e.instance import Instance
from tests.e2e.proxied.secured import secured
from tests.e2e.proxied.wire import Answer, Ask, Connect, http1, http2
from tests.refused import hammer

HERE = Path(__file__).parent / "proxied"
MIB = os.urandom(1 << 20)
OVER = {"http1": http1, "h2c": http2, "h2": http2}
HTTP2 = ("h2c", "h2")
_keys = count(1)


@dataclass(frozen=True, slots=True)
class Place:
    """An app and the two ways to it."""

    kind: str
    host: str
    direct: Connect
    front: Connect
    secure: Connect
    name: str

    def through(self, over: str, ask: Ask, **more: Any) -> Any:
        return OVER[over](self.secure if over == "h2" else self.front, self.host, ask, **more)

    def itself(self, ask: Ask, **more: Any) -> Any:
        return http1(self.direct, self.host, ask, **more)


SITE = {
    "index.html": "<!doctype html><p>home</p>",
    "large.bin": MIB * 8,
    "notes.txt": "0123456789",
}


@pytest.fixture(scope="module")
def secure(vibed: Instance, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connect]:
    with secured(vibed, tmp_path_factory.mktemp("tls")) as connect:
        yield connect


@pytest.fixture(scope="module")
def places(vibed: Instance, secure: Connect) -> Iterator[dict[str, Place]]:
    """A general app, a worker and a site."""
    for template in ("python-313", "workerd", "static-nginx"):
        vibed.client.wait_for_template(template)
    apps = Apps(vibed.client, "t-conformance")
    sources = {
        "general": {"server.py": (HERE / "app.py").read_text(), "Procfile": "web: python server.py\n"},
        "worker": {"worker.js": (HERE / "worker.js").read_text()},
        "site": SITE,
    }
    made = {}
    for kind, source in sources.items():
        name = apps.ready(source, hint=kind)

        async def front() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return await asyncio.open_connection("127.0.0.1", vibed.port, limit=1 << 20)

        async def direct(name: str = name) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            folder = Path(vibed.sandbox_of(name)["folder"])
            socket = next(path for path in (folder / "in" / "app.sock", folder / "http.sock") if path.exists())
            return await asyncio.open_unix_connection(str(socket), limit=1 << 20)

        made[kind] = Place(kind, vibed.client.host(name), direct, front, secure, name)
    yield made
    apps.end()


# What is compared


def of_the_hop(name: str) -> bool:
    """Fields about one connection, and those that every answer or request gets."""
    return name in {
        "connection", "keep-alive", "proxy-connection", "proxy-authorization", "transfer-encoding", "content-length",
        "trailer", "via", "date", "upgrade", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto",
    }  # fmt: skip


def by_name(fields: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """Values by name; the order of names means nothing, that of values does. A type without a value is none."""
    found: dict[str, list[str]] = {}
    for name, value in fields:
        if not of_the_hop(name.lower()) and (name.lower(), value) != ("content-type", ""):
            found.setdefault(name.lower(), []).append(value)
    return found


def seen(answer: Answer) -> dict[str, Any]:
    """An answer without what may differ."""
    return {
        "status": answer.status,
        "complete": answer.complete,
        "fields": by_name(answer.fields),
        "length": [n for n in answer.get("content-length") if n != "0" and not told(answer)],
        "body": told(answer) or hashlib.sha256(answer.body).hexdigest(),
        "trailers": sorted(answer.trailers),
        "before": [
            (status, {name: value for name, value in by_name(fields).items() if name != "server"})
            for status, fields in once(answer.before)
        ],
    }


def once(before: Sequence[tuple[int, Any]]) -> list[tuple[int, Any]]:
    """Without a second 100, which means no more than the first: Caddy may add its own to the app's."""
    return [said for n, said in enumerate(before) if said[0] != 100 or not any(first[0] == 100 for first in before[:n])]


def told(answer: Answer) -> dict[str, Any] | None:
    """What the app says it was asked."""
    if answer.get("content-type") != ["application/json"] or not answer.body:
        return None
    request: dict[str, Any] = json.loads(answer.body)
    if "fields" in request:
        request["fields"] = by_name(request["fields"])
        # a body that is not there has no length or has 0
        request["framing"] = "" if request.get("framing") == "length 0" else request.get("framing")
    return request


BOTH = ("general", "worker")
GENERAL = ("general",)
H1 = ("http1",)

SAME: dict[str, tuple[Ask, Sequence[str], Sequence[str]]] = {
    "a path and its query": (Ask("/a/b?x=1&x=2"), BOTH, tuple(OVER)),
    "%2F, //, ; and =": (Ask("/a%2Fb//c;p=1?q=%20x;y&q=y"), BOTH, tuple(OVER)),
    "dots in a path": (Ask("/a/./b/../../../etc/passwd"), GENERAL, tuple(OVER)),
    "bytes above ASCII and a zero": (Ask("/%C3%A9%00"), GENERAL, tuple(OVER)),
    "an empty query, and a question mark in one": (Ask("/x??a=b?c"), GENERAL, tuple(OVER)),
    "an empty query": (Ask("/x?"), GENERAL, tuple(OVER)),
    "an address of 30,000 bytes": (Ask("/" + "a" * 30_000), GENERAL, tuple(OVER)),
    "an absolute target": (Ask("/x", line="GET /x HTTP/1.1"), GENERAL, H1),
    "HEAD": (Ask("/x", "HEAD"), GENERAL, tuple(OVER)),
    "OPTIONS": (Ask("/x", "OPTIONS"), BOTH, tuple(OVER)),
    "TRACE": (Ask("/x", "TRACE"), GENERAL, tuple(OVER)),
    "PROPFIND with a body": (Ask("/x", "PROPFIND", body=b"<a/>"), GENERAL, tuple(OVER)),
    "a method that nobody knows": (Ask("/x", "FROB"), GENERAL, tuple(OVER)),
    "a method in lower case": (Ask("/x", "get"), GENERAL, tuple(OVER)),
    "GET with a body": (Ask("/x", "GET", body=b"body"), GENERAL, tuple(OVER)),
    "DELETE with a body": (Ask("/x", "DELETE", body=b"body"), BOTH, tuple(OVER)),
    "POST with nothing": (Ask("/x", "POST", body=b""), BOTH, tuple(OVER)),
    "POST without a body": (Ask("/x", "POST"), GENERAL, tuple(OVER)),
    "a body with its length": (Ask("/x", "PUT", body=MIB), BOTH, tuple(OVER)),
    "a body in chunks": (Ask("/x", "POST", body=[MIB, b"x", MIB]), BOTH, tuple(OVER)),
    "chunks that are none": (Ask("/x", "POST", body=[]), BOTH, tuple(OVER)),
    "fields that come twice": (Ask("/x", fields=[("X-Dup", "1"), ("X-Dup", "2")]), BOTH, tuple(OVER)),
    "fields with odd names": (Ask("/x", fields=[("X~odd!#$%&'*+^`|", "1"), ("X-EMPTY", "")]), GENERAL, tuple(OVER)),
    "200 fields": (Ask("/x", fields=[(f"X-N-{n}", str(n)) for n in range(200)]), GENERAL, tuple(OVER)),
    "a field of 17 KiB": (Ask("/x", fields=[("X-Large", "h" * 17 * 1024)]), BOTH, tuple(OVER)),
    "a field of 40 KiB": (Ask("/x", fields=[("X-Large", "h" * 40 * 1024)]), BOTH, tuple(OVER)),
    "a range": (Ask("/raw/partial", fields=[("Range", "bytes=2-3"), ("If-Range", '"a"')]), GENERAL, tuple(OVER)),
    "conditions": (Ask("/x", fields=[("If-None-Match", '"a"'), ("If-Modified-Since", "x")]), BOTH, tuple(OVER)),
    "compression that was asked for": (Ask("/compressed", fields=[("Accept-Encoding", "gzip")]), GENERAL, tuple(OVER)),
    "compression that was not": (Ask("/compressed"), GENERAL, tuple(OVER)),
    "encodings that are asked for": (Ask("/x", fields=[("Accept-Encoding", "br;q=1, zstd")]), GENERAL, tuple(OVER)),
    "8 MB both ways at once": (Ask("/pipe", "POST", body=MIB * 8), BOTH, tuple(OVER)),
    "8 MB in chunks both ways at once": (Ask("/pipe", "POST", body=[MIB[:65_536]] * 128), BOTH, tuple(OVER)),
    "a 401 before the body that was to be asked for": (
        Ask("/early/401", "POST", body=MIB * 4, fields=[("Expect", "100-continue")], patient=True),
        GENERAL,
        H1,
    ),
    "the same by an app that keeps its connection": (
        Ask("/early-and-reads-on/401", "POST", body=MIB * 4, fields=[("Expect", "100-continue")], patient=True),
        GENERAL,
        H1,
    ),
    "a 413 while the body is sent": (Ask("/early-and-reads-on/413", "POST", body=MIB * 16), GENERAL, tuple(OVER)),
    "a 413 that is read after the body is sent": (
        Ask("/early-and-reads-on/413", "POST", body=MIB * 16, sends_first=True),
        GENERAL,
        H1,
    ),
    "a 401 without a word, read after the body": (
        Ask("/early-and-reads-on/401", "POST", body=[MIB] * 16, sends_first=True),
        GENERAL,
        H1,
    ),
    "100 when the app says so": (
        Ask("/welcome", "POST", body=MIB, fields=[("Expect", "100-continue")], patient=True),
        GENERAL,
        H1,
    ),
    "102 and 103": (Ask("/hints"), GENERAL, tuple(OVER)),
    "trailers of an answer": (Ask("/trailers", fields=[("TE", "trailers")]), GENERAL, tuple(OVER)),
    "trailers that nobody announced": (Ask("/trailers/unannounced"), GENERAL, tuple(OVER)),
    "204 with fields": (Ask("/raw/204"), BOTH, tuple(OVER)),
    "204 to HEAD": (Ask("/raw/204", "HEAD"), GENERAL, tuple(OVER)),
    "304 with its validator": (Ask("/raw/304"), BOTH, tuple(OVER)),
    "304 to HEAD": (Ask("/raw/304", "HEAD"), GENERAL, tuple(OVER)),
    "a length to HEAD": (Ask("/raw/duplicates", "HEAD"), GENERAL, tuple(OVER)),
    "cookies and links that come twice": (Ask("/raw/duplicates"), BOTH, tuple(OVER)),
    "names with underscores and dots in an answer": (Ask("/raw/underscores"), GENERAL, tuple(OVER)),
    "no type": (Ask("/raw/no-type"), BOTH, tuple(OVER)),
    "an answer that ends with its connection": (Ask("/raw/no-length"), GENERAL, tuple(OVER)),
    "the same to HEAD": (Ask("/raw/no-length", "HEAD"), GENERAL, tuple(OVER)),
    "the same to HTTP/1.0": (Ask("/raw/no-length", line="GET /raw/no-length HTTP/1.0"), GENERAL, H1),
    "an answer of HTTP/1.0": (Ask("/raw/1.0"), GENERAL, tuple(OVER)),
    "418": (Ask("/raw/418"), BOTH, tuple(OVER)),
    "599": (Ask("/raw/599"), GENERAL, tuple(OVER)),
    "a head of 40 KiB": (Ask("/raw/large-head"), BOTH, tuple(OVER)),
    "300 fields of an answer": (Ask("/raw/many-fields"), GENERAL, tuple(OVER)),
    "part of a file": (Ask("/raw/partial"), GENERAL, tuple(OVER)),
    "an upgrade that is refused": (
        Ask("/raw/refused", fields=[("Connection", "Upgrade"), ("Upgrade", "other")]),
        GENERAL,
        H1,
    ),
    "a length that is not kept": (Ask("/raw/short"), GENERAL, tuple(OVER)),
    "3 MB down": (Ask("/down/3"), BOTH, tuple(OVER)),
}


@pytest.mark.parametrize(
    ("kind", "over", "what"),
    [(kind, over, what) for what, (_, kinds, overs) in SAME.items() for kind in kinds for over in overs],
)
async def test_the_front_door_gives_what_the_app_gives(
    places: dict[str, Place], kind: str, over: str, what: str
) -> None:
    ask = SAME[what][0]
    direct, front = await places[kind].itself(ask), await places[kind].through(over, ask)
    assert direct.status, "the app itself answers"
    assert seen(front) == seen(direct)


def request_of(answer: Answer) -> dict[str, Any]:
    found = told(answer)
    assert found is not None, answer
    return found


def lacks(*names: str) -> Callable[[Answer], bool]:
    return lambda answer: not set(names) & set(request_of(answer)["fields"])


CHANGED: dict[str, tuple[Ask, Sequence[str], Callable[[Answer], Any]]] = {
    "fields with underscores or dots are dropped": (
        Ask("/x", fields=[("x_under", "1"), ("x.dot", "1"), ("X-Plain", "1")]),
        tuple(OVER),
        lambda answer: lacks("x_under", "x.dot")(answer) and request_of(answer)["fields"]["x-plain"] == ["1"],
    ),
    "Connection and what it names is about one connection": (
        Ask(
            "/x", fields=[("Connection", "X-Mine"), ("X-Mine", "1"), ("Keep-Alive", "3"), ("Proxy-Authorization", "x")]
        ),
        H1,
        lacks("x-mine", "keep-alive", "proxy-authorization"),
    ),
    "what Connection names in an answer stays behind": (
        Ask("/raw/hops"),
        tuple(OVER),
        lambda answer: not answer.get("x-mine") and answer.get("x-kept") == ["2"],
    ),
    "the app's Server and Date are its own, its Via is added to, and Alt-Svc is not passed": (
        Ask("/raw/named"),
        tuple(OVER),
        lambda answer: (
            answer.get("server") == ["mine/1"]
            and answer.get("date") == ["Sun, 06 Nov 1994 08:49:37 GMT"]
            and sorted(answer.get("via")) == ["1.1 Caddy", "1.1 another"]
            and not answer.get("alt-svc")
        ),
    ),
    "who the visitor is cannot be forged": (
        Ask("/x", fields=[("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-Proto", "gopher"), ("X-Real-IP", "6.6.6.6")]),
        tuple(OVER),
        lambda answer: (
            "127.0.0.1" in str(json.loads(answer.body)) and "gopher" not in str(json.loads(answer.body)["fields"])
        ),
    ),
    "trailers of a request are lost": (
        Ask("/x", "POST", body=[b"abc"], trailers=[("X-Sum", "3")]),
        tuple(OVER),
        lambda answer: request_of(answer)["trailers"] == [] and request_of(answer)["size"] == 3,
    ),
    "a body has one framing": (
        Ask("/x", "POST", fields=[("Content-Length", "3")], body=[b"abc"]),
        H1,
        lambda answer: request_of(answer)["framing"] == "chunked" and request_of(answer)["size"] == 3,
    ),
    "what no URL may contain is escaped": (
        Ask('/x|y"{}'),
        tuple(OVER),
        lambda answer: request_of(answer)["target"] == "/x%7Cy%22%7B%7D",
    ),
    "an absolute target is a path": (
        Ask("/x", line="GET http://HOST/x HTTP/1.1"),
        H1,
        lambda answer: request_of(answer)["target"] == "/x",
    ),
    "HTTP/1.0 is HTTP/1.1 to the app": (
        Ask("/x", line="GET /x HTTP/1.0"),
        H1,
        lambda answer: request_of(answer)["version"] == "HTTP/1.1",
    ),
    "cookies of HTTP/2 are one field": (
        Ask("/x", fields=[("Cookie", "a=1"), ("Cookie", "b=2")]),
        HTTP2,
        lambda answer: request_of(answer)["fields"]["cookie"] == ["a=1; b=2"],
    ),
    "an expectation is answered before the app over HTTP/2": (
        Ask("/x", "POST", body=b"x" * 5000, fields=[("Expect", "100-continue")], patient=True),
        HTTP2,
        lambda answer: answer.before[0][0] == 100 and "expect" not in request_of(answer)["fields"],
    ),
    "another expectation is refused": (
        Ask("/x", "POST", body=b"x", fields=[("Expect", "tea")]),
        tuple(OVER),
        lambda answer: answer.status == 417,
    ),
    "OPTIONS of the whole server is not the app's": (
        Ask("*", "OPTIONS"),
        tuple(OVER),
        lambda answer: (answer.status, answer.body) == (200, b""),
    ),
    "a head of 100 KiB is too large": (
        Ask("/x", fields=[("X-Large", "h" * 100 * 1024)]),
        H1,
        lambda answer: answer.status == 431,
    ),
    "no answer is a 502 that says whether to ask again": (
        Ask("/raw/silence", "POST", body=b"pay"),
        tuple(OVER),
        lambda answer: answer.status == 502 and json.loads(answer.body)["details"] == {"retryable": False},
    ),
    "what is not HTTP is a 502": (
        Ask("/raw/nonsense"),
        tuple(OVER),
        lambda answer: answer.status == 502 and json.loads(answer.body)["code"] == "AppUnreachable",
    ),
    "an answer that breaks off breaks off, after what had come": (
        Ask("/raw/short-chunks"),
        tuple(OVER),
        lambda answer: (answer.status, answer.body, answer.complete) == (200, b"not a hundred", False),
    ),
    "an expectation that the app does not hear of is met after a moment": (
        Ask("/x", "POST", body=MIB, fields=[("Expect", "100-continue")], patient=True),
        H1,
        lambda answer: request_of(answer)["size"] == len(MIB),
    ),
}


@pytest.mark.parametrize(("over", "what"), [(over, what) for what, (_, overs, _) in CHANGED.items() for over in overs])
async def test_what_is_changed_is_this_and_no_more(places: dict[str, Place], over: str, what: str) -> None:
    ask, _, holds = CHANGED[what]
    place = places["general"]
    answer = await place.through(over, replace(ask, line=ask.line.replace("HOST", place.host)))
    assert holds(answer), answer


@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("kind", BOTH)
async def test_an_early_answer_is_not_lost_when_the_app_hangs_up(
    places: dict[str, Place], kind: str, over: str
) -> None:
    """To its own socket it is: who sends all of a body before reading finds the connection broken."""
    answer = await places[kind].through(over, Ask("/early/413", "POST", body=MIB * 16, sends_first=True))
    assert (answer.status, answer.body, answer.complete) == (413, b"no, thanks", True)


# What takes more than one exchange


@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize(
    ("kind", "trickle"), [("general", "chunks"), ("general", "length"), ("general", "gzip"), ("worker", "chunks")]
)
async def test_the_first_half_is_there_before_the_second_is_made(
    places: dict[str, Place], kind: str, trickle: str, over: str
) -> None:
    place, key, begun = places[kind], f"{next(_keys)}", asyncio.Event()
    fields = [("Accept-Encoding", "gzip")] if trickle == "gzip" else []
    exchange = asyncio.create_task(
        place.through(over, Ask(f"/trickle/{trickle}/{key}", fields=fields), body_begun=begun)
    )
    async with asyncio.timeout(20):
        await begun.wait()
    assert not exchange.done()
    await place.itself(Ask(f"/release/{key}"))
    answer = await exchange
    assert answer.complete
    assert answer.get("content-encoding") == (["gzip"] if trickle == "gzip" else [])


@pytest.mark.parametrize("uploading", [False, True])
async def test_a_client_that_leaves_has_left_for_the_app_too(places: dict[str, Place], uploading: bool) -> None:
    place, key = places["general"], f"{next(_keys)}"
    _, writer = await place.front()
    method = "POST" if uploading else "GET"
    length = "Content-Length: 1000000\r\n" if uploading else ""
    writer.write(f"{method} /stays/{key} HTTP/1.1\r\nHost: {place.host}\r\n{length}\r\n".encode())
    await asyncio.sleep(0.1)
    writer.transport.abort()
    assert (await place.through("http1", Ask(f"/left/{key}"))).body == b"gone"


async def test_two_requests_in_one_segment_are_two(places: dict[str, Place]) -> None:
    place = places["general"]
    reader, writer = await place.front()
    head = f" HTTP/1.1\r\nHost: {place.host}\r\n"
    writer.write(f"GET /raw/418{head}\r\nGET /raw/partial{head}Connection: close\r\n\r\n".encode())
    async with asyncio.timeout(20):
        said = await reader.read()
    writer.close()
    assert said.count(b"HTTP/1.1 ") == 2
    assert said.index(b"short and stout") < said.index(b"206 ")


@pytest.mark.parametrize("over", ["itself", "front"])
async def test_an_upgraded_connection_is_a_pipe_whose_halves_close_apart(places: dict[str, Place], over: str) -> None:
    place = places["general"]
    reader, writer = await (place.front if over == "front" else place.direct)()
    writer.write(
        f"GET /upgrade HTTP/1.1\r\nHost: {place.host}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n".encode()
    )
    async with asyncio.timeout(20):
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 101 " in head and b"X-Kept: yes" in head
        writer.write(MIB)
        assert await reader.readexactly(len(MIB)) == MIB
        writer.write_eof()
        assert await reader.read() == b"and that was all"
    writer.close()


async def test_what_was_left_of_a_body_is_no_request(places: dict[str, Place]) -> None:
    place = places["general"]
    reader, writer = await place.front()
    smuggled = f"POST /raw/418 HTTP/1.1\r\nHost: {place.host}\r\nContent-Length: 0\r\n\r\n".encode()
    writer.write(f"POST /early/413 HTTP/1.1\r\nHost: {place.host}\r\nContent-Length: 5000000\r\n\r\n".encode())
    async with asyncio.timeout(20):
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 413 " in head
        writer.write(smuggled * 1000)
        said = await reader.read()
    writer.close()
    assert said == b"no, thanks"


async def test_who_is_answered_before_the_end_of_a_body_knows_whether_the_connection_goes_on(
    vibed: Instance, places: dict[str, Place]
) -> None:
    """Caddy must not read two requests at once of one connection: that ends its process, and everybody's requests."""
    caddy = vibed.pids()["caddy"]
    wanted = {
        (f"localhost:{vibed.port}", "POST /v1/deploy"): (401,),
        (f"localhost:{vibed.port}", "POST /nothing"): (404, 413),
        (places["site"].host, "POST /"): (405,),
        (places["site"].host, "GET /"): (200,),
        (places["general"].host, "POST /early-and-reads-on/413"): (413,),
        (places["general"].host, "POST /early/413"): (413,),
        (places["general"].host, "POST /x"): (200,),
    }
    rounds = int(os.environ.get("VIBED_TEST_HAMMER", "12"))
    kept, lost = await hammer(vibed.port, wanted, clients=8, rounds=rounds)
    assert lost == []
    assert kept
    assert vibed.pids()["caddy"] == caddy
    assert "panic" not in (vibed.layout.own_logs / "caddy.log").read_text()


@pytest.mark.parametrize("over", OVER)
async def test_100_mb_pass_up_and_down_and_are_not_held(vibed: Instance, places: dict[str, Place], over: str) -> None:
    place = places["general"]
    pids = [vibed.pids()["caddy"], int(vibed.sandbox_of(place.name)["pid"])]
    before = [_memory(pid, reset=True) for pid in pids]
    up = await place.through(over, Ask("/x", "POST", body=[MIB] * 100))
    assert request_of(up)["sha256"] == hashlib.sha256(MIB * 100).hexdigest()
    down = await place.through(over, Ask("/down/100"))
    assert (
        hashlib.sha256(down.body).digest()
        == hashlib.sha256(b"".join(bytes([n]) * (1 << 20) for n in range(100))).digest()
    )
    for pid, least in zip(pids, before, strict=True):
        assert _memory(pid) - least < 64 << 20


def _memory(pid: int, *, reset: bool = False) -> int:
    """The most that a process has had, in bytes; with `reset`, from now on."""
    if reset:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10


# A site has no socket of its own: it is compared with its files.


@pytest.mark.parametrize("over", OVER)
async def test_a_site_is_its_files(places: dict[str, Place], over: str) -> None:
    place = places["site"]
    whole = await place.through(over, Ask("/large.bin"))
    assert (whole.status, whole.body, whole.complete) == (200, SITE["large.bin"], True)
    head = await place.through(over, Ask("/large.bin", "HEAD"))
    assert (head.status, head.get("content-length"), head.body) == (200, [str(8 << 20)], b"")
    part = await place.through(over, Ask("/notes.txt", fields=[("Range", "bytes=2-4")]))
    assert (part.status, part.body, part.get("content-range")) == (206, b"234", ["bytes 2-4/10"])
    beyond = await place.through(over, Ask("/notes.txt", fields=[("Range", "bytes=20-")]))
    assert (beyond.status, beyond.get("content-range")) == (416, ["bytes */10"])
    (tag,) = whole.get("etag")
    same = await place.through(over, Ask("/large.bin", fields=[("If-None-Match", tag)]))
    assert (same.status, same.body, same.get("etag")) == (304, b"", [tag])
    large = await place.through(over, Ask("/notes.txt", fields=[("X-Large", "h" * 40 * 1024)]))
    assert (large.status, large.body) == (200, b"0123456789")
    plain = await place.through(over, Ask("/index.html", fields=[("Accept-Encoding", "identity")]))
    assert (plain.body.decode(), plain.get("content-encoding")) == (SITE["index.html"], [])


@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "TRACE"])
async def test_a_site_is_only_read(places: dict[str, Place], over: str, method: str) -> None:
    answer = await places["site"].through(over, Ask("/notes.txt", method, body=MIB if method != "TRACE" else None))
    assert (answer.status, answer.complete) == (405, True)
    assert answer.get("allow") == ["GET, HEAD"]
