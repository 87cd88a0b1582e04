"""Node apps: whether there is a server, and the command that starts it."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from vibed.classify.decision import Decision
from vibed.classify.errors import BuildRequired
from vibed.classify.needs import Needs
from vibed.classify.tree import Tree, strings
from vibed.sources.errors import quoted

SERVERS = frozenset(
    {
        "express", "fastify", "koa", "hono", "@hono/node-server", "@hapi/hapi", "restify", "polka", "socket.io", "ws",
        "micro", "@nestjs/core", "apollo-server", "@apollo/server", "json-server", "@feathersjs/feathers", "sails",
        "@adonisjs/core", "express-ws", "graphql-yoga", "h3", "itty-router-extras", "connect", "tinyhttp",
        "@tinyhttp/app", "moleculer-web",
    }
)  # fmt: skip
FRAMEWORKS = {
    "next": ("Next.js", "out"), "nuxt": ("Nuxt", ".output/public"), "@sveltejs/kit": ("SvelteKit", "build"),
    "@remix-run/react": ("Remix", "build/client"), "@remix-run/node": ("Remix", "build/client"),
    "@react-router/node": ("React Router", "build/client"), "@solidjs/start": ("SolidStart", ".output/public"),
    "@builder.io/qwik-city": ("Qwik City", "dist"), "@tanstack/react-start": ("TanStack Start", ".output/public"),
    "@tanstack/start": ("TanStack Start", ".output/public"), "@redwoodjs/core": ("RedwoodJS", "web/dist"),
    "blitz": ("Blitz", "out"), "@angular/ssr": ("Angular SSR", "dist/browser"),
    "@astrojs/node": ("Astro (server)", "dist/client"),
}  # fmt: skip
"""Server frameworks with a build of their own: name, and where a static export would be."""

FRONT_ENDS = {
    "vite": ("Vite", "dist"), "react-scripts": ("Create React App", "build"), "@angular/cli": ("Angular", "dist"),
    "@vue/cli-service": ("Vue CLI", "dist"), "parcel": ("Parcel", "dist"), "parcel-bundler": ("Parcel", "dist"),
    "astro": ("Astro", "dist"), "gatsby": ("Gatsby", "public"), "@11ty/eleventy": ("Eleventy", "_site"),
    "@docusaurus/core": ("Docusaurus", "build"), "vitepress": ("VitePress", ".vitepress/dist"),
    "vuepress": ("VuePress", "docs/.vuepress/dist"), "webpack": ("webpack", "dist"), "rollup": ("Rollup", "dist"),
    "esbuild": ("esbuild", "dist"), "@rsbuild/core": ("Rsbuild", "dist"), "@rspack/cli": ("Rspack", "dist"),
    "preact-cli": ("Preact CLI", "build"), "snowpack": ("Snowpack", "build"), "svelte": ("Svelte", "dist"),
    "hexo": ("Hexo", "public"), "@ionic/cli": ("Ionic", "www"), "tsup": ("tsup", "dist"),
}  # fmt: skip
"""Front-end tools: name, and the folder they build into."""

_DEV_SERVERS = frozenset(
    {
        "vite", "webpack", "webpack-dev-server", "react-scripts", "next", "nuxt", "nuxi", "astro", "parcel",
        "eleventy", "@11ty/eleventy", "gatsby", "ng", "vue-cli-service", "snowpack", "browser-sync", "tailwindcss",
        "gulp", "grunt", "concurrently", "rollup", "svelte-kit", "docusaurus", "vitepress", "vuepress", "rsbuild",
        "rspack", "remix", "storybook", "esbuild", "tsc", "turbo", "nx", "lerna", "electron", "expo", "react-native",
        "hexo", "wrangler", "npm-run-all", "run-p", "run-s", "preact", "ember", "live-server", "http-server", "serve",
        "lite-server", "jest", "vitest", "bun", "bunx", "deno",
    }
)  # fmt: skip
_FILE_SERVERS = frozenset({"live-server", "http-server", "serve", "lite-server"})
_RUN_TYPESCRIPT = frozenset(
    {"tsx", "ts-node", "ts-node-dev", "tsnd", "esno", "jiti", "vite-node", "swc-node", "node-dev"}
)
_ENTRIES = (
    "server", "index", "app", "main", "src/server", "src/index", "src/app", "src/main", "server/index",
    "server/server", "server/app", "server/main", "backend/server", "backend/index", "api/server", "bin/www", "start",
)  # fmt: skip
_EXTENSIONS = ("js", "mjs", "cjs", "ts", "mts", "cts")
_LISTENS = re.compile(
    r"\.listen\s*\(|\bcreateServer\s*\(|\bcreateSecureServer\s*\(|@hono/node-server|WebSocketServer\s*\(|WebSocket\.Server\s*\("
    r"|new\s+Server\s*\(|\bserve\s*\(\s*\{"
)
_FOREIGN_RUNTIME = re.compile(r"\b(Bun\.serve|Deno\.serve|Deno\.listen)\b|from\s+['\"]https://deno\.land/")
_IMPORT = re.compile(
    r"(?:(?<![\w'\"`.$])from[ \t\n]{0,20}|\bimport[ \t\n]{0,20}|\brequire[ \t]{0,20}\([ \t\n]{0,20}"
    r"|\bimport[ \t]{0,20}\([ \t\n]{0,20})"
    r"""['"]([@\w.#/~:+-]{1,200})['"]"""
)
_TYPE_IMPORT = re.compile(r"^[ \t]*(?:import|export)[ \t]+type\b[^;\n]*", re.MULTILINE)
_NEEDS_TRANSFORM = re.compile(
    r"^[ \t]*(?:export[ \t]+)?(?:declare[ \t]+)?(?:const[ \t]+)?enum[ \t]+\w|^[ \t]*(?:export[ \t]+)?namespace[ \t]+\w"
    r"|\bconstructor[ \t]*\([^)]{0,400}\b(?:private|public|protected|readonly)[ \t]+\w"
    r"|^[ \t]*import[ \t]+\w+[ \t]*=[ \t]*require\(",
    re.MULTILINE,
)
_DECORATOR = re.compile(r"^[ \t]*@[A-Z]\w*\(", re.MULTILINE)
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
_NOT_NEEDED = re.compile(
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
_OLD_ROUTE = re.compile(
    r"""\.(?:get|post|put|delete|patch|all|use|options|head|route)\(\s{0,20}['"`]"""
    r"""((?=[/*(])[^'"`\n]{0,200}?(?:\*(?!\w)|\(|:\w{1,40}\?)[^'"`\n]{0,200})"""
)
"""A path that Express 4 understands and Express 5 does not: `*` without a name, brackets, `:name?`."""
_OLD_CALLS = {
    "req.params, req.query or req.body": re.compile(r"\b(req\.param\()"),
    ".delete(": re.compile(r"(\.del\()['\"`]"),
}
"""Other calls that Express 5 has no more, by what to write instead."""
_MOST_FILES = 60
_MOST_IMPORTS = 100
"""Of one file that are followed; hostile sources import each other a million times over."""
_DEEPEST = 4
_LONGEST_SCRIPT = 4000


@dataclass(frozen=True)
class Command:
    """What a script comes to."""

    argv: tuple[str, ...] = ()
    shell: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NodeApp:
    """The JavaScript side of a tree."""

    tree: Tree
    has_tsx: bool = False
    """Whether the template brings tsx."""
    _neighbours: dict[str, tuple[str, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _reached: dict[str, list[str]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def package(self) -> dict[str, Any]:
        """package.json, empty when there is none."""
        return self.tree.package or {}

    @cached_property
    def scripts(self) -> dict[str, str]:
        return strings(self.package.get("scripts"))

    @cached_property
    def dependencies(self) -> dict[str, str]:
        """What is needed at run time."""
        return strings(self.package.get("dependencies"))

    @cached_property
    def all_dependencies(self) -> dict[str, str]:
        """What is needed at run time or while building."""
        return {**strings(self.package.get("devDependencies")), **self.dependencies}

    def framework(self) -> tuple[str, str, str] | None:
        """A server framework with a build: (package, name, folder of a static export)."""
        for package, (name, folder) in FRAMEWORKS.items():
            if package in self.all_dependencies:
                return package, name, folder
        return None

    def front_end(self) -> tuple[str, str] | None:
        """A front-end tool and the folder it builds into."""
        for package, (name, folder) in FRONT_ENDS.items():
            if package in self.all_dependencies:
                return name, folder
        return None

    def foreign_runtime(self) -> str | None:
        """Bun or Deno, when the source can only run there."""
        if self.tree.first(["deno.json", "deno.jsonc"]) and not self.package:
            return "Deno"
        for path in self._entries():
            match = _FOREIGN_RUNTIME.search(self.tree.text(path))
            if match:
                return "Bun" if match[0].startswith("Bun") else "Deno"
        return None

    def from_start_script(self) -> tuple[Command, str] | None:
        """What `scripts.start` comes to, with the script's name. Raises `BuildRequired` where its file has to be
        built."""
        for name in ("start", "start:prod", "prod", "serve"):
            if name in self.scripts:
                command = self._script(self.scripts[name], 0)
                if command:
                    return command, name
        return None

    def from_dev_script(self) -> tuple[Command, str] | None:
        """What `scripts.dev` comes to when it runs a server file that exists (`tsx server.ts`, `nodemon app.js`)."""
        for name in ("dev", "develop", "watch"):
            if name in self.scripts:
                command = self._script(self.scripts[name], 0)
                if command and command.argv and self.serves(command.argv[-1]):
                    return Command(command.argv, None, {"NODE_ENV": "production", **command.env}), name
        return None

    def entry(self) -> tuple[str, str] | None:
        """A file that is a server, and why it was taken."""
        main = self.package.get("main")
        if isinstance(main, str):
            path = self._file(main)
            if path and self.serves(path):
                return path, "is the ‘main’ of package.json"
        for path in self._entries():
            if self.serves(path):
                return path, "is the server by its name"
        root = [p for p in self.tree.root if p.rpartition(".")[2] in _EXTENSIONS and self.serves(p)]
        if len(root) == 1:
            return root[0], "is the one server file"
        return None

    def _entries(self) -> list[str]:
        return [
            path
            for stem in _ENTRIES
            for path in ([stem] if stem == "bin/www" else [f"{stem}.{extension}" for extension in _EXTENSIONS])
            if path in self.tree.paths
        ]

    def serves(self, path: str) -> bool:
        """Whether the file, or a file of the app that it imports, listens."""
        return any(_LISTENS.search(self.tree.text(found)) for found in self.reached(path))

    def reached(self, path: str) -> list[str]:
        """The file and the files of the app that it imports, directly or not."""
        if path not in self._reached:
            seen = {path: None}
            for at in (waiting := [path]):
                fresh = [local for local in self._imported(at) if local not in seen]
                room = _MOST_FILES - len(seen)
                seen.update(dict.fromkeys(fresh[:room]))
                waiting += fresh[:room]
            self._reached[path] = list(seen)
        return self._reached[path]

    def _imported(self, path: str) -> tuple[str, ...]:
        """The files of the app that one file imports itself."""
        if path not in self._neighbours:
            relative = [name for name in self.imports(path) if name[0] == "."][:_MOST_IMPORTS]
            files = (self._file(posixpath.join(posixpath.dirname(path), name)) for name in relative)
            self._neighbours[path] = tuple(dict.fromkeys(file for file in files if file))
        return self._neighbours[path]

    def imports(self, path: str) -> list[str]:
        """What the file imports; types, which vanish, left out."""
        text = self.tree.text(path)
        if path.endswith("ts"):
            text = _TYPE_IMPORT.sub("", text)
        return sorted(set(_IMPORT.findall(text)))

    def _file(self, name: str) -> str | None:
        """The file that Node's `require` would find under a name."""
        path = posixpath.normpath(name).removeprefix("./")
        if path.startswith(("../", "/")) or path == "..":
            return None
        stem = path.rsplit(".", 1)[0] if path.endswith(".js") else path
        tried = [path, *(f"{path}.{e}" for e in _EXTENSIONS), f"{stem}.ts", *(f"{path}/index.{e}" for e in _EXTENSIONS)]
        if path == ".":
            tried = [f"index.{e}" for e in _EXTENSIONS]
        return self.tree.first(tried)

    def run(self, path: str, flags: tuple[str, ...] = ()) -> tuple[str, ...]:
        """The command for one file. Raises `BuildRequired` for TypeScript that Node cannot run by stripping its
        types."""
        if not path.endswith(("ts", "tsx")):
            return ("node", *flags, path)
        files = [p for p in self.reached(path) if p.endswith(("ts", "tsx"))]
        texts = [self.tree.text(p) for p in files]
        reason = ""
        if any(p.endswith("tsx") for p in files):
            reason = "it contains JSX"
        elif any(_DECORATOR.search(text) for text in texts):
            reason = "it uses decorators"
        else:
            bare = next((n for p in files for n in self.imports(p) if self._lacks_extension(p, n)), None)
            if bare:
                reason = f"it imports {quoted(bare)} without the file’s extension"
        if reason:
            if self.has_tsx:
                return ("node", "--import", "tsx", *flags, path)
            raise BuildRequired(
                f"{quoted(path)} is TypeScript that Node cannot run as it is: {reason}",
                hint=(
                    "write imports with their extension (./routes.ts), or compile it (npx tsc) and deploy the"
                    " JavaScript with it"
                ),
            )
        if any(_NEEDS_TRANSFORM.search(text) for text in texts):
            flags = ("--experimental-transform-types", *flags)
        return ("node", *flags, path)

    def _lacks_extension(self, importer: str, name: str) -> bool:
        if name[0] != ".":
            return False
        path = posixpath.normpath(posixpath.join(posixpath.dirname(importer), name))
        return path not in self.tree.paths and self._file(path) is not None

    def _script(self, text: str, depth: int) -> Command | None:
        """What one script comes to; None for what only serves development, or cannot be told."""
        if depth > _DEEPEST or len(text) > _LONGEST_SCRIPT:
            return None
        parts = [part.strip() for part in re.split(r"&&|;", text) if part.strip()]
        if not parts:
            return None
        if len(parts) > 1:
            commands = [self._one(part, depth) for part in parts]
            if all(command and command.argv for command in commands):
                return Command((), " && ".join(shlex.join(c.argv) for c in commands if c), _merged(commands))
            # What comes before the last command prepares: a build that is committed needs it no more.
            return commands[-1] if commands[-1] and commands[-1].argv else None
        return self._one(parts[0], depth)

    def _one(self, text: str, depth: int) -> Command | None:
        try:
            words = shlex.split(text)
        except ValueError:
            return None
        if any(mark in word for word in words for mark in ("|", "&", ">", "<", "`", "$(")):
            return None
        env: dict[str, str] = {}
        while words and (
            words[0] in ("cross-env", "env", "npx", "exec", "dotenv", "--") or re.match(r"[A-Za-z_]\w*=", words[0])
        ):
            name, equals, value = words.pop(0).partition("=")
            if equals:
                env[name] = value
        if not words:
            return None
        tool, rest = words[0].rpartition("/")[2] if words[0].startswith("node_modules") else words[0], words[1:]
        if tool in ("npm", "yarn", "pnpm"):
            rest = [word for word in rest if word not in ("run", "--silent", "-s")]
            inner = self._script(self.scripts[rest[0]], depth + 1) if rest and rest[0] in self.scripts else None
            return Command(inner.argv, inner.shell, {**env, **inner.env}) if inner else None
        if tool == "node":
            return self._node(rest, env)
        if tool == "nodemon" or tool in _RUN_TYPESCRIPT:
            file = next((word for word in rest if not word.startswith("-") and self._file(word)), None)
            if file is None:
                main = self.package.get("main")
                file = main if tool == "nodemon" and not rest and isinstance(main, str) else None
            path = self._file(file) if file else None
            return Command(self.run(path), None, env) if path else None
        return None

    def _node(self, words: list[str], env: dict[str, str]) -> Command | None:
        flags: list[str] = []
        while words and words[0].startswith("-"):
            flag = words.pop(0)
            if flag in ("-r", "--require", "--import", "--loader", "--experimental-loader", "--env-file") and words:
                value = words.pop(0)
                if any(tool in value for tool in _RUN_TYPESCRIPT):
                    continue
                flags += [flag, value]
            elif not flag.startswith(("--watch", "--inspect")):
                flags.append(flag)
        if not words:
            return None
        path = self._file(words[0])
        if path is None:
            built = words[0].removeprefix("./").partition("/")[0]
            if "build" in self.scripts or built in ("dist", "build", "lib", "out", ".output"):
                raise BuildRequired(
                    f"the start script runs {quoted(words[0])}, which is not in the archive",
                    hint=(
                        f"run the build first (npm run build) and deploy {built}/ with the rest, also if .gitignore"
                        " names it"
                    ),
                    details={"output": built},
                )
            return None
        return Command((*self.run(path, tuple(flags)), *words[1:]), None, env)

    def only_development(self) -> bool:
        """Whether the start script is a development server."""
        words = self.scripts.get("start", "").split()
        return bool(words) and any(word in _DEV_SERVERS for word in words[:4])

    def served_folder(self) -> str | None:
        """The folder that a start script serves as files (`serve dist`)."""
        words = self.scripts.get("start", "").split()
        if not words or not _FILE_SERVERS & set(words[:2]):
            return None
        return next((w.strip("./") for w in words[1:] if w.strip("./") in self.tree.folders), None)

    def unbuilt_folder(self, path: str) -> str | None:
        """A folder of built pages that the server serves and that is not there."""
        if "build" not in self.scripts or self.front_end() is None:
            return None
        text = "\n".join(self.tree.text(found) for found in self.reached(path))
        for folder in ("dist", "build", "client/dist", "client/build", "frontend/dist", "frontend/build"):
            if re.search(rf"['\"`/]{folder}['\"`/]", text) and folder not in self.tree.folders:
                return folder
        return None

    def decide(self, command: Command, why: str) -> Decision:
        """The decision for a command."""
        return Decision(
            kind="node", argv=command.argv, shell=command.shell, env=dict(command.env),
            entrypoint=command.shell or " ".join(command.argv), why=why,
        )  # fmt: skip

    def needs(self, entry: str | None, packages: Mapping[str, str] | None, *, imported_only: bool = False) -> Needs:
        """What is declared or imported, compared with `packages`. `imported_only`: what a bundler does not reach is not
        needed."""
        declared = dict(self.dependencies)
        entries = [entry] if entry else self._entries()
        files = list(dict.fromkeys(file for start in entries for file in self.reached(start)))
        imported = {name for file in files for name in map(_package_name, self.imports(file)) if name}
        if not declared or imported_only:
            declared = {name: self.all_dependencies.get(name, "*") for name in sorted(imported)}
        found = Needs(names=sorted(declared))
        for name in found.names if packages is not None else ():
            spec, version = declared[name], (packages or {}).get(name)
            if f"node_modules/{name}" in self.tree.folders:
                continue
            if version is None:
                if name in imported or not _NOT_NEEDED.match(name):
                    found.missing[name] = name if spec in ("*", "", "latest") else f"{name}@{spec}"
            elif not _allows(spec, version):
                old = self._old_express(files) if name == "express" and _majors(spec) == {4} else []
                if name not in imported or (_unnoticed(name, spec) and not old):
                    found.notes.append(f"{name}@{spec} was asked for; the template has {version}")
                    continue
                found.missing[name] = f"{name}@{spec} (the template has {version})"
                if old:
                    found.changes[name] = f"the template has Express {version}: write {', '.join(old[:5])}"
                else:
                    found.pinned[name] = version
        return found

    def _old_express(self, files: list[str]) -> list[str]:
        """What has to be written otherwise for Express 5 in a source for Express 4."""
        found: dict[str, None] = {}
        for file in files:
            text = self.tree.text(file)
            changes = [(match[1], _new_route(match[1])) for match in _OLD_ROUTE.finditer(text)]
            changes += [(match[1], now) for now, call in _OLD_CALLS.items() if (match := call.search(text))]
            found |= {f"{now} for {quoted(was)} in {quoted(file)}": None for was, now in changes}
        return list(found)


def _unnoticed(name: str, spec: str) -> bool:
    least = _UNNOTICED.get(name)
    return least is not None and all(major >= least for major in _majors(spec))


def _new_route(old: str) -> str:
    """A path of Express 4 as Express 5 spells it."""
    path = re.sub(r"/:(\w{1,40})\?", r"{/:\1}", old.replace("(.*)", "*"))
    path = re.sub(r"^(?=\*)", "/", path).replace("*", "{*path}")
    return "several paths or a parameter" if path.count("*") > 1 or re.search(r"[()?+]", path) else quoted(path)


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


def _package_name(name: str) -> str | None:
    """The package of an import; None for the app's own files and what Node brings."""
    if name[0] in "./#" or ":" in name:
        return None
    parts = name.split("/")
    package = "/".join(parts[:2]) if name[0] == "@" else parts[0]
    return None if package in _BUILTINS or package == "@" or package.startswith(("@/", "~")) else package


def _merged(commands: list[Command | None]) -> dict[str, str]:
    merged: dict[str, str] = {}
    for command in commands:
        if command:
            merged |= command.env
    return merged
