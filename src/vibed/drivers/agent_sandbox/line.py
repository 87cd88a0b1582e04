"""The line to the agent of one pod: TLS, a proof of who asks, and then the wire that supervisors speak, too."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vibed import wire
from vibed.drivers.agent_sandbox.signing import ClaimKeys, Pod

INGRESS_PORT = 20080
CONTROL_PORT = 20081
PROBES_PORT = 20082
"""Of every pod (agent/pod). Not 8080 and its neighbours: apps share the pod's network, and those are theirs."""

ACCEPTED = b"\x01"

_CONNECT_S = 5.0
_PROOF_S = 10.0
_CHUNK = 256 << 10
_PROOF_LIES = frozenset({"WrongToken", "ClaimRefused", "AlreadyClaimed"})


_REST_S = 20.0
"""How long a pod that has refused our tokens is not asked again: who fails ten times in a minute is not met for one."""


FIRST_LINE_BYTES = 8 << 10
"""The longest line that an agent reads of somebody who has not proven anything yet (agent/pod/gate.go)."""
_BESIDE_DOCUMENT_BYTES = 256


class NotOurs(wire.WireError):
    """The agent does not take us for its owner: it knows another claim, or another key than this controller has. While
    the key is changed that may be a controller of before, which says nothing about the pod.
    """

    code = "SandboxNotOurs"
    asked = True
    """Whether it has said so just now, which is a sign of life."""


class NobodysYet(NotOurs):
    """Nobody has claimed the agent's pod."""

    code = "SandboxNobodysYet"


@dataclass(frozen=True, slots=True)
class Where:
    """A pod that a claim has."""

    claim: str
    claim_uid: str
    namespace: str
    pod: str
    """Its name."""
    pod_uid: str
    ip: str

    def address(self, port: int) -> str:
        return wire.address(self.ip, port)


