"""The rules that a site brings for its host: `_redirects`, `_headers`, and the same two in netlify.toml.

What is understood becomes patterns and parts that can be followed without knowing the syntax (agent/sites does, and the
workers' shim); what is not is told by its line. The semantics are Netlify's, who had the files first: the first rule
that matches counts, a file goes before a rule unless that says `!`, and a slash at the end makes no difference.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

MOST = 2_000
"""Rules of a kind that are followed, and headers that they say in all: those of one name are joined for each answer."""
MOST_PATTERNS = 200
"""Of these with `:` or `*`: each is tried for each request, and a process that sites share keeps it compiled."""
MOST_GROUPS = 8
"""`:` and `*` of one rule: what trying it takes grows with the square of their number."""
_LONGEST_PATH = 500
_LONGEST = 2_000
_LONGEST_TOML = 32 << 10
_MOST_NOTES = 12
_REDIRECTS = (301, 302, 303, 307, 308)
_STATUSES = (*_REDIRECTS, 200, 404)
_WORD = re.compile(r":([A-Za-z]\w{0,63})|\*")
_STATUS = re.compile(r"(\d{3})(!?)")
_URL = re.compile(r"https?://", re.IGNORECASE)
_HEADER = re.compile(r"([!#$%&'*+.^_`|~\w-]{1,100})\s{0,20}:\s{0,20}(.*)", re.ASCII)
_OURS = frozenset(
    {
        "accept-ranges", "age", "allow", "alt-svc", "connection", "content-length", "content-range", "date",
        "keep-alive", "location", "server", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
"""Headers that say how an answer is sent, which is not the site's to say."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """Paths: one that is written out, or a regular expression (what RE2, JavaScript and Python agree on)."""

    text: str
    names: tuple[str, ...] = ()
    """Of the groups, in order; `splat` is what a `*` stands for."""
    exact: bool = True

    def data(self) -> dict[str, object]:
        """For those who follow it."""
        return {"path": self.text} if self.exact else {"pattern": self.text}


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where requests for some paths go."""

    pattern: Pattern
    to: tuple[str | int, ...]
    """Text, and the numbers of groups that go between."""
    status: int
    force: bool = False
    """Also where there is a file."""

    @property
    def is_fallback(self) -> bool:
        """Whether it makes a single-page app of the site."""
        return self.pattern.text == "^/(.*)$" and self.status == 200 and self.to in (("/index.html",), ("/",))

    def data(self) -> dict[str, object]:
        """For those who follow it."""
        return {**self.pattern.data(), "to": list(self.to), "status": self.status, "force": self.force}


@dataclass(frozen=True, slots=True)
class Headers:
    """What answers for some paths say besides."""

    pattern: Pattern
    set: tuple[tuple[str, str], ...] = ()
    unset: tuple[str, ...] = ()

    def data(self) -> dict[str, object]:
        """For those who follow it."""
        return {**self.pattern.data(), "set": [list(pair) for pair in self.set], "unset": list(self.unset)}


@dataclass
class Rules:
    """All rules of a site, and what of them is not followed."""

    redirects: list[Redirect] = field(default_factory=list)
    headers: list[Headers] = field(default_factory=list)
    untold: list[str] = field(default_factory=list)
    _said: int = 0

    @property
    def single_page(self) -> bool:
        """Whether they say that every path is the site's first page."""
        return any(rule.is_fallback for rule in self.redirects)

    @property
    def plain(self) -> bool:
        """Whether there is nothing in them beyond that."""
        return not self.headers and (not self.redirects or (len(self.redirects) == 1 and self.single_page))

    @property
    def notes(self) -> tuple[str, ...]:
        """What is not followed, for whoever deployed it."""
        more = len(self.untold) - _MOST_NOTES
        return (
            *self.untold[:_MOST_NOTES],
            *([f"and {more} more rules of the site are not followed"] if more > 0 else []),
        )

    def _take(self, rule: Redirect | Headers | str, where: str) -> None:
        if isinstance(rule, str):
            self.untold.append(f"{where} is not followed: {rule}")
            return
        kept: list[Any] = self.redirects if isinstance(rule, Redirect) else self.headers
        says = len(rule.set) + len(rule.unset) if isinstance(rule, Headers) else 0
        if len(kept) >= MOST:
            self.untold.append(f"{where} is not followed: {MOST} rules are")
        elif not rule.pattern.exact and sum(not one.pattern.exact for one in kept) >= MOST_PATTERNS:
            self.untold.append(f"{where} is not followed: {MOST_PATTERNS} rules with : or * are")
        elif self._said + says > MOST:
            self.untold.append(f"{where} is not followed: {MOST} headers are, in all rules")
        else:
            self._said += says
            kept.append(rule)


