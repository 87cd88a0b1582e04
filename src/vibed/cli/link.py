"""A folder's link to its app, so that `vibed` in a folder knows what is meant.

It is `.vibed/app.json` in the folder. A build clears the folder that it fills, so for `dist` and its like it is
`.vibed/dist/app.json` in the project around it.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from vibed.apps import ids
from vibed.apps.errors import VibedError

_HOME = ".vibed"
_FILE = "app.json"
_OUTPUTS = frozenset({"dist", "build", "out", "public", "www", "html", "site", "output", "target"})
_PROJECT = (
    ".git", "package.json", "pyproject.toml", "requirements.txt", "go.mod", "Cargo.toml", "deno.json", "hugo.toml",
    "mkdocs.yml", "_config.yml",
)  # fmt: skip
"""A folder with one of these is somebody's project."""


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


def is_output_name(name: str) -> bool:
    """Whether builds name the folder they fill like this (`_site` and `.output` too)."""
    return name.lstrip("._") in _OUTPUTS


def project_of(folder: Path) -> Path:
    """The folder that gives the app its name: the project around a build's output, else `folder` itself."""
    at = folder
    while is_output_name(at.name) and not _stands_alone(at):
        at = at.parent
    return folder if is_output_name(at.name) and not _is_project(at) else at


def _stands_alone(folder: Path) -> bool:
    return _is_shared(folder.parent) or (_is_project(folder) and not _is_project(folder.parent))


def _is_project(folder: Path) -> bool:
    return any((folder / name).exists() for name in _PROJECT)


def _is_shared(folder: Path) -> bool:
    """Whether unrelated things lie in it: the home folder, /, and what is right below / (/tmp, /var)."""
    if folder in (Path.home().resolve(), Path(folder.anchor)):
        return True
    return folder.parent == Path(folder.anchor) and not _is_project(folder)


def read_link(folder: Path, url: str) -> Link | None:
    """The link of `folder`, if it leads to the vibeD at `url`. Raises `Usage` when the file is damaged."""
    # The second is where earlier versions kept it for every folder.
    for path in (_path(folder), folder / _HOME / _FILE):
        link = _read(path)
        if link is not None and link.url == url:
            return link
    return None


def _path(folder: Path) -> Path:
    project = project_of(folder)
    return project / _HOME / folder.relative_to(project) / _FILE


def _read(path: Path) -> Link | None:
    try:
        content = json.loads(path.read_text())
        return Link(**{name: content[name] for name in Link.__dataclass_fields__ if name in content})
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError) as error:
        raise Usage(f"{path} cannot be read: {error}", hint="remove it to forget which app this folder is") from error


def write_link(folder: Path, link: Link) -> None:
    """Remember; what is written ignores itself in git. Raises `OSError`."""
    path = _path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    ignore = project_of(folder) / _HOME / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps({name: value for name, value in asdict(link).items() if value is not None}) + "\n")
    fresh.replace(path)


def app_or_linked(app: str | None, url: str) -> str:
    """The app that was named, or the one of the current folder or of its only build output. Raises `Usage`."""
    if app is not None:
        return ids.meant(app)
    here = Path.cwd()
    link = read_link(here, url)
    if link is not None:
        return link.app_id
    below = {link.app_id for path in (here / _HOME).glob(f"*/**/{_FILE}") if (link := _read(path)) and link.url == url}
    if len(below) == 1:
        return below.pop()
    raise Usage("name the app: this folder is not linked to one", hint="`vibed apps` lists your apps")
