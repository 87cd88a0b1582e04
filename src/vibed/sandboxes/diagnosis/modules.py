"""Modules and packages that are not there: a file that was not sent, or a dependency; and what does instead of it."""

from __future__ import annotations

import re

from vibed.sandboxes.diagnosis import packages, slips
from vibed.sandboxes.diagnosis.about import About, Cause
from vibed.sandboxes.diagnosis.fault import Fault

_PYTHON = re.compile(
    r"(?:ModuleNotFoundError: |ImportError: |: )No module named '?([A-Za-z_][\w.]*)'?(; '\S+' is not a package)?"
)
_PATTERNS = (
    # Node: require() and import
    re.compile(r"Cannot find (?:module|package) '([^'./][^']*)'"),
    # Go
    re.compile(r"no required module provides package ([^\s;:]+)"),
    re.compile(r"missing go\.sum entry for module providing package ([^\s;:]+)"),
    re.compile(r"cannot find module providing package ([^\s;:]+)"),
    re.compile(r": cannot find package \"?([\w./-]+)\"?"),
    re.compile(r"package ([\w.-]+/\S+) is not in std"),
    # esbuild
    re.compile(r"Could not resolve \"([^\"./][^\"]*)\""),
    # workerd
    re.compile(r"No such module \"(?!node:|cloudflare:)([^\"]+)\""),
)
_ADVISED = (
    re.compile(r"(?:pip3?|npm|yarn|pnpm) (?:install|i|add) (?:-\S+ )*[\"'`]?((?!-)[@\w][\w@/.-]*)"),
    re.compile(r"Missing optional dependency '([\w.-]+)'"),
    re.compile(r"the features you requested: ([\w.-]+)\."),
    re.compile(r"Error loading (\w+)(?: or \w+)* module"),
)
"""How packages say that another one is wanted."""
_OWN_FILE = re.compile(r"(?:Cannot find module '|Could not resolve \")(\.{1,2}/[^'\"]+|/app/[^'\"]+)['\"]")
_SUGGESTED = re.compile(r"Did you mean to import \"?([^\s\"?]+)")

# Names that authors give to their own files. A package of such a name may exist; nobody means it.
_OWN_NAMES = frozenset({
    "admin", "agents", "api", "app", "application", "apps", "auth", "backend", "bot", "callbacks", "client", "common",
    "components", "config", "configs", "constants", "controllers", "core", "crud", "custom", "data", "data_loader",
    "database", "db", "dbmodels", "decorators", "dependencies", "dto", "endpoints", "engine", "enums", "errors",
    "exceptions", "extensions", "forms", "frontend", "functions", "game", "generator", "handlers", "helper",
    "helpers", "jobs", "lib", "libs", "loader", "logger", "logic", "main", "manager", "managers", "middleware",
    "middlewares", "mixins", "model", "models", "modules", "my_app", "myapp", "pages", "parser", "pipeline",
    "plugins", "prompts", "providers", "queries", "repositories", "repository", "resources", "routers", "routes",
    "schema", "schemas", "scraper", "scripts", "serializers", "server", "service", "services", "session", "settings",
    "shared", "signals", "src", "storage", "tasks", "templates", "test", "tests", "tools", "types", "ui", "util",
    "utilities", "utils", "validators", "views", "wsgi", "worker", "workers",
})  # fmt: skip
_NO_SERVER = "apps have no network here, so that no database server can be reached: use SQLite"
_SQLITE = "SQLite is built into Node.js: `const { DatabaseSync } = require('node:sqlite')`"
_FETCH = "fetch is built into Node.js: leave the package out"
_HASHES = "Node.js has `crypto.scryptSync` for passwords: use it in place of the package"
_RUNS_TYPESCRIPT = "node runs TypeScript files as they are: start with `node FILE.ts`"
_INSTEAD = {
    "node": {
        "better-sqlite3": _SQLITE,
        "sqlite3": _SQLITE,
        "sqlite": _SQLITE,
        "node-fetch": _FETCH,
        "cross-fetch": _FETCH,
        "isomorphic-fetch": _FETCH,
        "undici": _FETCH,
        "bcrypt": _HASHES,
        "bcryptjs": _HASHES,
        "argon2": _HASHES,
        "ts-node": _RUNS_TYPESCRIPT,
        "tsx": _RUNS_TYPESCRIPT,
        "nodemon": "start with `node FILE` (nothing changes the files of a deployed app)",
        "fs-extra": "node:fs has `cpSync`, `mkdirSync` and `rmSync` with `recursive`",
        "chalk": "node:util has `styleText`",
        **dict.fromkeys(("pg", "mysql", "mysql2", "mongodb", "mongoose", "redis", "ioredis"), _NO_SERVER),
    },
    "python": {
        **dict.fromkeys(
            ("psycopg2", "psycopg", "asyncpg", "pymysql", "MySQLdb", "aiomysql", "pymongo", "motor", "redis", "pyodbc"),
            _NO_SERVER,
        ),
        "bcrypt": "`werkzeug.security` has generate_password_hash and check_password_hash",
        "passlib": "`werkzeug.security` has generate_password_hash and check_password_hash",
        "pytz": "the standard library has `zoneinfo`",
        "toml": "the standard library has `tomllib`",
        "simplejson": "the standard library has `json`",
        "ujson": "the standard library has `json`",
    },
}
_WHAT = {"python": "Python module", "node": "npm package", "worker": "npm package", "go": "Go package"}