def host_rules(text: Callable[[str], str], root: str, netlify: Mapping[str, Any] | None = None) -> Rules:
    """The rules of the site in the folder `root` (with its slash); `text` gives a file's content, empty for none."""
    rules = Rules()
    for number, line in enumerate(text(f"{root}_redirects").splitlines(), 1):
        words = _words(line)
        if words:
            rules._take(_redirect(words), f"_redirects line {number}")
    _headers(text(f"{root}_headers"), rules)
    if netlify:
        _netlify(netlify, rules)
    return rules


def netlify_settings(text: str) -> dict[str, Any]:
    """What a netlify.toml says; nothing when it is none that can be read."""
    try:
        # tomllib takes time in the square of a dotted key's length
        return tomllib.loads(text) if len(text) <= _LONGEST_TOML else {}
    except (tomllib.TOMLDecodeError, RecursionError, ValueError):
        return {}


def _words(line: str) -> list[str]:
    words = line[:_LONGEST].split()
    comment = next((at for at, word in enumerate(words) if word.startswith("#")), len(words))
    return words[:comment]


def _redirect(words: Sequence[str]) -> Redirect | str:
    """The rule of one line, or why it is not followed."""
    source, rest = words[0], list(words[1:])
    conditions: list[str] = []
    while rest and "=" in rest[0] and not rest[0].startswith("/") and not _URL.match(rest[0]):
        conditions.append(rest.pop(0))
    if not rest:
        return "it does not say where to"
    to = rest.pop(0)
    status, force = "301", ""
    if rest and (match := _STATUS.fullmatch(rest[0])):
        status, force = match.groups()
        rest.pop(0)
    return _rule(source, to, int(status), bool(force), [*conditions, *rest])


def _rule(source: str, to: str, status: int, force: bool, conditions: Iterable[str]) -> Redirect | str:
    if conditions := list(conditions):
        return f"what depends on more than the path ({conditions[0][:60]}) is not known here"
    if _URL.match(source):
        return "rules for one host of several are not known here"
    if not source.startswith("/"):
        return "the path does not begin with a slash"
    if status not in _STATUSES:
        return f"status {status} is none of {', '.join(map(str, _STATUSES))}"
    if to.startswith("/.netlify/"):
        return "functions of other hosts do not run here"
    if not to.startswith("/") or to.startswith("//"):
        if not _URL.match(to):
            return "it leads neither to a path nor to an http address"
        if status not in _REDIRECTS:
            return "nothing is fetched from another host; a redirect (301, 302) would lead there"
    pattern = _pattern(source)
    if isinstance(pattern, str):
        return pattern
    parts = _parts(to, pattern.names)
    return parts if isinstance(parts, str) else Redirect(pattern, parts, status, force)


def _pattern(source: str) -> Pattern | str:
    path = unquote(source.partition("?")[0])
    if len(path) > _LONGEST_PATH:
        return f"its path is longer than {_LONGEST_PATH} characters"
    if len(path) > 1:
        path = path.rstrip("/") or "/"
    if not _WORD.search(path):
        return Pattern(path)
    out, names, at = "", [], 0
    for match in _WORD.finditer(path):
        before, name = path[at : match.start()], match[1] or "splat"
        if name in names:
            return f"{'*' if name == 'splat' else f':{name}'} is in it twice"
        at = match.end()
        names.append(name)
        if len(names) > MOST_GROUPS:
            return f"it has more than {MOST_GROUPS} : and *"
        if name != "splat":
            out += f"{re.escape(before)}([^/]+)"
        elif at == len(path) and before.endswith("/") and len(out + before) > 1:
            out += f"{re.escape(before[:-1])}(?:/(.*))?"  # /docs/* is also /docs
        else:
            out += f"{re.escape(before)}(.*)"
    rest = re.escape(path[at:])
    ending = "" if names[-1] == "splat" and not rest else "/?"
    return Pattern(f"^{out}{rest}{ending}$", tuple(names), exact=False)


