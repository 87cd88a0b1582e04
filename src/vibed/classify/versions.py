"""Which version of its language an app asks for, and which of the templates it gets by that.

A version is one number here: the minor of Python 3, the major of Node. What files say is compared as the sets of such
numbers that they allow, so that a range, a pin and a name of a release line are one kind of thing.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from vibed.classify import conda_environment, npm_ranges
from vibed.classify.python_lists import poetry_version
from vibed.classify.tree import Tree, strings, table

_MINORS = range(31)
_MAJORS = range(61)
_LATEST = "99.99"
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Ask:
    """What one file says of it."""

    where: str
    text: str
    """As it stands there."""
    allowed: frozenset[int]
    hint: bool = False
    """Whether it says where the app has run, rather than what it needs: it decides only what is tried first."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which template, by its number."""

    number: int
    because: Ask | None = None
    """What it is chosen for in place of the usual one."""
    missed: tuple[Ask, ...] = ()
    """What asks for a version that it is not."""
    others: tuple[int, ...] = ()
    """Where it is tried next should this one not be had, or not have its packages; the likeliest first."""


def choose(asks: Sequence[Ask], have: Iterable[int], usual: int) -> Choice:
    """The usual one wherever it does; else the nearest to it that everything allows; else the nearest to what is asked
    for. `have` holds `usual`.
    """
    have = frozenset(have)
    firm = [ask for ask in asks if not ask.hint and ask.allowed]
    fitting, met = have, False
    for ask in firm:
        if left := fitting & ask.allowed:
            fitting, met = left, True
    if firm and not met:
        distance = {number: min(abs(number - wanted) for wanted in firm[0].allowed) for number in have}
        fitting = frozenset(number for number in have if distance[number] == min(distance.values()))
    number = usual if usual in fitting else min(fitting, key=lambda one: (abs(one - usual), -one))
    because = next((ask for ask in firm if usual not in ask.allowed and number in ask.allowed), None)
    return Choice(
        number,
        because,
        tuple(ask for ask in firm if number not in ask.allowed),
        tuple(_others(asks, have - {number}, fitting, number, usual)),
    )


def _others(
    asks: Sequence[Ask], left: frozenset[int], fitting: frozenset[int], number: int, usual: int
) -> Sequence[int]:
    """An older one is likelier to have what a list names than a newer one. What is older than everything that is asked
    for would not do.
    """
    hinted = [ask.allowed for ask in asks if ask.hint]
    least = max((min(ask.allowed) for ask in asks if not ask.hint and len(ask.allowed) > 1), default=0)

    def rank(one: int) -> tuple[bool, bool, bool, bool, int]:
        hint = any(one in allowed for allowed in hinted)
        return one not in fitting, not hint, one != usual, one > number, abs(one - number)

    return sorted((one for one in left if one >= least), key=rank)


# What files say


def python(tree: Tree, folder: str = "") -> list[Ask]:
    """Of Python; `folder` is where the app's own files lie, should that not be the root. Ranges come before pins."""
    return [ask for where, text, hint in _python(tree, folder) if (ask := _python_ask(where, text, hint=hint))]


def node(tree: Tree, folder: str = "") -> list[Ask]:
    """Of Node, in the same way."""
    return [ask for where, text, hint in _node(tree, folder) if (ask := _node_ask(where, text, hint=hint))]


def _python(tree: Tree, folder: str) -> Iterator[tuple[str, str, bool]]:
    for path in _at(tree, folder, "pyproject.toml"):
        data = tree.toml(path)
        yield path, strings(data.get("project")).get("requires-python", ""), False
        poetry = table(table(table(data.get("tool")).get("poetry")).get("dependencies")).get("python")
        yield path, poetry_version(poetry.strip()) if isinstance(poetry, str) else "", False
    for path in _at(tree, folder, "setup.cfg", "setup.py"):
        match = re.search(r"^\s*python_requires\s*=\s*[\"']?([^\"'\n#]+)", tree.text(path), re.MULTILINE)
        yield path, match[1].strip() if match else "", False
    for path in _at(tree, folder, "Pipfile"):
        requires = strings(tree.toml(path).get("requires"))
        yield path, requires.get("python_version", "") or requires.get("python_full_version", ""), False
    for path in _at(tree, folder, ".python-version", "runtime.txt"):
        yield path, _first_line(tree.text(path)), False
    for path in _at(tree, folder, *conda_environment.NAMES):
        yield path, conda_environment.python(tree.text(path)), False
    for path in _at(tree, folder, ".tool-versions"):
        yield path, _of_tool(tree.text(path), "python"), False
    for path in _at(tree, folder, "Dockerfile"):
        yield path, _image(tree.text(path), "python"), True


