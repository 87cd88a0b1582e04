"""Errors as Node.js and workerd write them: uncaught ones with the line that they come from, and stacks in a log."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from vibed.sandboxes.diagnosis.fault import Fault, Place, first_place, one_line, own

_SITE = re.compile(r"^((?:file://)?/[^\s:]+|node:[\w/]+):(\d+)$")
_CARET = re.compile(r"^\s*\^+\s*$|^\s{200,}")
_STACK = re.compile(r"^\s*at (?:async )?(?:.+ \(.+\)|\S+:\d+(?::\d+)?|\S+)(?: \{|,)?$")
_IN_STACK = re.compile(r"[ (]((?:file://)?[\w/.@-][^\s():]*):(\d+)(?::\d+)?\)?(?: \{|,)?$")
_HEAD = re.compile(
    r"(?:^|[\s\[(])((?:Uncaught )?(?:[A-Za-z_$][\w$.]*)?(?:Error|Exception|Rejection)(?: \[[\w$.]+\])?"
    r"(?::(?: .*)?|\])?)(?: \{)?$"
)
_TAGGED = re.compile(
    r"^(?:\[[\w .:-]{1,40}\]\s{0,3}){0,6}\[(?:[\w ]{0,20}error|unhandled|5\d\d)\]\s{0,3}(\S.*)$", re.IGNORECASE
)
"""As a server's own log has an error: `[nuxt] [request error] [500] supabaseUrl is required.`"""
_IMPORTER = re.compile(r"^- (/app/[^\s:]+)()$|imported from (/app/[^\s:]+)()$")
_MESSAGE_ENDS = re.compile(r"^\s*at |^Require stack:|^\(Use `node|^Node\.js v|^Emitted |^\s*\}?$|^This file is being")
_CAUSE = re.compile(r"\[cause\]: (.+?)(?: \{)?$")
_MEMBER = re.compile(r"^\s+(?:\w*Error(?: \[\w+\])?: .+?)(?: \{)?$")
_REASON = re.compile(r'^UnhandledPromiseRejection: .* with the reason "(.*)"\.$')
_NODE_ENDS = re.compile(r"^Node\.js v\d")
_FATAL = re.compile(r"^(?:FATAL ERROR: .+|#\s*Fatal error in .+)$")
_BLOCK = 1000
_SOURCE_LINES = 12
_LONGEST_MESSAGE = 20
"""Lines."""


def faults(lines: Sequence[str]) -> Iterator[Fault]:
    """The errors in prepared lines, in their order."""
    covered = 0
    for at, line in enumerate(lines):
        if at < covered:
            continue
        fault = _fatal(at, line) or _uncaught(lines, at) or _logged(lines, at, covered)
        if fault is not None:
            covered = fault.end
            yield fault


def _fatal(at: int, line: str) -> Fault | None:
    return Fault(at, at + 1, one_line([line]), None, (line,)) if _FATAL.match(line) else None


def _uncaught(lines: Sequence[str], start: int) -> Fault | None:
    """What ended the program: a place, the source there with a caret, the error, its stack, what it carries."""
    if (site := _SITE.match(lines[start])) is None:
        return None
    caret = next((n for n in range(start + 1, min(len(lines), start + _SOURCE_LINES)) if _CARET.match(lines[n])), None)
    if caret is None:
        return None
    head = caret + 1
    while head < len(lines) and head < caret + 4 and (not lines[head].strip() or _CARET.match(lines[head])):
        head += 1
    # TypeScript's errors show more of the source below the caret
    head = next((n for n in range(head, min(len(lines), head + 6)) if _HEAD.search(lines[n])), head)
    end = _end(lines, head)
    if head >= end:
        return None
    block = lines[start:end]
    return Fault(start, end, _text(lines, head, end), _place(lines[head:end]) or own(site[1], site[2]), tuple(block))


def _logged(lines: Sequence[str], stack: int, covered: int) -> Fault | None:
    """An error that the program wrote with its stack, of which a first line is at `stack`."""
    if not _STACK.match(lines[stack]):
        return None
    for head in range(stack - 1, max(covered - 1, stack - _LONGEST_MESSAGE, -1), -1):
        line = lines[head].strip()
        if match := _HEAD.search(line) or re.match(r"(\w*(?:Error|Exception): .+)", line) or _TAGGED.match(line):
            break
        if (not lines[head].strip() and head < stack - 3) or _STACK.match(lines[head]):
            return None
    else:
        return None
    end = stack
    while end < len(lines) and _STACK.match(lines[end]):
        end += 1
    if lines[end - 1].endswith("{"):
        closing = next((n for n in range(end, min(len(lines), end + 60)) if lines[n].startswith("}")), end - 1)
        end = closing + 1
    text = _text(lines, head, end, match[1])
    return Fault(head, end, text, _place(lines[head:end]), tuple(lines[head:end]))


def _end(lines: Sequence[str], head: int) -> int:
    for at in range(head, min(len(lines), head + _BLOCK)):
        if _NODE_ENDS.match(lines[at]):
            return at + 1
        if _SITE.match(lines[at]):
            return at
    return min(len(lines), head + _BLOCK)


def _text(lines: Sequence[str], head: int, end: int, first: str = "") -> str:
    """The error's message, and what caused it."""
    first = (first or lines[head]).strip()
    carries = first.endswith("{")
    message = [first.removesuffix("{").strip()]
    for line in lines[head + 1 : min(end, head + _LONGEST_MESSAGE)]:
        # a message may begin with empty lines, and have some within
        if carries or (_MESSAGE_ENDS.match(line) and not (not line.strip() and _goes_on(lines, head, end))):
            break
        message.append(line)
    text = one_line(message)
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    if reason := _REASON.match(" ".join(message)):
        return one_line([f"a promise was rejected and nothing catches it: {reason[1]}"])
    for line in lines[head:end]:
        if (cause := _CAUSE.search(line)) and cause[1] not in text:
            return one_line([f"{text}, caused by {cause[1]}"])
    if "AggregateError" in text and (
        member := next((m for n in lines[head + 1 : end] if (m := _MEMBER.match(n))), None)
    ):
        return one_line([f"{text.rstrip(' :')}: {member[0].strip().removesuffix('{')}"])
    return text


def _goes_on(lines: Sequence[str], head: int, end: int) -> bool:
    """Whether only the error's name, or a title, stands in its first line: then the message follows empty lines."""
    stack = next((n for n in range(head, min(end, head + _LONGEST_MESSAGE)) if _STACK.match(lines[n])), 0)
    return stack > 0 and lines[head].rstrip().endswith(":")


def _place(lines: Sequence[str]) -> Place | None:
    if place := first_place(_IN_STACK, [line for line in lines if _STACK.match(line)]):
        return place
    for line in lines:
        if match := _IMPORTER.search(line):
            file = (match[1] or match[3]).removeprefix("/app/")
            return Place(file, 0)
    return None
