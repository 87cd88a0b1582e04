"""Whether a version is in a range, as npm reads it (`^1.2`, `~1.2.3`, `>=1 <3`, `1.x`, `1 - 2`, `||`)."""

from __future__ import annotations

import re

_PARTIAL = r"[v=\s]*(\d{1,9}|[xX*])?(?:\.(\d{1,9}|[xX*]))?(?:\.(\d{1,9}|[xX*]))?(-[\w.-]+)?(?:\+[\w.-]+)?"
_VERSION = re.compile(_PARTIAL)
_HYPHEN = re.compile(r"^\s*(\S+)\s+-\s+(\S+)\s*$")
_COMPARATOR = re.compile(r"(\^|~>?|>=|<=|>|<|=)?\s*(v?[\dxX*][\w.+*-]*)")
_RANGE = re.compile(r"^[\s\w^~<>=.x*|+-]*$")
_END = 1 << 40

Numbers = tuple[int, int, int]


def is_range(text: str) -> bool:
    """Whether it is a range of versions at all, rather than a tag, an address or a folder."""
    text = text.strip()
    return bool(_RANGE.match(text)) and (text in ("", "*") or bool(re.match(r"^[\s^~<>=v]*[\dxX*]", text)))


def allows(text: str, version: str) -> bool:
    """Whether a range has a version; a tag (`latest`) has every one. Pre-releases are only had by their own name."""
    if text.strip() in ("", "*", "x", "X", "latest") or not is_range(text):
        return True
    numbers, tail = _read(version)
    if tail:
        return version.strip() == text.strip()
    exact: Numbers = (numbers[0] or 0, numbers[1] or 0, numbers[2] or 0)
    return any(_in_all(part, exact) for part in text.split("||"))


def _in_all(part: str, version: Numbers) -> bool:
    if hyphen := _HYPHEN.match(part):
        return _in(">=", hyphen[1], version) and _in("<=", hyphen[2], version)
    comparators = _COMPARATOR.findall(part)
    return all(_in(operator, text, version) for operator, text in comparators)


def _in(operator: str, text: str, version: Numbers) -> bool:
    numbers, tail = _read(text)
    low, high = _span(numbers)
    match operator:
        case ">=":
            return version >= low
        case ">":
            return version > low if tail else version >= high
        case "<":
            return version < low
        case "<=":
            return version < high
        case "~" | "~>":
            high = _span((numbers[0], numbers[1], None))[1]
        case "^":
            at = next((i for i, number in enumerate(numbers) if number), None)
            if at is None:
                # ^0 is 0.x, ^0.0 is 0.0.x, ^0.0.0 is itself
                at = max((i for i, number in enumerate(numbers) if number is not None), default=0)
            high = _span((*numbers[: at + 1], *([None] * (2 - at))))[1]
    return low <= version < high


def _span(numbers: tuple[int | None, ...]) -> tuple[Numbers, Numbers]:
    """The first version that begins so, and the first that is after all which do."""
    low = [number or 0 for number in numbers]
    at = next((i for i, number in enumerate(numbers) if number is None), 3)
    if at == 0:
        return (0, 0, 0), (_END, 0, 0)
    high = [*low[: at - 1], low[at - 1] + 1, 0, 0][:3]
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])


def _read(text: str) -> tuple[tuple[int | None, int | None, int | None], str]:
    match = _VERSION.match(text)
    if match is None:
        return (None, None, None), ""
    first, second, third = (int(part) if part and part.isdigit() else None for part in match.groups()[:3])
    return (first, second, third), match[4] or ""
