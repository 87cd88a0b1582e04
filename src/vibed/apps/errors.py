"""The base of every error that leaves vibeD.

An error is raised where the fact is known, with a code that clients may match on, and is translated once at the
edge (HTTP body, MCP result, CLI message). It says what is wrong, whether retrying helps and what to change.
"""

from __future__ import annotations

from typing import ClassVar


class VibedError(Exception):
    """An error with a stable code.

    `message` says what is wrong; `hint` what to change; `retryable` whether the same request can succeed later.
    Subclasses set the class attributes; an instance may override them where one class serves several codes.
    """

    code: ClassVar[str] = "Internal"
    status: ClassVar[int] = 400
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        details: dict[str, object] | None = None,
        code: str | None = None,
        status: int | None = None,
        retryable: bool | None = None,
    ) -> None:
        # Errors name what clients sent: half a surrogate pair in it (JSON can have one) must not keep the answer from
        # being encoded.
        self.message = _encodable(message)
        self.hint = None if hint is None else _encodable(hint)
        self.extra = {_encodable(name): _encodable_within(value) for name, value in (details or {}).items()}
        super().__init__(self.message)
        self._code = code
        self._status = status
        self._retryable = retryable

    @property
    def error_code(self) -> str:
        """The stable CamelCase code of this instance."""
        return self._code or type(self).code

    @property
    def http_status(self) -> int:
        """The HTTP status that the API answers with."""
        return self._status or type(self).status

    @property
    def may_retry(self) -> bool:
        """Whether the same request can succeed later without a change."""
        return type(self).retryable if self._retryable is None else self._retryable

    def body(self) -> dict[str, object]:
        """The error as the API's `{code, message, details}`."""
        details: dict[str, object] = {"retryable": self.may_retry, **self.extra}
        if self.hint:
            details["hint"] = self.hint
        return {"code": self.error_code, "message": self.message, "details": details}


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _encodable_within(value: object) -> object:
    match value:
        case str():
            return _encodable(value)
        case dict():
            return {_encodable_within(name): _encodable_within(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_encodable_within(inner) for inner in value]
    return value


class NotFound(VibedError):
    """The app (or version) does not exist for this caller."""

    code = "NotFound"
    status = 404


class NameTaken(VibedError):
    """The name belongs to another owner; nothing is told about who."""

    code = "NameTaken"
    status = 409


class AlreadyExists(VibedError):
    """The caller has an app of that name and asked that an existing one is not updated."""

    code = "AlreadyExists"
    status = 409


class Conflict(VibedError):
    """Somebody else changed the app in between (optimistic concurrency)."""

    code = "Conflict"
    status = 409
    retryable = True


class IdempotencyMismatch(VibedError):
    """An Idempotency-Key was used again with a different request."""

    code = "IdempotencyMismatch"
    status = 422


class InvalidName(VibedError):
    """A name that cannot be a DNS label, or is reserved."""

    code = "InvalidName"
    status = 422


class StoreUnavailable(VibedError):
    """The app store cannot be written (disk full, file damaged, locked for too long)."""

    code = "StoreUnavailable"
    status = 503
    retryable = True
