"""A Python file as lines that mean something: long strings and comments out, what is in brackets on one line, and told
apart by when it runs: while it is imported, when it is the program, or when somebody calls it. Nothing is parsed that
could not be text: a file that is cut off, or of another Python, still says what it can.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

_OPEN = re.compile(r"\"\"\"|'''|\"(?:\\.|[^\"\\\n])*\"?|'(?:\\.|[^'\\\n])*'?|#[^\n]*")
_STRING = re.compile(r"\"(?:\\.|[^\"\\\n])*\"?|'(?:\\.|[^'\\\n])*'?")
_AFRESH = re.compile(r"(?:async[ ]def|def|class|import|from|if[ ]__name__)\b|@\w")
"""What begins at the left margin in no bracket: an open one before it was none."""
_MAIN = re.compile(r"if\b[^:]{0,40}\b__name__\b[^:]{0,80}['\"]__(?:mp_)?main__['\"]|if\b[^:]{0,20}['\"]__main__['\"]")
_BLOCK = re.compile(r"(?:if|elif|else|try|except|finally|with|async[ ]with|for|while)\b")
_DEFINES = re.compile(
    r"(?:async[ ]+)?def[ ]+(\w+)[ ]*\((.{0,2000}?)\)[ ]*(?:->[ ]*([^:]{1,200}))?:"
    r"|class[ ]+(\w+)[ ]*(?:\((.{0,300}?)\))?:"
)


class Line(NamedTuple):
    """One logical line."""

    indent: int
    text: str


@dataclass(frozen=True)
class Definition:
    """A function or a class at the left margin."""

    name: str
    of: str
    """A function's parameters, a class's bases, as written."""
    returns: str
    body: tuple[Line, ...]
    is_class: bool
    is_async: bool = False


@dataclass
class Parts:
    """A file's lines by when they run."""

    lines: list[Line] = field(default_factory=list)
    """All of them."""
    top: list[Line] = field(default_factory=list)
    """While it is imported."""
    main: list[Line] = field(default_factory=list)
    """When it is the program."""
    has_main: bool = False
    definitions: list[Definition] = field(default_factory=list)


def parts(text: str) -> Parts:
    """Look at the text of a file."""
    found = Parts(logical_lines(code(text)))
    at, lines = 0, found.lines
    while at < len(lines):
        line = lines[at]
        defines = _DEFINES.match(line.text) if line.text.startswith(("def ", "class ", "async ")) else None
        is_main = line.indent == 0 and _MAIN.match(line.text) is not None
        if not (is_main or line.text.startswith(("def ", "class ", "async def "))):
            found.top.append(line)
            at += 1
            continue
        end = at + 1
        while end < len(lines) and lines[end].indent > line.indent:
            end += 1
        body = lines[at + 1 : end]
        rest = line.text[defines.end() :].strip() if defines else line.text.rpartition(":")[2].strip()
        if rest:
            body = [Line(line.indent + 1, rest), *body]
        if is_main:
            found.has_main = True
            found.main += body
        elif defines and line.indent == 0:
            name, of, returns, class_name, bases = defines.groups("")
            sort = bool(class_name), line.text.startswith("async")
            found.definitions.append(Definition(name or class_name, of or bases, returns.strip(), tuple(body), *sort))
        at = end
    return found


def code(text: str) -> str:
    """The text without comments and without what is in strings over several lines."""
    out: list[str] = []
    at = 0
    while match := _OPEN.search(text, at):
        out.append(text[at : match.start()])
        at = match.end()
        if match[0] in ('"""', "'''"):
            end = text.find(match[0], at)
            out.append('""')
            at = len(text) if end < 0 else end + 3
        elif match[0][0] != "#":
            out.append(match[0])
    out.append(text[at:])
    return "".join(out)


def logical_lines(text: str) -> list[Line]:
    """Lines as Python counts them: what is in brackets, or goes on after a backslash, is one."""
    found: list[Line] = []
    open_, going_on = 0, False
    pieces: list[str] = []
    indent = 0
    for raw in text.split("\n"):
        stripped = raw.strip()
        if not stripped:
            continue
        if pieces and (open_ > 0 or going_on) and not (raw[0] not in " \t" and _AFRESH.match(raw)):
            pieces.append(stripped)
        else:
            if pieces:
                found.append(Line(indent, " ".join(pieces)))
            pieces, open_ = [stripped], 0
            indent = len(raw.expandtabs(8)) - len(raw.expandtabs(8).lstrip())
        going_on = stripped.endswith("\\")
        if going_on:
            pieces[-1] = stripped[:-1].rstrip()
        bare = _STRING.sub("", stripped)
        open_ = max(0, open_ + sum(map(bare.count, "([{")) - sum(map(bare.count, ")]}")))
    if pieces:
        found.append(Line(indent, " ".join(pieces)))
    return found


def is_block(text: str) -> bool:
    """Whether a line only holds others."""
    return _BLOCK.match(text) is not None
