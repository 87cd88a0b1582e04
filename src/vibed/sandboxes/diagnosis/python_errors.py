"""Errors as Python and its servers write them: tracebacks, chained and grouped, and the one-line refusals of tools."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from vibed.sandboxes.diagnosis.fault import Fault, Place, one_line, own

_HEADER = re.compile(r"Traceback \(most recent call last\):$")
# as rich draws them
_BOX = re.compile(r"^╭─+ Traceback \(most recent call last\) ─+╮$")
_BOX_FRAME = re.compile(r"^│ (/\S+):(\d+) in ")
# the margin that an exception group draws before the lines of each of its exceptions
_MARGIN = re.compile(r"^ *(?:[|+] ?)+(?:-\+-+ \d+ -+|-+ \d+ -+|-+)?")
_FRAME = re.compile(r'^(?:\s+|> )File "([^"]+)", line (\d+)')
_EXCEPTION = re.compile(r"^([A-Za-z_][\w.]*)(?::(?: (.*))?)?$")
_LINK = re.compile(r"^(During handling of the above exception|The above exception was the direct cause)")
_SYNTAX = re.compile(r"^(?:\w*SyntaxError|IndentationError|TabError): ")
_LOG = re.compile(r"^\[?\d{4}-\d\d-\d\d[ T]|^\[\d+\] |^(?:DEBUG|INFO|WARNING|ERROR|CRITICAL)\b|^  \+ ")
_GROUP = re.compile(r"ExceptionGroup: .*\(\d+ sub-exceptions?\)$")
_ENDS = re.compile(r"^(?:SystemExit|KeyboardInterrupt|gunicorn\.errors\.HaltServer|(?:\w+\.)*CancelledError)\b")
"""How a program ends whose reason stands elsewhere."""

_REFUSALS = (
    # uvicorn, gunicorn, Django's commands, python itself
    re.compile(r"^ERROR: +(Error loading ASGI app\. .+)"),
    re.compile(r"^(Failed to (?:find attribute|parse) '.+|Application object must be callable\.)$"),
    re.compile(r"^(CommandError: .+)"),
    re.compile(r"^((?:\S*/)?python[\d.]*: (?:can't open file .+|No module named .+|Error while finding module .+))"),
    re.compile(r"^(Fatal Python error: .+)"),
    # argparse
    re.compile(r"^(\S+: error: .+)"),
)
_USAGE = re.compile(r"^\s*[Uu]sage: ")
_CLICK = re.compile(r"^Error: (.+)|^[│|] (.+?) *[│|]$")
_USAGE_LINES = 30
_ADVICE = re.compile(r"^\(Background on this error|^\s+For further information visit")
_UNFINISHED = "an exception"
_LONGEST_MESSAGE = 12
"""Lines."""


def faults(lines: Sequence[str]) -> Iterator[Fault]:
    """The errors in prepared lines, in their order."""
    yield from _tracebacks(lines)
    yield from _boxes(lines)
    yield from _syntax_errors(lines)
    yield from _refusals(lines)


def ends_only(fault: Fault) -> bool:
    """Whether the error only says that the program was ended."""
    return bool(_ENDS.match(fault.text))


def _tracebacks(lines: Sequence[str]) -> Iterator[Fault]:
    chain: Fault | None = None
    at, seen = 0, False
    while at < len(lines):
        if not _HEADER.search(lines[at]):
            if chain is not None and not _LINK.match(_bare(lines[at])) and lines[at].strip():
                yield chain
                chain = None
            at += 1
            continue
        fault, direct = _one(lines, at), at > 1 and _links_directly(lines[:at])
        if fault.text == _UNFINISHED and fault.end == len(lines) and (chain is not None or seen):
            break  # it is being written: what it will say is not known, and what came before it is
        if chain is not None and any(_LINK.match(_bare(line)) for line in lines[chain.end : at]):
            fault = _joined(chain, fault, direct)
        elif chain is not None:
            yield chain
        chain, at, seen = fault, max(fault.end, at + 1), True
    if chain is not None:
        yield chain


def _one(lines: Sequence[str], start: int) -> Fault:
    """The traceback whose header is at `start`."""
    grouped = "Exception Group Traceback" in lines[start]
    at = start + 1
    while at < len(lines) and _of_body(lines, at):
        at += 1
    body = [_bare(line) for line in lines[start:at]]
    message: list[str] = []
    while at < len(lines) and len(message) < _LONGEST_MESSAGE and (not message or _goes_on(lines, at, message)):
        message.append(_bare(lines[at]))
        at += 1
    if grouped and message:
        at = start + len(body) + 1
        message = [": ".join([message[0], *_members(lines, at)[:1]])]
    frames = [match for line in body if (match := _FRAME.match(line))]
    places = [place for match in frames if (place := own(match[1], match[2]))]
    last = own(frames[-1][1], frames[-1][2]) if frames else None
    deepest = next((f for f in reversed(frames) if not f[1].startswith(("<", "/usr/lib/python"))), None)
    return Fault(
        start,
        at,
        one_line(line for line in message if not _ADVICE.match(line)) or _UNFINISHED,
        places[-1] if places else None,
        (*body, *message),
        library=last is None and deepest is not None and own(deepest[1], deepest[2]) is None,
    )


def _of_body(lines: Sequence[str], at: int) -> bool:
    """Whether the line is of a traceback's frames. Some loggers leave lines empty, or mark one with `>`."""
    bare = _bare(lines[at])
    if not bare.strip():
        return at + 1 < len(lines) and bool(re.match(r">?  ?File \"|    ", _bare(lines[at + 1])))
    return bare.startswith((" ", "\t", "> File "))


