"""Where the source says that its site listens: evidence for the agent, which has to choose when an app opens several
ports."""

from __future__ import annotations

import re
from collections.abc import Iterable

_OPTION = re.compile(
    r"(?<![\w-])(?:--?(?:server[.-])?port|-p|--listen|-b|--bind|-l)[= ]{1,3}"
    r"[\"']?(?:[\w.*\[\]:]{0,60}:)?(\d{2,5})(?![\w.])"
)
"""A port in a command."""
_SERVERS = {"gunicorn": 0, "uvicorn": 8000, "flask": 5000, "streamlit": 8501, "runserver": 8000}
"""Where programs listen that are told nothing; gunicorn does as PORT says."""
_SERVER = re.compile(rf"(?<![\w./-])({'|'.join(_SERVERS)})(?![\w./-])")
_READS = re.compile(
    r"""(?i)env(?:iron)?\w{0,12}\b[^\n;]{0,20}?[.\[('"\s]PORT\b|\bPORT\b[^{}\n]{0,60}\}\s{0,3}=\s{0,3}process\.env\b"""
)
"""The variable PORT is read."""
_DEFAULT = re.compile(r"""\bPORT['"\])]{0,4}\s{0,3}(?:\|\||\?\?|,|\bor\b|:-|\))\s{0,3}['":]{0,2}(\d{2,5})(?![\w.])""")
"""What is taken where it is not set."""
_ANOTHERS_DEFAULT = re.compile(
    r"""(?i)\b\w{1,20}_PORT['"\])]{0,4}\s{0,3}(?:\|\||\?\?|,|\bor\b|:-|\))\s{0,3}['":]{0,2}(\d{2,5})(?![\w.])"""
)
"""And where a variable of another name is not."""
_LISTENS = re.compile(
    r"""\.listen\(\s{0,9}(?:\{[^{}\n]{0,80}?\bport\s{0,3}:\s{0,3})?(?P<listen>\d{2,5})\b"""
    r"""|\b(?:run|serve|launch|run_app|run_simple|run_server|server_port|make_server|start_server|\w{0,20}(?:HTTP|TCP|WSGI)Server|create_server|bind)"""
    r"""\s{0,3}\({1,2}(?:[^()\n]|\([^()\n]{0,80}\)){0,200}?(?:\b(?:server_)?port\s{0,3}=\s{0,3}|['"]\s{0,3},\s{0,3})(?P<call>\d{2,5})\b"""
    r"""|\b(?:ListenAndServe\w{0,3}|Listen|Run|Start)\((?:\s{0,3}"tcp\d?",)?\s{0,3}"[\w.]{0,60}:(?P<go>\d{2,5})\""""
)
_BARE = re.compile(r"\w{0,20}(?:HTTP|TCP|WSGI)Server|create_server|start_server|bind|make_server")
"""Beside an app of a framework these are for something else."""
_NAMED = re.compile(
    r"""(?i)\b(?:\w{1,20}_)?port['"]?\s{0,3}(?::\s{0,3}\w{1,10}\s{0,3})?[:=]\s{0,3}['":]{0,2}(\d{2,5})(?![\w.])"""
)
"""A constant or an option that is called port."""
_OF_ANOTHER = re.compile(
    r"(?i)(?:\b|_)(?:metrics?|prom|prometheus|ws|web_?socket|socket|debug\w{0,4}|inspect\w{0,3}|redis|db|database|pg|postgres\w{0,3}"
    r"|mysql|mongo\w{0,2}|smtp|mail|s?grpc|rpc|health\w{0,5}|probe|admin|tcp|udp|ssh|ftp|mqtt|kafka|amqp)_(?:\w{0,20}_)?port"
)
"""Its name says that it is not the site's."""
_EXPOSED = re.compile(r"(?im)^\s{0,9}EXPOSE\s{1,9}(\d{2,5})\b")
_BESIDE = re.compile(
    r"(?i)(?:web_?socket(?:s|\.Server|Server)?|\bws|\bwss|metrics?\w{0,20}|prom\w{0,20}|start_http_server|debug\w{0,20}|inspect\w{0,20}|redis\w{0,20}|postgres\w{0,3}"
    r"|mysql|mongo\w{0,2}|smtp|mail\w{0,8}|grpc\w{0,20}|health\w{0,20}|admin\w{0,20}|tcp|udp)\b[^\n;]{0,60}$"
)
"""What stands before the number of a port that is not the site's."""
_METRICS = re.compile(r"[^\n]{0,80}\b(?:promhttp|pprof)\b")
"""And what stands behind it."""
_OTHERS = frozenset({22, 25, 53, 465, 587, 1433, 1521, 3306, 5432, 5672, 6379, 9092, 9200, 11211, 27017})
"""Ports of services that an app calls."""
_MOST = 4


