"""What a Node app needs beyond Node, compared with what the template has."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from vibed.classify import changed
from vibed.classify.needs import Needs
from vibed.classify.node_app import NodeApp

_BUILTINS = frozenset(
    [
        "assert",
        "async_hooks",
        "buffer",
        "child_process",
        "cluster",
        "console",
        "constants",
        "crypto",
        "dgram",
        "diagnostics_channel",
        "dns",
        "domain",
        "events",
        "fs",
        "http",
        "http2",
        "https",
        "inspector",
        "module",
        "net",
        "os",
        "path",
        "perf_hooks",
        "process",
        "punycode",
        "querystring",
        "readline",
        "repl",
        "stream",
        "string_decoder",
        "sys",
        "timers",
        "tls",
        "trace_events",
        "tty",
        "url",
        "util",
        "v8",
        "vm",
        "wasi",
        "worker_threads",
        "zlib",
    ]
)
NOT_NEEDED = re.compile(
    r"^(@types/.*|typescript|ts-node|ts-node-dev|tsx|nodemon|eslint.*|@eslint/.*|prettier.*|husky|lint-staged|jest.*|ts-jest|vitest"
    r"|mocha|chai|supertest|cross-env|concurrently|npm-run-all|rimraf|node|npm|pnpm|yarn|pm2|forever|@typescript-eslint/.*"
    r"|nyc|c8|standard|tslib|@tsconfig/.*|wrangler|@cloudflare/workers-types|@cloudflare/vitest-pool-workers|esbuild)$"
)
_UNNOTICED = {
    "body-parser": 1, "dotenv": 8, "uuid": 8, "nanoid": 3, "helmet": 4, "morgan": 1, "multer": 1, "ws": 7,
    "marked": 9, "axios": 0, "ejs": 2, "compression": 1, "cors": 2, "cookie-parser": 1, "jsonwebtoken": 8, "koa": 2,
    "@koa/router": 10, "koa-bodyparser": 4, "socket.io": 3, "zod": 3, "pug": 2, "handlebars": 4, "fastify": 4,
    "@fastify/cors": 8, "@fastify/static": 6, "hono": 3, "@hono/node-server": 1, "itty-router": 4,
    "express-session": 1, "lodash": 4, "dayjs": 1, "express": 4,
}  # fmt: skip
"""Packages whose major version small apps do not notice, from the one given here on."""


def dependencies(
    node: NodeApp, entries: Sequence[str], packages: Mapping[str, str] | None, *, imported_only: bool = False
) -> Needs:
    """What is declared or imported, compared with `packages`. `imported_only`: what a bundler does not reach is not
    needed."""
    declared = dict(node.dependencies)
    files = list(dict.fromkeys(file for start in entries or node.entries() for file in node.reached(start)))
    imported = {name for file in files for name in map(package_name, node.imports(file)) if name}
    if not declared or imported_only:
        declared = {name: node.all_dependencies.get(name, "*") for name in sorted(imported)}
    found = Needs(names=sorted(declared))
    unused: list[str] = []
    for name in found.names if packages is not None else ():
        spec, version = declared[name], (packages or {}).get(name)
        if f"node_modules/{name}" in node.tree.folders:
            continue
        if version is None:
            if name not in imported and not NOT_NEEDED.match(name) and not mentioned(node, name, files):
                unused.append(name)
            elif name in imported or not NOT_NEEDED.match(name):
                found.missing[name] = name if spec in ("*", "", "latest") else f"{name}@{spec}"
        elif not _allows(spec, version):
            texts = {file: node.tree.text(file) for file in files} if name in imported else {}
            old = changed.used(changed.NODE.get(name, ()), texts, (max(_majors(spec), default=0),), _numbers(version))
            note = f"{name}@{spec} was asked for; the template has {version}"
            if name == "express" and _majors(spec) == {4}:
                bodies, others = changed.express_bodies(texts)
                old += [*changed.express_routes(texts), *bodies]
                note += ", where req.body is undefined for a request without a body (4: {})" if others else ""
            if name not in imported or (_unnoticed(name, spec) and not old):
                found.notes.append(note)
                continue
            found.missing[name] = f"{name}@{spec} (the template has {version})"
            if old:
                shown = "Express" if name == "express" else name
                found.changes[name] = f"the template has {shown} {version}: write {', '.join(old[:5])}"
            else:
                found.pinned[name] = version
    if unused:
        more = f" and {len(unused) - 8} more" if len(unused) > 8 else ""
        found.notes.append(f"asked for, not there, and used by nothing that was seen: {', '.join(unused[:8])}{more}")
    return found


def mentioned(node: NodeApp, name: str, files: Sequence[str]) -> bool:
    """Whether something names a package that nothing imports: a view engine, a driver, a plugin; or whether too little
    of the source is known to tell."""
    if not node.tree.complete or not files:
        return True
    word = re.compile(rf"(?<![\w-])(?:@\w+/)?{re.escape(name.rpartition('/')[2])}(?![\w-])")
    return any(word.search(node.tree.text(path)) for path in node.tree.known(".js", ".mjs", ".cjs", ".ts", ".mts"))


def _unnoticed(name: str, spec: str) -> bool:
    least = _UNNOTICED.get(name)
    return least is not None and all(major >= least for major in _majors(spec))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d{1,9}", version.partition("-")[0])[:3])


def _majors(spec: str) -> set[int]:
    return {int(number) for number in re.findall(r"(?:^|[\s^~>=<|v])(\d{1,6})", spec)}


def _allows(spec: str, version: str) -> bool:
    """Whether a range of npm's allows the major version; the minor one is not looked at."""
    if not re.match(r"^[\s\d^~<>=v.x*|-]+$", spec) or spec.strip() in ("*", "x", ""):
        return True
    major = int(version.partition(".")[0])
    for part in spec.split("||"):
        numbers = [int(n) for n in re.findall(r"(?:^|[\s^~>=<v])(\d{1,6})", part)]
        if not numbers:
            return True
        if ">" in part and "<" not in part:
            if major >= min(numbers):
                return True
        elif "<" in part or " - " in part:
            if (min(numbers) if ">" in part or " - " in part else 0) <= major <= max(numbers):
                return True
        elif major in numbers:
            return True
    return False


def package_name(name: str) -> str | None:
    """The package of an import; None for the app's own files and what Node brings."""
    if name[0] in "./#" or ":" in name:
        return None
    parts = name.split("/")
    package = "/".join(parts[:2]) if name[0] == "@" else parts[0]
    return None if package in _BUILTINS or package == "@" or package.startswith(("@/", "~")) else package
