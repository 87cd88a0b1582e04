"""The scalars of a YAML file of the plain kind that hosts' settings are: mappings and lists by indentation, quotes,
comments, and texts over several lines. What else YAML can is not looked for, and nothing is made of it."""

from __future__ import annotations

import re

_ENTRY = re.compile(
    r"(?P<indent>[ ]*)(?P<dashes>(?:-[ ]+)*)"
    r"(?:(?P<key>[\w./-]{1,80}|\"[^\"\n]{1,80}\"|'[^'\n]{1,80}'):(?:[ \t]+|$))?(?P<value>.*)"
)
_QUOTED = re.compile(r"\"((?:\\.|[^\"\\])*)\"|'((?:''|[^'])*)'")
_MOST = 2000
Path = tuple[str, ...]


def scalars(text: str) -> list[tuple[Path, str]]:
    """Every scalar with the keys that lead to it; items of lists by their numbers."""
    found: list[tuple[Path, str]] = []
    above: list[tuple[int, str]] = []
    counts: dict[Path, int] = {}
    lines = text.splitlines()[:_MOST]
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if not line.strip() or line.lstrip().startswith(("#", "---", "%")):
            continue
        match = _ENTRY.match(line)
        if match is None:
            continue
        indent = len(match["indent"])
        dashes = match["dashes"]
        while above and (above[-1][0] > indent or (above[-1][0] == indent and not (dashes and _is_key(above[-1][1])))):
            above.pop()
        column = indent
        for dash in re.findall(r"-[ ]+", dashes):
            holder = tuple(key for _, key in above)
            counts[holder] = counts.get(holder, -1) + 1
            above.append((column, str(counts[holder])))
            column += len(dash)
        key = match["key"]
        if key is not None:
            above.append((column, key.strip("\"'")))
        path = tuple(key for _, key in above)
        value = match["value"].strip()
        if re.fullmatch(r"[|>][+-]?\d?(?:[ ]+#.*)?", value):
            block = []
            while at < len(lines) and (not lines[at].strip() or len(lines[at]) - len(lines[at].lstrip()) > indent):
                block.append(lines[at].strip())
                at += 1
            value = ("\n" if value[0] == "|" else " ").join(block).strip()
        elif value[:1] in ('"', "'"):
            quoted = _QUOTED.match(value)
            value = (quoted[1] or quoted[2] or "").replace("''", "'") if quoted else value
        else:
            value = re.split(r"[ \t]#", value)[0].strip()
        if value:
            found.append((path, value))
    return found


def _is_key(name: str) -> bool:
    return not name.isdigit()
