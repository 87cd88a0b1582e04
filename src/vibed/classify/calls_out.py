"""Hosts that an app's server calls: there is no way out, so that it is told before somebody waits for an answer."""

from __future__ import annotations

import re
from collections.abc import Iterable

from vibed.sources.errors import quoted

_CALLED = re.compile(
    r"""\b(?:(?:requests|httpx|session|client|http|axios|got|ky|superagent|aiohttp)\s{0,3}\.\s{0,3}\w{1,12}|fetch|axios|got|urlopen|urlretrieve|NewRequest|request)"""
    r"""\(\s{0,9}(?:["'](?:GET|POST|PUT|DELETE)["'],\s{0,9})?[bfr]{0,2}["'`]https?://([\w.-]{1,100})"""
    r"""|\b[A-Za-z_]{0,30}(?:URL|Url|url|API|ENDPOINT|BASE|HOST)[A-Za-z_]{0,20}\s{0,3}(?::\s{0,3}\w{1,10}\s{0,3})?[:=]\s{0,3}[f]?["'`]https?://([\w.-]{1,100})"""
)
_CLIENT = re.compile(r"\b(?:requests|httpx|aiohttp|urllib|fetch|axios|got|superagent|http\.Get|NewRequest)\b")
_OWN = re.compile(
    r"(?i)(?:localhost|127\.\d|0\.0\.0\.0|\[::|.*\.(?:local|localhost|internal|example|test)$|(?:.*\.)?example\.(?:com|org)$|(?:www\.)?w3\.org|[^.]*$)"
)
_MOST = 3


def note(texts: Iterable[str]) -> str:
    """What to tell; empty where nothing is called by an address that can be read."""
    hosts: dict[str, None] = {}
    for text in texts:
        if _CLIENT.search(text):
            hosts |= dict.fromkeys(host for match in _CALLED.findall(text) for host in match if host)
    named = [host for host in hosts if not _OWN.match(host)][:_MOST]
    return f"apps here have no network out, and this one calls {', '.join(map(quoted, named))}" if named else ""
