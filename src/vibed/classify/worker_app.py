"""Workers: the entry module, and the settings of wrangler's file."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vibed.apps.app import Build
from vibed.classify import worker_build
from vibed.classify.decision import Decision
from vibed.classify.errors import BuildRequired, NoEntrypoint, UnsupportedRuntime
from vibed.classify.host_rules import host_rules
from vibed.classify.node_app import NodeApp
from vibed.classify.site import BUILT
from vibed.classify.tree import Tree, table
from vibed.classify.worker_bindings import declared, note
from vibed.sources.errors import quoted

WRANGLER = ("wrangler.jsonc", "wrangler.json", "wrangler.toml")
_NAMES = (
    "worker", "_worker", "src/worker", "src/index", "index", "src/main", "main", "worker/index", "workers/index",
    "workers/app", "app", "server", "src/server", "src/app",
)  # fmt: skip
_EXTENSIONS = ("ts", "js", "mjs", "tsx", "jsx", "mts")
_FETCH_EXPORT = re.compile(
    r"\bexport\s{1,20}default\s{0,20}\{[^{}]{0,400}\bfetch\b|\bfetch\s{0,20}\([^)]{0,200}\bctx\b|\bExportedHandler\b|\bWorkerEntrypoint\b"
)
_DEFAULT_EXPORT = re.compile(r"\bexport\s{1,20}default\b|\bas\s{1,20}default\b")
_LISTENER = re.compile(r"\baddEventListener\s{0,20}\(\s{0,20}['\"]fetch['\"]")
_IN_A_BROWSER = re.compile(
    r"\bskipWaiting\b|\bclients\s{0,20}\.\s{0,20}(?:claim|matchAll|openWindow|get)\b|\bself\s{0,20}\.\s{0,20}registration\b"
    r"|\bimportScripts\s{0,20}\(|\bcaches\s{0,20}\.\s{0,20}(?:open|match|keys|has|delete)\b"
    r"|\baddEventListener\s{0,20}\(\s{0,20}['\"](?:install|activate|push|sync|notificationclick)['\"]"
)
"""What only a page's service worker says."""
_SERVER_LIBRARY = re.compile(r"from\s{1,20}['\"](hono|hono/[\w/]+|itty-router|itty-router/[\w/]+)['\"]")
_DEV = re.compile(
    r"\bwrangler\s+(?:dev|deploy|publish)\s+(?:-{1,2}[\w-]+(?:[= ][\w.][\w.-]*)?\s+)*([\w./-]+\.(?:ts|js|mjs|tsx|jsx))"
)
_UNCALLED = (
    ("triggers", "crons", "cron triggers"),
    ("queues", "consumers", "consumers of queues"),
    ("containers", "", "containers"),
)
"""What wrangler's file has called besides requests."""


