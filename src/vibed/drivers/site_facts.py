"""What a site is beyond files, for the site server (agent/sites), which answers for it then; a site that is nothing
beyond them has no such facts, and is Caddy's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass

from vibed.classify.host_rules import Rules

FILE = ".vibed.json"
"""In the site's folder: hidden, as every name that begins with a dot."""
MOST_ENCODED = 1_000
"""Folders with compressed files of a loader: each request looks through them, and the server reads 8 MiB of facts."""
_COMPRESSED = (".br", ".gz")
_LOADED = re.compile(r"\.(?:data|wasm|framework\.js|js|mem|symbols\.json|asm\.js|asm\.code|asm\.memory)\.(?:br|gz)$")
_LOADERS = ("UnityLoader.js", ".loader.js")


@dataclass(frozen=True, slots=True)
class Facts:
    """Of one site's files; what its version says comes with `text`."""

    rules: Rules
    encoded: tuple[str, ...]
    """Folders where a loader asks for files by the names they have compressed."""
    ruled: bool
    """Whether they alone are more than Caddy knows."""
    fallback: str

    @classmethod
    def of(cls, paths: Collection[str], rules: Rules) -> Facts:
        """`paths` are relative to the site's root."""
        names = frozenset(paths)
        loaders = {_folder(path) for path in names if path.endswith(_LOADERS)}
        encoded = sorted(loaders & {_folder(path) for path in names if _LOADED.search(path)})[:MOST_ENCODED]
        beside = any(path.endswith(_COMPRESSED) and path[:-3] in names for path in names)
        nested = any(path.endswith("/404.html") for path in names)
        fallback = "/200.html" if "200.html" in names else "/index.html"
        vectors = any(path.endswith(".svgz") for path in names)
        ruled = bool(encoded or beside or nested or vectors or not rules.plain or fallback == "/200.html")
        return cls(rules, tuple(encoded), ruled, fallback)

    def text(self, *, spa: bool, base: str) -> str | None:
        """The content of the file for the site server; None when the site is Caddy's."""
        if not self.ruled and not base:
            return None
        said = {
            "fallback": self.fallback if spa else "",
            "base": base,
            "encoded": self.encoded,
            "redirects": [rule.data() for rule in self.rules.redirects],
            "headers": [rule.data() for rule in self.rules.headers],
        }
        return json.dumps(said)


def _folder(path: str) -> str:
    return "/" + path.rpartition("/")[0]
