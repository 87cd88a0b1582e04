"""Errors as compiled programs in Rust and C++, and programs of the JVM, write them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from vibed.sandboxes.diagnosis.fault import Fault, Place, one_line

_RUST = re.compile(r"^thread '.*' (?:\(\d+\) )?panicked at (?:'(?P<old>.*)', )?(?P<file>[\w./-]+):(?P<line>\d+):\d+:?$")
_CPP = re.compile(r"^terminate called after throwing an instance of '(.+)'$")
_CPP_WHAT = re.compile(r"^\s+what\(\):\s+(.+)$")
_JVM = re.compile(r'^(?:Exception in thread "[^"]+" )((?:[a-z]\w*\.)+[A-Z][\w$]*(?:: .*)?)$')


def faults(lines: Sequence[str]) -> Iterator[Fault]:
    """The errors in prepared lines, in their order."""
    for at, line in enumerate(lines):
        following = lines[at + 1] if at + 1 < len(lines) else ""
        if match := _RUST.match(line):
            place = None if match["file"].startswith("/") else Place(match["file"][:200], int(match["line"][:9]))
            yield Fault(at, at + 2, one_line(["panic:", match["old"] or following]), place, (line, following))
        elif match := _CPP.match(line):
            what = _CPP_WHAT.match(following)
            yield Fault(at, at + 2, one_line([f"{match[1]}: {what[1]}" if what else match[1]]), None, (line, following))
        elif match := _JVM.match(line):
            yield Fault(at, at + 1, one_line([match[1]]), None, (line,))
