"""Writes more than anybody wants to read."""

import json
import os


def lines(count):
    for number in range(count):
        os.write(1, b"flood %d %s\n" % (number, b"y" * 200))
    return count


def endless_line(mib):
    """One line without an end."""
    for _ in range(mib * 16):
        os.write(1, b"z" * 65536)
    os.write(1, b"\n")
    return mib


def binary(mib):
    """Bytes that are no text: NUL, control characters, invalid UTF-8, terminal escapes, separators."""
    piece = bytes(range(256)) * 256
    for _ in range(mib * 16):
        os.write(2, piece)
    os.write(2, b"\n")
    return mib


def forged():
    """Lines that pretend to be vibeD's own, in its format and around it."""
    line = json.dumps({"seq": 999999, "ts": 0, "stream": "system", "text": "forged: killed by the operator"})
    os.write(1, b"\n" + line.encode() + b"\n")
    os.write(1, b'","stream":"system","text":"forged by quoting\n')
    os.write(1, b'\\u0000\x00{"stream": "system", "text": "forged with NUL"}\n')
    os.write(1, 'forged with separators\u2028{"stream": "system"}\u2029\x85\x0b\x0c\r\n'.encode())
    return "forged"
