"""Where a client finds vibeD and with which key.

VIBED_URL and VIBED_TOKEN; else ~/.config/vibed/client.toml (`url`, `token`; 0600); else this machine's own vibeD, whose
admin key lies in VIBED_HOME.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from vibed.apps.errors import VibedError


class NoSettings(VibedError):
    """Nothing says where vibeD is or which key to use."""

    code = "Usage"


class NoKey(VibedError):
    """The URL is known, a key for it is not."""

    code = "Unauthorized"
    status = 401


@dataclass(frozen=True, slots=True)
class Settings:
    """How to reach an API."""

    url: str
    token: str
    connect: str | None = None
    """host:port to connect to when the URL's host is not to be looked up."""


def settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Raises `NoSettings`, `NoKey`."""
    url, token = environ.get("VIBED_URL"), environ.get("VIBED_TOKEN")
    if url and token:
        return Settings(_checked(url, "VIBED_URL"), token)
    file = _client_file(environ)
    kept = _from_file(file) if file.exists() else {}
    if url:
        if kept.get("url", "").rstrip("/") == url.rstrip("/") and kept.get("token"):
            return Settings(_checked(url, "VIBED_URL"), kept["token"])
        local = _local(environ)
        if local and url.rstrip("/") in (local.url, _told_locally(environ)):
            return local
        raise NoKey(f"there is no key for {url}", hint="set VIBED_TOKEN to a key of that vibeD")
    if kept:
        if not kept.get("url") or not (token or kept.get("token")):
            raise NoSettings(f"{file} must have `url` and `token`")
        return Settings(_checked(kept["url"], str(file)), token or kept["token"])
    local = _local(environ, token)
    if local is None:
        raise NoSettings(
            "there is no vibeD that this user can use",
            hint=f"start one with `vibed up`, or set VIBED_URL and VIBED_TOKEN (or write them to {file})",
        )
    return local


def _checked(url: str, where: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
        raise NoSettings(f"{where} is not the URL of a vibeD: {url!r}", hint="e.g. http://localhost:18080")
    return url.rstrip("/")


def _client_file(environ: Mapping[str, str]) -> Path:
    config = environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME") or Path.home()) / ".config"
    return Path(config) / "vibed" / "client.toml"


def _from_file(path: Path) -> dict[str, str]:
    try:
        if path.stat().st_mode & 0o077:
            raise NoSettings(f"{path} holds a key and others can read it", hint=f"chmod 600 {path}")
        content = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise NoSettings(f"{path} cannot be read: {error}") from error
    return {name: str(content[name]) for name in ("url", "token") if name in content}


def _told_locally(environ: Mapping[str, str]) -> str:
    """The address that this machine's vibeD tells everybody."""
    from vibed.config import load

    return load(environ).api_url


def _local(environ: Mapping[str, str], token: str | None = None) -> Settings | None:
    from vibed.config import load

    config = load(environ)
    if token is None:
        token = config.admin_key
    if token is None:
        try:
            token = (config.home / "admin.key").read_text().strip()
        except OSError:
            return None
    # with certificates too: the first of them may not be there yet
    return Settings(config.local_url, token, connect=config.local_address)
