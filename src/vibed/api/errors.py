"""Errors that only the API's edge can raise; everything else comes from where the fact is known."""

from __future__ import annotations

from collections.abc import Collection

from vibed.apps.errors import VibedError


class Unauthorized(VibedError):
    """No key, or none that vibeD knows."""

    code = "Unauthorized"
    status = 401


class TooManyAttempts(VibedError):
    """Too many wrong keys from one address; a right key is never held up by it."""

    code = "TooManyAttempts"
    status = 429
    retryable = True


class TooManyAtOnce(VibedError):
    """One key has as many requests, uploads or streams open as it may have."""

    code = "TooManyAtOnce"
    status = 429
    retryable = True


class Forbidden(VibedError):
    """The key is good but is not allowed to do this."""

    code = "Forbidden"
    status = 403


class CrossOrigin(VibedError):
    """The call comes from a page of another origin: apps are sibling origins of the API and must not use it."""

    code = "CrossOrigin"
    status = 403


class Misdirected(VibedError):
    """The Host header names something else than this API."""

    code = "Misdirected"
    status = 421


class MalformedRequest(VibedError):
    """The request's framing (multipart, JSON, a header) cannot be read."""

    code = "MalformedRequest"
    status = 400


class InvalidRequest(VibedError):
    """A field or parameter has a value that cannot be; `details.errors` lists each one."""

    code = "InvalidRequest"
    status = 422


class MetadataMissing(VibedError):
    """A deploy came without its `metadata` part."""

    code = "MetadataMissing"
    status = 400


class SourceRequired(VibedError):
    """A deploy came without its `source` part."""

    code = "SourceRequired"
    status = 400


class NotSupported(VibedError):
    """Something that vibeD will have but has not yet: refused by name, never ignored."""

    code = "NotSupported"
    status = 422


class BodyTooLarge(VibedError):
    """The request has more bytes than its route takes; nothing of it was kept."""

    code = "BodyTooLarge"
    status = 413


class UploadTimeout(VibedError):
    """The client stopped sending in the middle of its body, or sent it too slowly."""

    code = "UploadTimeout"
    status = 408
    retryable = True


class MethodNotAllowed(VibedError):
    """The route exists, the method on it does not."""

    code = "MethodNotAllowed"
    status = 405

    def __init__(self, method: str, path: str, allowed: Collection[str]) -> None:
        self.allowed = sorted(allowed)
        super().__init__(
            f"{method[:20]} is not possible at {path[:200]}", hint=f"possible: {', '.join(self.allowed) or 'nothing'}"
        )


class NotReady(VibedError):
    """vibeD cannot take deploys right now; `details.checks` says what is wrong."""

    code = "NotReady"
    status = 503
    retryable = True