def expected(command: str, texts: Iterable[str], dockerfile: str, given: int) -> tuple[int, ...]:
    """The ports of the site, the likeliest first.

    `command` starts it, `texts` are its source files, the one that is started first; `given` is what PORT says.
    """
    found = [int(port) for port in _OPTION.findall(command)]
    if not found and (server := _SERVER.search(command)):
        found = [_SERVERS[server[1]] or given]
    named: list[int] = []
    bare: list[int] = []
    for text in texts:
        defaults = [int(match[1]) for match in _DEFAULT.finditer(text) if _is_site(text, match)]
        if _READS.search(text) or defaults:
            found.append(given)
        found += defaults
        opened = [match for match in _LISTENS.finditer(text) if _is_site(text, match)]
        found += [int(match[match.lastgroup or 0]) for match in opened if not _BARE.match(match[0])]
        bare += [int(match[match.lastgroup or 0]) for match in opened if _BARE.match(match[0])]
        named += [
            int(match[1])
            for match in _NAMED.finditer(text)
            if _is_site(text, match) and not _OF_ANOTHER.search(match[0])
        ]
    found += [*bare, *named]
    found += [int(port) for port in _EXPOSED.findall(dockerfile)]
    return tuple(port for port in dict.fromkeys(found) if 0 < port < 65536 and port not in _OTHERS)[:_MOST]


def _is_site(text: str, match: re.Match[str]) -> bool:
    at = match.start()
    if _METRICS.match(text, match.end()):
        return False
    return not _BESIDE.search(text, max(text.rfind("\n", 0, at), at - 120) + 1, at + 1 if text[at] == "." else at)


def given_instead(texts: Iterable[str], given: int, *, told: bool) -> int | None:
    """What PORT should say instead of `given`, where the source opens that port itself for something else (a
    WebSocket server on 8080 beside pages on `PORT || 3000`): the port that its pages have without PORT, and where it
    names none the next one that is free. `told`: the command tells the pages' server where to listen. None where PORT
    may say `given`."""
    own: list[int] = []
    opened: set[int] = set()
    beside: set[int] = set()
    reads = told
    for text in texts:
        reads = reads or _READS.search(text) is not None
        defaults = {match.start(1): int(match[1]) for match in _DEFAULT.finditer(text)}
        own += defaults.values()
        opened |= {int(match[match.lastgroup or 0]) for match in _LISTENS.finditer(text) if _at(match) not in defaults}
        for match in _NAMED.finditer(text):
            if _OF_ANOTHER.search(match[0]) or not _is_site(text, match):
                beside.add(int(match[1]))
            elif match.start(1) not in defaults:
                own.append(int(match[1]))
        beside |= {int(match[1]) for match in _ANOTHERS_DEFAULT.finditer(text)}
    if not reads or given not in opened | beside:
        return None
    free = (port for port in (*own, *range(given + 1, given + 9)) if port not in opened | beside | {given} | _OTHERS)
    return next(free, None)


def _at(match: re.Match[str]) -> int:
    return match.start(match.lastgroup or 0)
