"""What Caddy needs to prove that a domain is ours: the DNS provider's credentials, and a certificate authority's roots.

They are read from files that only their owner may read, and written where only Caddy may: never into its configuration,
an environment, a command line or a log.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vibed.cli.installation import replace
from vibed.config import Config, InvalidConfiguration
from vibed.layout import Layout

_NAME = re.compile(r"[a-z0-9_]{1,40}")


@dataclass(frozen=True, slots=True)
class Handed:
    """What was written for Caddy."""

    names: tuple[str, ...] = ()
    """Of the credentials, which are files in `layout.acme`."""
    digest: str = ""
    """Of all of it: a Caddy that read something else is replaced."""


def hand_to_caddy(config: Config, layout: Layout) -> Handed:
    """Write all of it for Caddy, and remove what was of another configuration. Raises InvalidConfiguration, OSError."""
    folder = layout.acme
    if not config.https:
        shutil.rmtree(folder, ignore_errors=True)
        return Handed()
    files: dict[str, str] = {}
    if config.dns_credentials is not None:
        # a mounted Secret is its pod's group's to read, and nobody else is in the pod
        files |= credentials(config.dns_credentials, shared=0o040 if config.substrate == "kubernetes" else 0)
    names = tuple(files)
    if config.acme_ca_roots is not None:
        files[layout.acme_roots.name] = _roots(config.acme_ca_roots)
    for path in folder.iterdir():
        if path.name not in files:
            path.unlink()
    digest = hashlib.sha256()
    for name, text in sorted(files.items()):
        replace(folder / name, text, 0o640, layout.uids.caddy)
        digest.update(f"{name}\0{text}\0".encode())
    return Handed(names, digest.hexdigest())


def credentials(path: Path, *, shared: int = 0) -> Mapping[str, str]:
    """What is in the file `dns_credentials`, by name. `shared`: bits of its mode that others than its owner may have.

    Raises InvalidConfiguration, which quotes nothing of it.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        told = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InvalidConfiguration(f"dns_credentials: {path} cannot be read: {told}") from error
    if not stat.S_ISREG(mode) or mode & 0o077 & ~shared:
        raise InvalidConfiguration(
            f"dns_credentials: {path} can be read by others than its owner", hint=f"chmod 600 {path}"
        )
    try:
        said = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        said = {}  # the error's words may quote a secret
    right = all(
        _NAME.fullmatch(name) and isinstance(value, str) and value and value.isprintable()
        for name, value in said.items()
    )
    if not said or not right:
        raise InvalidConfiguration(
            f'dns_credentials: {path} must have lines like api_token = "…", and nothing else',
            hint="their names are those of your provider's module of Caddy (docs/how-to/use-a-domain.md)",
        )
    return said


def _roots(path: Path) -> str:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfiguration(f"acme_ca_roots: {path} cannot be read: {error}") from error
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise InvalidConfiguration(f"acme_ca_roots: {path} has no certificate in PEM")
    return text
