"""Static sites: the folder that is served, and how."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, replace

from vibed.classify import other_hosts
from vibed.classify.decision import Decision
from vibed.classify.host_rules import Rules, host_rules, netlify_settings
from vibed.classify.tree import Tree
from vibed.classify.unpublished import functions
from vibed.sources.errors import quoted

OUTPUTS = (
    "dist", "build", "build/web", "out", "_site", "_static", "public", ".output/public", "dist/client", "dist/browser",
    "build/client", "www", "site", "docs", "static", "htdocs", "html", "src", "web", "website", "frontend", "client",
    "app", "docs/.vitepress/dist", ".vitepress/dist", "_build/html", "docs/_build/html", "build/html", "client/dist",
    "client/build", "frontend/dist", "frontend/build",
)  # fmt: skip
"""Where an index.html may be, the likeliest first."""

LISTING = "listing"
"""The option of a site whose first page is made when it is unpacked."""

BUILT = (
    "dist", "build", "build/web", "out", "_site", ".output/public", "dist/client", "dist/browser", "build/client",
    ".vitepress/dist", "docs/.vitepress/dist", "_build/html", "build/html", "client/dist", "client/build",
    "frontend/dist", "frontend/build", "public",
)  # fmt: skip
"""Where build tools put their output."""

_REFERENCE = re.compile(
    r"""<(?:script|link|img)\b[^<>]{0,600}?\b(?:src|href)\s{0,5}=\s{0,5}["']?([^"'\s>]{1,300})""", re.IGNORECASE
)
_MOUNT = re.compile(
    r"""<div[^<>]{0,200}\bid\s{0,5}=\s{0,5}["']?(?:root|app|__next|__nuxt|svelte|main|___gatsby)\b|<app-root\b|<router-outlet\b""",
    re.IGNORECASE,
)
_EMPTY_MOUNT = re.compile(
    r"""<div[^<>]{0,200}\bid\s{0,5}=\s{0,5}["']?(?:root|app)["']?[^<>]{0,200}>(?:\s|<!--[^>]{0,200}-->){0,20}</div>""",
    re.IGNORECASE,
)
_BASE = re.compile(r"""<base\b[^<>]{0,200}?\bhref\s{0,5}=\s{0,5}["']?(/[^"'\s>]{1,200})""", re.IGNORECASE)
_DEEPEST_BASE = 3
_MODULE = re.compile(r"""<script\b[^<>]{0,400}\btype\s{0,5}=\s{0,5}["']?module""", re.IGNORECASE)
_SOURCE = re.compile(r"\.(?:tsx?|jsx|vue|svelte|scss|sass|less|mts)$")
_BABEL = re.compile(r"""<script\b[^<>]{0,400}\bsrc\s{0,5}=\s{0,5}["']?[^"'\s>]{0,300}\bbabel\b""", re.IGNORECASE)
_BABEL_SCRIPT = re.compile(
    r"""<script\b[^<>]{0,400}\btype\s{0,5}=\s{0,5}["']?text/(?:babel|jsx)\b[^<>]{0,400}>""", re.IGNORECASE
)
"""A script that Babel, where the page loads it, compiles in the browser."""
_TEMPLATING = re.compile(r"%PUBLIC_URL%|^---\r?\n|\{%|\{\{", re.MULTILINE)


