"""A source that is refused when it is to be run: it is read again, and may not be what it was taken for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vibed.sandboxes.driver import RunFailed
from vibed.sources.errors import ArchiveError


@contextmanager
def as_a_failed_run() -> Iterator[None]:
    """What `vibed.sources` says of an archive as what a driver says of a run: `RunFailed`, with the same code."""
    try:
        yield
    except ArchiveError as error:
        raise RunFailed(error.message, code=error.error_code, hint=error.hint) from error
