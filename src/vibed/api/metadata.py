"""The `metadata` of a deploy: read strictly, so that nothing a client asks for is silently ignored."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from vibed.api.errors import InvalidRequest, MalformedRequest, NotSupported
from vibed.apps.app import Resources

LARGEST_METADATA = 256 * 1024
MOST_ENV = 256
LARGEST_ENV = 96 * 1024
MOST_PATHS = 1_000
"""Bytes of all names and values together; execve(2) takes at most 128 KiB for one string."""

NOT_BUILT = {
    "secrets": "secrets",
    "egress": "egress rules",
    "ttl": "expiry",
    "visibility": "visibility and sign-in",
    "data": "persistent data",
    "runtime.image": "images of one's own",
}
"""Fields of the contract that no code stands behind yet."""

LANES = ("fast", "general")

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_MEMORY = re.compile(r"(\d{1,9})\s*(|[KMG]i?)B?", re.IGNORECASE)
_MEMORY_UNITS = {"": 1 << 20, "k": 1000, "ki": 1 << 10, "m": 10**6, "mi": 1 << 20, "g": 10**9, "gi": 1 << 30}
DEPLOY = frozenset({"name", "runtime", "env", "env_mode", "resources", "if_exists", "if_same"})
REDEPLOY = frozenset({"runtime", "env", "env_mode", "resources", "if_same", "files", "remove_files"})
PATCH = frozenset({"env", "env_mode", "resources", "if_same"})
"""Fields that each kind of request may have."""


@dataclass(frozen=True, slots=True)
class Override:
    """What the user says about the runtime; None leaves it to the classifier."""

    lane: str | None = None
    template: str | None = None
    entrypoint: str | None = None
    port: int | None = None
    warm: bool | None = None
    """False: never in a process that has already imported what the app imports."""

    def __bool__(self) -> bool:
        return any(value is not None for value in (self.lane, self.template, self.entrypoint, self.port, self.warm))


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a deploy, redeploy or PATCH asks for; None means that nothing was said."""

    name: str | None = None
    override: Override = field(default_factory=Override)
    env: Mapping[str, str | None] | None = None
    """None as a value: the variable goes (only where env is merged)."""
    env_mode: Literal["replace", "merge"] = "replace"
    resources: Resources | None = None
    if_exists: Literal["update", "fail"] = "update"
    if_same: Literal["deploy", "keep"] = "deploy"
    """keep: when nothing of the app would be different, no version is made."""
    files: Literal["replace", "merge"] = "replace"
    """merge: the source has only the files that change."""
    remove_files: tuple[str, ...] = ()

    def env_after(self, before: Mapping[str, str]) -> Mapping[str, str]:
        """The variables of the new version. Raises `InvalidRequest` when they are too many together."""
        if self.env is None:
            return before
        env = {**(before if self.env_mode == "merge" else {}), **self.env}
        kept = {name: value for name, value in env.items() if value is not None}
        _bounded(kept)
        return kept


