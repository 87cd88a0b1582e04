"""What differs between a new version and the one before it, where that may not be meant."""

from __future__ import annotations

from vibed.apps.app import Runtime, Version

_KINDS = {
    "static": "a static site", "worker": "a worker", "python": "a Python app", "node": "a Node.js app",
    "go": "a Go app", "binary": "a program",
}  # fmt: skip


def differences(before: Version, runtime: Runtime) -> list[str]:
    """Notes for whoever deployed; empty when the new version is of the same kind and starts the same way."""
    was = before.runtime
    if was.kind != runtime.kind:
        return [
            f"this version is {_kind(runtime)}, and version {before.number} was {_kind(was)} ({_start(was)}): if that "
            "is not meant, files are missing; a source replaces all files unless only changed ones are sent"
        ]
    if was.entrypoint != runtime.entrypoint:
        return [f"another thing starts than in version {before.number}: {_start(runtime)}; it was {_start(was)}"]
    return []


def _kind(runtime: Runtime) -> str:
    return _KINDS.get(runtime.kind, runtime.kind)


def _start(runtime: Runtime) -> str:
    return f"`{runtime.entrypoint}`" if runtime.entrypoint else runtime.template
