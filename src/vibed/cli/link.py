"""A folder's link to its app: `.vibed/app.json`, so that `vibed` in a folder knows what is meant."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from vibed.apps.errors import VibedError

_FILE = Path(".vibed") / "app.json"


class Usage(VibedError):
    """The command was called in a way that cannot work."""

    code = "Usage"


@dataclass(frozen=True, slots=True)
class Link:
    """What a folder remembers of its last deploy."""

    app_id: str
    url: str
    """Of the API."""
    template: str | None = None
    entrypoint: str | None = None
    port: int | None = None
    warm: bool | None = None


def read_link(folder: Path, url: str) -> Link | None:
    """The link of `folder`, if it leads to the vibeD at `url`. Raises `Usage` when the file is damaged."""
    path = folder / _FILE
    try:
        content = json.loads(path.read_text())
        link = Link(**{name: content[name] for name in Link.__dataclass_fields__ if name in content})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise Usage(f"{path} cannot be read: {error}", hint="remove it to forget which app this folder is") from error
    return link if link.url == url else None


def write_link(folder: Path, link: Link) -> None:
    """Remember; the folder ignores itself in git."""
    path = folder / _FILE
    path.parent.mkdir(exist_ok=True)
    ignore = path.parent / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps({name: value for name, value in asdict(link).items() if value is not None}) + "\n")
    fresh.replace(path)


def app_or_linked(app: str | None, url: str) -> str:
    """The app that was named, or the one of the current folder. Raises `Usage`."""
    if app is not None:
        return app
    link = read_link(Path.cwd(), url)
    if link is None:
        raise Usage("name the app: this folder is not linked to one", hint="`vibed apps` lists your apps")
    return link.app_id
