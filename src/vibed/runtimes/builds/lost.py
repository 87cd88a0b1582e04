"""What a build of a project of Node did not find, and what its author has to change: a package that package.json does
not name, the package that brings a program, or a file of the project's own, which most often git leaves out."""

from __future__ import annotations

import fnmatch
import json
import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vibed.classify.npm_programs import package_of
from vibed.classify.variables import read_in
from vibed.classify.workspaces import KINDS
from vibed.runtimes.builds.words import cause, missing, program
from vibed.sandboxes.diagnosis.variables import demanded, listed
from vibed.sources.extraction import iter_files
from vibed.sources.limits import ArchiveLimits
from vibed.sources.reader import read_table

_OF_PACKAGE = re.compile(r"(?:^|/)node_modules/((?:@[\w.-]{1,100}/)?[\w.-]{1,100})")
_NAME = re.compile(r"(@[^/]+/[^/]+|[^/]+)")
_OWN = (".", "/", "@/", "~/", "#")
_ROOTS = ("", "src/", "app/")
_SOURCE = re.compile(r"\.[cm]?[jt]sx?$")
_GIVES = re.compile(r"\.env(?:\.local|\.production(?:\.local)?)?")
_GIVEN = re.compile(r"^[ \t]{0,9}(?:export[ \t]{1,9})?(\w{1,80})[ \t]{0,9}=", re.MULTILINE)
_ABSENT = re.compile(r"\b(?:is required|undefined|missing|Invalid URL|not (?:set|provided|defined)|must (?:be|have))\b")
_SHORTEST = 3
"""A pattern with fewer letters says nothing of a file."""


@dataclass(frozen=True, slots=True)
class Project:
    """What is known of the source."""

    packages: frozenset[str] = frozenset()
    """What some package.json of it names."""
    folders: frozenset[str] = frozenset()
    ignored: tuple[str, ...] = ()
    """The lines of its `.gitignore` files."""
    reads: tuple[str, ...] = ()
    """Variables that its source reads, and that none of its files gives."""


def project(source: Path, strip: str, limits: ArchiveLimits) -> Project:
    """Look through an archive; `strip`: the folder of the app. Blocking. Raises ArchiveError, OSError."""
    table = read_table(source, limits)
    packages: set[str] = set()
    ignored: list[str] = []
    given: set[str] = set()
    reads: dict[str, None] = {}
    for path, content in iter_files(source, table, limits=limits):
        name = posixpath.basename(path)
        if name == ".gitignore":
            ignored += content.decode("utf-8", "replace").splitlines()
        elif name == "package.json" and path.startswith(strip):
            packages |= _named(content)
        elif path.startswith(strip) and _SOURCE.search(name) and "node_modules/" not in path:
            reads |= dict.fromkeys(read_in([content.decode("utf-8", "replace")], "node"))
        elif _GIVES.fullmatch(name):
            given |= set(_GIVEN.findall(content.decode("utf-8", "replace")))
    inside = [entry.path.removeprefix(strip) for entry in table.entries if entry.path.startswith(strip)]
    folders = {parent for path in inside for parent in _above(path)}
    lacks = tuple(name for name in reads if name not in given)
    return Project(frozenset(packages), frozenset(folders), tuple(ignored), lacks)


def hint(said: str, of: Project) -> str:
    """What to change, by what the build said; empty where nothing was missing."""
    if (name := program(said)) and not missing(said):
        return _of_program(name, of)
    lost = missing(said)
    if not lost:
        return ""
    if inside := _OF_PACKAGE.search(lost):
        package = inside[1]
        if package in of.packages:
            return f"{package} has no {lost.partition(package + '/')[2] or package} in the version that is installed"
        return f"add {package}, which {lost.rpartition('node_modules/')[2]} is of, to devDependencies in package.json"
    left_out = _ignored(lost, of.ignored)
    own = lost.startswith(_OWN) or lost.endswith(".html")
    if own or left_out or any(f"{root}{lost.partition('/')[0]}" in of.folders for root in _ROOTS):
        if not left_out:
            return f"send {lost}, which is not in the archive, or mend the import"
        back = f"`!{left_out.lstrip('/')}` in a file .vibedignore brings it back"
        return (
            f"the archive has no {lost}: {left_out} in .gitignore leaves it out. Send it ({back}), or write it anew"
            " where the source was cloned without it"
        )
    package = found[1] if (found := _NAME.match(lost)) else lost
    if package in of.packages:
        return f"package.json names {package}, which has no {lost} in the version that is installed: mend one of them"
    return f"add {package} to package.json"


def variables(said: str, reads: Sequence[str]) -> str:
    """What to do where a build wants variables: those that it names, or else those that its source reads (`reads`) and
    that nothing gives. Empty where it is about something else.
    """
    names = demanded(said)
    if names:
        them = "them" if len(names) > 1 else "it"
        return f"deploy again with {listed(names)} among the app's environment variables: the build has {them} too"
    if not reads or not _ABSENT.search(cause(said)):
        return ""
    are = "are" if len(reads) > 1 else "is"
    return (
        f"its source reads {listed(reads)}, which {are} not set: give what the build needs of that as the app's"
        " environment variables, which the build has too"
    )


def _of_program(name: str, of: Project) -> str:
    package = package_of(name)
    if not package:
        return f"add the package that brings {name} to devDependencies in package.json, or do without it in the script"
    if package in of.packages:
        return ""
    return f"add {package}, which brings the program {name}, to devDependencies in package.json"


def _ignored(lost: str, lines: Iterable[str]) -> str:
    """The line by which git leaves out what an import means, as far as its words show; empty where none does."""
    parts = [part for part in re.sub(r"^(?:\.{1,2}/|[@~#]/|/app/|/)+", "", lost).split("/") if part]
    names = {name for part in parts for name in (part, part.partition(".")[0])}
    for line in lines:
        pattern = line.strip()
        last = pattern.rstrip("/*").rpartition("/")[2]
        if pattern[:1] in ("#", "!", "") or len(re.sub(r"[^\w]", "", last)) < _SHORTEST:
            continue
        stems = (last, last.partition(".")[0]) if not last.startswith((".", "*")) else (last,)
        if any(fnmatch.fnmatchcase(name, stem) for name in names for stem in stems if stem):
            return pattern
    return ""


def _named(content: bytes) -> set[str]:
    try:
        manifest = json.loads(content)
    except ValueError:
        return set()
    if not isinstance(manifest, dict):
        return set()
    return {name for kind in KINDS if isinstance(manifest.get(kind), dict) for name in manifest[kind]}


def _above(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
