"""Reading the arguments of a call: strictly by name, forgiving where only one thing can be meant."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from vibed.apps import ids
from vibed.apps.errors import VibedError
from vibed.mcp.tool import Arguments

A = TypeVar("A", bound=Arguments)

_MEANT = {
    "env": "env_vars", "environment": "env_vars", "variables": "env_vars", "id": "artifact_id", "name": "artifact_id",
    "app": "artifact_id", "app_id": "artifact_id", "app_name": "name", "artifact": "artifact_id", "url": "artifact_id",
    "source": "files", "code": "files", "content": "files", "target": "template", "runtime": "template",
    "command": "entrypoint", "start": "entrypoint", "start_command": "entrypoint", "tail": "lines", "limit": "lines",
    "filter": "grep", "search": "grep", "delete_files": "remove_files", "wait": "wait_s", "timeout": "wait_s",
    "file": "paths", "path": "paths", "data": "body",
}  # fmt: skip
"""What other tools call it; a tool that has no such argument has another that is near."""
_NOT_BUILT = {"secret_refs": "secrets", "allowed_hosts": "egress rules"}


class Binary(BaseModel):
    """A file that is not text."""

    model_config = ConfigDict(extra="forbid")

    base64: str = Field(description="The bytes, base64")


Files = Annotated[
    dict[str, str | Binary],
    Field(
        description='Every file of the app by relative path, e.g. {"app.py": "…", "templates/index.html": "…"}. '
        'Text as it is; for binary files {"base64": "…"}'
    ),
]
ChangedFiles = Annotated[
    dict[str, str | Binary] | None,
    Field(description="Instead of files: just those that change or are new, whole; the others stay as they are"),
]
RemoveFiles = Annotated[
    list[str] | None, Field(max_length=1_000, description="Files, or folders with all below, that go; the others stay")
]
Folder = Annotated[
    str | None,
    Field(description="Instead of files: a folder on this machine (.gitignore and .vibedignore are respected)"),
]
ArtifactId = Annotated[
    str,
    BeforeValidator(lambda value: ids.meant(value) if isinstance(value, str) else value),
    Field(description="As deploy_artifact or list_artifacts gave it; its URL will do"),
]
Name = Annotated[str, Field(description="1 to 63 lower-case letters, digits and hyphens; part of the URL")]
Language = Annotated[
    str | None,
    Field(
        description="A hint (python, node, go, static, worker) that is used when the files do not tell by themselves"
    ),
]
EnvVars = Annotated[
    dict[str, str | None] | None,
    Field(description="Environment variables to set; of an app that is there, those not named stay, null removes one"),
]
Port = Annotated[int | None, Field(ge=1, le=65535, description="What PORT is set to; 8080 when left out")]
Entrypoint = Annotated[
    str | None, Field(description="What to start when it is not obvious, e.g. 'server.py' or 'uvicorn web:app'")
]
Template = Annotated[
    str | None, Field(description="A name from list_deployment_targets; found by itself when left out")
]


def parse(tool: str, arguments: type[A], given: Mapping[str, Any]) -> A:
    """The arguments of a call. Raises `VibedError` (`InvalidRequest`, `NotSupported`) with every problem by name."""
    known = arguments.model_fields
    for name, value in given.items():
        if name in known:
            continue
        if name in _NOT_BUILT:
            if value is None:
                continue
            raise VibedError(
                f"{name}: {_NOT_BUILT[name]} cannot be used yet", hint=f"leave {name} out", code="NotSupported",
                status=422, details={"field": name},
            )  # fmt: skip
        raise invalid(f"{tool} has no argument {name[:100]!r}{_near(name, list(known))}", _all(known), field=name)
    try:
        return arguments.model_validate({name: _meant(arguments, name, value) for name, value in given.items()
                                         if name in known})  # fmt: skip
    except ValidationError as error:
        raise _told(tool, list(known), error) from error


def invalid(message: str, hint: str, *, field: str | None = None) -> VibedError:
    """An argument that cannot be."""
    details: dict[str, object] = {} if field is None else {"field": field[:100]}
    return VibedError(message, hint=hint, code="InvalidRequest", status=422, details=details)


def _all(known: Mapping[str, Any]) -> str:
    return f"arguments: {', '.join(known)}"


def _near(name: str, known: list[str]) -> str:
    other = _MEANT.get(name.lower())
    near = [other] if other in known else difflib.get_close_matches(name, known, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _meant(arguments: type[Arguments], name: str, value: Any) -> Any:
    """A structure that came as its own JSON text, as some models send it."""
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    schema = arguments.model_json_schema()["properties"][name]
    kinds = {kind.get("type") for kind in schema.get("anyOf", [schema])}
    if "string" in kinds:
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _told(tool: str, known: list[str], error: ValidationError) -> VibedError:
    problems = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        # the parts of a path that name a type of a union say nothing to who wrote it
        place = [str(part) for part in item["loc"] if part not in ("str", "Binary", "constrained-str")]
        problems.append({"field": ".".join(place) or tool, "message": item["msg"]})
    first = problems[0]
    missing = [item["field"] for item, raw in zip(problems, error.errors(), strict=True) if raw["type"] == "missing"]
    if missing:
        message = f"{tool} needs {', '.join(missing)}"
    else:
        message = f"{first['field']}: {first['message'][:1].lower()}{first['message'][1:]}"
    return VibedError(
        message, hint=f"arguments: {', '.join(known)}", code="InvalidRequest", status=422,
        details={"field": first["field"], "errors": problems[:10]},
    )  # fmt: skip
