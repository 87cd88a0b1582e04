"""What a Python app needs beyond Python, compared with what the template has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from vibed.classify import changed
from vibed.classify.needs import DATABASES, Needs
from vibed.classify.python_distributions import DISTRIBUTIONS, NAMESPACES, NOT_NEEDED, SAME, UNNOTICED
from vibed.classify.python_file import Source
from vibed.classify.python_requirements import Wanted, declared
from vibed.classify.python_source import Sources, is_standard
from vibed.classify.tree import Tree

_DATABASE = re.compile(
    r"\b(?:postgres(?:ql)?|mysql|mariadb|mongodb|rediss?|mssql|oracle)(?:\+\w{1,20})?://|\bDATABASE_UR[LI]\b"
    r"|\bbackends\.(?:postgresql|mysql|oracle)\b|\b(?:DB|PG|POSTGRES|MYSQL|MONGO|REDIS)_?(?:HOST|UR[LI])\b"
)
"""The address of a database server, or the variable that holds it."""


_MOST_FILES = 200
_WORD = re.compile(r"[\w-]+")
_TEST = re.compile(r"(?:^|/)(?:tests?/|test_[^/]*$|conftest\.py$)")


def dependencies(
    tree: Tree,
    sources: Sources,
    entries: Sequence[str],
    packages: Mapping[str, str] | None,
    python: str,
    folders: Sequence[str] = ("",),
) -> Needs:
    """Compare what is declared, or else imported from `entries` on, with `packages` (name to version; None: do not).

    `python` is the template's version, for environment markers; `folders`: where lists are looked for. Raises
    `BadRequirements`.
    """
    found = Needs()
    lists = declared(tree, python, folders)
    wanted, addresses = lists.wanted, lists.addresses
    files = read(tree, sources, entries)
    imported = imports(sources, files)
    if not wanted and not addresses:
        wanted = [Wanted(name, name) for name in sorted(imported - NAMESPACES)]
    have: dict[str, str] = {canonicalize_name(name): version for name, version in (packages or {}).items()}
    used = imported.union(name for want in wanted for name in (want.name, SAME.get(want.name, want.name)))
    found.packages = [name for name in packages or {} if canonicalize_name(name) in used]
    unused: list[Wanted] = []
    for want in wanted:
        if want.name not in found.names:
            found.names.append(want.name)
        if packages is not None:
            _compare(want, have, imported, tree, found, unused)
            _refuse_changed(want, have, imported, files, tree, found)
    _settle(tree, unused, found)
    if packages is not None:
        found.missing |= {address: address for address in addresses}
    return found


def uses(want: Wanted, imported: Set[str]) -> bool:
    """Whether something of it is imported."""
    same = SAME.get(want.name, want.name)
    return same in imported or any(top in imported and want.name.startswith(f"{top}-") for top in NAMESPACES)


def _compare(
    want: Wanted, have: Mapping[str, str], imported: set[str], tree: Tree, found: Needs, unused: list[Wanted]
) -> None:
    same = SAME.get(want.name, want.name)
    used = uses(want, imported)
    version = have.get(want.name)
    if version is None:
        if same in have:
            return
        folder = vendored(tree, want)
        if folder is not None:
            if folder not in found.vendored:
                found.vendored.append(folder)
        elif used:
            found.missing[want.name] = want.shown
        elif want.name in DATABASES:
            # SQLAlchemy and Django import a driver by the address of its database.
            if _asks_for_database(tree):
                found.missing[want.name] = want.shown
            else:
                found.notes.append(f"{want.shown} was asked for and is not there; nothing was seen that uses it")
        elif not (want.name in NOT_NEEDED or is_standard(want.name)):
            unused.append(want)
        return
    if satisfied(want.specifier, version):
        return
    if near(want, version) or not used:
        found.notes.append(f"{want.shown} was asked for; the template has {version}")
        return
    found.missing[want.name] = f"{want.shown} (the template has {version})"
    found.pinned[want.name] = version


def _refuse_changed(
    want: Wanted,
    have: Mapping[str, str],
    imported: set[str],
    files: Sequence[Source],
    tree: Tree,
    found: Needs,
) -> None:
    """Whether the source uses what an older version that it asks for had, and the template's has not."""
    version, changes = have.get(want.name), changed.PYTHON.get(want.name, ())
    named = [release for part in want.specifier if (release := _release(part.version, below=part.operator == "<"))]
    if not (changes and version and named) or want.name in found.missing or satisfied(want.specifier, version):
        return
    texts = {source.path: tree.text(source.path) for source in files}
    if old := changed.used(changes, texts, max(named), _release(version)):
        found.missing[want.name] = f"{want.shown} (the template has {version})"
        found.changes[want.name] = f"the template has {want.name} {version}: write {', '.join(old[:5])}"


