"""What an app writes and would lose: a note, as long as data does not outlive a sandbox."""

from __future__ import annotations

import re
from collections.abc import Iterator

from vibed.classify import started
from vibed.classify.decision import Decision
from vibed.classify.project import Project
from vibed.classify.tree import Tree
from vibed.sources.errors import quoted

_PATH = r"[\w./-]{1,80}"
_WRITTEN = (
    re.compile(rf"""\bopen\(\s{{0,9}}["']({_PATH})["']\s{{0,9}},\s{{0,9}}(?:mode=)?["'][wax]"""),
    re.compile(rf"""\b(?:write|append)File(?:Sync)?\(\s{{0,9}}["'`]({_PATH})["'`]"""),
    re.compile(rf"""\.to_(?:csv|json|excel|parquet|pickle)\(\s{{0,9}}["']({_PATH})["']"""),
    re.compile(rf"""\bos\.(?:WriteFile|Create)\(\s{{0,9}}"({_PATH})\""""),
    re.compile(rf"""\bPath\(\s{{0,9}}["']({_PATH})["']\s{{0,9}}\)\.write_(?:text|bytes)\("""),
)
_DATABASE = re.compile(rf"""["'`/](?!django\.)({_PATH}\.(?:db|db3|sqlite|sqlite3))["'`?]""")
# `/data` alone is the path of many a page too
_DATA = re.compile(
    r"""(?:makedirs|[mM]kdir\w{0,6}|Path|open|join|connect)\(\s{0,9}["'`]/data\b|sqlite:////data/"""
    r"""|(?:DIR|PATH|FOLDER|ROOT|_DB|FILE)\w{0,20}["']?[ \t]{0,4}[=,:|)][^\n]{0,60}["'`]/data\b"""
)
_CONSTANT = re.compile(rf"""\b([A-Za-z_]\w{{0,40}})[ \t]{{0,9}}=[^\n"'`]{{0,60}}["'`]({_PATH}\.[a-z]{{2,6}})["'`]""")
_BY_NAME = re.compile(
    r"""\b(?:open\(\s{0,9}([A-Za-z_]\w{0,40})\s{0,9},\s{0,9}(?:mode=)?["'][wax]"""
    r"""|(?:write|append)File(?:Sync)?\(\s{0,9}([A-Za-z_]\w{0,40})\b)"""
)
_PASSING = re.compile(r"^/?(?:tmp|dev|proc|var/tmp)/|\.(?:log|pid|sock|lock)$|^/data/?$")
_MOST = 3


def notes(project: Project, decision: Decision) -> tuple[str, ...]:
    """For a server of the general lane."""
    if decision.lane != "general":
        return ()
    files = {*started.sources(project, decision)}
    if decision.kind == "python":
        files |= {*project.tree.known("settings.py")}
    texts = [project.tree.text(path) for path in sorted(files)]
    names = list(dict.fromkeys(name for text in texts for name in _written(project.tree, text)))
    data = any(_DATA.search(text) for text in texts)
    if not names and not data:
        return ()
    said = ", ".join(map(quoted, names[:_MOST])) + (" and others" if len(names) > _MOST else "")
    return (
        f"what the app writes to {said or quoted('/data')} is lost at its next version and when it starts again:"
        " nothing is kept beyond that yet",
    )


def _written(tree: Tree, text: str) -> Iterator[str]:
    found = [match[1] for pattern in _WRITTEN for match in pattern.finditer(text)]
    # a database that was sent along may be one that is only read
    found += [match[1] for match in _DATABASE.finditer(text) if not tree.has(_short(match[1]))]
    named = {match[1] or match[2] for match in _BY_NAME.finditer(text)}
    found += [match[2] for match in _CONSTANT.finditer(text) if match[1] in named]
    for name in found:
        short = _short(name)
        if not _PASSING.search(short) and not short.endswith("/"):
            yield short


def _short(name: str) -> str:
    """Without `./`, and without the slashes of an address: `sqlite:///x.db` is a path that begins after three."""
    return name.removeprefix("./").removeprefix("//")
