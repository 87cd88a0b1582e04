"""What the Kubernetes API's refusals mean to who uses the app store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vibed.apps.errors import Conflict, NotFound, StoreUnavailable, VibedError
from vibed.cluster.errors import KubeConflict, KubeError, KubeInvalid
from vibed.cluster.kinds import Object

LARGEST = 1_300_000
"""Bytes of an object as JSON. etcd takes 1.5 MiB in one request, with what the API server adds (who wrote which field);
what it does not take is an unspecific 500."""


class AppTooLarge(VibedError):
    """What is to be kept of an app does not fit into one object of the cluster."""

    code = "AppTooLarge"
    status = 413


@contextmanager
def as_the_port_says() -> Iterator[None]:
    """Errors of the API as those of `vibed.apps.store.AppStore`. What the API finds invalid stays as it says it."""
    try:
        yield
    except KubeInvalid:
        raise
    except KubeConflict as error:
        raise Conflict("the app was changed by somebody else in between", hint="try again") from error
    except KubeError as error:
        raise StoreUnavailable(
            f"the app store cannot be used right now: {error.message}", hint=error.hint, details=error.extra
        ) from error


def no_app(app_id: str) -> NotFound:
    return NotFound(f"there is no app {app_id!r}", hint="list your apps to see their names")


def fits(body: Object, size: int, *, longest: int = LARGEST) -> Object:
    """The object, if its `size` (bytes as JSON) is one that the cluster takes. Raises `AppTooLarge`."""
    if size > longest:
        name = body["metadata"]["name"]
        raise AppTooLarge(
            f"what is kept of {name!r} takes {size:,} bytes, and the cluster keeps {longest:,} in one object",
            hint="variables and what is decided of the source are kept there: leave long values to files of the source",
            details={"bytes": size, "limit": longest},
        )
    return body