def _release(version: str, *, below: bool = False) -> tuple[int, ...]:
    """The numbers of a version, or of the last one below it."""
    try:
        release = Version(version.removesuffix(".*")).release
    except InvalidVersion:
        return ()
    return (*release[:-1], release[-1] - 1, 9999) if below else release


def _settle(tree: Tree, wanted: Sequence[Wanted], found: Needs) -> None:
    """Those that nothing imports: missing where the source at least mentions them, told and no more where it does not.

    A parser, a worker class or an engine is often named by a word alone (`BeautifulSoup(page, "lxml")`).
    """
    words = mentioned(tree, wanted)
    left = []
    for want in wanted:
        if want.name in words or not tree.complete:
            found.missing[want.name] = want.shown
            found.unused.append(want.shown)
        else:
            left.append(want.shown)
    if left:
        more = f" and {len(left) - 8} more" if len(left) > 8 else ""
        found.notes.append(f"asked for, not there, and used by nothing that was seen: {', '.join(left[:8])}{more}")


def mentioned(tree: Tree, wanted: Iterable[Wanted], command: str = "") -> set[str]:
    """Those whose name, or that of their module, some file or the command has as a word. A tool for writing an app
    (`NOT_NEEDED`) is a word of what runs it, so that only the command counts."""
    names = {word: want for want in wanted for word in (want.name, want.name.replace("-", "_"), _module(want.name))}
    if not names:
        return set()
    files = [path for path in tree.known(".py") if not _TEST.search(path)]
    in_files = {names[word].name for path in files for word in _words(tree.text(path)) & names.keys()}
    started = [tree.text("Procfile"), tree.text("gunicorn.conf.py"), command]
    return in_files - NOT_NEEDED | {names[word].name for text in started for word in _words(text) & names.keys()}


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text))


def _module(distribution: str) -> str:
    """The name that a distribution is imported by."""
    return next((m for m, d in DISTRIBUTIONS.items() if d == distribution), distribution.replace("-", "_"))


def _asks_for_database(tree: Tree) -> bool:
    return not tree.complete or any(_DATABASE.search(tree.text(path)) for path in tree.known(".py"))


def satisfied(specifier: SpecifierSet, version: str) -> bool:
    """Whether a version is one of those that are asked for."""
    try:
        return specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return True


def near(want: Wanted, version: str) -> bool:
    """Whether some version with the template's major version, or an unnoticed other, was allowed."""
    try:
        major = Version(version).major
    except InvalidVersion:
        return True
    named = []
    for part in want.specifier:
        try:
            named.append(Version(part.version.removesuffix(".*")))
        except InvalidVersion:
            return True
    tried = [v for v in named if v.major == major] + [
        Version(f"{major}.0"),
        Version(f"{major}.9999"),
        Version(f"{major}.0.9999"),
    ]
    if any(want.specifier.contains(v, prereleases=True) for v in tried):
        return True
    least = UNNOTICED.get(want.name)
    return least is not None and bool(named) and all(least <= v.major for v in named)


def vendored(tree: Tree, want: Wanted) -> str | None:
    """The folder of the archive that it lies in, if it was brought along."""
    same = SAME.get(want.name, want.name)
    return _vendored(tree, _module(same)) or _vendored(tree, want.name.replace("-", "_"))


def _vendored(tree: Tree, module: str) -> str | None:
    for folder in ("vendor", "vendored", "site-packages", "libs", "lib", "packages", "third_party", "_vendor"):
        if f"{folder}/{module}" in tree.folders or f"{folder}/{module}.py" in tree.paths:
            return folder
    return None


def read(tree: Tree, sources: Sources, entries: Sequence[str]) -> list[Source]:
    """The files that tell what is used: the entries and what they import; all that are known where that is not the
    whole of it: without an entry, for Django, whose settings name apps, and for the pages of Streamlit."""
    files = {source.path: source for entry in entries for source in sources.reached(entry)}
    tops = {name.partition(".")[0] for source in files.values() for name in source.imports}
    if not entries or "django" in tops:
        return [sources[path] for path in tree.known(".py") if not _TEST.search(path)][:_MOST_FILES]
    if "streamlit" in tops:
        for path in tree.known(".py"):
            if path.rpartition("/")[0].endswith("pages"):
                files |= {source.path: source for source in sources.reached(path)}
    return list(files.values())


def imports(sources: Sources, files: Sequence[Source]) -> set[str]:
    """Distributions that the files import."""
    found: set[str] = set()
    for source in files:
        for name in source.needed:
            top = name.split(".")[0]
            if not top or name.startswith(".") or is_standard(top) or sources.is_local(top, source.path):
                continue
            two = ".".join(name.split(".")[:2])
            if top in NAMESPACES:
                found.add(top)
                if name == top:
                    continue
            found.add(canonicalize_name(DISTRIBUTIONS.get(two) or DISTRIBUTIONS.get(top) or top))
    return found
