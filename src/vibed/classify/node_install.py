"""What has to be installed before a Node app starts, where a layer can be made of it (`vibed.runtimes.layers`).

The template is enough where its packages are in the ranges that package.json gives. Where one is not, the whole tree is
installed as its own manager would: by its lock file, if it has one.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence

from vibed.apps.app import Build, Install
from vibed.classify import node_locks, node_sharing, npm_ranges
from vibed.classify.needs import OWN, Needs
from vibed.classify.node_app import NodeApp
from vibed.classify.node_dependencies import NOT_NEEDED, mentioned, package_name
from vibed.classify.tree import strings

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
    beside = _beside(node, entries)
    declared = dict(beside or node.dependencies)
    files = list(dict.fromkeys(file for start in entries or node.entries() for file in node.reached(start)))
    imported = {name for file in files for name in map(package_name, node.imports(file)) if name}
    # what is only there for development, and imported all the same
    others = node.all_dependencies if beside is None else {}
    misplaced = {name: spec for name, spec in others.items() if name in imported and name not in declared}
    runs = _runs_typescript(node, entries) if not imported_only else {}
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
        development=bool(misplaced or (by_files and undeclared)),
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


def _runs_typescript(node: NodeApp, entries: Sequence[str]) -> dict[str, str]:
    """What runs its TypeScript in Node's place, with the versions that package.json gives: it is most often among what
    is for development.
    """
    runner = next((found for path in entries if (found := node.runner(path)) is not None), None)
    names = (runner.package, *runner.beside) if runner is not None else ()
    return {name: node.all_dependencies.get(name, "*") for name in names}


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
    runs = [name for name in _runs_typescript(node, entries) if name not in node.all_dependencies]
    packages = (*build.packages, *runs)
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


def _manager(node: NodeApp) -> tuple[str, str]:
    """Who installs, and by which lock file (empty: none)."""
    asked = _MANAGER.match(str(node.package.get("packageManager", "")))
    locks = [path for path in node_locks.MANAGERS if node.tree.has(path)]
    if asked is not None:
        return asked[1], next((path for path in locks if node_locks.MANAGERS[path] == asked[1]), "")
    return (node_locks.MANAGERS[locks[0]], locks[0]) if locks else ("npm", "")


def _told(lacking: Sequence[str], declared: Mapping[str, str], *, inferred: bool) -> str:
    named = [_spec(name, declared[name]) for name in lacking]
    shown = ", ".join(named[:_NAMED]) + (f" and {len(named) - _NAMED} more" if len(named) > _NAMED else "")
    why = "; no package.json says what it needs, so that it was read from the imports" if inferred else ""
    return f"installed before it starts, since the template does not have it so: {shown}{why}"