def _parts(to: str, names: tuple[str, ...]) -> tuple[str | int, ...] | str:
    parts: list[str | int] = []
    at = 0
    for match in re.finditer(r":([A-Za-z]\w{0,63})", to):
        if match[1] not in names:
            if match.start() < 8 and to[match.start() : match.start() + 3] == "://":
                continue
            return f":{match[1]} is not in its path"
        parts += [to[at : match.start()], names.index(match[1])]
        at = match.end()
    parts.append(to[at:])
    return tuple(part for part in parts if part != "")


def _headers(text: str, rules: Rules) -> None:
    pattern: Pattern | str | None = None
    at, told = 0, False
    given: list[tuple[str, str]] = []
    unset: list[str] = []

    def end() -> None:
        if isinstance(pattern, Pattern) and (given or unset):
            rules._take(Headers(pattern, tuple(given), tuple(unset)), f"_headers line {at}")
        given.clear()
        unset.clear()

    for number, line in enumerate(text.splitlines(), 1):
        stripped = line[:_LONGEST].strip()
        if not stripped or stripped.startswith("#"):
            continue
        if stripped.startswith("/") or _URL.match(stripped):
            end()
            pattern, at, told = _headers_for(stripped), number, False
            if isinstance(pattern, str):
                rules._take(pattern, f"_headers line {number}")
            continue
        if pattern is None or isinstance(pattern, str):
            if pattern is None and not told:
                rules._take("no path is above it", f"_headers line {number}")
                told = True
            continue
        if stripped.startswith("!"):
            unset.append(stripped[1:].strip())
            continue
        header = _header(stripped)
        if isinstance(header, str):
            rules._take(header, f"_headers line {number}")
        else:
            given.append(header)
    end()


def _headers_for(path: str) -> Pattern | str:
    if _URL.match(path):
        return "rules for one host of several are not known here"
    return _pattern(path.split()[0])


def _header(line: str) -> tuple[str, str] | str:
    match = _HEADER.fullmatch(line)
    if match is None or any(ord(letter) < 32 for letter in match[2]):
        return "it is not a header"
    name = match[1].lower()
    if name == "basic-auth":
        return "pages are not protected by a password here, anybody may read them"
    if name in _OURS or name.startswith("x-vibed-"):
        return f"{match[1]} is not for a site to say"
    return match[1], match[2].strip()


def _netlify(settings: Mapping[str, Any], rules: Rules) -> None:
    for number, entry in enumerate(_tables(settings.get("redirects")), 1):
        status = entry.get("status", 301)
        conditions = [f"{name}={value}" for key in ("query", "conditions") for name, value in _items(entry.get(key))]
        rules._take(
            _rule(
                str(entry.get("from", ""))[:_LONGEST],
                str(entry.get("to", ""))[:_LONGEST],
                status if isinstance(status, int) else 0,
                entry.get("force") is True,
                conditions,
            ),
            f"redirect {number} of netlify.toml",
        )
    for number, entry in enumerate(_tables(settings.get("headers")), 1):
        where = f"headers {number} of netlify.toml"
        pattern = _headers_for(str(entry.get("for") or "-")[:_LONGEST])
        if isinstance(pattern, str):
            rules._take(pattern, where)
            continue
        given = []
        for name, value in _items(entry.get("values")):
            for one in value if isinstance(value, list) else [value]:
                header = _header(f"{name}: {str(one).strip()[:_LONGEST]}")
                if isinstance(header, str):
                    rules._take(header, f"{where}, {name[:60]}")
                else:
                    given.append(header)
        if given:
            rules._take(Headers(pattern, tuple(given)), where)


def _tables(value: object) -> list[Mapping[str, Any]]:
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def _items(value: object) -> list[tuple[str, Any]]:
    return [(str(name), given) for name, given in value.items()] if isinstance(value, Mapping) else []
