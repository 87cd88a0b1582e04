"""Projects that lie in folders, where the root is none."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vibed.classify.tree import Tree
from vibed.sources import lock_files

_MARKS = frozenset(
    {
        "package.json", "requirements.txt", "pyproject.toml", "Pipfile", "go.mod", "index.html", "app.py", "main.py",
        "manage.py", "wrangler.toml", "wrangler.jsonc", "Procfile", "server.js", "index.js", "app.js", "main.go",
        "worker.js", "server.py", "streamlit_app.py", "pom.xml", "build.gradle", "Cargo.toml", "composer.json",
        "Gemfile", "pubspec.yaml", "mix.exs",
    }
)  # fmt: skip
"""Files of which each says that its folder holds a project, of whatever language."""
LISTS = ("package.json", "requirements.txt", "pyproject.toml", "Pipfile")
"""Files that say what a project needs."""
_ASIDE = re.compile(r"\.|(?:tests?|e2e|docs?|examples?|samples?|scripts?|tools?|infra|deploy|skills)$", re.IGNORECASE)
"""Folders that are no app where another one may be."""
_DEEPEST = 3


def projects(tree: Tree) -> list[str]:
    """The folders that hold a project each, none of them inside another; those for tests, tools and documents only
    where there are no others."""
    found: list[str] = []
    for path in sorted(tree.paths, key=lambda path: (path.count("/"), path)):
        folder, _, name = path.rpartition("/")
        if name not in _MARKS or not folder or folder.count("/") >= _DEEPEST or "node_modules" in folder:
            continue
        if not any(folder == other or folder.startswith(f"{other}/") for other in found):
            found.append(folder)
    apps = [folder for folder in found if not any(_ASIDE.match(part) for part in folder.split("/"))]
    filled = _with_more_than_lists(tree)
    return [folder for folder in apps if folder in filled] or apps or found


def _with_more_than_lists(tree: Tree) -> set[str]:
    """The folders that hold anything, at any depth, but what says what is needed: nothing runs in others."""
    found: set[str] = set()
    for path in tree.paths:
        folder, _, name = path.rpartition("/")
        if (
            name in LISTS
            or name in lock_files.READ
            or name == lock_files.BINARY
            or name.startswith(".")
            or name.lower().endswith(".md")
        ):
            continue
        while folder and folder not in found:
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return found


def holds_page(tree: Tree, page: str, lists: Sequence[str] = ("package.json",)) -> bool:
    """Whether a page belongs to a project of a folder, which says how it is built. `lists`: the files that make one."""
    folder = page.rpartition("/")[0]
    while folder:
        if any(tree.has(f"{folder}/{name}") for name in lists):
            return True
        folder = folder.rpartition("/")[0]
    return False
