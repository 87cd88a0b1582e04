"""Ranges of versions as npm has them (node-semver, loosely read): whether one takes a version."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NUMBER = r"(?:\d{1,15}|[xX*])"
_PARTIAL = re.compile(
    rf"[v=\s]*(?P<major>{_NUMBER})(?:\.(?P<minor>{_NUMBER})(?:\.(?P<patch>{_NUMBER})"
    r"(?:-(?P<pre>[0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?)?)?"
)
_HYPHEN = re.compile(r"\s*(\S+)\s+-\s+(\S+)\s*")
_COMPARATOR = re.compile(r"(~>|[<>]=?|[~^=])?\s*([^\s<>=~^]+)")

_Key = tuple[int, int, int, tuple[tuple[int, int, str], ...]]
_LAST = (2, 0, "")
"""Of a release: it comes after what comes before it."""


class Unreadable(ValueError):
    """It is no version, or no range that is read here."""


@dataclass(frozen=True, slots=True)
class _Part:
    """`1.2.x-pre`; None where it says nothing."""

    major: int | None
    minor: int | None
    patch: int | None
    pre: str | None

    @property
    def least(self) -> _Key:
        return _key(self.major or 0, self.minor or 0, self.patch or 0, self.pre)

    @property
    def whole(self) -> bool:
        return self.patch is not None


@dataclass(frozen=True, slots=True)
class _Bound:
    """Above or below a version, or that itself."""

    sign: str
    key: _Key

    def takes(self, key: _Key) -> bool:
        match self.sign:
            case ">=":
                return key >= self.key
            case "<=":
                return key <= self.key
            case ">":
                return key > self.key
            case "<":
                return key < self.key
        return key == self.key


def takes(spec: str, version: str) -> bool:
    """Whether a range takes a version; a prerelease only where the range names one of the same version. Raises
    Unreadable.
    """
    match = _PARTIAL.fullmatch(version.strip())
    if match is None or not _part(match).whole:
        raise Unreadable(version[:100])
    key = _part(match).least
    return any(_all_take(bounds, key) for bounds in (_bounds(one) for one in spec.split("||")))


def _all_take(bounds: list[_Bound], key: _Key) -> bool:
    if not all(bound.takes(key) for bound in bounds):
        return False
    release = key[3] == (_LAST,)
    return release or any(bound.key[:3] == key[:3] and bound.key[3] not in ((_LAST,), ()) for bound in bounds)


def _bounds(text: str) -> list[_Bound]:
    if (hyphen := _HYPHEN.fullmatch(text)) is not None:
        low, high = _read(hyphen[1]), _read(hyphen[2])
        return [_Bound(">=", low.least), *_below(high)]
    found: list[_Bound] = []
    end = 0
    for match in _COMPARATOR.finditer(text.strip()):
        if text.strip()[end : match.start()].strip():
            raise Unreadable(text[:100])
        end = match.end()
        found += _of(match[1] or "", _read(match[2]))
    if text.strip()[end:].strip():
        raise Unreadable(text[:100])
    return found


def _of(sign: str, part: _Part) -> list[_Bound]:
    if part.major is None:
        if sign in ("<", ">"):
            return [_Bound("<", _key(0, 0, 0, None, first=True))]  # nothing
        return []
    match sign:
        case "^":
            return [_Bound(">=", part.least), _Bound("<", _caret(part))]
        case "~" | "~>":
            high = (part.major, part.minor + 1) if part.minor is not None else (part.major + 1, 0)
            return [_Bound(">=", part.least), _Bound("<", _key(*high, 0, None, first=True))]
        case ">":
            return [_Bound(">", part.least)] if part.whole else [_Bound(">=", _next(part, first=False))]
        case "<=":
            return _below(part)
        case ">=":
            return [_Bound(">=", part.least)]
        case "<":
            if part.whole:
                return [_Bound("<", part.least)]
            return [_Bound("<", _key(part.major, part.minor or 0, 0, None, first=True))]
    if part.whole:
        return [_Bound("=", part.least)]
    return [_Bound(">=", part.least), _Bound("<", _next(part, first=True))]


def _below(part: _Part) -> list[_Bound]:
    """At most that."""
    if part.major is None:
        return []
    return [_Bound("<=", part.least)] if part.whole else [_Bound("<", _next(part, first=True))]


def _next(part: _Part, *, first: bool) -> _Key:
    """What comes after all that a part leaves open. `first`: its earliest prerelease."""
    assert part.major is not None
    if part.minor is None:
        return _key(part.major + 1, 0, 0, None, first=first)
    return _key(part.major, part.minor + 1, 0, None, first=first)


def _caret(part: _Part) -> _Key:
    assert part.major is not None
    if part.major or part.minor is None:
        return _key(part.major + 1, 0, 0, None, first=True)
    if part.minor or part.patch is None:
        return _key(0, part.minor + 1, 0, None, first=True)
    return _key(0, 0, part.patch + 1, None, first=True)


def _read(text: str) -> _Part:
    match = _PARTIAL.fullmatch(text)
    if match is None:
        raise Unreadable(text[:100])
    return _part(match)


def _part(match: re.Match[str]) -> _Part:
    numbers: list[int | None] = []
    for name in ("major", "minor", "patch"):
        said = match[name]
        open_ = said is None or said in "xX*" or None in numbers
        numbers.append(None if open_ else int(said))
    major, minor, patch = numbers
    return _Part(major, minor, patch, match["pre"] if patch is not None else None)


def _key(major: int, minor: int, patch: int, pre: str | None, *, first: bool = False) -> _Key:
    if first:
        return major, minor, patch, ()
    if pre is None:
        return major, minor, patch, (_LAST,)
    parts = tuple((0, int(one), "") if one.isdigit() else (1, 0, one) for one in pre.split("."))
    return major, minor, patch, parts
