"""What a source has for making its tables, and nothing runs: told when an app ends for want of one.

`python init_db.py` of a README, `flask --app flaskr init-db`, schema.sql. What the app itself imports is no such thing:
that is run anyway.
"""

from __future__ import annotations

import posixpath
import re
import shlex

from vibed.classify import started
from vibed.classify.decision import Decision
from vibed.classify.project import Project

_MAKES = re.compile(
    r"\bCREATE\s{1,9}(?:VIRTUAL\s{1,9})?TABLE\b|\bcreate_all\(|\bexecutescript\(|\bcreate_tables?\(|\.createTable\("
    r"|\b(?:init|initialize|setup|create|seed)_?(?:db|database|tables|schema)\(|\bsync\(\{|\.exec\(.{0,60}schema",
    re.IGNORECASE,
)
_NAMED = re.compile(r"init|creat|set_?up|schema|migrat|build|make|reset|seed|populat|load|db|database|table")
_APART = re.compile(
    r"(?:^|/)(?:tests?|__tests__|migrations|alembic|node_modules|docs|examples?)/|(?:^|/)test_|\.test\."
)
_FLASK = re.compile(
    r"(?:\.cli|\bclick)\.command\(\s{0,9}(?:['\"]([\w-]{1,60})['\"])?[^\n]{0,80}\)\s{1,9}"
    r"(?:@[^\n]{1,80}\s{1,9}){0,3}def\s{1,9}(\w{1,60})"
)
_OPENED = re.compile(r"\bconnect\(\s{0,9}['\"]([\w./-]{1,100}\.(?:db|sqlite3?))['\"]")
_PROGRAMS = {"python": ("python", (".py",)), "node": ("node", (".js", ".mjs", ".cjs"))}
_MOST = 40
"""Files that are looked into."""


def command(project: Project, decision: Decision) -> str:
    """What makes the tables, run in the app's folder; empty where the source has nothing for it."""
    if decision.kind not in _PROGRAMS:
        return ""
    running = started.sources(project, decision)
    if decision.kind == "python" and (found := _of_flask(project, running)):
        return found
    return _file(project, decision, running) or (_sql(project, running) if decision.kind == "python" else "")


def _file(project: Project, decision: Decision, running: list[str]) -> str:
    """A file that is run by itself."""
    program, extensions = _PROGRAMS[decision.kind]
    named = [
        path
        for path in project.tree.known(*extensions)
        if path not in running and _NAMED.search(posixpath.basename(path).lower()) and not _APART.search(path)
    ]
    named.sort(key=lambda path: (path.count("/"), not re.search(r"init|creat|set_?up", path.lower()), path))
    path = next((path for path in named[:_MOST] if _MAKES.search(project.tree.text(path))), "")
    if not path:
        return ""
    # a path of its own, such as that of the database, counts from where the app runs
    folder = next((f for f in started.working_folders(decision) if f and path.startswith(f"{f}/")), "")
    line = f"{program} {shlex.quote(path.removeprefix(f'{folder}/'))}"
    return f"(cd {shlex.quote(folder)} && {line})" if folder else line


def _of_flask(project: Project, running: list[str]) -> str:
    for path in running:
        for name, function in _FLASK.findall(project.tree.text(path)):
            word = name or function.replace("_", "-")
            if re.search(r"db|database|table|schema|seed", word) and running:
                module = re.sub(r"(?:/__init__)?\.py$", "", running[0]).replace("/", ".")
                return f"flask --app {module} {word}"
    return ""


def _sql(project: Project, running: list[str]) -> str:
    """A file of SQL, for the database that the app opens."""
    opened = next((match[1] for path in running if (match := _OPENED.search(project.tree.text(path)))), "")
    files = sorted(
        (
            path
            for path in project.tree.paths
            if path.endswith(".sql") and _NAMED.search(path) and not _APART.search(path)
        ),
        key=lambda path: (path.count("/"), "schema" not in path, path),
    )
    # what the app reads itself it does not need to be told
    files = [path for path in files if not any(posixpath.basename(path) in project.tree.text(at) for at in running)]
    if not opened or not files:
        return ""
    return f'python -c "import sqlite3; sqlite3.connect({opened!r}).executescript(open({files[0]!r}).read())"'
