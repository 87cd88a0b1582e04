"""A build tool's own words about a failure: the lines that say what is wrong, out of hundreds."""

from __future__ import annotations

import re

_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
_CAUSES = (
    re.compile(r"^\S+\.[cm]?tsx?(?:\(\d+,\d+\)|:\d+:\d+)\s*[:-]?\s*(?:-\s*)?error\b.*"),  # tsc
    re.compile(r"^\s*\[[\w:.-]{1,60}\]\s+(?:\[\w+\]\s+)?\S.*(?:rror|ailed|annot|not).*"),  # [vite]: Rollup failed to …
    re.compile(r"^(?:[✘X×]\s*)?\[ERROR\].*"),  # esbuild, Angular
    re.compile(r"^(?:Module not found|Type error|Syntax ?Error|ERROR in|Failed to compile|RollupError|BuildError)\b.*"),
    re.compile(r"^\s*(?:\w*Error|\[?error\]?|ERROR)\b\s*:?\s+\S.*", re.IGNORECASE),
    re.compile(r"^\s*sh: .*|.*: (?:command )?not found$|^\s*npm error (?:Missing script.*|.*)$"),
    re.compile(r".*\b(?:[Ee]rror|[Ff]ailed|[Cc]annot find|Could not resolve)\b.*"),
)
"""How a line begins that says what is wrong, the surest first."""
_EMPTY_HEADS = re.compile(
    r"^(?:error during build:?|Failed to compile\.?|Build failed with \d+ errors?:|\[?ERROR\]?:?|Error:?"
    r"|ERROR in .{0,80}|Error occurred prerendering page .{0,300})$"
)
_MISSING = re.compile(
    r"(?:Cannot find (?:module|package)|Can't resolve|failed to resolve import|Could not resolve(?: entry module)?)"
    r"\s+[\"'`]([^\"'`\n]+)"
)
_ADVISED = re.compile(
    r"(?:npm (?:i|install|add)|yarn add|pnpm (?:add|install)) (?:-\S+ )*[\"'`]?((?!-)@?\w[\w./-]*)"
    r"|(@?\w[\w./-]*) not found\.[^\n]{0,200}\b[Yy]ou (?:need|have) to install it"
    r"|\b(?:need to|must|please) install [\"'`](@?\w[\w./-]*)[\"'`]"
)
"""How a tool says that it wants another package: Vite of terser and sass, Tailwind of its plugin for PostCSS."""
_PROGRAM = re.compile(
    r"^(?:/bin/)?(?:sh|bash|dash): (?:line )?(?:\d+: )?(?P<sh>[@\w][\w.@/-]*): (?:command )?not found$"
    r"|^\s*(?:Error: )?spawn (?P<node>[\w.-]+) ENOENT",
    re.MULTILINE,
)
_MOST = 500


def cause(told: str) -> str:
    """What a failed build said that tells most, in a line or two; empty when it said nothing."""
    lines = [line.rstrip() for line in _COLOUR.sub("", told).replace("\r", "\n").splitlines() if line.strip()]
    for pattern in _CAUSES:
        for at, line in enumerate(lines):
            if not pattern.match(line):
                continue
            said = line.strip()
            if _EMPTY_HEADS.match(said):
                following = (line.strip() for line in lines[at + 1 : at + 6])
                said = " ".join([said, *[line for line in following if not _EMPTY_HEADS.match(line)][:2]])
            return said[:_MOST]
    return lines[-1].strip()[:_MOST] if lines else ""


def program(told: str) -> str:
    """The program that the build's script calls and that is not there; empty when it is not that."""
    match = _PROGRAM.search(_COLOUR.sub("", told).replace("\r", "\n"))
    return (match["sh"] or match["node"]) if match else ""


def missing(told: str) -> str:
    """The package or file that the build did not find; empty when it is not that."""
    if match := _MISSING.search(_COLOUR.sub("", told)):
        return match[1]
    advised = _ADVISED.search(cause(told).partition("npm notice")[0])
    return next(filter(None, advised.groups()), "") if advised else ""
