"""Prisma: its client is generated before a project is built or run, and a database in a file gets its tables before the
app starts."""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from vibed.apps.app import Build
from vibed.classify.decision import TEMPLATES, Decision
from vibed.classify.prisma_tables import TABLES
from vibed.classify.project import Project
from vibed.classify.tree import Tree, strings, table

_CONFIGS = tuple(
    f"{stem}.{ending}"
    for stem in ("prisma.config", ".config/prisma")
    for ending in ("ts", "mts", "cts", "js", "mjs", "cjs")
)
_USUAL = ("prisma/schema.prisma", "schema.prisma", "prisma/schema", "prisma")
_NAMED = re.compile(r"""\bschema\s{0,9}:[^"'`\n]{0,80}["'`]([\w./-]{1,200})["'`]""")
_BLOCK = r"^[ \t]{0,20}%s[ \t]{1,9}\w{1,60}[ \t]{0,9}\{([^}]{0,4000})\}"
_GENERATOR = re.compile(_BLOCK % "generator", re.MULTILINE)
_DATASOURCE = re.compile(_BLOCK % "datasource", re.MULTILINE)
_VALUE = r"^[ \t]{0,20}%s[ \t]{0,20}=[ \t]{0,20}(?:env\([ \t]{0,9})?\"([^\"\n]{1,400})\""
_PROVIDER = re.compile(_VALUE % "provider", re.MULTILINE)
_OUTPUT = re.compile(_VALUE % "output", re.MULTILINE)
_URL = re.compile(r"^[ \t]{0,20}url[ \t]{0,20}=[ \t]{0,20}(env\([ \t]{0,9})?\"([^\"\n]{1,400})\"", re.MULTILINE)
_NEEDS = re.compile(r"""\benv\(\s{0,9}["'`](\w{1,80})["'`]""")
"""A variable without which a configuration of Prisma is an error, whatever its command is called for."""
_ADAPTED = re.compile(
    r"""\bPrisma(?:BetterSqlite3|BetterSQLite3|LibSql|LibSQL)\(\s{0,20}\{\s{0,20}url\s{0,9}:\s{0,9}"""
    r"""(?:["'`](file:[\w./-]{1,200})["'`]|process\.env\.(\w{1,80})|process\.env\[["'`](\w{1,80})["'`]\])"""
)
_CALLS = re.compile(r"\b(?:npm|pnpm|yarn|bun)(?:[ \t]{1,9}run(?:-script)?)?[ \t]{1,9}([\w:.-]{1,60})")
_GENERATES = re.compile(r"\bprisma[ \t]{1,9}generate\b")
_PLACES = {
    "sqlite": "file:/tmp/none.db", "mysql": "mysql://none@localhost/none", "mongodb": "mongodb://localhost/none",
    "sqlserver": "sqlserver://localhost;database=none",
}  # fmt: skip
"""What a variable says where a client is only generated, and nobody has given it: no database is asked for that."""
_SERVERS = {
    "postgresql": "PostgreSQL", "postgres": "PostgreSQL", "cockroachdb": "CockroachDB", "mysql": "MySQL",
    "mongodb": "MongoDB", "sqlserver": "SQL Server",
}  # fmt: skip
_FILE = "file:./dev.db"
_CLIENTS = ("prisma", "@prisma/client")


@dataclass(frozen=True)
class _Schema:
    """One schema of a project, and what its configuration says."""

    folder: str
    """Of the package that has it; empty for the root."""
    place: str
    """The folder of the schema, from that of the package on."""
    text: str
    config: str
    named: str

    @property
    def provider(self) -> str:
        """Of the database."""
        found = _DATASOURCE.search(self.text)
        told = _PROVIDER.search(found[1]) if found else None
        return told[1] if told else ""

    @property
    def among_packages(self) -> bool:
        """Whether the client is written where the package's own install script writes it too."""
        blocks = [block for block in _GENERATOR.findall(self.text) if "prisma-client" in block]
        return not any(_OUTPUT.search(block) or '"prisma-client"' in block for block in blocks)

    @property
    def url(self) -> tuple[str, str]:
        """The variable that has the database's address, and the address that is written out; either may be empty."""
        found = _DATASOURCE.search(self.text)
        told = _URL.search(found[1]) if found else None
        if told is None:
            read = _NEEDS.search(self.config) or re.search(r"""process\.env\W{1,4}(\w{1,80})""", self.config)
            return (read[1] if read else ""), ""
        return (told[2], "") if told[1] else ("", told[2])

    def generate(self) -> str:
        """The line for the shell, run in the project's folder."""
        place = _PLACES.get(self.provider, "postgresql://none@localhost/none")
        given = "".join(f'{name}="${{{name}:-{place}}}" ' for name in dict.fromkeys(_NEEDS.findall(self.config)))
        schema = f" --schema {shlex.quote(self.named)}" if self.named else ""
        line = f"{given}prisma generate{schema}"
        if self.folder:
            return f'(cd {shlex.quote(self.folder)} && PATH="$PWD/node_modules/.bin:$PATH" && {line})'
        return f"[ -e node_modules/.prisma/client/schema.prisma ] || {line}" if self.among_packages else line


