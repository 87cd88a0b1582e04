"""What has to be installed before a Python app starts, where a layer can be made of it (`vibed.runtimes.layers`).

The template is enough for what its packages satisfy, to the letter. Where anything is missing, all that the app needs
is asked for: what fits is then left to the template by who resolves it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from vibed.apps.app import Install
from vibed.classify import python_dependencies as having
from vibed.classify.errors import DependenciesMissing
from vibed.classify.needs import OWN, Needs
from vibed.classify.python_distributions import EXTRAS, NAMESPACES, NOT_NEEDED, ONCE_BROUGHT, SAME, SERVERS
from vibed.classify.python_requirements import Declared, Wanted, declared
from vibed.classify.python_source import Sources, is_standard
from vibed.classify.tree import Tree

_NAMED = 12
"""So many packages are named in a note."""


def needs(
    tree: Tree,
    sources: Sources,
    entries: Sequence[str],
    packages: Mapping[str, str],
    python: str,
    commands: Sequence[str],
    folders: Sequence[str] = ("",),
) -> Needs:
    """What is declared, or else imported from `entries` on, and what of it has to be installed; `packages` are the
    template's, `commands` how it is started and what is tried after that, `folders` where lists are looked for. Raises
    `BadRequirements`, and `DependenciesMissing` for what no registry has.
    """
    lists = declared(tree, python, folders)
    files = having.read(tree, sources, entries)
    imported = having.imports(sources, files)
    have: dict[str, str] = {canonicalize_name(name): version for name, version in packages.items()}
    inferred = not lists.wanted and not lists.addresses
    wanted = lists.wanted or [Wanted(name, name) for name in sorted(imported - NAMESPACES)]
    wanted = [*wanted, *_imported_further(lists, wanted, imported)]
    wanted += [] if inferred else _brought_once(wanted, imported, have)
    wanted += _served_by(" ".join(commands), wanted)
    used = imported | having.mentioned(tree, wanted, commands[0])
    found = Needs(names=list(dict.fromkeys(want.name for want in wanted)), notes=list(lists.notes))
    spoken = used.union(name for want in wanted for name in (want.name, SAME.get(want.name, want.name)))
    found.packages = [name for name in packages if canonicalize_name(name) in spoken]
    lacking: list[Wanted] = []
    needed: list[Wanted] = []
    for want in wanted:
        if is_standard(want.name):
            # no registry has it, or has somebody else's of that name
            found.notes.append(f"{want.shown} is part of Python and not installed")
            continue
        folder = having.vendored(tree, want) if want.name not in have else None
        if folder is not None:
            found.vendored = list(dict.fromkeys([*found.vendored, folder]))
            continue
        is_used = want.name in used or having.uses(want, imported)
        if want.name in NOT_NEEDED and not is_used:
            continue
        needed.append(want)
        if _lacks(want, have, lists, used=is_used):
            lacking.append(want)
    if inferred:
        # what else is called so in a registry is hardly what was meant
        found.missing |= {want.name: want.shown for want in lacking if want.name.replace("-", "_") in OWN}
    if elsewhere := [address for address in lists.addresses if address not in lists.folders]:
        _refuse(elsewhere)
    if found.missing or not (lacking or lists.folders):
        return found
    # what an import shows and no list names, for what is resolved to fit it
    listed = {SAME.get(want.name, want.name) for want in needed}
    needed += [Wanted(name, name) for name in sorted(imported - listed) if name in have]
    found.install = Install(
        kind="python",
        manager="uv",
        files=lists.hashed,
        wanted=tuple(sorted({want.line for want in needed} | set(lists.folders))),
        constraints=tuple(lists.constraints),
        optional=tuple(sorted({w.name for w in needed if _can_do_without(w, have, imported, used)})),
        private=bool(lists.folders),
    )
    found.notes.append(_told(lacking, lists, inferred=inferred))
    return found


def _imported_further(lists: Declared, wanted: Sequence[Wanted], imported: set[str]) -> list[Wanted]:
    """Of groups of the project that are not asked for, what the app imports all the same."""
    listed = {want.name for want in wanted}
    return [want for want in lists.further if want.name not in listed and having.uses(want, imported)]


def _brought_once(wanted: Sequence[Wanted], imported: set[str], have: Mapping[str, str]) -> list[Wanted]:
    """What the app imports and lists nowhere, since what it lists brought it once: pytz of pandas and Django."""
    listed = {SAME.get(want.name, want.name) for want in wanted}
    return [Wanted(name, name) for name in sorted((imported & ONCE_BROUGHT) - listed) if name not in have]


def _served_by(command: str, wanted: Sequence[Wanted]) -> list[Wanted]:
    """What the command names and no list does: the server, and its workers' kind."""
    words: set[str] = {canonicalize_name(word) for word in re.findall(r"[A-Za-z][\w-]*", command)}
    listed = {want.name for want in wanted}
    return [Wanted(name, name) for name in sorted((words & SERVERS) - listed)]


def _lacks(want: Wanted, have: Mapping[str, str], lists: Declared, *, used: bool) -> bool:
    """Whether the template is not enough for it. One that nothing uses is as good in the template's version."""
    version = have.get(want.name, have.get(SAME.get(want.name, want.name)))
    if version is None:
        return True
    if not used:
        return False
    brought = [EXTRAS.get((want.name, extra)) for extra in want.extras]
    if any(names is None or any(name not in have for name in names) for names in brought):
        return True
    return not having.satisfied(want.specifier, version) or _locked_apart(want.name, version, lists)


def _locked_apart(name: str, version: str, lists: Declared) -> bool:
    """Whether a lock has it in a version whose interface is another: the first number, or behind 0 the second."""
    locked = next((pin.partition("==")[2] for pin in lists.constraints if pin.startswith(f"{name}==")), None)
    if locked is None:
        return False
    try:
        ours, theirs = Version(version), Version(locked)
    except InvalidVersion:
        return False
    return (ours.major, ours.major or ours.minor) != (theirs.major, theirs.major or theirs.minor)


def _can_do_without(want: Wanted, have: Mapping[str, str], imported: set[str], used: set[str]) -> bool:
    version = have.get(want.name)
    if version is not None:
        return not having.satisfied(want.specifier, version) and having.near(want, version)
    return not (want.name in used or having.uses(want, imported))


def _refuse(addresses: Sequence[str]) -> None:
    several = len(addresses) > 1
    shown = ", ".join(addresses[:_NAMED])
    raise DependenciesMissing(
        f"it needs {len(addresses)} package{'s' if several else ''} from outside of the registries: {shown}",
        hint="name a released version instead (name==1.2), or put the package into the archive and name its folder"
        " (./vendor/name): what installs it can reach package registries and nothing else",
        details={"missing": list(addresses[:200])},
    )


def _told(lacking: Sequence[Wanted], lists: Declared, *, inferred: bool) -> str:
    names = [want.shown for want in lacking] + lists.folders
    shown = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    why = "; no list says what it needs, so that it was read from the imports" if inferred else ""
    return f"installed before it starts, since the template does not have it so: {shown}{why}"
