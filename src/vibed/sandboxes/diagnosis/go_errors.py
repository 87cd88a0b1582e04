"""Errors as Go writes them: panics, fatal errors of its runtime, and what its compiler and its modules refuse."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from vibed.sandboxes.diagnosis.fault import Fault, Place, first_place, one_line, own

_PANIC = re.compile(r"^\s*(?:\d{4}/\d\d/\d\d \d\d:\d\d:\d\d )?(?:http: panic serving \S+: |panic: )(.*)$")
_AGAIN = re.compile(r"^\tpanic: (.*)$")
_FATAL = re.compile(
    r"^(?:fatal error: |runtime: )(goroutine stack exceeds .+|all goroutines .+|concurrent .+|.*memory.*)$"
)
_RECOVERED = re.compile(r"\bpanic recovered:\s*(.*)$")
_FRAME = re.compile(r"^\t?(/\S+\.go):(\d+)\b")
_RECOVERY_FRAME = re.compile(r"^(/\S+\.go):(\d+) \(0x")
_GOROUTINE = re.compile(r"^goroutine \d+ ")
_COMPILE = re.compile(r"^(?:vet: )?(?:\./)?([\w./@-]+\.go):(\d+)(?::\d+)?: (.+)$")
_MODULES = re.compile(r"^(go: (?!downloading |finding |added |upgraded ).+|package \S+ is not in std.*)$")
_OF_STACK = re.compile(r"^$|^goroutine \d+ |^runtime stack:|^\t|^created by |\)$|^\.\.\.")
_STACK = 300


def faults(lines: Sequence[str]) -> Iterator[Fault]:
    """The errors in prepared lines, in their order."""
    at = 0
    while at < len(lines):
        fault = _panic(lines, at) or _recovered(lines, at) or _refused(lines, at)
        if fault is not None:
            yield fault
        at = max(at + 1, fault.end if fault is not None else 0)


def _panic(lines: Sequence[str], start: int) -> Fault | None:
    match = _PANIC.match(lines[start])
    kind = "panic: "
    if match is None:
        match, kind = _FATAL.match(lines[start]), "fatal error: "
    if match is None:
        return None
    said, at = [match[1]], start + 1
    while at < len(lines) and lines[at].strip() and not _GOROUTINE.match(lines[at]) and at < start + 20:
        if again := _AGAIN.match(lines[at]):
            said = [again[1]]
        elif not lines[at].startswith(("[signal ", "fatal error: ", "runtime: ", "runtime stack:")):
            said.append(lines[at])
        at += 1
    end = at
    while end < min(len(lines), at + _STACK) and _OF_STACK.search(lines[end]):
        end += 1
    text = kind + one_line(said).removesuffix(" [recovered]").removesuffix(" [recovered, repanicked]")
    return Fault(start, end, one_line([text]), first_place(_FRAME, lines[at:end]), tuple(lines[start:end]))


def _recovered(lines: Sequence[str], start: int) -> Fault | None:
    """A framework's own report of a panic that it caught: the request may stand before the error."""
    if (match := _RECOVERED.search(lines[start])) is None:
        return None
    frames = next(
        (n for n in range(start + 1, min(len(lines), start + 60)) if _RECOVERY_FRAME.match(lines[n])), start + 1
    )
    said = match[1] or next((line for line in reversed(lines[start + 1 : frames]) if line.strip()), "")
    end = frames
    while end < len(lines) and (_RECOVERY_FRAME.match(lines[end]) or lines[end].startswith("\t")):
        end += 1
    place = first_place(_RECOVERY_FRAME, lines[frames:end])
    return Fault(start, end, one_line(["panic: ", said]), place, tuple(lines[start:end]))


def _refused(lines: Sequence[str], start: int) -> Fault | None:
    """The first of what does not compile: the last line may only count them."""
    if (match := _MODULES.match(lines[start])) is not None:
        return Fault(start, start + 1, one_line([match[1]]), None, (lines[start],))
    if (match := _COMPILE.match(lines[start])) is None:
        return None
    end, more = start + 1, 0
    while end < len(lines) and ((one := _COMPILE.match(lines[end])) or lines[end].startswith("\t")):
        more += one is not None and "too many errors" not in one[3]
        end += 1
    file = match[1].removeprefix("/app/")
    place = own(f"/app/{file}", match[2]) or Place(file[:200], int(match[2][:9]))
    counted = [f"; and {more} more" if more else ""]
    return Fault(start, end, one_line([match[3], *counted]).replace(" ;", ";"), place, tuple(lines[start:end]))