def prepared(p: Project, decision: Decision) -> Decision:
    """A decision with what Prisma needs done before; the same where the project has none of it."""
    built = decision.made is not None and decision.made.kind == "node"
    if not p.builds or (decision.made is not None and not built) or not (built or decision.kind == "node"):
        return decision
    schemas = list(_schemas(p))
    if not schemas:
        return decision
    decision = _generated(p, decision, schemas)
    own = next((one for one in schemas if not one.folder), None)
    if own is None or decision.kind != "node":
        return decision
    if own.provider == "sqlite":
        return _with_tables(p, decision, own)
    if server := _SERVERS.get(own.provider):
        at = f" at {own.url[0]}" if own.url[0] else ""
        note = (
            f"its schema of Prisma expects {server}{at}, and no such server runs beside an app or can be reached from"
            ' it: with provider = "sqlite" and migrations for that it has its database in a file'
        )
        return replace(decision, notes=(*decision.notes, note))
    return decision


def _generated(p: Project, decision: Decision, schemas: list[_Schema]) -> Decision:
    made = decision.made
    lines = [one.generate() for one in schemas if made is None or not _does(p, made.script, one.folder)]
    if not lines:
        return decision
    asked = p.node.all_dependencies
    lacks = "prisma" not in asked and all(not one.folder for one in schemas)
    packages = (f"prisma@{asked['@prisma/client']}",) if lacks else ()
    if made is None:
        made = Build("Prisma", " && ".join(lines), TEMPLATES["node"], site=False, copied=True, packages=packages)
        why = f"{decision.why} Its Prisma client is generated first."
        return replace(decision, made=made, why=why)
    script = " && ".join([*lines, made.script])
    return replace(decision, made=replace(made, script=script, copied=True, packages=(*made.packages, *packages)))


def _does(p: Project, line: str, folder: str) -> bool:
    """Whether a line of the shell, or a script of package.json that it calls, generates the client."""
    scripts = p.node.scripts if not folder else p.node.workspaces.at(folder).scripts
    seen: set[str] = set()
    waiting = [line]
    while waiting:
        text = waiting.pop()
        if _GENERATES.search(text):
            return True
        for name in _CALLS.findall(text):
            if name not in seen:
                seen.add(name)
                waiting += [scripts[one] for one in (f"pre{name}", name) if one in scripts]
    return False


def _with_tables(p: Project, decision: Decision, schema: _Schema) -> Decision:
    """With the tables of a database in a file, made before it starts: the file is made where the app runs."""
    adapted = any(name.startswith("@prisma/adapter-") for name in p.node.dependencies)
    variable, url = schema.url
    if adapted:
        found = next(
            (m for path in p.tree.known("ts", "js", "mjs", "cjs") if (m := _ADAPTED.search(p.tree.text(path)))), None
        )
        if found is not None:
            url, variable = found[1] or "", found[2] or found[3] or ""
    # an engine finds the file from the schema on, an adapter from where the app runs
    place = "." if adapted else schema.place
    env = dict(decision.env)
    if variable and not any(p.tree.has(name) for name in (".env", "prisma/.env", ".env.production", ".env.local")):
        env.setdefault(variable, _file(p.tree, place))
    migrations = posixpath.join(schema.place, "migrations")
    if not any(path.endswith("/migration.sql") for path in p.tree.inside(f"{migrations}/")):
        note = (
            "its schema of Prisma has no migrations, so that its tables are not made here: run npx prisma migrate dev"
            f" --name init and deploy the folder {migrations} that it writes, or a database that has them"
        )
        there = any(path.endswith((".db", ".sqlite", ".sqlite3")) for path in p.tree.paths)
        return replace(decision, env=env, notes=decision.notes if there else (*decision.notes, note))
    told = {"variable": variable, "url": url, "place": place, "migrations": migrations}
    step = ("node", "-e", TABLES, json.dumps(told))
    return replace(decision, env=env, build=(*decision.build, step))


def _file(tree: Tree, place: str) -> str:
    """The address of the database where nothing says it: a file that was sent, or a new one."""
    inside = "" if place == "." else f"{place}/"
    found = sorted(path for path in tree.inside(inside) if path.endswith(".db"))
    return f"file:./{found[0][len(inside) :]}" if len(found) == 1 else _FILE


def _schemas(p: Project) -> Iterator[_Schema]:
    """Those of the root and of the packages of the project."""
    spaces = p.node.workspaces
    for folder in ("", *spaces.members):
        asked = p.node.all_dependencies if not folder else spaces.at(folder).wanted
        if any(name in asked for name in _CLIENTS):
            tree = p.tree.below(folder) if folder else p.tree
            manifest = p.node.package if not folder else spaces.at(folder).manifest
            if (found := _schema(tree, folder, manifest)) is not None:
                yield found


def _schema(tree: Tree, folder: str, manifest: Mapping[str, object]) -> _Schema | None:
    config = next((tree.text(path) for path in _CONFIGS if tree.has(path)), "")
    said = strings(table(manifest.get("prisma"))).get("schema", "")
    named = _NAMED.search(config)
    for place in (named[1] if named else "", said, *_USUAL):
        path = posixpath.normpath(place) if place else ""
        files = [path] if tree.has(path) else [one for one in tree.inside(f"{path}/") if one.endswith(".prisma")]
        if path and files:
            text = "\n".join(map(tree.text, files))
            at = posixpath.dirname(path) if tree.has(path) else path
            known = place in (_USUAL[0], _USUAL[1]) or named is not None or place == said
            return _Schema(folder, at or ".", text, config, "" if known else path)
    return None
