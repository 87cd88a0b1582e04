"""What uv has been told: its files and variables, which it has no command to list."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from vibed import records

log = records.logger("vibed.registries")


def uv_settings(environ: Mapping[str, str], home: Path) -> Mapping[str, Any]:
    """uv's settings by the names that its files have for them; `index` has those of its variables too."""
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    files = [Path("/etc/uv/uv.toml"), config / "uv" / "uv.toml"]
    if given := environ.get("UV_CONFIG_FILE"):
        files = [Path(given)]
    said: dict[str, Any] = {}
    for file in files:
        try:
            read = tomllib.loads(file.read_text())
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            log.warning("uv's settings cannot be read", file=str(file), error=str(error))
            continue
        said |= {**read.get("pip", {}), **read}
    if value := environ.get("UV_INDEX_URL"):
        said["index-url"] = value
    if value := environ.get("UV_EXTRA_INDEX_URL"):
        said["extra-index-url"] = value.split()
    if value := environ.get("UV_FIND_LINKS"):
        said["find-links"] = value.replace(",", " ").split()
    if value := environ.get("UV_INSECURE_HOST"):
        said["allow-insecure-host"] = value.split()
    said["index-strategy"] = environ.get("UV_INDEX_STRATEGY") or said.get("index-strategy")
    if environ.get("UV_NO_INDEX", "").lower() in ("1", "true", "yes", "on"):
        said["no-index"] = True
    said["index"] = _indexes(said, environ)
    return said


def _indexes(said: Mapping[str, Any], environ: Mapping[str, str]) -> list[dict[str, Any]]:
    given = [dict(one) for one in said.get("index") or () if isinstance(one, dict) and one.get("url")]
    named = [_named(word) for word in environ.get("UV_INDEX", "").split()]
    default = [{**_named(word), "default": True} for word in environ.get("UV_DEFAULT_INDEX", "").split()]
    found = [*named, *default, *given]
    for one in found:
        label = re.sub(r"[^A-Z0-9]", "_", str(one.get("name") or "").upper())
        user, password = (environ.get(f"UV_INDEX_{label}_{what}", "") for what in ("USERNAME", "PASSWORD"))
        parts = urlsplit(str(one["url"]))
        if label and (user or password) and "@" not in parts.netloc:
            one["url"] = urlunsplit(parts._replace(netloc=f"{user}:{password}@{parts.netloc}"))
    return found


def _named(word: str) -> dict[str, Any]:
    name, _, url = word.partition("=") if re.match(r"[\w-]+=\w+:", word) else ("", "", word)
    return {"name": name, "url": url}