def parse(text: bytes) -> dict[str, Any]:
    """The JSON object in `text`. Raises `MalformedRequest`."""
    try:
        raw = json.loads(text or b"{}", object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise MalformedRequest(f"the metadata is not JSON: {error}", hint='e.g. {"name": "my-app"}') from error
    if not isinstance(raw, dict):
        raise MalformedRequest("the metadata must be a JSON object", hint='e.g. {"name": "my-app"}')
    return raw


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key occurs twice")
    return result


def read(raw: Mapping[str, Any], *, allowed: frozenset[str] = DEPLOY) -> Metadata:
    """Check every field. Raises `NotSupported`, `InvalidRequest`; each names the field."""
    _known("", raw, allowed)
    name = _text(raw, "name", "name")
    env_mode = _one_of(raw, "env_mode", "replace", "merge")
    return Metadata(
        name=name,
        override=_override(raw.get("runtime")),
        env=_env(raw["env"], nulls=env_mode == "merge") if raw.get("env") is not None else None,
        env_mode=env_mode,
        resources=_resources(raw["resources"]) if raw.get("resources") is not None else None,
        if_exists=_one_of(raw, "if_exists", "update", "fail"),
        if_same=_one_of(raw, "if_same", "deploy", "keep"),
        files=_one_of(raw, "files", "replace", "merge"),
        remove_files=_paths(raw.get("remove_files")),
    )


def _one_of(raw: Mapping[str, Any], key: str, usual: str, other: str) -> Any:
    value = raw.get(key)
    if value is None:
        return usual
    if value not in (usual, other):
        raise _invalid(key, f"must be {usual!r} or {other!r}")
    return value


def _paths(raw: object) -> tuple[str, ...]:
    if raw is None:
        return ()
    if not isinstance(raw, list) or not all(isinstance(path, str) and path.strip() for path in raw):
        raise _invalid("remove_files", "must be a list of paths", 'e.g. ["old.html"]')
    if len(raw) > MOST_PATHS or any(len(path) > 4096 for path in raw):
        raise _invalid("remove_files", f"may name at most {MOST_PATHS} paths of 4096 characters")
    return tuple(raw)


def _invalid(field_name: str, problem: str, hint: str | None = None) -> InvalidRequest:
    return InvalidRequest(
        f"{field_name} {problem}",
        hint=hint,
        details={"field": field_name, "errors": [{"field": field_name, "message": problem}]},
    )


def _known(prefix: str, raw: Mapping[str, Any], known: frozenset[str]) -> None:
    for key, value in raw.items():
        path = f"{prefix}{key}"
        if path in NOT_BUILT:
            # A null says nothing, and generated clients send it for every optional field.
            if value is not None:
                raise NotSupported(
                    f"{path}: {NOT_BUILT[path]} cannot be used yet",
                    hint=f"leave {path} out",
                    details={"field": path},
                )
        elif key not in known:
            raise _invalid(path[:100], "is not a field that vibeD knows", f"known: {', '.join(sorted(known))}")


def _text(raw: Mapping[str, Any], key: str, path: str, *, longest: int = 1024) -> str | None:
    value = raw.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise _invalid(path, "must be a text that is not empty")
    if len(value) > longest or "\0" in value:
        raise _invalid(path, f"must have at most {longest} characters and no NUL")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _invalid(path, "is not valid Unicode") from error
    return value


def _override(raw: object) -> Override:
    if raw is None:
        return Override()
    if not isinstance(raw, dict):
        raise _invalid("runtime", "must be an object")
    _known("runtime.", raw, frozenset({"lane", "template", "entrypoint", "port", "warm"}))
    lane = _text(raw, "lane", "runtime.lane")
    if lane is not None and lane not in LANES:
        raise _invalid("runtime.lane", f"must be one of {', '.join(LANES)}")
    port = raw.get("port")
    if port is not None and (not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65_535):
        raise _invalid("runtime.port", "must be a whole number between 1 and 65535")
    warm = raw.get("warm")
    if warm is not None and not isinstance(warm, bool):
        raise _invalid("runtime.warm", "must be true or false")
    return Override(
        warm=warm,
        lane=lane,
        template=_text(raw, "template", "runtime.template", longest=63),
        entrypoint=_text(raw, "entrypoint", "runtime.entrypoint"),
        port=port,
    )


def _env(raw: object, *, nulls: bool) -> dict[str, str | None]:
    if not isinstance(raw, list):
        raise _invalid("env", "must be a list of {name, value}", 'e.g. [{"name": "DEBUG", "value": "1"}]')
    if len(raw) > MOST_ENV:
        raise _invalid("env", f"may have at most {MOST_ENV} variables")
    env: dict[str, str | None] = {}
    for number, item in enumerate(raw):
        path = f"env[{number}]"
        if not isinstance(item, dict) or set(item) != {"name", "value"}:
            raise _invalid(path, "must be {name, value} and nothing else")
        name, value = item["name"], item["value"]
        if not isinstance(name, str) or not _ENV_NAME.fullmatch(name):
            raise _invalid(f"{path}.name", "must be letters, digits and _, not starting with a digit")
        if value is None and nulls:
            pass
        elif not isinstance(value, str) or "\0" in value:
            raise _invalid(f"{path}.value", "must be a text without NUL", 'write numbers as text: "8"')
        if name in env:
            raise _invalid(f"{path}.name", f"{name!r} occurs twice")
        env[name] = value
    _bounded({name: value for name, value in env.items() if value is not None})
    return env


def _bounded(env: Mapping[str, str]) -> None:
    if len(env) > MOST_ENV:
        raise _invalid("env", f"may have at most {MOST_ENV} variables")
    if sum(len(name.encode()) + len(value.encode("utf-8", "replace")) for name, value in env.items()) > LARGEST_ENV:
        raise _invalid("env", f"may have at most {LARGEST_ENV // 1024} KiB in all")
    try:
        for value in env.values():
            value.encode()
    except UnicodeEncodeError as error:
        raise _invalid("env", "has a value that is not valid Unicode") from error


def _resources(raw: object) -> Resources:
    if not isinstance(raw, dict):
        raise _invalid("resources", "must be an object")
    _known("resources.", raw, frozenset({"cpu", "memory"}))
    return Resources(cpu=_cpu(raw.get("cpu")), memory_mb=_memory(raw.get("memory")))


def _cpu(raw: object) -> float | None:
    if raw is None:
        return None
    value: float | None = None
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        value = raw
    elif isinstance(raw, str) and re.fullmatch(r"\d{1,6}m|\d{1,3}(\.\d{1,3})?", raw):
        value = int(raw[:-1]) / 1000 if raw.endswith("m") else float(raw)
    if value is None or not 0.05 <= value <= 64:
        raise _invalid("resources.cpu", "must be cores between 0.05 and 64", 'e.g. 0.5 or "500m"')
    # Not before: a whole number may be larger than any float.
    return float(value)


def _memory(raw: object) -> int | None:
    if raw is None:
        return None
    match = _MEMORY.fullmatch(str(raw).strip()) if isinstance(raw, int | str) and not isinstance(raw, bool) else None
    megabytes = int(match[1]) * _MEMORY_UNITS[match[2].lower()] >> 20 if match else 0
    if not 16 <= megabytes <= 65_536:
        raise _invalid("resources.memory", "must be between 16 MiB and 64 GiB", 'e.g. "512Mi", or a number of MiB')
    return megabytes
