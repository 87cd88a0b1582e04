"""What the lists of a Python app ask for: every line read, whatever list it stands in (`python_lists`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from vibed.classify import python_lists
from vibed.classify.errors import BadRequirements
from vibed.classify.python_lists import Line
from vibed.classify.tree import Tree
from vibed.sources.errors import quoted

_ADDRESS = re.compile(r"^(?:git\+|hg\+|svn\+|https?://|file:|ssh:|\.{1,2}/|/|[\w.-]+\.(?:whl|tar\.gz|zip)$)")
_OWN = re.compile(r"^\.{1,2}/|^\.(?:\[|$)|^[\w.-]+\.(?:whl|tar\.gz|zip)$")
_BESIDE = re.compile(r"(?:file:/{0,3}\$\{PROJECT_ROOT\}|\{root:uri\})/([\w./-]+)$")
"""How PDM and Hatch name a folder of the project itself."""
_LONGEST_LINE = 2000


@dataclass(frozen=True)
class Wanted:
    """One package that a list asks for."""

    name: str
    """Normalised."""
    shown: str
    """For a person."""
    specifier: SpecifierSet = field(default_factory=SpecifierSet)
    extras: frozenset[str] = frozenset()

    @property
    def line(self) -> str:
        """As a line of a list of requirements, the same for all that mean the same."""
        extras = f"[{','.join(sorted(self.extras))}]" if self.extras else ""
        return f"{self.name}{extras}{self.specifier}"


@dataclass
class Declared:
    """What an app's lists ask for, for one version of Python."""

    wanted: list[Wanted] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    """What comes from somewhere else than a registry."""
    folders: list[str] = field(default_factory=list)
    """Those of the addresses that lie in the archive."""
    further: list[Wanted] = field(default_factory=list)
    """Of groups that are not asked for: of use where the app imports them."""
    constraints: list[str] = field(default_factory=list)
    """`name==version`, of locks."""
    hashed: tuple[str, ...] = ()
    """Files whose lines have hashes, which only an installer can hold them to."""
    notes: list[str] = field(default_factory=list)


def declared(tree: Tree, python: str, folders: Sequence[str] = ("",)) -> Declared:
    """What is asked for on a version of Python, by the lists in the first of `folders` that has some. Raises
    `BadRequirements`."""
    environment = {
        "python_version": python, "python_full_version": f"{python}.0", "implementation_version": f"{python}.0",
        "sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64",
        "platform_python_implementation": "CPython", "implementation_name": "cpython", "platform_release": "",
        "platform_version": "", "extra": "",
    }  # fmt: skip
    lists = python_lists.found(tree, folders)
    found = Declared(hashed=lists.hashed, notes=list(lists.notes))
    _read(lists.lines, environment, found.wanted, found)
    _read(lists.further, environment, found.further, Declared())
    bounds: list[Wanted] = []
    _read(lists.bounds, environment, bounds, Declared())
    found.constraints = sorted({*lists.pins, *(bound.line for bound in bounds if not bound.extras)})
    return found


def _read(lines: Iterable[Line], environment: dict[str, str], wanted: list[Wanted], found: Declared) -> None:
    for where, full in lines:
        line = full[:_LONGEST_LINE]
        text = line.split(" #")[0].split(" --")[0].strip().rstrip("\\").strip()
        if _ADDRESS.match(text) or text == ".":
            _note_address(text, found)
            continue
        try:
            parsed = Requirement(text)
            applies = parsed.marker is None or parsed.marker.evaluate(environment)
        except (InvalidRequirement, UndefinedComparison, UndefinedEnvironmentName) as error:
            reason = str(error).splitlines()[0][:120]
            raise BadRequirements(
                f"{where} is not a requirement: {quoted(line)} ({reason})",
                hint="write one package a line, for example flask>=3, and nothing else but # comments",
                details={"line": line[:200]},
            ) from None
        if not applies:
            continue
        name = canonicalize_name(parsed.name)
        if parsed.url and (beside := _BESIDE.match(parsed.url)):
            _note_address(f"./{beside[1]}", found)
        elif parsed.url and parsed.url.startswith("file:///"):
            # where it lay on the machine whose packages were listed (pip freeze, in an environment of conda)
            wanted.append(Wanted(name, name))
        elif parsed.url:
            own = re.match(r"(?:file:)?(\.{1,2}/.*)", parsed.url)
            _note_address(own[1] if own else f"{parsed.name} @ {parsed.url}", found)
        else:
            wanted.append(Wanted(name, f"{name}{parsed.specifier}", parsed.specifier, frozenset(parsed.extras)))


def _note_address(text: str, found: Declared) -> None:
    found.addresses.append(text[:100])
    if _OWN.match(text):
        found.folders.append(text[:_LONGEST_LINE])