def missing(fault: Fault, about: About) -> Cause | None:
    """The cause, when the error is about something that could not be imported."""
    return _own_file(fault) or _python(fault, about) or packages.lacks(fault, about) or _package(fault, about)


def _own_file(fault: Fault) -> Cause | None:
    text = "\n".join((fault.text, *fault.context))
    if (match := _OWN_FILE.search(text)) is None:
        return None
    name = match[1].removeprefix("/app/")
    meant = _SUGGESTED.search(text)
    hint = (
        f"write {meant[1]}: import wants the whole name of a file" if meant else "send the file too, or mend its name"
    )
    does = "starts" if "requireStack: []" in text else "imports"
    return Cause(f"{does} {name}, which is not in the source", hint, complete=True)


def _python(fault: Fault, about: About) -> Cause | None:
    if (match := _PYTHON.search(fault.text)) is None:
        return None
    name, shadowed = match[1], match[2]
    top = name.partition(".")[0]
    if shadowed:
        return Cause(
            f"imports {name}, but {top}.py of the app's own hides the package {top}",
            f"give {top}.py another name",
            complete=True,
        )
    sent = any(f'"/app/{top}/' in line or f'"/app/{top}.py"' in line for line in fault.context)
    own = sent or top in _OWN_NAMES or fault.text.endswith(f": No module named {name}")
    if own and not (fault.library and top not in ("wsgi", "app", "main", "server", "application") and not sent):
        path = name.replace(".", "/")
        return Cause(
            f"imports {name}, and a file is missing from what was sent: there is no {path}.py",
            f"send {path}.py (or the folder {path}/) with the others, at the place from where it is imported",
            complete=True,
        )
    return packages.lacks(fault, about) or _needs(name, about if about.kind else About("python", about.template))


def _package(fault: Fault, about: About) -> Cause | None:
    for line in (fault.text, *fault.context):
        for pattern in _PATTERNS:
            if match := pattern.search(line):
                return _needs(match[1].rstrip(","), about)
    for pattern in _ADVISED:
        if match := pattern.search(fault.text):
            return _needs(match[1].rstrip("."), about)
    return None


def _needs(name: str, about: About) -> Cause:
    kind = about.kind or "node"
    what = _WHAT.get(kind, "module")
    instead = _INSTEAD.get("node" if kind == "worker" else kind, {}).get(name.partition(".")[0])
    template = f"template {about.template}" if about.template else "its template"
    meant = "" if instead else slips.meant(name, kind)
    return Cause(
        f"needs the {what} {name!r}, which {template} does not have and the source does not bring",
        f"correct the name, if {meant} was meant; otherwise {_usual(kind)}" if meant else instead or _usual(kind),
        "DependenciesMissing",
        complete=True,
    )


def _usual(kind: str) -> str:
    if kind == "python":
        return (
            "list it in requirements.txt; where vibeD installs nothing, use what the template has (the list of "
            "templates tells), or bring the package's folder in the source"
        )
    if kind == "go":
        return "run `go mod vendor` and send the vendor folder with the source; of a folder of the app's own, send that"
    if kind == "worker":
        return "use what the template has (the list of templates tells), or bundle the package into the source"
    return (
        "list it in the dependencies of package.json; where vibeD installs nothing, use what the template has (the list"
        " of templates tells), or bundle the package into the source"
    )
