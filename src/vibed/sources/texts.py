"""Which files' beginnings are kept while the archive is read: those that say what the app is and how it starts.

At most `BUDGET` bytes are kept. When there is more, files nearer to the root come first, then manifests, then by
name: a choice that does not depend on the order of the archive."""

from __future__ import annotations

import re

from vibed.sources import lock_files

BUDGET = 2 << 20
MANIFEST_HEAD = 256 << 10
SOURCE_HEAD = 256 << 10
"""A single-file app of two thousand lines, with its `__main__` block at the end, fits."""
SOURCE_READ = 4 << 20
"""How far a longer one is read, for the code that follows a picture or a page in it."""
PAGE_HEAD = 64 << 10
BINARY_HEAD = 64
LOCK_HEAD = 1 << 20
TELLING_HEAD = 32 << 10

_DATA = re.compile(rb"([\"'`])[^\"'`(){}<>\n]{1024,}|([\"'`\n])(?:[A-Za-z0-9+/=]{40,}+\r?\n){16,}")
"""A long literal without a sign of code in it: one line, or lines of base64."""
_MANIFEST_DEPTH = 3
_SOURCE_DEPTH = 4
_MANIFESTS = frozenset(
    {
        "package.json", "pyproject.toml", "Procfile", "wrangler.toml", "wrangler.json", "wrangler.jsonc", "go.mod",
        "runtime.txt", "Pipfile", "deno.json", "deno.jsonc", "Dockerfile", "startup.txt", "_redirects", "modules.txt",
        "environment.yml", "environment.yaml", "setup.py", "setup.cfg", ".python-version", "gunicorn.conf.py",
        ".nvmrc", ".node-version", ".tool-versions", "tsconfig.json",
        "docker-compose.yml", "docker-compose.yaml", "compose.yml", "compose.yaml", "_headers", "netlify.toml",
        "vercel.json", "angular.json", "firebase.json", "staticwebapp.config.json", "render.yaml", "railway.json",
        "railway.toml",
        "nixpacks.toml", "fly.toml", "app.yaml", "heroku.yml", "deploy.template.yaml", "apprunner.yaml", ".replit",
        "ecosystem.config.json", "pm2.json", "process.json", ".npmrc", ".yarnrc", ".yarnrc.yml", "pnpm-workspace.yaml",
    }
)  # fmt: skip
_LISTS = re.compile(r"(?:.*/)?(?:requirements?|constraints?|deps|dependencies)[^/]*(?:/[^/]*)?\.(?:txt|in)")
"""Lists of Python packages, by their names or that of their folder."""
_TELLING = re.compile(
    r"(?:readme(?:\.md|\.rst|\.txt)?|makefile|justfile|[\w.-]{1,60}\.(?:sh|bat|cmd)|\.devcontainer/devcontainer\.json"
    r"|\.?env(?:\.\w{1,20})?\.(?:example|sample|template|dist))",
    re.IGNORECASE,
)
"""What people write down how they start it, and what it needs."""
_SOURCES = frozenset({"py", "js", "mjs", "cjs", "ts", "mts", "cts", "tsx", "jsx", "go"})
_PAGES = frozenset({"html", "htm"})
_DATA_FILES = frozenset(
    {"png", "jpg", "jpeg", "gif", "webp", "ico", "woff", "woff2", "pdf", "zip", "wasm", "mp3", "ttf"}
)
"""Of these the first bytes tell whether they are what they are called."""
_FOREIGN = ("node_modules/", "site-packages/", ".git/", ".venv/", "venv/", "__pycache__/", "__MACOSX/")


def wanted(path: str, executable: bool) -> int:
    """How many bytes of the file's beginning to keep; 0 for none."""
    depth = path.count("/")
    if depth > _SOURCE_DEPTH:
        return 0
    name = path.rpartition("/")[2]
    extension = name.rpartition(".")[2]
    head = 0
    if extension in _SOURCES:
        # A vendored Go module tells nothing about the app; its list of modules does.
        head = SOURCE_HEAD if not path.startswith("vendor/") and "/vendor/" not in path else 0
    elif extension.lower() in _PAGES:
        head = PAGE_HEAD if depth <= _MANIFEST_DEPTH else 0
    elif depth <= _MANIFEST_DEPTH and (name in _MANIFESTS or _LISTS.fullmatch(path)):
        head = MANIFEST_HEAD
    elif depth <= 1 and name in lock_files.READ:
        head = LOCK_HEAD
    elif extension == "prisma" and depth <= _SOURCE_DEPTH:
        head = MANIFEST_HEAD
    elif _TELLING.fullmatch(path if depth else name):
        head = TELLING_HEAD
    elif extension in _DATA_FILES and depth <= _MANIFEST_DEPTH:
        head = BINARY_HEAD
    elif depth <= _MANIFEST_DEPTH and (executable or name == "www"):
        head = SOURCE_HEAD if name == "www" else BINARY_HEAD
    if head and any(part in path for part in _FOREIGN):
        return 0
    return head


def read_for(path: str, head: int, size: int) -> int:
    """How many bytes of a file are read for an excerpt of `head` bytes at most."""
    whole = head == SOURCE_HEAD and not path.endswith((".min.js", ".min.mjs"))
    return min(size, SOURCE_READ if whole else head)


def excerpt(content: bytes, head: int) -> bytes:
    """At most `head` bytes that tell the most of a source: without long literals that hold data (an inlined picture),
    and then its beginning and its end."""
    if len(content) <= head:
        return content
    left = _DATA.sub(rb"\1\2", content)
    if len(left) <= head:
        return left
    end = head // 4
    return left[: head - end - 1] + b"\n" + left[-end:]


class Kept:
    """Collects beginnings of files within the budget."""

    def __init__(self, budget: int = BUDGET) -> None:
        self._budget = budget
        self._size = 0
        self._texts: dict[str, bytes] = {}
        self._cut: tuple[int, int, str] | None = None

    def add(self, path: str, text: bytes) -> None:
        """Keep one; memory stays below twice the budget plus one file."""
        if self._cut is not None and _rank(path) > self._cut:
            return
        self._texts[path] = text
        self._size += len(text)
        if self._size > 2 * self._budget:
            self._prune()

    def result(self) -> tuple[dict[str, bytes], bool]:
        """The kept beginnings by path, and whether they are all that were added."""
        if self._size > self._budget:
            self._prune()
        return self._texts, self._cut is None

    def _prune(self) -> None:
        # A prefix of one fixed order, and nothing behind its end is taken any more: what is dropped early would be
        # dropped at the end too.
        kept: dict[str, bytes] = {}
        size = 0
        for path in sorted(self._texts, key=_rank):
            size += len(self._texts[path])
            if size > self._budget:
                self._cut = _rank(path)
                break
            kept[path] = self._texts[path]
        self._texts = kept
        self._size = sum(map(len, kept.values()))


def _rank(path: str) -> tuple[int, int, str]:
    name = path.rpartition("/")[2]
    if name in lock_files.READ:
        # what comes of its being dropped is at worst another version of something
        return _SOURCE_DEPTH + 1, 0, path
    return path.count("/"), 0 if name in _MANIFESTS or name.startswith("requirements") else 1, path