def _boxes(lines: Sequence[str]) -> Iterator[Fault]:
    for start, line in enumerate(lines):
        if not _BOX.match(line):
            continue
        end = next((n for n in range(start, len(lines)) if lines[n].startswith("╰─")), None)
        if end is None or end + 1 >= len(lines):
            return
        frames = [match for one in lines[start:end] if (match := _BOX_FRAME.match(one))]
        places = [place for match in frames if (place := own(match[1], match[2]))]
        context = tuple(lines[start : end + 2])
        yield Fault(start, end + 2, one_line([lines[end + 1]]), places[-1] if places else None, context)


def _goes_on(lines: Sequence[str], at: int, message: Sequence[str]) -> bool:
    """Whether the line belongs to the message that began before it."""
    bare = _bare(lines[at])
    if bare.strip() and message[0].endswith(f": {bare}"):
        return False  # said again by who caught it
    if _LOG.match(bare) or _HEADER.search(bare) or _LINK.match(bare) or "+-" in lines[at][:40]:
        return False
    if not bare.strip():
        return len(message) == 1 and message[0].rstrip().endswith(":")
    announced = message[-1].rstrip().endswith(":") or not message[-1].strip()
    followed = at + 1 < len(lines) and lines[at + 1].startswith("  ")
    return bare.startswith((" ", "\t", "[", "(")) or announced or (followed and bare not in message[0])


def _members(lines: Sequence[str], at: int) -> list[str]:
    """What a group consists of, as far as it is told without a traceback of its own."""
    found = []
    for line in lines[at : at + 40]:
        if not re.match(r"^ *[|+]", line):
            break
        if (bare := _bare(line)) and _EXCEPTION.match(bare):
            found.append(bare)
        elif _HEADER.search(bare):
            break
    return found


def _joined(cause: Fault, fault: Fault, direct: bool) -> Fault:
    """A traceback together with the one that it came of."""
    text = fault.text
    said = _EXCEPTION.match(cause.text)
    if direct and said and (said[2] or said[1]) not in text and not _GROUP.search(cause.text):
        text = one_line([f"{text}, caused by {cause.text}"])
    place = fault.place or cause.place
    return replace(fault, start=cause.start, text=text, place=place, context=(*cause.context, *fault.context))


def _links_directly(before: Sequence[str]) -> bool:
    words = next((_bare(line) for line in reversed(before) if line.strip()), "")
    return words.startswith("The above exception was the direct cause")


def _syntax_errors(lines: Sequence[str]) -> Iterator[Fault]:
    """Of the file that was to be run: they have no traceback."""
    for at, line in enumerate(lines):
        if not _SYNTAX.match(line):
            continue
        for back in range(at - 1, max(-1, at - 8), -1):
            if frame := _FRAME.match(lines[back]):
                before = lines[back - 1] if back else ""
                if not (_HEADER.search(before) or before.startswith("  ")):
                    place: Place | None = own(frame[1], frame[2])
                    yield Fault(back, at + 1, one_line([line]), place, tuple(lines[back : at + 1]))
                break


def _refusals(lines: Sequence[str]) -> Iterator[Fault]:
    usage = -_USAGE_LINES
    for at, line in enumerate(lines):
        if _USAGE.match(line):
            usage = at
        for pattern in _REFUSALS:
            if match := pattern.match(line):
                yield Fault(at, at + 1, one_line([match[1]]), None, tuple(lines[max(0, at - 2) : at + 1]))
                break
        else:
            if at - usage < _USAGE_LINES and (match := _CLICK.match(line)):
                usage = -_USAGE_LINES
                yield Fault(at, at + 1, one_line([match[1] or match[2]]), None, (line,))


def _bare(line: str) -> str:
    """A line without an exception group's margin."""
    return _MARGIN.sub("", line) if line.lstrip(" ").startswith(("|", "+")) else line
