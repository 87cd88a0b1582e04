"""What a Python file says about itself, found by looking at its text: nothing is imported or run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from vibed.classify.python_frameworks import known
from vibed.classify.python_objects import Applications, applications
from vibed.classify.python_text import Definition, Line, Parts, parts
from vibed.classify.tree import Tree

_IMPORT = re.compile(r"from[ ]+(\.*[\w.]*)[ ]+import[ ]+(.{1,4000})|import[ ]+(.{1,1000})")
_RUNS = frozenset(
    {
        "run", "run_app", "run_simple", "run_server", "run_forever", "run_until_complete", "launch", "serve",
        "serve_forever", "start", "quickstart",
    }
)  # fmt: skip
"""What starts a server, by name."""
_ANY = "|".join(sorted(_RUNS))
_SERVES = re.compile(rf"\b(?:{_ANY}|listen|main|execute\w*|run_until\w*|cli|Server)\s*\(")
"""And what may, in a block that says that it is the program."""
_CALL = re.compile(r"(?:\w{1,60}[ ]*=[ ]*)?(?:await[ ]+)?((?:\w{1,60}\.){0,5}\w{1,60})\(")
_CHAINED = re.compile(rf"\)(?:\.\w{{1,20}}\([^()]{{0,200}}\)){{0,3}}\.({_ANY})\([^()]{{0,300}}\)$")
_OF_CLASS = re.compile(r"((?:\w{1,40}\.){0,4}[A-Z][\w.]{0,80})\(")
_SERVER = re.compile(r"(?i)(?<!ob)server|app(?:lication)?$|httpd|ioloop|^start$")
"""What has a `start()` that serves; a thread, a scheduler or an observer of files has one that does not."""
_RAW = re.compile(
    r"\b(?:asyncio\.start_server|create_server|start_server|TCPServer|make_server|listenTCP|adapt_serve_forever)\s{0,3}\("
    r"|\.accept\(\)"
)
"""A server that needs no framework: asyncio's, or a socket that accepts."""
_AT_TOP = re.compile(r"(?:while|with|for|try|async[ ]with)\b|(?:\w{1,40}\.){0,3}\w{1,40}\(")
"""Something outside of functions runs."""
_DEEPEST = 2
_MOST_LINES = 400


@dataclass(frozen=True)
class Source:
    """One file."""

    path: str
    imports: frozenset[str]
    """Dotted names of what it imports, relative ones with their dots."""
    needed: frozenset[str]
    """Those that are imported whatever happens: not under `try:`."""
    has_main: bool
    main_serves: bool
    """Its `__main__` block calls something that may start a server."""
    calls_at_top: bool
    """Something outside of functions is started."""
    serves_at_top: bool
    """And that is a server, as far as its name tells."""
    applications: Applications
    """What of it is a web application."""
    functions: frozenset[str]
    """Names of its functions."""
    serving: frozenset[str]
    """Those that start a server."""
    called: frozenset[str]
    """Last names of what is called when it is imported or is the program."""
    raw: bool = False
    """It opens a socket without a framework, and runs something outside of functions."""

    @property
    def factory(self) -> str | None:
        """A function that makes an application."""
        return next(iter(self.applications.makers), None)


def read_source(tree: Tree, path: str) -> Source:
    """Look at one file."""
    found = parts(tree.text(path))
    imports: set[str] = set()
    needed: set[str] = set()
    names: dict[str, str] = {}
    stars: list[str] = []
    before = ""
    for line in found.lines:
        if line.text.startswith(("import ", "from ")):
            for statement in line.text.split(";"):
                taken = _taken(statement.strip(), names, stars)
                imports |= taken
                if not (line.indent and before.endswith(("try:", "TYPE_CHECKING:"))):
                    needed |= taken
        before = line.text
    starts = [kind for line in found.top if (kind := _started(line, names, stars, found))]
    runs = [*found.top, *found.main]
    return Source(
        path,
        frozenset(imports),
        frozenset(needed),
        found.has_main,
        any(_SERVES.search(line.text) or _started(line, names, stars, found) for line in found.main),
        bool(starts),
        "serves" in starts,
        applications(found, names, stars),
        frozenset(one.name for one in found.definitions if not one.is_class),
        frozenset(one.name for one in found.definitions if not one.is_class and _serves(one, names, stars, found)),
        frozenset(match[1].rpartition(".")[2] for line in runs if (match := _CALL.match(line.text))),
        any(_RAW.search(line.text) for line in found.lines)
        and (found.has_main or any(_AT_TOP.match(line.text) for line in found.top)),
    )


def _serves(one: Definition, names: Mapping[str, str], stars: list[str], within: Parts) -> bool:
    return any(_started(line, names, stars, within, 1) == "serves" for line in one.body[:_MOST_LINES])


def _taken(statement: str, names: dict[str, str], stars: list[str]) -> set[str]:
    """The dotted names that a statement imports; what the file calls them is added to `names`."""
    match = _IMPORT.match(statement)
    if match is None:
        return set()
    module, listed, plain = match.groups()
    found: set[str] = set()
    if module is None:
        for part in plain.split(","):
            name, _, other = (word.strip() for word in part.partition(" as "))
            if name:
                found.add(name)
                here, there = (other, name) if other else (name.partition(".")[0],) * 2
                names[here] = there
        return found
    if module.strip("."):
        found.add(module)
    for part in listed.strip("() ").split(","):
        name, _, other = (word.strip() for word in part.partition(" as "))
        if name.isidentifier():
            dotted = f"{module}{'' if module.endswith('.') else '.'}{name}"
            found.add(dotted)
            names[other or name] = dotted
        elif name == "*":
            stars.append(module)
    return found


def _started(line: Line, names: Mapping[str, str], stars: list[str], within: Parts, depth: int = 0) -> str:
    """Whether a line outside of functions starts something: `serves` where that is a server, as far as names tell,
    `calls` where it may be something else."""
    of_class, chained = _OF_CLASS.match(line.text), _CHAINED.search(line.text, max(0, len(line.text) - 600))
    if of_class and chained:
        return "serves" if chained[1] != "start" or _SERVER.search(of_class[1]) else "calls"
    match = _CALL.match(line.text)
    if match is None:
        return ""
    called = match[1]
    first, dot, rest = called.partition(".")
    last = called.rpartition(".")[2]
    origins = [names[first] + dot + rest] if first in names else [f"{star}.{called}" for star in stars]
    if any((row := known(origin)) and last in row.starts for origin in origins):
        return "serves"
    own = next((one for one in within.definitions if one.name == called and not one.is_class), None)
    if own is not None:
        lines = own.body[:_MOST_LINES] if depth < _DEEPEST else ()
        inner = {_started(inside, names, stars, within, depth + 1) for inside in lines}
        return "serves" if "serves" in inner else "calls" if last in _RUNS or "calls" in inner else ""
    if last not in _RUNS:
        return ""
    if last == "start" and not _SERVER.search(called.removesuffix("start").rstrip(".") or "start"):
        return "calls"
    return "calls" if names.get(first, first) == "subprocess" else "serves"