@dataclass(frozen=True)
class WorkerApp:
    """The worker side of a tree."""

    tree: Tree
    node: NodeApp
    builds: bool = False
    """Whether what has to be built first can be."""

    @cached_property
    def file(self) -> str | None:
        """wrangler's file."""
        return self.tree.first(WRANGLER)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What it says. Raises `BadConfiguration`."""
        if self.file is None:
            return {}
        return self.tree.toml(self.file) if self.file.endswith("toml") else self.tree.json(self.file)

    def configured(self) -> Decision | None:
        """What wrangler's file describes: a worker with an entry. Raises `NoEntrypoint`, `BuildRequired`."""
        if self.file is None:
            return None
        main = self.settings.get("main")
        if isinstance(main, str) and main:
            path = posixpath.normpath(main)
            if path.endswith(".py"):
                raise UnsupportedRuntime(
                    "it is a worker in Python, which needs a runtime that is not here",
                    hint="write it as a FastAPI app (app.py), or in JavaScript",
                )
            if self._is_of_node(path):
                return None
            if made := self._made(path):
                return self._decide(
                    path, f"{self.file} makes it a worker, which its build ({made.script}) makes", made=made
                )
            if path not in self.tree.paths:
                raise BuildRequired(
                    f"{self.file} names {quoted(main)} as the worker’s entry, which is not in the archive",
                    hint=(
                        "if a build makes it, run the build and deploy its output with the rest; otherwise correct main"
                    ),
                )
            return self._decide(path, f"{self.file} names {quoted(path)} as the worker’s entry")
        entry = self._of_sites() or self._unnamed()
        if self._assets() or self.settings.get("pages_build_output_dir"):
            output = self.settings.get("pages_build_output_dir")
            folder = posixpath.normpath(output) if isinstance(output, str) else "."
            if decision := self._pages_worker([folder if folder != "." else ""]):
                return decision
            # a script beside assets may be the page's own: it takes more than its name
            named = self._scripted()
            return self._decide(named, f"its scripts name {quoted(named)} as the worker’s entry") if named else None
        if entry is None and self._sites():
            return None
        if entry is None:
            raise NoEntrypoint(
                f"{self.file} names no entry (main), and no file looks like one",
                hint='add main = "src/index.ts" with the path of the module that exports fetch',
            )
        return self._decide(entry, f"{self.file} makes it a worker, and {quoted(entry)} is its entry")

    def _is_of_node(self, path: str) -> bool:
        """Whether it is a Next.js app that OpenNext would make a worker of: what Next.js builds runs on Node."""
        return self.builds and path not in self.tree.paths and "@opennextjs/cloudflare" in self.node.all_dependencies

    def _made(self, path: str) -> Build | None:
        if not self.builds:
            return None
        return worker_build.own(self.tree, self.node, self.settings, path, self._assets() or self._sites())

    def _of_sites(self) -> str | None:
        """The entry of Workers Sites as Wrangler 1 laid them out: a folder with a package of its own."""
        if not self._sites():
            return None
        folder = table(self.settings.get("site")).get("entry-point") or "workers-site"
        if not isinstance(folder, str):
            return None
        at = posixpath.normpath(folder)
        main = table(self.tree.json(f"{at}/package.json")).get("main") if self.tree.has(f"{at}/package.json") else None
        named = [main] if isinstance(main, str) else []
        return self.tree.first(posixpath.normpath(f"{at}/{name}") for name in (*named, "index.js", "index.ts"))

    def _scripted(self) -> str | None:
        """The entry that a script gives to wrangler."""
        for script in ("dev", "start", "deploy", "publish"):
            match = _DEV.search(self.node.scripts.get(script, ""))
            if match and posixpath.normpath(match[1]) in self.tree.paths:
                return posixpath.normpath(match[1])
        return None

    def _unnamed(self) -> str | None:
        if named := self._scripted():
            return named
        main = self.node.package.get("main")
        if isinstance(main, str) and posixpath.normpath(main) in self.tree.paths:
            return posixpath.normpath(main)
        candidates = [f"{name}.{extension}" for name in _NAMES for extension in _EXTENSIONS]
        return next((path for path in candidates if path in self.tree.paths and self._is_worker(path)), None)

    def assets_only(self) -> tuple[str, bool] | None:
        """The folder of static files that wrangler's file serves without a worker, and whether it is a single-page
        app."""
        if self.file is None or self.settings.get("main"):
            return None
        assets = self._assets() or self._sites()
        folder = assets.get("directory") or self.settings.get("pages_build_output_dir")
        if not isinstance(folder, str):
            return None
        path = posixpath.normpath(folder)
        path = "" if path == "." else path.removeprefix("./")
        if path and path not in self.tree.folders:
            raise BuildRequired(
                f"{self.file} serves {quoted(folder)}, which is not in the archive",
                hint="run the build and deploy that folder with the rest",
                details={"output": path},
            )
        return path, self.single_page

    @property
    def single_page(self) -> bool:
        """Whether its static files are a single-page app."""
        return self._assets().get("not_found_handling") == "single-page-application"

    def unconfigured(self) -> Decision | None:
        """A worker module without wrangler's file: `worker.js`, or a module whose default export has `fetch`."""
        if decision := self._pages_worker(("", *BUILT)):
            return decision
        if self.node.framework() is not None and "build" in self.node.scripts:
            return None  # the entry of what the framework builds
        for name in _NAMES:
            for extension in _EXTENSIONS:
                path = f"{name}.{extension}"
                if path not in self.tree.paths or not self._is_worker(path) or self._is_of_a_page(path):
                    continue
                if self.node.serves(path) or self.node.needs_bun(path):
                    continue
                return self._decide(path, f"{quoted(path)} is a worker: it {self._form(path)}")
        return None

    def _pages_worker(self, folders: Iterable[str]) -> Decision | None:
        """`_worker.js` in a folder of pages, as Cloudflare Pages has it: it gets every request, and the pages as its
        assets.
        """
        for folder in folders:
            prefix = f"{folder}/" if folder else ""
            path = f"{prefix}_worker.js"
            if path in self.tree.paths and self._is_worker(path):
                pages = [page for page in self.tree.pages if page.startswith(prefix)]
                missing = "404-page" if f"{prefix}404.html" in pages else "single-page-application"
                assets = {"directory": folder or ".", "run_worker_first": True, "not_found_handling": missing}
                why = f"{quoted(path)} is a worker: it {self._form(path)}"
                return self._decide(path, why, assets if pages else None)
        return None

    def _is_worker(self, path: str) -> bool:
        text = self.tree.text(path)
        if _LISTENER.search(text) and not _IN_A_BROWSER.search(text):
            return True
        if not _DEFAULT_EXPORT.search(text):
            return False
        return bool(_FETCH_EXPORT.search(text) or _SERVER_LIBRARY.search(text))

    def _is_of_a_page(self, path: str) -> bool:
        """Whether a page registers it, as its service worker or to work beside it: then it runs in the browser."""
        name = re.escape(path.rpartition("/")[2])
        registers = re.compile(
            rf"""(?:serviceWorker\s{{0,20}}\.\s{{0,20}}register|new\s{{1,20}}(?:Shared)?Worker)\s{{0,20}}\(\s{{0,20}}"""
            rf"""(?:new\s{{1,20}}URL\s{{0,20}}\(\s{{0,20}})?['"`][^'"`\n]{{0,200}}(?<![\w-]){name}"""
        )
        readable = (*self.tree.pages, *self.tree.known(".js", ".mjs", ".ts", ".tsx", ".jsx"))
        return any(registers.search(self.tree.text(other)) for other in readable if other != path)

    def _form(self, path: str) -> str:
        text = self.tree.text(path)
        if _LISTENER.search(text) and not _DEFAULT_EXPORT.search(text):
            return "listens for ‘fetch’ events"
        return "exports a fetch handler"

    def _assets(self) -> dict[str, Any]:
        return table(self.settings.get("assets"))

    def _sites(self) -> dict[str, Any]:
        """Workers Sites, as assets: the worker gets every request, and serves the files out of a KV namespace."""
        bucket = table(self.settings.get("site")).get("bucket")
        return {"directory": bucket, "run_worker_first": True, "sites": True} if isinstance(bucket, str) else {}

    def _decide(
        self, path: str, why: str, assets: Mapping[str, Any] | None = None, made: Build | None = None
    ) -> Decision:
        options: dict[str, object] = {}
        for key in ("compatibility_date", "compatibility_flags"):
            value = self.settings.get(key)
            if value is not None:
                options[key] = value if isinstance(value, list) else str(value)
        variables = table(self.settings.get("vars"))
        if variables:
            options["vars"] = variables
        bindings = declared(self.settings)
        if bindings:
            options["bindings"] = [one.data() for one in bindings]
        assets = assets or self._assets() or self._sites()
        notes = [*filter(None, (note(bindings),))]
        if assets:
            folder = assets.get("directory")
            if isinstance(folder, str) and made is None:
                clean = posixpath.normpath(folder)
                if clean != "." and clean not in self.tree.folders:
                    raise BuildRequired(
                        f"{self.file} serves {quoted(folder)} beside the worker, which is not in the archive",
                        hint="run the build and deploy that folder with the rest",
                        details={"output": clean},
                    )
                prefix = "" if clean == "." else f"{clean}/"
                notes += host_rules(self.tree.text, prefix).notes
            options["assets"] = dict(assets)
        if self.settings.get("env"):
            notes.append(f"the environments in {self.file} are not looked at; the top level counts")
        notes += [f"{called} do not run here" for key, inner, called in _UNCALLED if _has(self.settings, key, inner)]
        return Decision(
            kind="worker",
            entrypoint=path,
            why=f"{why}.",
            bundle=made is None and self._needs_bundle(path),
            made=made,
            options=options,
            notes=tuple(notes),
        )

    def _needs_bundle(self, path: str) -> bool:
        """TypeScript, JSX, or anything imported that is neither a file by its full name nor the runtime's."""
        for found in self.node.reached(path):
            if not found.endswith((".js", ".mjs")) or len(self.tree.raw(found)) >= 256 << 10:
                return True
            for name in self.node.imports(found):
                if name[0] == ".":
                    if posixpath.normpath(posixpath.join(posixpath.dirname(found), name)) not in self.tree.paths:
                        return True
                elif not name.startswith(("node:", "cloudflare:", "workerd:")):
                    return True
        return False


def _has(settings: Mapping[str, Any], key: str, inner: str) -> bool:
    value = settings.get(key)
    return bool(table(value).get(inner) if inner else value)
