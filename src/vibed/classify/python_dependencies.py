"""What a Python app needs beyond Python, compared with what the template has."""

from __future__ import annotations

import re
from collections.abc import Mapping

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from vibed.classify.needs import DATABASES, Needs
from vibed.classify.python_distributions import DISTRIBUTIONS, NAMESPACES, NOT_NEEDED, SAME, UNNOTICED
from vibed.classify.python_requirements import Wanted, declared
from vibed.classify.python_source import Sources, is_standard
from vibed.classify.tree import Tree

_DATABASE = re.compile(
    r"\b(?:postgres(?:ql)?|mysql|mariadb|mongodb|rediss?|mssql|oracle)(?:\+\w{1,20})?://|\bDATABASE_UR[LI]\b"
    r"|\bbackends\.(?:postgresql|mysql|oracle)\b|\b(?:DB|PG|POSTGRES|MYSQL|MONGO|REDIS)_?(?:HOST|UR[LI])\b"
)
"""The address of a database server, or the variable that holds it."""


def dependencies(
    tree: Tree, sources: Sources, entry: str | None, packages: Mapping[str, str] | None, python: str
) -> Needs:
    """Compare what is declared, or else imported from `entry` on, with `packages` (name to version; None: do not).

    `python` is the template's version, for environment markers. Raises `BadRequirements`.
    """
    found = Needs()
    wanted, addresses = declared(tree, python)
    imported = _imported(tree, sources, entry)
    if not wanted and not addresses:
        wanted = [Wanted(name, name, SpecifierSet()) for name in sorted(imported - NAMESPACES)]
    have: dict[str, str] = {canonicalize_name(name): version for name, version in (packages or {}).items()}
    used = imported.union(name for want in wanted for name in (want.name, SAME.get(want.name, want.name)))
    found.packages = [name for name in packages or {} if canonicalize_name(name) in used]
    for want in wanted:
        if want.name not in found.names:
            found.names.append(want.name)
        if packages is not None:
            _compare(want, have, imported, tree, found)
    if packages is not None:
        found.missing |= {address: address for address in addresses}
    return found


def _compare(want: Wanted, have: Mapping[str, str], imported: set[str], tree: Tree, found: Needs) -> None:
    same = SAME.get(want.name, want.name)
    used = same in imported or any(top in imported and want.name.startswith(f"{top}-") for top in NAMESPACES)
    version = have.get(want.name)
    if version is None:
        if same in have:
            return
        module = next((m for m, d in DISTRIBUTIONS.items() if d == same), want.name.replace("-", "_"))
        folder = _vendored(tree, module) or _vendored(tree, want.name.replace("-", "_"))
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
            found.missing[want.name] = want.shown
            found.unused.append(want.shown)
        return
    if _satisfied(want.specifier, version):
        return
    if _near(want, version) or not used:
        found.notes.append(f"{want.shown} was asked for; the template has {version}")
        return
    found.missing[want.name] = f"{want.shown} (the template has {version})"
    found.pinned[want.name] = version


def _asks_for_database(tree: Tree) -> bool:
    return not tree.complete or any(_DATABASE.search(tree.text(path)) for path in tree.known(".py"))


def _satisfied(specifier: SpecifierSet, version: str) -> bool:
    try:
        return specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return True


def _near(want: Wanted, version: str) -> bool:
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


def _vendored(tree: Tree, module: str) -> str | None:
    for folder in ("vendor", "vendored", "site-packages", "libs", "lib", "packages", "third_party", "_vendor"):
        if f"{folder}/{module}" in tree.folders or f"{folder}/{module}.py" in tree.paths:
            return folder
    return None


def _imported(tree: Tree, sources: Sources, entry: str | None) -> set[str]:
    """Distributions that the app's files import, from `entry` on; without one, of all files that are known."""
    files = sources.reached(entry) if entry else [sources[path] for path in tree.known(".py")[:60]]
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
