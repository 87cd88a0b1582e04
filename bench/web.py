"""The client that measures: HTTP/1.1 on one kept-alive connection, blocking, with nothing between it and the socket.

A client library costs as much as what is measured here (httpx: about a millisecond a request), so requests are bytes
that were built before the clock started.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Address = tuple[str, int] | Path
"""host and port, or a Unix socket."""


class Broken(Exception):
    """The connection ended, or what came is not HTTP."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Of one request."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    def json(self) -> Any:
        """Raises ValueError."""
        return json.loads(self.body)


class Connection:
    """One connection that is kept; opened again by the next request after it was closed."""

    def __init__(self, address: Address, *, timeout_s: float = 30.0) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None
        self._rest = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> socket.socket:
        """Connect unless that is done. Raises OSError."""
        if self._socket is None:
            if isinstance(self._address, Path):
                made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                made.settimeout(self._timeout_s)
                made.connect(str(self._address))
            else:
                made = socket.create_connection(self._address, timeout=self._timeout_s)
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket, self._rest = made, b""
        return self._socket

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def send(self, request: bytes) -> Answer:
        """One request and its whole answer. Raises OSError, `Broken`; the connection is then closed.

        A kept connection that the server closed while it was idle is opened again once, if nothing of an answer came.
        """
        fresh = self._socket is None
        try:
            return self._exchange(request)
        except (Broken, ConnectionError):
            self.close()
            if fresh or not request.startswith((b"GET ", b"HEAD ")):
                raise
        except BaseException:
            self.close()
            raise
        return self._exchange(request)

    def _exchange(self, request: bytes) -> Answer:
        connection = self.open()
        connection.sendall(request)
        head = self._until(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        try:
            status = int(lines[0].split(" ", 2)[1])
        except (IndexError, ValueError):
            raise Broken(f"not HTTP: {lines[0]!r}") from None
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:]) if name
        }
        body = self._body(status, headers)
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Answer(status, headers, body)

    def _body(self, status: int, headers: Mapping[str, str]) -> bytes:
        if status in (204, 304):
            return b""
        if headers.get("transfer-encoding", "").lower() == "chunked":
            parts = []
            while size := int(self._until(b"\r\n").split(b";")[0], 16):
                parts.append(self._exactly(size + 2)[:-2])
            self._until(b"\r\n")
            return b"".join(parts)
        if "content-length" in headers:
            return self._exactly(int(headers["content-length"]))
        parts = [self._rest]
        while piece := self.open().recv(1 << 16):
            parts.append(piece)
        self.close()
        return b"".join(parts)

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._rest:
            self._more()
        found, _, self._rest = self._rest.partition(mark)
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._rest) < size:
            self._more()
        found, self._rest = self._rest[:size], self._rest[size:]
        return found

    def _more(self) -> None:
        assert self._socket is not None
        piece = self._socket.recv(1 << 16)
        if not piece:
            self.close()
            raise Broken("the connection ended")
        self._rest += piece


def get(path: str, host: str, **headers: str) -> bytes:
    """A GET as bytes. Header names are given with `_` for `-`."""
    return request("GET", path, host, b"", **headers)


def request(method: str, path: str, host: str, body: bytes, **headers: str) -> bytes:
    """A request as bytes."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def multipart(metadata: Mapping[str, object], source: bytes) -> tuple[str, bytes]:
    """Content type and body of a deploy: its metadata first, so that it is known before the source has come."""
    boundary = f"bench{secrets.token_hex(8)}"
    part = f"--{boundary}\r\nContent-Disposition: form-data; name={{}}\r\nContent-Type: {{}}\r\n\r\n"
    body = part.format('"metadata"', "application/json").encode() + json.dumps(metadata).encode() + b"\r\n"
    body += part.format('"source"; filename="source.tar.gz"', "application/gzip").encode() + source
    return f"multipart/form-data; boundary={boundary}", body + f"\r\n--{boundary}--\r\n".encode()


class WebSocket:
    """A client of one WebSocket (RFC 6455), text frames only."""

    def __init__(self, address: Address, host: str, path: str = "/ws", *, timeout_s: float = 15.0) -> None:
        """Raises OSError, `Broken` when it is not switched to."""
        self._connection = Connection(address, timeout_s=timeout_s)
        self._socket = self._connection.open()
        key = base64.b64encode(os.urandom(16)).decode()
        head = get(
            path, host, Upgrade="websocket", Connection="Upgrade", Sec_WebSocket_Key=key, Sec_WebSocket_Version="13"
        )
        self._socket.sendall(head)
        answer = self._connection._until(b"\r\n\r\n")
        if b" 101 " not in answer.split(b"\r\n")[0]:
            self.close()
            raise Broken(f"no WebSocket: {answer[:80]!r}")
        self.close_code: int | None = None

    def send(self, text: str) -> None:
        """Raises OSError."""
        self._socket.sendall(frame(text.encode()))

    def receive(self) -> str:
        """The next text. Raises OSError, `Broken` when the other side closed; `close_code` then says how."""
        while True:
            first, second = self._connection._exactly(2)
            size = second & 0x7F
            if size == 126:
                size = struct.unpack("!H", self._connection._exactly(2))[0]
            elif size == 127:
                size = struct.unpack("!Q", self._connection._exactly(8))[0]
            payload = self._connection._exactly(size)
            kind = first & 0x0F
            if kind == 8:
                self.close_code = struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else 1005
                raise Broken(f"closed with {self.close_code}")
            if kind == 9:
                self._socket.sendall(frame(payload, kind=10))
            elif kind in (1, 2):
                return payload.decode("utf-8", "replace")

    def end(self) -> None:
        """Close as one should: say 1000, wait for the same. Raises OSError, `Broken` when the other side just went."""
        self._socket.sendall(frame(struct.pack("!H", 1000), kind=8))
        try:
            while True:
                self.receive()
        except Broken:
            if self.close_code is None:
                raise
        finally:
            self.close()

    def close(self) -> None:
        self._connection.close()


def frame(payload: bytes, *, kind: int = 1) -> bytes:
    """One masked frame, as a client has to send it."""
    mask = os.urandom(4)
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | kind, 0x80 | size))
    elif size < 1 << 16:
        head = bytes((0x80 | kind, 0xFE)) + struct.pack("!H", size)
    else:
        head = bytes((0x80 | kind, 0xFF)) + struct.pack("!Q", size)
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
