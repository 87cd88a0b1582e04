"""Structured logs: JSON lines on standard output, on the standard library's `logging`.

    log = records.logger("vibed.controller")
    log.info("took over", serving=3)

A logging library would cost each process ten megabytes for this (structlog brings a console renderer along).
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar

_about: ContextVar[Mapping[str, object]] = ContextVar("about", default={})  # noqa: B039 (never changed in place)


class Logger:
    """Named facts beside a short event; `exception` adds the traceback of the error that is being handled."""

    def __init__(self, name: str) -> None:
        self._log = logging.getLogger(name)

    def debug(self, event: str, **facts: object) -> None:
        self._write(logging.DEBUG, event, facts)

    def info(self, event: str, **facts: object) -> None:
        self._write(logging.INFO, event, facts)

    def warning(self, event: str, **facts: object) -> None:
        self._write(logging.WARNING, event, facts)

    def error(self, event: str, **facts: object) -> None:
        self._write(logging.ERROR, event, facts)

    def exception(self, event: str, **facts: object) -> None:
        self._write(logging.ERROR, event, facts, trace=True)

    def _write(self, level: int, event: str, facts: dict[str, object], *, trace: bool = False) -> None:
        if self._log.isEnabledFor(level):
            self._log.log(level, "%s", event, extra={"facts": {**_about.get(), **facts}}, exc_info=trace)


def logger(name: str) -> Logger:
    """The logger of one part of vibeD."""
    return Logger(name)


@contextlib.contextmanager
def about(**facts: object) -> Iterator[None]:
    """Facts for every record that is written in this task meanwhile, such as the request that it serves."""
    token = _about.set({**_about.get(), **facts})
    try:
        yield
    finally:
        _about.reset(token)


class JsonLines(logging.Formatter):
    """One JSON object a record, for our own records and those of libraries."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def set_up(level: str) -> None:
    """Send everything of at least `level` to standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Their lines about each call say less than ours, several times.
    for name in ("mcp", "httpx", "httpcore", "uvicorn.access", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
