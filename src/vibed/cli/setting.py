"""One top-level key of `vibed.toml`, set in place: what else is in the file, comments included, stays as it is."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from vibed.config import default_home


def keep(name: str, value: str, environ: Mapping[str, str] = os.environ) -> Path:
    """Write `name = "value"` into the configuration file, which is made where there is none. Raises OSError."""
    path = Path(environ["VIBED_CONFIG"]) if "VIBED_CONFIG" in environ else default_home(environ) / "vibed.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_text() if path.exists() else ""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(with_key(text, name, value))
    fresh.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
    fresh.replace(path)
    return path


def with_key(text: str, name: str, value: str) -> str:
    """The content of a configuration file with a key of it set."""
    line = f"{name} = {json.dumps(value)}"
    table = re.search(r"^\s*\[", text, re.MULTILINE)
    top, rest = (text[: table.start()], text[table.start() :]) if table else (text, "")
    given = re.compile(rf"^{re.escape(name)}\s*=.*$", re.MULTILINE)
    if given.search(top):
        return given.sub(lambda _: line, top, count=1) + rest
    return f"{line}\n{text}"
