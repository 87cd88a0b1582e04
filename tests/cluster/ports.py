"""Ports for programs that have to be told theirs, and a loopback network for fake pods."""

from __future__ import annotations

import random
import socket

_FIRST, _LAST = 20_000, 32_000
"""Below what the kernel hands out by itself, so that no outgoing connection takes the port in between."""


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
    """

    def __init__(self) -> None:
        for number in range(1, 255):
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
