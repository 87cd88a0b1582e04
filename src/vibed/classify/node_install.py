"""What has to be installed before a Node app starts, where a layer can be made of it (`vibed.runtimes.layers`).

The template is enough where its packages are in the ranges that package.json gives. Where one is not, the whole tree is
installed as its own manager would: by its lock file, if it has one.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from vibed.apps.app import Build, Install
from vibed.classify import bun, node_locks, node_sharing, npm_ranges
from vibed.classify.needs import OWN, Needs
from vibed.classify.node_app import NodeApp
from vibed.classify.node_dependencies import NOT_NEEDED, mentioned, package_name
from vibed.classify.tree import strings
from vibed.classify.workspaces import Member

_NAMED = 12
"""So many packages are named in a note."""
_BESIDE = (
    "package.json", ".npmrc", ".yarnrc.yml", ".yarnrc", "pnpm-workspace.yaml", ".pnpmfile.cjs",
)  # fmt: skip
_MANAGER = re.compile(r"^(npm|pnpm|yarn|bun)@")


def needs(node: NodeApp, entries: Sequence[str], packages: Mapping[str, str], *, imported_only: bool = False) -> Needs:
    """What is declared, or else imported from `entries` on, and what of it has to be installed; `packages` are the
    template's. `imported_only`: what a bundler does not reach is not needed.
    """
    if (several := _several(node, entries)) is not None:
        return _of_several(node, *several, entries, packages)
    beside = _beside(node, entries)
    declared = dict(beside or node.dependencies)
    files = list(dict.fromkeys(file for start in entries or node.entries() for file in node.reached(start)))
    imported = {name for file in files for name in map(package_name, node.imports(file)) if name}
    # what is only there for development, and imported all the same
    others = node.all_dependencies if beside is None else {}
    misplaced = {name: spec for name, spec in others.items() if name in imported and name not in declared}
    runs = _runners(node, entries) if not imported_only else {}
    inferred = not declared and not misplaced and not (beside is None and runs.keys() & node.all_dependencies.keys())
    if inferred:
        declared = dict.fromkeys(sorted(imported), "*")
    misplaced |= {name: spec for name, spec in runs.items() if name not in declared}
    known = declared | misplaced
    undeclared: list[str] = []
    if imported_only:
        imported = {name for name in imported if not _is_own(node, name)}
        undeclared = sorted(imported - known.keys())
        known = {name: spec for name, spec in known.items() if name in imported} | dict.fromkeys(undeclared, "*")
        declared = {name: spec for name, spec in declared.items() if not inferred or name in imported}
    found = Needs(names=sorted(known))
    lacking = [
        name
        for name, spec in known.items()
        if f"node_modules/{name}" not in node.tree.folders
        and (name in imported or name in runs or not NOT_NEEDED.match(name))
        and not _has(node, name, spec, packages.get(name))
    ]
    if inferred:
        # what else is called so in the registry is hardly what was meant
        found.missing |= {name: name for name in lacking if name.replace("-", "_") in OWN}
    if found.missing or not lacking:
        return found
    by_files = not inferred and beside is None
    manager, lock = _manager(node) if by_files else ("npm", "")
    found.install = Install(
        kind="node",
        manager=manager,
        files=tuple(path for path in (*_BESIDE, lock) if path and node.tree.has(path)) if by_files else (),
        wanted=tuple(undeclared)
        if by_files and imported_only
        else tuple(
            _spec(name, spec)
            for name, spec in sorted((declared | runs).items())
            if not by_files or (name in runs and name not in node.all_dependencies)
        ),
        optional=tuple(name for name in sorted(declared) if not _is_used(node, name, imported, files)),
        private=by_files and node_sharing.belongs_to_source(node),
        # the project's own scripts call what is there for development
        development=bool(misplaced or (by_files and (undeclared or node_sharing.own_scripts(node.scripts)))),
    )
    found.notes.append(_told(lacking, known, inferred=inferred))
    return found


_TYPES = re.compile(r"^@types/|^@cloudflare/workers-types(?:/|$)")


def _is_own(node: NodeApp, name: str) -> bool:
    """Whether an import is of the app's own, though it looks like a package's: by a path of tsconfig.json, or from its
    root on; or of workerd; or of types alone, which no bundle has.
    """
    top = name.partition("/")[0]
    aliased = re.compile(rf"""["'](?:{re.escape(name)}|{re.escape(top)})(?:/\*)?["']\s{{0,9}}:\s{{0,9}}\[""")
    tree = node.tree
    return (
        name.startswith("__STATIC_CONTENT")
        or bool(_TYPES.match(name))
        or bool(aliased.search(tree.text("tsconfig.json")))
        or (name not in node.all_dependencies and (top in tree.folders or node.file(name) is not None))
    )


def _runners(node: NodeApp, entries: Sequence[str]) -> dict[str, str]:
    """What runs its files in Node's place, with the versions that package.json gives: it is most often among what is
    for development.
    """
    runner = next((found for path in entries if (found := node.runner(path)) is not None), None)
    names = (runner.package, *runner.beside) if runner is not None else ()
    versions = {bun.RUNNER.package: bun.asked(node.package), **node.all_dependencies}
    return {name: versions.get(name, "*") for name in names}


def _several(node: NodeApp, entries: Sequence[str]) -> tuple[str, list[Member]] | None:
    """Of a project of several packages: the folder whose package.json is installed, and the packages that are needed,
    its own first. None where what is started needs no other package of the project.
    """
    spaces = node.workspaces
    start = next((one for entry in entries if (one := spaces.of(entry)) is not None), None)
    if start is not None:
        return "", list(dict.fromkeys([spaces.at(""), start, *spaces.needed(start)]))
    for entry in entries:
        folder = posixpath.dirname(entry)
        while folder and not node.tree.has(f"{folder}/package.json"):
            folder = posixpath.dirname(folder)
        one = spaces.at(folder)
        if ours := spaces.needed(one):
            return folder, [one, *ours]
    return None


def _of_several(
    node: NodeApp, folder: str, needed: Sequence[Member], entries: Sequence[str], packages: Mapping[str, str]
) -> Needs:
    """The same of such a project."""
    files = list(dict.fromkeys(file for start in entries for file in node.reached(start)))
    imported = {name for file in files for name in map(package_name, node.imports(file)) if name}
    runs = _runners(node, entries)
    imported |= set(runs)
    target = node.workspaces.target
    declared: dict[str, str] = {}
    misplaced: dict[str, str] = {}
    linked = False
    for one in needed:
        for name, spec in one.wanted.items():
            if target(one.folder, name, spec) is not None:
                linked = True
            elif name in one.kinds["dependencies"]:
                declared[name] = spec
            elif name in imported:
                misplaced[name] = spec
    asked = {**misplaced, **declared}
    found = Needs(names=sorted(asked))
    lacking = [
        name
        for name, spec in asked.items()
        if (name in imported or not NOT_NEEDED.match(name)) and not _has(node, name, spec, packages.get(name))
    ]
    undeclared = tuple(name for name in runs if name not in asked)
    if lacking or linked or undeclared:
        whole = _whole(node, folder, needed, development=bool(misplaced.keys() - declared.keys()))
        found.install = replace(whole, wanted=(*whole.wanted, *undeclared))
        what = _told(lacking, asked, inferred=False) if lacking else "installed before it starts"
        count = len([one for one in needed if one.folder != folder])
        linked_ = f"{count} package{' of the project is' if count == 1 else 's of the project are'} linked where "
        found.notes.append(f"{what}; {linked_}{'it lies' if count == 1 else 'they lie'}")
    return found


def _whole(node: NodeApp, folder: str, needed: Sequence[Member], *, development: bool) -> Install:
    """A project with all of its packages, as its manager installs it."""
    members = dict.fromkeys([*needed, *(node.workspaces.members.values() if not folder else ())])
    manager, lock = _manager(node, folder)
    # managers install nothing for folders beside the one that they install, but links lead to them
    apart = [one for one in needed[1:] if folder and not one.folder.startswith(f"{folder}/")]
    asked = needed[0].wanted
    more = {
        name: spec
        for one in apart
        for name, spec in one.kinds["dependencies"].items()
        if name not in asked and node.workspaces.target(one.folder, name, spec) is None
    }
    copies = manager in ("pnpm", "yarn") and any(
        spec.startswith(("file:", ".")) for one in members for spec in one.wanted.values()
    )
    beside = [posixpath.join(folder, name) for name in (*_BESIDE, lock) if name]
    manifests = [posixpath.join(one.folder, "package.json") for one in members]
    return Install(
        kind="node",
        manager=manager,
        files=tuple(dict.fromkeys(path for path in (*beside, *manifests) if node.tree.has(path))),
        wanted=tuple(_spec(name, spec) for name, spec in sorted(more.items())),
        private=True,
        development=development or any(node_sharing.own_scripts(one.scripts) for one in members),
        folder=folder,
        by_files=not copies and node_sharing.decided_by_files(node, members),
    )


def _beside(node: NodeApp, entries: Sequence[str]) -> dict[str, str] | None:
    """What the package.json declares that lies below the root and nearest to what is started; None where there is none
    that declares anything. Its packages are found from the root too.
    """
    for entry in entries:
        folder = posixpath.dirname(entry)
        while folder:
            if node.tree.has(f"{folder}/package.json"):
                return strings(node.tree.json(f"{folder}/package.json").get("dependencies")) or None
            folder = posixpath.dirname(folder)
    return None


def _spec(name: str, spec: str) -> str:
    return name if spec in ("*", "", "latest") else f"{name}@{spec}"


def for_build(node: NodeApp, build: Build, entries: Sequence[str] = ()) -> Install | None:
    """All that package.json names, for a build and for what it makes, and what that build and what is started from
    `entries` need beside it; None where that is nothing.
    """
    runs = {name: spec for name, spec in _runners(node, entries).items() if name not in node.all_dependencies}
    if bun.builds(node.scripts) and bun.RUNNER.package not in node.all_dependencies:
        runs[bun.RUNNER.package] = bun.asked(node.package)
    packages = (*build.packages, *(_spec(name, spec) for name, spec in runs.items()))
    spaces = node.workspaces
    if spaces.members or spaces.needed(spaces.at("")):
        whole = _whole(node, "", [spaces.at(""), *spaces.needed(spaces.at(""))], development=True)
        declared = {name for one in (spaces.at(""), *spaces.members.values()) for name in one.wanted}
        more = (_spec(name, spec) for name, spec in runs.items() if name not in declared)
        return replace(whole, wanted=(*build.packages, *more))
    if not node.all_dependencies and not packages:
        return None
    manager, lock = _manager(node)
    files = tuple(path for path in (*_BESIDE, lock) if path and node.tree.has(path))
    return Install(
        kind="node",
        manager=manager,
        files=files,
        wanted=packages,
        private=node_sharing.belongs_to_source(node),
        development=True,
    )


def alone(node: NodeApp, *, development: bool) -> Install:
    """What package.json asks for, whatever is started."""
    manager, lock = _manager(node)
    files = tuple(path for path in (*_BESIDE, lock) if path and node.tree.has(path))
    return Install(kind="node", manager=manager, files=files, development=development)


def _has(node: NodeApp, name: str, spec: str, version: str | None) -> bool:
    """Whether the template's version is what is asked for, and not another interface than the one that is locked."""
    if version is None or node_sharing.ELSEWHERE.match(spec) or spec.startswith("npm:"):
        return False
    locked = _locked(node, name, spec)
    return npm_ranges.allows(spec, version) and (locked is None or _interface(locked) == _interface(version))


def _interface(version: str) -> tuple[str, ...]:
    """What changes when the interface does: the first number, or behind 0 the second."""
    numbers = version.split(".")
    return tuple(numbers[: 2 if numbers[0] == "0" else 1])


def _locked(node: NodeApp, name: str, spec: str) -> str | None:
    """The version that the project's lock has."""
    _, path = _manager(node)
    return node_locks.locked(path, node.tree.text(path), name, spec) if path else None


def _is_used(node: NodeApp, name: str, imported: set[str], files: Sequence[str]) -> bool:
    return name in imported or (not NOT_NEEDED.match(name) and mentioned(node, name, files))


def _manager(node: NodeApp, folder: str = "") -> tuple[str, str]:
    """Who installs, and by which lock file (empty: none) of the folder."""
    manifest = node.workspaces.at(folder).manifest
    asked = _MANAGER.match(str(manifest.get("packageManager", "")))
    locks = [name for name in node_locks.MANAGERS if node.tree.has(posixpath.join(folder, name))]
    if asked is not None:
        return asked[1], next((path for path in locks if node_locks.MANAGERS[path] == asked[1]), "")
    if locks:
        return node_locks.MANAGERS[locks[0]], locks[0]
    return ("pnpm" if node.tree.has(posixpath.join(folder, "pnpm-workspace.yaml")) else "npm"), ""


def _told(lacking: Sequence[str], declared: Mapping[str, str], *, inferred: bool) -> str:
    named = [_spec(name, declared[name]) for name in lacking]
    shown = ", ".join(named[:_NAMED]) + (f" and {len(named) - _NAMED} more" if len(named) > _NAMED else "")
    why = "; no package.json says what it needs, so that it was read from the imports" if inferred else ""
    return f"installed before it starts, since the template does not have it so: {shown}{why}"
