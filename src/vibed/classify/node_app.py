"""The JavaScript side of a tree: which file is a server, what it reaches, and how Node runs it."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from vibed.classify import bun, typescript
from vibed.classify.errors import BuildRequired
from vibed.classify.evidence import favoured
from vibed.classify.node_tools import BUILD_TOOLS, FRAMEWORKS, FRONT_ENDS, SERVERS
from vibed.classify.tree import Tree, strings
from vibed.classify.typescript import Runner
from vibed.classify.workspaces import Workspaces
from vibed.sources.errors import quoted

_ENTRIES = (
    "server", "index", "app", "main", "src/server", "src/index", "src/app", "src/main", "server/index",
    "server/server", "server/app", "server/main", "backend/server", "backend/index", "api/server", "bin/www", "start",
)  # fmt: skip
_EXTENSIONS = ("js", "mjs", "cjs", "ts", "mts", "cts")
LISTENS = re.compile(
    r"\.listen\s*\(|\bcreateServer\s*\(|\bcreateSecureServer\s*\(|@hono/node-server|WebSocketServer\s*\(|WebSocket\.Server\s*\("
    r"|new\s+Server\s*\(|\bserve\s*\(\s*\{"
)
_OWN_SERVER = re.compile(
    r"\bcreateServer\s*\(\s*[^)\s]|\bhttps?\.Server\s*\(|\.on\(\s*['\"](?:request|connection)['\"]"
)
"""A server that answers: `net.createServer()` without a handler only finds out whether a port is free."""
_EXPORTED = re.compile(
    r"^[ \t]{0,20}(?:module\.exports[ \t]{0,9}=|export[ \t]{1,9}default)[ \t]{1,9}(\w{1,60})[ \t]{0,9};?[ \t]{0,9}$",
    re.MULTILINE,
)
_LISTENERS = {
    "express": "{app}.listen({port})", "Koa": "{app}.listen({port})", "polka": "{app}.listen({port})",
    "connect": "{app}.listen({port})", "fastify": "{app}.listen({{port: {port}, host: '0.0.0.0'}})",
    "Fastify": "{app}.listen({{port: {port}, host: '0.0.0.0'}})",
    "Hono": "(await import('@hono/node-server')).serve({{fetch: {app}.fetch, port: {port}}})",
}  # fmt: skip
"""What makes an app that a file exports, and what has such an app listen."""
_SPAWNS = re.compile(
    r"""\b(?:spawn|exec|execa|execSync|spawnSync|fork)\(\s{0,9}['"`](?:npx\s{1,3})?(?:npm\s{1,3}run\s{1,3}dev|vite|webpack|react-scripts|next|parcel|gulp|ng)\b"""
)
"""A tool for development that a script starts."""
_DENO = re.compile(r"\bDeno\.(?:serve|listen)\b|from\s+['\"]https://deno\.land/")
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


_MOST_FILES = 60
_MOST_IMPORTS = 100
"""Of one file that are followed; hostile sources import each other a million times over."""


@dataclass(frozen=True)
class NodeApp:
    """The JavaScript side of a tree."""

    tree: Tree
    has_tsx: bool = False
    """Whether the template brings tsx."""
    installs: bool = False
    """Whether what the template does not bring can be installed."""
    _neighbours: dict[str, tuple[str, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _imports: dict[str, list[str]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _reached: dict[str, list[str]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _runners: dict[str, Runner | None] = field(default_factory=dict, init=False, repr=False, compare=False)

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

    @cached_property
    def workspaces(self) -> Workspaces:
        return Workspaces(self.tree)

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
        """Bun or Deno, when the source can only run there, and that cannot be installed."""
        if self.tree.first(["deno.json", "deno.jsonc"]) and not self.package:
            return "Deno"
        for path in self.entries():
            text = self.tree.text(path)
            if _DENO.search(text):
                return "Deno"
            if not self.installs and bun.only(text):
                return "Bun"
        return None

    @cached_property
    def _by_bun(self) -> frozenset[str]:
        """Files that the project itself has Bun start."""
        return bun.named(self.scripts, [self.tree.text(name) for name in ("Procfile", "Dockerfile")])

    def needs_bun(self, path: str) -> bool:
        """Whether a file, or one of the app that it imports, uses what Bun alone has."""
        return any(bun.only(self.tree.text(found)) for found in self.reached(path))

    def runs_on_bun(self, path: str) -> bool:
        """Whether it is Bun, which is installed for it, that starts a file."""
        return self.installs and (path in self._by_bun or self.needs_bun(path))

    def entry(self) -> tuple[str, str] | None:
        """A file that is a server, and why it was taken."""
        main = self.package.get("main") or self.package.get("module")
        if isinstance(main, str):
            path = self.file(main)
            if path and self.answers(path):
                return path, "is the ‘main’ of package.json"
        for path in self.entries():
            if self.answers(path):
                return path, "is the server by its name"
        root = [p for p in self.tree.root if p.rpartition(".")[2] in _EXTENSIONS and self.answers(p)]
        if len(root) == 1:
            return root[0], "is the one server file"
        if root and (found := favoured(self.tree, root)) is not None:
            return found[0], f"is a server, of several the one that {found[1]} starts"
        return None

    def also_serving(self, path: str) -> list[str]:
        """Servers in other folders than the one that is started; they are told."""
        top = path.partition("/")[0]
        apart = [other for other in self.entries() if "/" in other and other.partition("/")[0] != top]
        if "/" not in path:
            return []
        return [other for other in apart if self.serves(other) and other not in self.reached(path)]

    def entries(self) -> list[str]:
        return [
            path
            for stem in _ENTRIES
            for path in ([stem] if stem == "bin/www" else [f"{stem}.{extension}" for extension in _EXTENSIONS])
            if path in self.tree.paths
        ]

    def serves(self, path: str) -> bool:
        """Whether the file, or a file of the app that it imports, listens, and starts no development server."""
        listens = any(LISTENS.search(self.tree.text(found)) for found in self.reached(path))
        return listens and not self.only_builds(path)

    def answers(self, path: str) -> bool:
        """Whether the file serves once it is started, by itself or by what starts it."""
        return self.serves(path) or (self.runs_on_bun(path) and bun.answers(self.tree.text(path)))

    def exported(self, path: str) -> tuple[str, ...] | None:
        """The command for a file that exports an app and leaves it to its host to have it listen."""
        text = self.tree.text(path)
        for name in _EXPORTED.findall(text):
            typed = r"(?::[ \t]{0,9}\w{1,40}[ \t]{0,9})?"
            by = rf"(?:await[ \t]{{1,9}})?(?:new[ \t]{{1,9}})?(?:require\(['\"])?({'|'.join(_LISTENERS)})\b"
            made = re.search(rf"\b{name}[ \t]{{0,9}}{typed}=[ \t]{{0,9}}{by}", text)
            if made:
                listens = _LISTENERS[made[1]].format(app="(m.default.default ?? m.default)", port="+process.env.PORT")
                return ("node", "--input-type=module", "-e", f'const m = await import("./{path}"); {listens}')
        return None

    def only_builds(self, path: str) -> bool:
        """Whether the file starts a tool for development and listens itself on nothing: `scripts/start.js` of a front
        end."""
        files = self.reached(path) if path else []
        names = {_package(name) for file in files for name in self.imports(file)}
        texts = [self.tree.text(file) for file in files]
        if names & SERVERS or any(_OWN_SERVER.search(text) for text in texts):
            return False
        return bool(names & BUILD_TOOLS) or any(_SPAWNS.search(text) for text in texts)

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
            ours = self.workspaces.by_name
            names = [name for name in self.imports(path) if name[0] == "." or _package(name) in ours][:_MOST_IMPORTS]
            files = (self._found(path, name) for name in names)
            self._neighbours[path] = tuple(dict.fromkeys(file for file in files if file))
        return self._neighbours[path]

    def _found(self, path: str, name: str) -> str | None:
        """The file of the app that `path` means by `name`."""
        if name[0] == ".":
            return self.file(posixpath.join(posixpath.dirname(path), name))
        member = self.workspaces.by_name[_package(name)]
        inner = name[len(member.name) + 1 :]
        named = [inner] if inner else [*member.entries, "src/index", "index"]
        return next((found for one in named if (found := self.file(posixpath.join(member.folder, one)))), None)

    def imports(self, path: str) -> list[str]:
        """What the file imports; types, which vanish, left out."""
        if path not in self._imports:
            text = self.tree.text(path)
            if path.endswith("ts"):
                text = _TYPE_IMPORT.sub("", text)
            self._imports[path] = sorted(set(_IMPORT.findall(text)))
        return self._imports[path]

    def file(self, name: str) -> str | None:
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
        """The command for one file. Raises `BuildRequired` for TypeScript that Node cannot run by stripping its types,
        where nothing can be installed that does."""
        if (runner := self.runner(path)) is not None:
            return (runner.program, *runner.flags, *(flags if runner.program == "node" else ()), path)
        if not path.endswith(("ts", "tsx")):
            return ("node", *flags, path)
        if reason := self.unstrippable(path):
            raise BuildRequired(
                f"{quoted(path)} is TypeScript that Node cannot run as it is: {reason}",
                hint=(
                    "write imports with their extension (./routes.ts), or compile it (npx tsc) and deploy the"
                    " JavaScript with it"
                ),
            )
        if any(_NEEDS_TRANSFORM.search(self.tree.text(p)) for p in self._typed(path)):
            flags = ("--experimental-transform-types", *flags)
        return ("node", *flags, path)

    def unstrippable(self, path: str) -> str:
        """Why Node cannot run a file by stripping types, in words; empty where it can."""
        files = self._typed(path)
        if any(p.endswith("tsx") for p in files):
            return "it contains JSX"
        if any(typescript.DECORATOR.search(self.tree.text(p)) for p in files):
            return "it uses decorators"
        bare = next((n for p in files for n in self.imports(p) if self._lacks_extension(p, n)), None)
        return f"it imports {quoted(bare)} without the file’s extension" if bare else ""

    def runner(self, path: str) -> Runner | None:
        """What has to run a file in Node's place, or its TypeScript in Node; None where nothing does."""
        if path not in self._runners:
            self._runners[path] = self._runner(path)
        return self._runners[path]

    def _runner(self, path: str) -> Runner | None:
        if self.runs_on_bun(path):
            return bun.RUNNER
        if not path.endswith(("ts", "tsx")) or not (self.has_tsx or self.installs):
            return None
        modules = self.package.get("type") == "module" or path.endswith("mts")
        reason = self.unstrippable(path)
        if not reason and self.installs:
            files = self._typed(path)
            imported = [name for file in files for name in self.imports(file)]
            reason = typescript.only_compiled(
                self.tree, {file: self.tree.text(file) for file in files}, imported, modules=modules
            )
        return typescript.runner(self.tree, self.all_dependencies, modules=modules) if reason else None

    def _typed(self, path: str) -> list[str]:
        return [p for p in self.reached(path) if p.endswith(("ts", "tsx"))]

    def _lacks_extension(self, importer: str, name: str) -> bool:
        if name[0] != ".":
            return False
        path = posixpath.normpath(posixpath.join(posixpath.dirname(importer), name))
        return path not in self.tree.paths and self.file(path) is not None

    def unbuilt_folder(self, path: str) -> str | None:
        """A folder of built pages that the server serves and that is not there."""
        if "build" not in self.scripts or self.front_end() is None:
            return None
        text = "\n".join(self.tree.text(found) for found in self.reached(path))
        for folder in ("dist", "build", "client/dist", "client/build", "frontend/dist", "frontend/build"):
            if re.search(rf"['\"`/]{folder}['\"`/]", text) and folder not in self.tree.folders:
                return folder
        return None


def _package(name: str) -> str:
    return "/".join(name.split("/")[: 2 if name[0] == "@" else 1])