@dataclass(frozen=True)
class Site:
    """The static side of a tree."""

    tree: Tree

    def page(self, folder: str) -> str | None:
        """The index page of a folder (`""`: the root)."""
        prefix = f"{folder}/" if folder else ""
        return self.tree.page(f"{prefix}index.html") or self.tree.page(f"{prefix}index.htm")

    def built(self, *likely: str) -> str | None:
        """A folder of built pages: its index page refers to no source file."""
        for folder in (*likely, *BUILT):
            page = self.page(folder) if folder else None
            if page and not self.is_source(page):
                return folder
        return self._angular()

    def _angular(self) -> str | None:
        found = sorted(p for p in self.tree.paths if re.fullmatch(r"dist/[^/]+(/browser)?/index\.html", p))
        return found[-1].removesuffix("/index.html") if found and len({p.split("/")[1] for p in found}) == 1 else None

    def finished(self) -> bool:
        """Whether there is a page, at the root or where a build puts it, that a browser can show as it is."""
        page = self.page("")
        if page and not self.is_source(page) and not is_template(self.tree.text(page)):
            return True
        return self.built() is not None

    def somewhere(self) -> str | None:
        """A folder with an index page."""
        return next((folder for folder in OUTPUTS if self.page(folder)), None)

    def is_source(self, page: str) -> bool:
        """Whether the page is input of a build: a browser could not show it."""
        text = self.tree.text(page)
        if "%PUBLIC_URL%" in text or self._waits_for_scripts(text):
            return True
        if _BABEL.search(text):
            text = _BABEL_SCRIPT.sub("", text)
        return any(_SOURCE.search(name.partition("?")[0]) for name in self._references(text))

    def _waits_for_scripts(self, text: str) -> bool:
        """Whether nothing but an empty element for an app is in a project's page, and no script: a build adds it."""
        return self.tree.package is not None and "<script" not in text.lower() and bool(_EMPTY_MOUNT.search(text))

    def lacks(self, page: str) -> str | None:
        """A script or style sheet of its own that the page refers to and that is not there."""
        folder = page.rpartition("/")[0]
        names = {path.rpartition("/")[2] for path in self.tree.paths}
        for name in self._references(self.tree.text(page)):
            clean = name.partition("?")[0].partition("#")[0]
            if not clean.endswith((".js", ".mjs", ".css")):
                continue
            path = clean.lstrip("/") if clean.startswith("/") else posixpath.normpath(posixpath.join(folder, clean))
            if folder and clean.startswith("/"):
                path = f"{folder}/{path}"
            if path not in self.tree.paths and posixpath.basename(path) not in names:
                return name
        return None

    @staticmethod
    def _references(text: str) -> list[str]:
        return [name for name in _REFERENCE.findall(text) if not re.match(r"[a-z]+:|//|#|\{", name, re.IGNORECASE)]

    def decide(self, folder: str, why: str, *, spa: bool | None = None, page: str | None = None) -> Decision:
        """The decision for a folder."""
        prefix = f"{folder}/" if folder else ""
        index = page or self.page(folder) or f"{prefix}index.html"
        if spa is None:
            spa = self._is_spa(folder, index)
        return Decision(
            kind="static", root=prefix, index=index.removeprefix(prefix), spa=spa, base=self._base(prefix, index),
            entrypoint=index, why=why, notes=self._notes(prefix),
        )  # fmt: skip

    def listed(self, folder: str, why: str) -> Decision:
        """The decision for a folder of pages of which none is the first: that is a list of them."""
        prefix = f"{folder}/" if folder else ""
        decision = self.decide(folder, why, spa=False, page=f"{prefix}index.html")
        note = "the first page is a list of the pages; call the one to show first index.html"
        return replace(decision, options={LISTING: True}, notes=(note, *decision.notes))

    def _is_spa(self, folder: str, index: str) -> bool:
        """A page that a script fills, and no other page that could be asked for."""
        prefix = f"{folder}/" if folder else ""
        if self._rules(prefix).single_page or other_hosts.single_page(self.tree):
            return True
        apart = (index, f"{prefix}404.html", f"{prefix}200.html")
        others = [path for path in self.tree.pages if path.startswith(prefix) and path not in apart]
        if f"{prefix}200.html" in self.tree.paths and not others:
            return True
        text = self.tree.text(index)
        return not others and bool(_MOUNT.search(text) and (_MODULE.search(text) or "<script" in text))

    def _base(self, prefix: str, index: str) -> str:
        """The prefix that the page's own files are asked for under, when they are not there but are without it (GitHub
        Pages serves `/repo/`).
        """
        text = self.tree.text(index)
        if match := _BASE.search(text):
            base = posixpath.normpath(match[1]) + "/"
            return base if base.count("/") > 1 and base.strip("/") not in self.tree.folders else ""
        bases: list[str] = []
        plain = 0
        for name in self._references(text):
            path = name.partition("?")[0].partition("#")[0]
            if not path.startswith("/"):
                continue
            if f"{prefix}{path[1:]}" in self.tree.paths:
                plain += 1
                continue
            parts = path[1:].split("/")
            depths = range(1, min(len(parts), _DEEPEST_BASE + 1))
            cut = next((n for n in depths if f"{prefix}{'/'.join(parts[n:])}" in self.tree.paths), 0)
            if cut:
                bases.append(f"/{'/'.join(parts[:cut])}/")
        # a page may name a file or two without it (public/ of Next.js): those are found without it here too
        return bases[0] if len(set(bases)) == 1 and len(bases) > plain else ""

    def _rules(self, prefix: str) -> Rules:
        return host_rules(self.tree.text, prefix, netlify_settings(self.tree.text("netlify.toml")))

    def _notes(self, prefix: str) -> tuple[str, ...]:
        notes = list(self._rules(prefix).notes)
        notes += other_hosts.unfollowed(self.tree)
        beside = functions(self.tree.paths, self.tree.text)
        if prefix:
            inside = frozenset(path.removeprefix(prefix) for path in self.tree.inside(prefix))
            beside += [f"{prefix}{path}" for path in functions(inside, lambda path: self.tree.text(prefix + path))]
        if beside:
            shown = ", ".join(map(quoted, beside[:5])) + (f" and {len(beside) - 5} more" if len(beside) > 5 else "")
            notes.append(
                f"functions of other hosts do not run here, and their source is not published: {shown}; what the pages"
                " ask of them is answered by a worker (worker.js with assets) or a server in Node or Python"
            )
        return tuple(notes)


def is_template(text: str) -> bool:
    """Whether a page is input of a template language."""
    return bool(_TEMPLATING.search(text))
