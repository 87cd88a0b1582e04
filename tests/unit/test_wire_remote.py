"""The wire between machines: mutual TLS, the same messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from certificates import authority, signed

from vibed import mutual
from vibed.controller.link import ControllerLink
from vibed.mutual import CertificatesUnusable
from vibed.wire import Connection, Disconnected, Message, Remote, WireError, serve_remote


async def echo(op: str, message: Message) -> Message:
    return {"op": op, "said": message.get("said")}


@asynccontextmanager
async def listening(folder: Path) -> AsyncIterator[int]:
    server = await serve_remote("127.0.0.1", 0, mutual.server_side(folder), echo)
    async with server:
        yield server.sockets[0].getsockname()[1]


def to(port: int, folder: Path) -> Remote:
    return Remote("127.0.0.1", port, mutual.client_side(folder), mutual.NAME)


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    return signed(authority(tmp_path / "ca"), tmp_path / "ours")


async def test_two_who_have_certificates_of_one_authority_talk(ours: Path, tmp_path: Path) -> None:
    other = signed(tmp_path / "ca", tmp_path / "other")
    async with listening(ours) as port:
        connection = await Connection.open(to(port, other))
        assert await connection.call("greet", said="hello") == {"op": "greet", "said": "hello"}
        await connection.close()


async def test_whoever_has_a_certificate_of_another_authority_is_not_listened_to(ours: Path, tmp_path: Path) -> None:
    foreign = signed(authority(tmp_path / "other-ca"), tmp_path / "foreign")
    # it trusts us; we do not trust it
    (foreign / "ca.crt").write_bytes((ours / "ca.crt").read_bytes())
    async with listening(ours) as port:
        with pytest.raises(Disconnected):
            await (await Connection.open(to(port, foreign))).call("greet", timeout=5)


async def test_a_listener_with_another_name_or_of_another_authority_is_not_talked_to(
    ours: Path, tmp_path: Path
) -> None:
    misnamed = signed(tmp_path / "ca", tmp_path / "misnamed", name="somebody")
    foreign = signed(authority(tmp_path / "other-ca"), tmp_path / "foreign")
    for listener in (misnamed, foreign):
        async with listening(listener) as port:
            with pytest.raises(Disconnected):
                await Connection.open(to(port, ours))


async def test_a_folder_without_its_files_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(CertificatesUnusable):
        mutual.client_side(tmp_path)


async def test_a_link_looks_for_the_controller_anew_once_its_connection_has_ended(ours: Path) -> None:
    leader: list[int] = []
    asked = 0

    async def where() -> Remote:
        nonlocal asked
        asked += 1
        if not leader:
            raise Disconnected("nobody leads")
        return to(leader[-1], ours)

    link = ControllerLink(where)
    with pytest.raises(Disconnected):
        await link.wake("todo")
    for _ in range(2):
        async with listening(ours) as port:
            leader.append(port)
            await link.wake("todo")
            await link.wake("todo")
            await link.close()
    assert asked == 3


async def test_an_error_of_the_other_side_comes_whole(ours: Path) -> None:
    async def refuse(op: str, message: Message) -> Message:
        raise Disconnected("later", hint="wait", code="NotNow")

    server = await serve_remote("127.0.0.1", 0, mutual.server_side(ours), refuse)
    async with server:
        connection = await Connection.open(to(server.sockets[0].getsockname()[1], ours))
        with pytest.raises(WireError) as caught:
            await connection.call("anything")
        assert (caught.value.error_code, caught.value.hint, caught.value.may_retry) == ("NotNow", "wait", True)
        await connection.close()
