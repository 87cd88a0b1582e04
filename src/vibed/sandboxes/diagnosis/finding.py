"""The one error among an app's last lines that says why it ended, or why it answered 500."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from vibed.sandboxes.diagnosis import go_errors, native_errors, node_errors, python_errors, shell_errors
from vibed.sandboxes.diagnosis.fault import Fault, one_line, prepared

MOST_LINES = 2000
"""Of the end of an output; what is before them is not read."""

_NOISE = re.compile(
    r"^\s*$|^Node\.js v\d|^\(Use `node|^\(node:\d+\)|^\s*[\^~}\])]+[,;]?$"
    r"|^\[[\d :+.,/-]+\] \[\d+\] \[(?:\w+)\] (?:Worker |Shutting down|Reason: |Booting|Starting|Listening"
    r"|Control socket|Using worker|Handling signal|App failed)"
    r"|^(?:INFO|DEBUG)\b|^ERROR: +Application startup failed|^WARNING: This is a development server|^Press CTRL"
    r"|^ ?\* (?:Serving|Debug|Running|Environment)|^(?:Aborted|Segmentation fault|Terminated|Killed|Illegal"
    r" instruction)\b"
    r"|^npm (?:ERR!|error|notice|warn)|^error Command failed|ELIFECYCLE|^exit status \d+$|^exited with |^# \S+$"
    r"|^Exception ignored in|^> |^\[nodemon\]|^make: \*\*\* |^info Visit |too many errors$",
)
_SAYS_WRONG = re.compile(
    r"\b(?:errors?|fatal|critical|panic|missing|required|requires|must|not set|unset|undefined|invalid|fail(?:ed|ure)?"
    r"|cannot|can't|couldn't|could not|unable|denied|refused|no such|not found|not defined|not available|in use)\b",
    re.IGNORECASE,
)
_ACCESS = re.compile(
    r'"(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) \S+(?: HTTP/[\d.]+)?" \d{3}\b|^(?:GET|POST|PUT|DELETE) /\S* \d{3}\b'
)
"""Requests as servers log them: the paths in them say nothing."""
_GO_TIME = re.compile(r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d(?:\.\d+)? (?:\S+\.go:\d+: )?")
_IN_FILE = re.compile(r" \([^()]{1,100}, line \d+\)$")
"""What Python's syntax errors end with as text."""
_LAST_STATEMENT = 6
"""How many lines at the very end may be the reason, when nothing has the form of an error."""


def find(lines: Iterable[str]) -> Fault | None:
    """The error that says why an app ended: the last that has the form of one, or what was said after it."""
    return _find(prepared(list(lines)[-MOST_LINES:]))


def written_before(lines: Iterable[str], fault: Fault) -> Fault | None:
    """The error that was written right before one that `find` found in the same lines: whoever caught it printed it,
    and raised another that says less."""
    clean = prepared(list(lines)[-MOST_LINES:])
    earlier = [other for other in _faults(clean) if other.end <= fault.start]
    last = max(earlier, key=lambda other: (other.end, other.start), default=None)
    if last is None or any(not _NOISE.search(line) for line in clean[last.end : fault.start]):
        return None
    return None if last.text in fault.text or fault.text in last.text else last


def error_in(lines: Iterable[str]) -> str | None:
    """The app's own error in some lines of its log, in one line, with the file and line of the app's: why a request was
    answered with 500, for instance. None when nothing there is, or says that it is, an error.
    """
    found = fault_in(lines)
    return str(found) if found else None


def fault_in(lines: Iterable[str]) -> Fault | None:
    """As `error_in`, with all that is known of it."""
    clean = prepared(list(lines)[-MOST_LINES:])
    found = _find([line for line in clean if not _ACCESS.search(line)])
    return found if found and found.formal else None


def last_words(lines: Sequence[str]) -> str:
    """What to quote of an output: its error, or the last line that says anything; empty when there is none."""
    found = find(lines)
    return str(found) if found else ""


def _find(lines: Sequence[str]) -> Fault | None:
    faults = _faults(lines)
    besides = [fault for fault in faults if python_errors.ends_only(fault) or _ignored(lines, fault)]
    strong = max(
        (fault for fault in faults if fault not in besides), key=lambda fault: (fault.end, fault.start), default=None
    )
    words = _last_statement(lines, {n for fault in besides for n in range(fault.start, fault.end)})
    if strong is None or words is None:
        return strong or words
    later = words.start >= strong.end and not _said_again(words, strong)
    return words if later and words.formal else strong


def _faults(lines: Sequence[str]) -> list[Fault]:
    return [
        fault
        for module in (python_errors, node_errors, go_errors, shell_errors, native_errors)
        for fault in module.faults(lines)
    ]


def _said_again(words: Fault, strong: Fault) -> bool:
    """Whether the words are those of the error, as whoever caught it prints them after it."""
    said = _IN_FILE.sub("", words.context[0] if words.context else words.text).strip()
    return strong.text in words.text or any(said in line for line in (strong.text, *strong.context))


def _ignored(lines: Sequence[str], fault: Fault) -> bool:
    """Whether Python wrote the error while it was already ending."""
    return fault.start > 0 and lines[fault.start - 1].startswith("Exception ignored in")


def _last_statement(lines: Sequence[str], besides: Collection[int]) -> Fault | None:
    """What a program says at its end without the form of an error (`Missing API_TOKEN`); not in the lines `besides`."""
    said = [n for n, line in enumerate(lines) if n not in besides and not _NOISE.search(line)]
    if not said:
        return None
    wrong = [n for n in said[-_LAST_STATEMENT:] if _SAYS_WRONG.search(lines[n])]
    at = wrong[-1] if wrong else said[-1]
    return Fault(at, at + 1, one_line([_GO_TIME.sub("", lines[at])]), None, (lines[at],), formal=bool(wrong))
