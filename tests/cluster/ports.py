"""Ports for programs that have to be told theirs, and a loopback network for fake pods."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_FIRST, _LAST = 20_000, 32_000
"""Below what the kernel hands out by itself, so that no outgoing connection takes the port in between."""
_LISTENS = "0A"
"""A row's state in /proc/net/tcp."""


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on now."""
    while True:
        port = random.randint(_FIRST, _LAST)
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port


class PodNetwork:
    """127.N.0.0/16, which is this object's alone on this machine until `release`, or until the process ends.

    Linux answers at any address of 127.0.0.0/8, so a real agent that listens at a fake pod's address is reached there.
    One that a run of tests which was killed has left would be met in the place of a new pod's: where anything listens,
    the network is passed over.
    """

    def __init__(self) -> None:
        used = _listened_in()
        for number in range(1, 255):
            if number in used:
                continue
            held = socket.socket()
            try:
                held.bind((f"127.{number}.255.254", _FIRST - 1))
                held.listen(1)
            except OSError:
                held.close()
                continue
            self._held, self.number = held, number
            return
        raise OSError("all 254 loopback networks for fake pods are taken")

    @property
    def cidr(self) -> str:
        """As kwok wants it: the first address that it gives is the next one."""
        return f"127.{self.number}.0.1/16"

    def release(self) -> None:
        self._held.close()


def _listened_in() -> set[int]:
    """Each N of which somebody listens in 127.N.0.0/16; 127.0 is everybody's."""
    found = set()
    for row in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, _, state = row.split()[1:4]
        # the address as the bytes of a word of this machine, which is little-endian wherever vibeD runs
        _, _, second, first = bytes.fromhex(local.partition(":")[0])
        if first == 127 and state == _LISTENS:
            found.add(second)
    return found
