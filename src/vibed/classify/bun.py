"""Source that is written for Bun: what shows it, and which file a command of Bun's starts.

Bun is a package of npm as well, so that an app's own layer can bring it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from vibed.classify.typescript import Runner

RUNNER = Runner("bun", (), program="bun")

_OWN = re.compile(
    r"\bBun\.(?:serve|file|write|env|password|sql|SQL|spawn|spawnSync|build|listen|connect|hash|sleep|Glob|redis|s3)\b"
    r"|(?:\bfrom|\bimport|\brequire[ \t]{0,9}\(|\bimport[ \t]{0,9}\()[ \t]{0,9}"
    r"['\"](?:bun(?::\w{1,20})?|hono/bun|elysia)['\"]"
)
_EITHER = re.compile(
    r"\btypeof[ \t]{1,9}Bun\b|\bprocess\.versions\.bun\b|\bglobalThis\.Bun\b"
    r"|['\"]@(?:elysiajs/node|hono/node-server)['\"]"
)
_EXPORTED = re.compile(r"^[ \t]{0,9}export[ \t]{1,9}default[ \t]{1,9}[\w{]", re.MULTILINE)
_FILE = re.compile(r"[\w@./-]{1,200}\.[cm]?[jt]sx?")
_APART = r"['\",\s]{1,4}"
_STARTS = re.compile(
    rf"(?:^|[\s&|;'\",\[])bun{_APART}(?!build\b|test\b|add\b|x\b)(?:[\w=:./-]{{1,100}}{_APART}){{0,4}}?({_FILE.pattern})\b"
)
_BUILDS = re.compile(r"(?:^|[\s&|;])bun[ \t]{1,9}(?:build|-e|--eval)\b")


def only(text: str) -> bool:
    """Whether a file uses what Bun alone has, and does not first look whether it is there."""
    return bool(_OWN.search(text)) and not _EITHER.search(text)


def answers(text: str) -> bool:
    """Whether Bun would serve what a file exports, without the file's own saying so."""
    return bool(_EXPORTED.search(text))


def started(words: Sequence[str]) -> tuple[str, tuple[str, ...]] | None:
    """The file that `bun` with these words starts, and the arguments that it gets; None where they name none."""
    for at, word in enumerate(words):
        if word == "run" and not at:
            continue
        if not word.startswith("-"):
            return (word, tuple(words[at + 1 :])) if _FILE.fullmatch(word) else None
    return None


def named(scripts: Mapping[str, str], texts: Iterable[str]) -> frozenset[str]:
    """The files that a project's scripts, or other texts that say how it starts, have Bun start."""
    return frozenset(
        match[1].removeprefix("./") for text in (*scripts.values(), *texts) for match in _STARTS.finditer(text)
    )


def builds(scripts: Mapping[str, str]) -> bool:
    """Whether one of a project's scripts has Bun itself do something, beside running another one of them."""
    return bool(named(scripts, ())) or any(_BUILDS.search(text) for text in scripts.values())


def asked(manifest: Mapping[str, object]) -> str:
    """The version of Bun that a package.json asks for, as npm reads it."""
    found = re.match(r"bun@(\d{1,4}(?:\.\d{1,4}){0,2})", str(manifest.get("packageManager", "")))
    return found[1] if found else "*"
