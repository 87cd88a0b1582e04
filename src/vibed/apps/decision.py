"""A decision (`vibed.apps.app.Runtime`) as JSON has it: what each store writes and reads.

Only what differs from its default is written. Read is whatever an earlier or a later vibeD wrote: what is missing has
its default, what is not known is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar

from vibed.apps.app import Build, Elsewhere, Install, Runtime, Start

T = TypeVar("T")


def as_json(decision: Runtime) -> dict[str, Any]:
    """The decision, without what has its default."""
    return _written(decision)


def of_json(said: Mapping[str, Any]) -> Runtime:
    """The decision that `said` says. Raises TypeError where what has no default is missing."""
    parts: dict[str, Any] = {}
    if said.get("start"):
        parts["start"] = _made(Start, said["start"], build=tuple(map(tuple, said["start"].get("build") or ())))
    for name, kind in (("install", Install), ("build", Build)):
        if said.get(name):
            parts[name] = _made(kind, said[name])
    if said.get("otherwise"):
        parts["otherwise"] = of_json(said["otherwise"])
    parts["elsewhere"] = tuple(
        _made(Elsewhere, other, install=_made(Install, other["install"]) if other.get("install") else None)
        for other in said.get("elsewhere") or ()
    )
    plain = {name: value for name, value in said.items() if name not in ("start", "install", "build", "otherwise")}
    return _made(Runtime, plain, **parts)


def _made(kind: type[T], said: Mapping[str, Any], **parts: Any) -> T:
    assert is_dataclass(kind)
    known = {field.name for field in fields(kind)}
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in said.items() if name in known}
    return kind(**(plain | parts))


def _written(thing: Any) -> dict[str, Any]:
    said = {}
    for field in fields(thing):
        value = getattr(thing, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if value != default:
            said[field.name] = _plain(value)
    return said


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return _written(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return value