def _node(tree: Tree, folder: str) -> Iterator[tuple[str, str, bool]]:
    for path in _at(tree, folder, "package.json"):
        data = tree.json(path)
        yield path, strings(data.get("engines")).get("node", ""), False
        yield path, strings(data.get("volta")).get("node", ""), False
    for path in _at(tree, folder, ".nvmrc", ".node-version"):
        yield path, _first_line(tree.text(path)), False
    for path in _at(tree, folder, ".tool-versions"):
        yield path, _of_tool(tree.text(path), "nodejs") or _of_tool(tree.text(path), "node"), False
    for path in _at(tree, folder, "Dockerfile"):
        yield path, _image(tree.text(path), "node"), True


def _at(tree: Tree, folder: str, *names: str) -> Iterator[str]:
    """The nearest file of each name."""
    for name in names:
        paths = (posixpath.join(folder, name), name)
        if found := next((path for path in paths if tree.has(path)), None):
            yield found


_PYTHON_PIN = re.compile(r"^(?:python-|cpython[-@])?3\.(\d{1,2})(?:\.\w+)?(?:[-+.]\w+)*$")


def _python_ask(where: str, text: str, *, hint: bool) -> Ask | None:
    if not text:
        return None
    if pin := _PYTHON_PIN.match(text):
        return Ask(where, text[:_SHOWN], frozenset({int(pin[1])}), hint)
    try:
        wanted = SpecifierSet(text)
    except InvalidSpecifier:
        return None
    # the ends of a line, and what is on either side of a release that is named
    patches = {0, 99}
    for named in re.findall(r"3\.\d{1,2}\.(\d{1,2})", text):
        patches |= {max(int(named) - 1, 0), int(named), int(named) + 1}
    allowed = frozenset(n for n in _MINORS if any(wanted.contains(f"3.{n}.{p}") for p in patches))
    # what allows everything, or nothing of Python 3, asks for nothing that there is a choice of
    return Ask(where, text[:_SHOWN], allowed, hint) if 0 < len(allowed) < len(_MINORS) else None


_CODE_NAMES = {"gallium": 16, "hydrogen": 18, "iron": 20, "jod": 22, "krypton": 24}
_NODE_PIN = re.compile(r"^(?:node-?)?v?(\d{1,2})(?:\.\d+){0,2}$")


def _node_ask(where: str, text: str, *, hint: bool) -> Ask | None:
    """Of a pin its first number counts: patches of one line are taken for one another."""
    text = text.strip()
    if text.startswith("lts/"):
        line = _CODE_NAMES.get(text.removeprefix("lts/").lower())
        return Ask(where, text[:_SHOWN], frozenset({line}), hint) if line else None
    if pin := _NODE_PIN.match(text):
        return Ask(where, text[:_SHOWN], frozenset({int(pin[1])}), hint)
    if not text or not npm_ranges.is_range(text):
        return None
    named = re.findall(r"(\d{1,2})(?:\.(\d+))?(?:\.(\d+))?", text)
    versions = {n: [f"{n}.{_LATEST}"] for n in _MAJORS}
    for first, second, third in named:
        versions.setdefault(int(first), []).append(f"{first}.{second or 0}.{third or 0}")
    allowed = frozenset(n for n in _MAJORS if any(npm_ranges.allows(text, version) for version in versions[n]))
    return Ask(where, text[:_SHOWN], allowed, hint) if 0 < len(allowed) < len(_MAJORS) else None


def _first_line(text: str) -> str:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return next((line for line in lines if line), "")


def _of_tool(text: str, tool: str) -> str:
    match = re.search(rf"^{tool}\s+(\S+)", text, re.MULTILINE)
    return match[1] if match else ""


def _image(text: str, language: str) -> str:
    """Of the last `FROM python:3.12-slim`: its version."""
    found = re.findall(rf"^\s*FROM\s+(?:--\S+\s+)?(?:\S+/)?{language}:(\d[\d.]*)", text, re.MULTILINE | re.IGNORECASE)
    return str(found[-1]).rstrip(".") if found else ""


# Templates


def numbers(kind: str, templates: Mapping[str, str]) -> dict[int, str]:
    """Templates of a kind by their numbers; `templates` are versions by name. Of two of one version, an operator's own
    hides none of vibeD's: the first by its name is the one that is chosen.
    """
    found: dict[int, str] = {}
    for name, version in sorted(templates.items()):
        match = re.match(r"3\.(\d+)" if kind == "python" else r"(\d+)", version)
        if match:
            found.setdefault(int(match[1]), name)
    return found


def shown(kind: str, number: int) -> str:
    """For a person: `Python 3.12`, `Node 22`."""
    return f"Python 3.{number}" if kind == "python" else f"Node {number}"


def asked(kind: str, ask: Ask) -> str:
    """What a file asks for, for a person: `Python >=3.9,<3.11`."""
    return f"{'Python' if kind == 'python' else 'Node'} {ask.text}"