class AgentLine:
    """Calls go through one connection, made when it is first needed and again when it was lost; what the agent says
    unasked, `hear` hears.
    """

    def __init__(self, where: Where, keys: ClaimKeys, hear: Callable[[wire.Message], None]) -> None:
        self.where = where
        self._keys = keys
        self._hear = hear
        self._connection: wire.Connection | None = None
        self._connecting = asyncio.Lock()
        self._taken = 0
        """Which of the keys the agent knows: the one that is in use, or the one before it."""
        self._closed = False
        self._refused: str | None = None
        """What the agent has said to each of our tokens."""
        self._rests_until = 0.0

    async def claim(self) -> None:
        """Make the pod the claim's. Raises `NotOurs`, `Disconnected`, `WireError`."""
        async with self._connecting:
            self._connection = await self._prove(
                "claim", "document", lambda pod: self._keys.documents(self.where.claim, self.where.claim_uid, pod)
            )

    async def connect(self) -> wire.Connection:
        """The connection, by the claim's token. Raises `NotOurs`, `Disconnected`, `WireError`."""
        async with self._connecting:  # of two calls that find none, one connects
            if self._closed:
                raise wire.Disconnected(f"the line to {self.where.pod} is closed")
            if self._connection is None or self._connection.closed.done():
                self._connection = await self._attach()
            return self._connection

    async def call(self, op: str, timeout: float, **arguments: object) -> wire.Message:
        """As `wire.Connection.call`. Raises `NotOurs` as well."""
        connection = await self.connect()
        return await connection.call(op, timeout=timeout, **arguments)

    async def drop(self, connection: wire.Connection) -> None:
        """Let go of a connection on which nothing comes any more; the next call makes another one."""
        if self._connection is connection:
            self._connection = None
        await connection.close()

    async def send(self, source: Path, digest: str, timeout: float) -> None:
        """Give the agent a file, which it knows by its digest then. Raises `Disconnected`, `WireError`, OSError.

        It has a connection of its own: nothing may come between the request and the bytes that follow it.
        """
        async with asyncio.timeout(timeout):
            reader, writer, seen = await self._open()
            try:
                await _say(writer, {"id": 1, "op": "attach", "token": self._token(seen)})
                _accepted(await _answer(reader, 1))
                size = (await asyncio.to_thread(source.stat)).st_size
                await _say(writer, {"id": 2, "op": "source", "sha256": digest, "size": size})
                async for chunk in _chunks(source):
                    writer.write(chunk)
                    await writer.drain()
                _accepted(await _answer(reader, 2))
            except (OSError, ValueError) as error:
                if isinstance(error, TimeoutError):
                    raise
                raise wire.Disconnected(f"{self.where.pod} broke off while it was sent its source: {error}") from error
            finally:
                writer.close()

    async def stream(self, at: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection that is joined to the next one that comes at a builder's socket: `ACCEPTED`, a byte, says that
        one has, and its bytes follow. Raises `Disconnected`, `WireError`.
        """
        try:
            async with asyncio.timeout(_PROOF_S):
                reader, writer, seen = await self._open()
                try:
                    await _say(writer, {"id": 1, "op": "stream", "token": self._token(seen), "at": at})
                    _accepted(await _answer(reader, 1))
                except BaseException:
                    writer.close()
                    raise
        except (OSError, ValueError) as error:
            raise wire.Disconnected(f"{self.where.pod} carries nothing: {error}") from error
        return reader, writer

    async def close(self) -> None:
        self._closed = True
        if self._connection is not None:
            await self._connection.close()

    async def _attach(self) -> wire.Connection:
        if self._refused is not None and time.monotonic() < self._rests_until:
            known = NotOurs(self._refused, code="WrongToken")
            known.asked = False
            raise known
        try:
            return await self._prove("attach", "token", lambda pod: self._keys.tokens(self.where.claim_uid, pod))
        except NotOurs as error:
            if error.error_code == "WrongToken":
                self._refused, self._rests_until = error.message, time.monotonic() + _REST_S
            raise

    def _token(self, pod: Pod) -> str:
        """By the key that this agent knows, as far as it has said so."""
        tokens = self._keys.tokens(self.where.claim_uid, pod)
        return tokens[min(self._taken, len(tokens) - 1)]

    async def _prove(self, op: str, name: str, proofs: Callable[[Pod], Sequence[str]]) -> wire.Connection:
        """A connection by the first of the proofs that the agent takes; each is tried on a connection of its own."""
        refused: NotOurs | None = None
        pod = None
        tried = 0
        while pod is None or tried < len(proofs(pod)):
            reader, writer, pod = await self._open()
            connection = wire.Connection(reader, writer, self._hear)
            try:
                await _proven(connection, op, **{name: proofs(pod)[tried]})
                # whichever document made it the claim's, the token in it is of the first key
                self._taken = tried if op == "attach" else 0
                return connection
            except NotOurs as error:
                refused = refused or error
            tried += 1
        assert refused is not None
        raise refused

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Pod]:
        return await _opened(self.where)


async def prefetch(
    where: Where, keys: ClaimKeys, layers: Sequence[Mapping[str, object]], max_bytes: int
) -> wire.Message:
    """Have a pod that is nobody's fetch layers, as many of the first as it can be told of: `held`, `coming` and
    `refused`, by their digests. Raises `WireError` where it does not, or does not take us for a controller,
    `Disconnected`, TimeoutError, OSError.
    """
    told = _as_many_as_fit(where, keys, layers, max_bytes)
    number = 0
    while True:
        async with asyncio.timeout(_PROOF_S):
            reader, writer, pod = await _opened(where)
            try:
                documents = keys.prefetches(told, max_bytes, pod)
                await _say(writer, {"id": 1, "op": "prefetch", "document": documents[number]})
                answer = await _answer(reader, 1)
                _accepted(answer)
                return dict(answer["ok"])
            except wire.WireError as error:
                number += 1
                if error.error_code != "ClaimRefused" or number == len(documents):
                    raise  # else it knows the key alone that was there before
            except (ValueError, TypeError, AttributeError, KeyError) as error:
                raise wire.Disconnected(f"what {where.pod} answers is no answer of an agent: {error}") from error
            finally:
                writer.close()


def _as_many_as_fit(
    where: Where, keys: ClaimKeys, layers: Sequence[Mapping[str, object]], max_bytes: int
) -> Sequence[Mapping[str, object]]:
    """The first of them that a first line has room for: addresses that are signed for a role are long. Before there is
    a connection, since who comes and then says nothing has failed to prove who it is.
    """
    like_it = Pod(where.namespace, where.pod_uid, "0" * 64)
    for count in range(len(layers), -1, -1):
        (document, *_) = keys.prefetches(layers[:count], max_bytes, like_it)
        if len(document) <= FIRST_LINE_BYTES - _BESIDE_DOCUMENT_BYTES and (count or not layers):
            return layers[:count]
    raise wire.MessageTooLong("the address of a layer is too long for a pod to be told of it")


async def _opened(where: Where) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Pod]:
    try:
        async with asyncio.timeout(_CONNECT_S):
            reader, writer = await asyncio.open_connection(
                where.ip,
                CONTROL_PORT,
                ssl=_context(),
                server_hostname="",
                ssl_shutdown_timeout=wire.GOODBYE_S,
                limit=wire.MAX_LINE,
            )
    except (OSError, TimeoutError) as error:
        raise wire.Disconnected(f"the agent of {where.pod} does not answer: {error}") from error
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return reader, writer, Pod(where.namespace, where.pod_uid, hashlib.sha256(shown).hexdigest())


@functools.cache
def _context() -> ssl.SSLContext:
    # one for all: each has memory of its own, and there is a line to each sandbox
    # nobody has signed the certificate: whose it is shows in whether the document, or the token, for it is accepted
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


async def _proven(connection: wire.Connection, op: str, **proof: str) -> None:
    try:
        await connection.call(op, timeout=_PROOF_S, **proof)
    except wire.WireError as error:
        await connection.close()
        if error.error_code == "NotClaimed":
            raise NobodysYet(error.message, code=error.error_code) from error
        if error.error_code in _PROOF_LIES:
            raise NotOurs(error.message, code=error.error_code) from error
        raise
    except TimeoutError as error:
        await connection.close()
        raise wire.Disconnected("the agent did not answer who asked it") from error


async def _say(writer: asyncio.StreamWriter, message: wire.Message) -> None:
    writer.write(json.dumps(message).encode() + b"\n")
    await writer.drain()


async def _answer(reader: asyncio.StreamReader, number: int) -> wire.Message:
    while line := await reader.readline():
        message = json.loads(line)
        if message.get("id") == number:
            return dict(message)
    raise ConnectionResetError("it closed the connection")


def _accepted(answer: wire.Message) -> None:
    if error := answer.get("error"):
        raise wire.WireError(str(error.get("message", "")), code=str(error.get("code", "WireError")))


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb") as file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK):
            yield chunk
