"""Shell commands as text: the simple commands in one, each with its words and with what follows it. Nothing is
expanded and nothing is run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

LONGEST = 4000
"""Of a command that is looked into; what is longer is a program of its own."""

_TOKEN = re.compile(
    r"""[ \t]*(?:(?P<end>&&|\|\||[;&|\n])|(?P<redirect>\d?(?:>>?|<)(?:&\d)?)"""
    r"""|(?P<word>(?:[^\s'"\\;&|<>()`]|\\.|'[^']*'|"(?:[^"\\]|\\.)*")+))"""
)
_PIECE = re.compile(r"""\\(.)|'([^']*)'|"((?:[^"\\]|\\.)*)"|([^\\'"]+)""", re.DOTALL)
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")


@dataclass(frozen=True)
class Simple:
    """One simple command."""

    words: tuple[str, ...]
    """Without their quotes; variables stand as they are written."""
    then: str
    """What follows: `&&`, `||`, `;`, `&`, `|`, or nothing."""
    starts: tuple[int, ...]
    """Where in the text each word begins."""
    end: int
    """Where in the text its last word ends."""
    redirected: bool = False


def parse(text: str) -> list[Simple] | None:
    """The simple commands of a text, in order; None where it is more than that: substitution, brackets, an open quote,
    or very long."""
    if len(text) > LONGEST or "$(" in text:
        return None
    found: list[Simple] = []
    words: list[str] = []
    starts: list[int] = []
    at = end = 0
    text = text.rstrip()
    redirected = False
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            return None
        at = match.end()
        if match["end"]:
            if words:
                found.append(Simple(tuple(words), match["end"].replace("\n", ";"), tuple(starts), end, redirected))
                words, starts, redirected = [], [], False
        elif match["redirect"]:
            redirected = True
            if "&" not in match["redirect"]:
                file = _TOKEN.match(text, at)
                at = file.end() if file and file["word"] else at
        else:
            words.append(_unquoted(match["word"]))
            starts.append(match.start("word"))
            end = at
    if words:
        found.append(Simple(tuple(words), "", tuple(starts), end, redirected))
    return found


def inside_shell(words: Sequence[str]) -> str | None:
    """The text of `sh -c TEXT`, None for another command."""
    shell = bool(words) and words[0].rpartition("/")[2] in ("sh", "bash")
    return words[2] if shell and len(words) == 3 and re.fullmatch(r"-[a-z]{0,3}c", words[1]) else None


def is_assignment(word: str) -> bool:
    """Whether a word before a command sets a variable for it."""
    return _ASSIGNMENT.match(word) is not None


def _unquoted(word: str) -> str:
    return "".join(
        match[1] or match[2] or re.sub(r'\\(["\\$`])', r"\1", match[3] or "") or match[4] or ""
        for match in _PIECE.finditer(word)
    )
