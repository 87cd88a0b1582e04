"""The files of the app that a decided command starts."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from vibed.classify import shell_text
from vibed.classify.decision import Decision
from vibed.classify.project import Project
from vibed.classify.tree import Tree
from vibed.classify.wrappers import unwrapped

_OBJECT = re.compile(r"([\w.-]+):[\w.()]+")
_ROOTS = frozenset({"--app-dir", "--chdir", "--pythonpath", "-C", "--directory"})
_SETTINGS = frozenset({"-c", "--config", "--log-config", "--env-file", "-k", "--worker-class"})
"""Options whose value is not what is started."""
_INLINE = re.compile(r"\bfrom ([\w.]{1,200}) import |\bimport\(\"\./([^\"]{1,200})\"\)")
"""What a command imports that is a program itself: `python3 -c`, `node -e`."""
_SAID = frozenset({"procfile", "host-file", "dockerfile"})
"""Rules by which a project says its own command."""
_NODE = ("", ".js", ".mjs", ".cjs", ".ts", ".mts")


def entries(project: Project, decision: Decision) -> list[str]:
    """The files that the command names, the last server's first: Python and Node files, and modules by their names."""
    found = [path for words, folder in _commands(decision) for path in _named(project.tree, words, folder)]
    if decision.kind == "worker":
        return [decision.entrypoint]
    ending = (".py",) if decision.kind == "python" else _NODE[1:]
    fitting = [path for path in found if path.endswith((*ending, "/www"))]
    return list(dict.fromkeys(reversed(fitting)))


def folders(decision: Decision, files: Sequence[str]) -> list[str]:
    """Where lists of what is needed lie, each with its slash, the nearest to `files` first. A command that the project
    says itself is run, by whoever runs it there, with the lists of the folder that it runs in."""
    found = []
    if decision.rule in _SAID:
        *_, (_, folder) = (((), ""), *_commands(decision))
        found.append(folder)
    managed = [word for words, _ in _commands(decision) for word in words if word.endswith("/manage.py")]
    for path in (*files, *managed):
        folder = posixpath.dirname(path)
        while folder:
            found.append(folder)
            folder = posixpath.dirname(folder)
    return [f"{folder}/" if folder else "" for folder in dict.fromkeys((*found, ""))]


def working_folders(decision: Decision) -> list[str]:
    """Where the command runs what it starts, the last first; empty for the root."""
    return list(dict.fromkeys(folder for _, folder in reversed(list(_commands(decision)))))


def sources(project: Project, decision: Decision) -> list[str]:
    """The source files that run, as far as it can be told: those that the command starts and what they reach."""
    if decision.kind == "go":
        return sorted(project.tree.known(".go"), key=lambda path: (path.count("/"), path))
    if decision.kind == "python":
        return list(
            dict.fromkeys(s.path for entry in entries(project, decision) for s in project.sources.reached(entry))
        )
    return list(dict.fromkeys(p for entry in entries(project, decision) for p in project.node.reached(entry)))


def _commands(decision: Decision) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each simple command with the folder that it runs in."""
    if decision.argv:
        yield decision.argv, ""
        return
    folder = ""
    for part in shell_text.parse((decision.shell or "").replace("(", " ").replace(")", " ; ")) or ():
        if part.words[0] == "cd" and len(part.words) == 2:
            folder = posixpath.normpath(posixpath.join(folder, part.words[1])).removeprefix(".")
        else:
            yield unwrapped(part.words).words, folder
        if part.then in ("&", ";"):
            folder = "" if part.then == "&" else folder


def _named(tree: Tree, words: tuple[str, ...], folder: str) -> Iterator[str]:
    roots = ["", "src/"]
    for option, value in pairwise(words):
        if option in _ROOTS:
            roots.insert(0, f"{posixpath.normpath(value)}/")
    roots += [f"{word.partition('=')[2]}/" for word in words if word.partition("=")[0] in _ROOTS and "=" in word]
    modules = {words[at + 1] for at in range(len(words) - 1) if words[at] == "-m"}
    server = next((word for word in words if word in ("gunicorn", "uvicorn", "hypercorn", "daphne")), "")
    for before, word in pairwise(("", *words)):
        if before in ("-c", "-e") and (inline := _INLINE.search(word)):
            stem = inline[2] or inline[1].replace(".", "/")
            ends = ("", ".py", "/__init__.py")
            if found := tree.first(posixpath.join(folder, root, stem + end) for root in roots for end in ends):
                yield found
            continue
        if before in _SETTINGS:
            continue
        path = posixpath.normpath(posixpath.join(folder, word))
        if path in tree.paths:
            if not path.endswith("manage.py"):
                yield path
            continue
        match = _OBJECT.fullmatch(word)
        if match is None and word not in modules and not (server and re.fullmatch(r"[A-Za-z_]\w*(?:\.\w+)*", word)):
            continue
        stem = (match[1] if match else word).replace(".", "/")
        tried = [
            posixpath.join(folder, root, stem + end)
            for root in roots
            for end in (".py", "/__init__.py", "/__main__.py")
        ]
        found = tree.first(tried)
        if found:
            yield found
