"""What the DNS says at a name (TXT), asked over TCP: nobody beside the path can forge an answer, and none is cut off.

A program of its own, `python texts.py UID NAME SERVER…`, so that the controller, which is root and never faces the
network, need not read what comes from it: it gives up its uid before it asks (0: it keeps it). It prints the texts as
a JSON list, or ends with 1 and one line that says why not. Standard library only, and nothing of vibeD's. The wire is
RFC 1035, chapter 4; a question over TCP has its length before it.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 (sockets take it when they are first used, and the other uid may not read it)
import json
import os
import secrets
import socket
import struct
import sys
from collections.abc import Sequence

ANSWER_S = 5.0
"""How long one server has."""
_TXT, _IN = 16, 1
_NAME_DOES_NOT_EXIST = 3
_LARGEST = 65_535


class NoAnswer(Exception):
    """No server gave an answer that can be used."""


def texts(name: str, servers: Sequence[str]) -> list[str]:
    """The texts at `name`, none where there is no such name. `servers`: `host:port` or `host`; the first that answers
    is believed. Raises NoAnswer.
    """
    failures = []
    for server in servers:
        try:
            return _asked(name, server)
        except (OSError, NoAnswer, struct.error, IndexError) as error:
            failures.append(f"{server}: {error or type(error).__name__}")
    raise NoAnswer("; ".join(failures) or "there is no DNS server to ask")


def servers_of_machine(resolv_conf: str) -> list[str]:
    """The servers that /etc/resolv.conf names (resolv.conf(5))."""
    lines = (line.split() for line in resolv_conf.splitlines())
    return [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]


def _asked(name: str, server: str) -> list[str]:
    host, port = _address(server)
    question = b"".join(bytes([len(label)]) + label.encode("ascii") for label in name.split("."))
    question += b"\0" + struct.pack("!HH", _TXT, _IN)
    number = secrets.randbits(16)
    asked = struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0) + question  # recursion desired
    # servers are addresses or, of the operator's own, names of the machine's; looked up as anywhere else
    with socket.create_connection((host, port), timeout=ANSWER_S) as connection:
        connection.sendall(struct.pack("!H", len(asked)) + asked)
        length: int = struct.unpack("!H", _exactly(connection, 2))[0]
        answer = _exactly(connection, length)
    return _read(answer, number, question)


def _address(server: str) -> tuple[str, int]:
    if server.startswith("["):
        host, _, port = server[1:].partition("]")
        return host, int(port.removeprefix(":") or 53)
    if server.count(":") == 1:
        host, _, port = server.partition(":")
        return host, int(port)
    return server, 53


def _exactly(connection: socket.socket, length: int) -> bytes:
    read = b""
    while len(read) < length:
        piece = connection.recv(length - len(read))
        if not piece:
            raise NoAnswer("it hung up")
        read += piece
    return read


def _read(answer: bytes, number: int, question: bytes) -> list[str]:
    said, flags, questions, records = struct.unpack_from("!HHHH", answer)
    code = flags & 0xF
    if said != number or not flags & 0x8000 or questions != 1:
        raise NoAnswer("what came is no answer to what was asked")
    if code == _NAME_DOES_NOT_EXIST:
        return []
    if code:
        raise NoAnswer(f"it answered with code {code} (RFC 6895)")
    at = 12
    if answer[at : at + len(question)].lower() != question.lower():
        raise NoAnswer("it answered another question")
    at += len(question)
    found = []
    for _ in range(records):
        at = _after_name(answer, at)
        kind, cls, _, length = struct.unpack_from("!HHIH", answer, at)
        at += 10
        if at + length > len(answer):
            raise NoAnswer("its answer is cut off")
        if kind == _TXT and cls == _IN:
            found.append(_joined(answer[at : at + length]))
        at += length
    return found


def _after_name(answer: bytes, at: int) -> int:
    while True:
        length = answer[at]
        if length & 0xC0:
            return at + 2  # a pointer ends a name
        at += 1 + length
        if not length:
            return at


def _joined(data: bytes) -> str:
    """One text comes in strings of 255 bytes at most."""
    pieces, at = b"", 0
    while at < len(data):
        begins, at = at + 1, at + 1 + data[at]
        if at > len(data):
            raise NoAnswer("its answer is cut off")
        pieces += data[begins:at]
    return pieces.decode("utf-8", "replace")


def main(arguments: Sequence[str]) -> int:
    uid, name, *servers = arguments
    if int(uid):
        os.setgroups([])
        os.setresgid(int(uid), int(uid), int(uid))
        os.setresuid(int(uid), int(uid), int(uid))
    try:
        sys.stdout.write(json.dumps(texts(name, servers)))
    except NoAnswer as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
