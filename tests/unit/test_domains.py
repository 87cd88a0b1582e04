"""Names that can be an app's own, what a TXT record has to say, and how it is asked for."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vibed.apps.domains import Domain, InvalidDomain, check
from vibed.router import texts
from vibed.router.markers import Markers
from vibed.router.ownership import DnsUnavailable, texts_at
from vibed.sandboxes.driver import Endpoint


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("www.example.com", "www.example.com"),
        ("Example.COM.", "example.com"),
        (" example.com ", "example.com"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("apps.example.com.evil.example", "apps.example.com.evil.example"),
        ("myapps.example.com", "myapps.example.com"),
        ("example.com", "example.com"),
    ],
)
def test_a_name_is_kept_as_the_dns_has_it(given: str, kept: str) -> None:
    assert check(given, "apps.example.com") == kept


@pytest.mark.parametrize(
    "name",
    [
        *("", "com", "a..b", "-a.example.com", "a_b.example.com", "https://a.example.com", "a.example.com:443"),
        *("a.example.com/", "*.example.com", "1.2.3.4", "a b.example.com", "../example.com", "x.localhost", "x.local"),
        *("apps.example.com", "todo.apps.example.com", "a.b.apps.example.com", "TODO.APPS.EXAMPLE.COM."),
        *("intern.example.com", "x.intern.example.com", "todo.sock", "example.known", "a.b.c.d.e.f.g.h.i"),
        f"{'a' * 64}.example.com",
    ],
)
def test_what_cannot_be_an_apps_own_is_refused(name: str) -> None:
    with pytest.raises(InvalidDomain):
        check(name, "apps.example.com", ("intern.example.com", "admin"))


def test_a_name_with_other_letters_is_told_its_encoded_form() -> None:
    with pytest.raises(InvalidDomain) as refused:
        check("bücher.example", "apps.example.com")
    assert "xn--bcher-kva.example" in str(refused.value.hint)


def test_only_its_own_text_shows_whose_a_domain_is() -> None:
    one, other = (Domain.wanted("example.com", "todo", "alice", 0.0) for _ in range(2))
    assert one.record == "_vibed.example.com"
    assert one.shown_by(["v=spf1 -all", f" {one.text} "])
    assert not one.shown_by([other.text])
    assert not one.shown_by([])
    assert not one.shown_by([one.token, "vibed=", one.text + "x"])


# asking


def answered(question: bytes, *records: bytes, code: int = 0) -> bytes:
    number = question[:2]
    return number + struct.pack("!HHHHH", 0x8180 | code, 1, len(records), 0, 0) + question[12:] + b"".join(records)


def record(kind: int, data: bytes) -> bytes:
    """Of the name that was asked for, by a pointer to it."""
    return b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(data)) + data


def text(*pieces: bytes) -> bytes:
    return record(16, b"".join(bytes([len(piece)]) + piece for piece in pieces))


@contextmanager
def dns(answer: Callable[[bytes], bytes]) -> Iterator[str]:
    """A server that says what `answer` makes of the question."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def work() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    length = struct.unpack("!H", connection.recv(2))[0]
                    said = answer(connection.recv(length))
                    connection.sendall(struct.pack("!H", len(said)) + said)

        threading.Thread(target=work, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def test_texts_come_whole_and_other_records_are_passed_over() -> None:
    with dns(lambda q: answered(q, record(5, b"\x01x\x00"), text(b"a" * 255, b"b"), text(b"vibed=1"))) as server:
        assert texts.texts("_vibed.example.com", [server]) == ["a" * 255 + "b", "vibed=1"]


def test_a_name_that_is_not_there_says_nothing() -> None:
    with dns(lambda q: answered(q, code=3)) as server:
        assert texts.texts("_vibed.example.com", [server]) == []


@pytest.mark.parametrize(
    "answer",
    [
        lambda q: answered(q, code=2),
        lambda q: bytes([q[0] ^ 1]) + answered(q, text(b"vibed=1"))[1:],
        lambda q: answered(q[:13] + b"X" + q[14:], text(b"vibed=1")),
        lambda q: q,
        lambda q: answered(q, text(b"vibed=1"))[:-3],
        lambda q: b"",
        lambda q: answered(q, b"\xc0"),
    ],
    ids=["failure", "another number", "another question", "the question", "cut off", "empty", "half a record"],
)
def test_what_is_no_answer_is_not_believed(answer: Callable[[bytes], bytes]) -> None:
    with dns(answer) as server, pytest.raises(texts.NoAnswer):
        texts.texts("_vibed.example.com", [server])


def test_the_next_server_is_asked_when_one_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = f"127.0.0.1:{taken.getsockname()[1]}"
    with dns(lambda q: answered(q, text(b"vibed=1"))) as server:
        assert texts.texts("_vibed.example.com", [closed, server]) == ["vibed=1"]


async def test_the_question_is_asked_by_a_process_of_its_own() -> None:
    with dns(lambda q: answered(q, text(b"vibed=1"))) as server:
        assert await texts_at("_vibed.example.com", [server], uid=65_534) == ["vibed=1"]
    with pytest.raises(DnsUnavailable) as refused:
        await texts_at("_vibed.example.com", [server], uid=65_534)
    assert refused.value.may_retry


def test_the_machines_own_servers_are_those_of_resolv_conf() -> None:
    told = "# of dhcp\nsearch example.com\nnameserver 9.9.9.9\nnameserver  ::1 \noptions edns0\nnameserver\n"
    assert texts.servers_of_machine(told) == ["9.9.9.9", "::1"]


# markers


@pytest.fixture
def markers(tmp_path: Path) -> Markers:
    (tmp_path / "apps").mkdir()
    (tmp_path / "ingress").mkdir()
    return Markers(tmp_path / "apps", tmp_path / "ingress")


def test_a_domain_leads_wherever_its_app_does(markers: Markers, tmp_path: Path) -> None:
    apps = tmp_path / "apps"
    markers.lead({"www.example.com": "todo"})
    assert (apps / "www.example.com.known").is_file()
    markers.make_room("todo")
    socket_of_run = markers.socket("todo", 1, 1)
    socket_of_run.touch()
    markers.publish("todo", 1, 1, Endpoint(socket_of_run))
    assert (apps / "www.example.com.sock").resolve() == socket_of_run
    markers.publish("todo", 2, 2, Endpoint(tmp_path, site=True))
    assert [path.name for path in (apps / "www.example.com").glob("*.s")] == ["999999997-2.s"]
    assert markers.with_sockets() == [], "a domain is no app"


def test_domains_are_exactly_those_that_are_told(markers: Markers, tmp_path: Path) -> None:
    markers.lead({"a.example": "todo", "b.example": "todo"})
    markers.lead({"b.example": "other", "c.example": "todo"})
    assert markers.domains() == {"b.example": "other", "c.example": "todo"}
    assert sorted(path.name for path in (tmp_path / "apps").iterdir()) == [
        *("b.example", "b.example.known", "b.example.sock", "c.example", "c.example.known", "c.example.sock")
    ]


def test_an_app_that_is_cleared_takes_its_domains_along(markers: Markers) -> None:
    markers.lead({"a.example": "todo", "b.example": "other"})
    markers.clear("todo")
    assert markers.domains() == {"b.example": "other"}
