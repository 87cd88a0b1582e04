"""Making a source from a folder (CLI) or from files in memory (MCP): the same input gives the same bytes.

What is left out: `.git`, dependencies that a package manager installed, caches, and what `.gitignore` and
`.vibedignore` say. Both have git's syntax, may be in any folder, and later ones win; `.vibedignore` wins over
`.gitignore`, so `!dist/` in it brings back a build's output that git ignores. As in git, `.gitignore` says nothing
about what is tracked all the same. Private keys and the credentials of command-line tools are never sent, whatever is
asked for."""

from __future__ import annotations

import io
import os
import re
import stat
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from pathspec import GitIgnoreSpec

from vibed.apps.errors import VibedError
from vibed.sources.errors import (
    BadName,
    DanglingLink,
    DirectoryLink,
    EmptyArchive,
    LinkOutside,
    TooLarge,
    TooManyFiles,
    quoted,
)
from vibed.sources.headers import clean_path
from vibed.sources.inflate import size_text
from vibed.sources.limits import DEFAULT_LIMITS, ArchiveLimits
from vibed.sources.links import of_a_tool
from vibed.sources.tracked import tracked

_NEVER = frozenset({".git", ".hg", ".svn", ".vibed", ".DS_Store", "__MACOSX"})
_DEFAULTS = GitIgnoreSpec.from_lines(
    [
        "node_modules/", "__pycache__/", "*.py[co]", ".pytest_cache/", ".mypy_cache/", ".ruff_cache/", ".tox/", ".nox/",
        ".ipynb_checkpoints/", ".next/cache/", ".parcel-cache/", ".turbo/", ".wrangler/", "._*", "Thumbs.db", "*.swp",
    ]
)  # fmt: skip
_SECRET_FOLDERS = frozenset({".ssh", ".aws", ".gnupg"})
_SECRET_FILES = frozenset({"id_rsa", "id_dsa", "id_ecdsa", "id_ed25519"})
_KEY_FILES = (".pem", ".key", ".ppk")
_PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----|^PuTTY-User-Key-File-")
_PROGRAMS = (b"#!", b"\x7fELF")
_IGNORE_FILES = (".gitignore", ".vibedignore")
_UNKNOWN_LIMIT = 10
"""How many times the usual size a source may become when nobody knows what the vibeD takes."""


class PackError(VibedError):
    """The folder cannot be packed."""

    code = "PackFailed"


class Why(StrEnum):
    """Why something was left out."""

    GITIGNORE = ".gitignore"
    VIBEDIGNORE = ".vibedignore"
    PACKAGES = "installed packages"
    SECRET = "private keys and credentials"
    NEVER = "caches and version control"
    LINK = "links of tools"


@dataclass(frozen=True, slots=True)
class Packed:
    """What was put into a source."""

    files: int
    expanded: int
    """Bytes before compression."""
    compressed: int
    skipped: Mapping[str, Why] = field(default_factory=dict)
    """What was left out: paths, folders with a slash."""
    heaviest: tuple[tuple[str, int], ...] = ()
    """The largest files or folders, and their bytes before compression."""

    def left_out(self, why: Why) -> list[str]:
        """The paths that were left out for this reason."""
        return [path for path, reason in self.skipped.items() if reason is why]


def pack_directory(
    root: Path,
    out: BinaryIO,
    limits: ArchiveLimits = DEFAULT_LIMITS,
    *,
    ask_limit: Callable[[], int | None] = lambda: None,
) -> Packed:
    """Write the folder `root` to `out` as a source.

    Links to files inside the folder become copies. `ask_limit` is called at most once, when the source becomes larger
    than `limits` has it: the bytes that the vibeD really takes. Raises `LinkOutside` for links that leave the folder,
    `DirectoryLink` for links to folders, `BadName`, `PathTooLong`, `TooManyFiles`, `TooLarge`, `EmptyArchive`,
    `PackError` (not a folder, unreadable, a socket)."""
    if not root.is_dir():
        raise PackError(f"{quoted(str(root))} is not a folder", hint="give the folder that holds the app")
    walk = _Walk(root.resolve(), limits)
    walk.directory("", [])
    if not walk.found:
        raise EmptyArchive(
            f"there is no file to deploy in {quoted(str(root))}",
            hint="everything in it is ignored; bring files back with !NAME in .vibedignore" if walk.skipped else None,
        )
    heaviest = _heaviest({name: size for name, (_, _, size) in walk.found.items()})
    expanded = 0
    with Writing(out, _Bound(limits.compressed, ask_limit, heaviest).check) as writing:
        for name in sorted(walk.found):
            path, mode, _ = walk.found[name]
            try:
                with path.open("rb") as file:
                    size = os.fstat(file.fileno()).st_size
                    writing.add(name, size, mode, file)
            except OSError as error:
                raise PackError(f"{quoted(name)} cannot be read: {error.strerror}") from error
            expanded += size
        compressed = writing.close()
    return Packed(len(walk.found), expanded, compressed, dict(sorted(walk.skipped.items())), heaviest)


def has_home(folder: Path) -> bool:
    """Whether a folder is the user's home or has it, or looks like somebody's: more than an app lies there."""
    return Path.home().resolve().is_relative_to(folder.resolve()) or (folder / ".ssh").is_dir()


def pack_files(files: Mapping[str, str | bytes], limits: ArchiveLimits = DEFAULT_LIMITS) -> bytes:
    """A source from file contents by relative path. Raises the errors of names, `DuplicateName` aside, and
    `EmptyArchive`."""
    if not files:
        raise EmptyArchive("no files were given", hint="give at least one file, for example index.html or app.py")
    if len(files) > limits.files:
        raise TooManyFiles(f"{len(files):,} files were given; at most {limits.files:,} are accepted")
    cleaned: dict[str, bytes] = {}
    for name, content in files.items():
        path = clean_path(name.encode("utf-8", "surrogatepass"), limits)
        if not path or path in cleaned:
            raise BadName(f"the name {quoted(name)} is {'given twice' if path else 'not that of a file'}")
        try:
            cleaned[path] = content.encode() if isinstance(content, str) else content
        except UnicodeEncodeError:
            raise BadName(f"the content of {quoted(name)} is not valid text", hint="send it as bytes") from None
    out = io.BytesIO()
    with Writing(out) as writing:
        for path in sorted(cleaned):
            content = cleaned[path]
            writing.add(path, len(content), 0o755 if content.startswith(_PROGRAMS) else 0o644, io.BytesIO(content))
        writing.close()
    return out.getvalue()


class _Walk:
    """Finds what is to be packed."""

    def __init__(self, root: Path, limits: ArchiveLimits) -> None:
        self._root = root
        self._limits = limits
        self.found: dict[str, tuple[Path, int, int]] = {}
        """Where it is, its mode and its size by name."""
        self.skipped: dict[str, Why] = {}

    @cached_property
    def _tracked(self) -> frozenset[str]:
        """What git tracks, and the folders that this lies in."""
        files = tracked(self._root)
        return files | {f"{name[:at]}/" for name in files for at, letter in enumerate(name) if letter == "/"}

    def directory(self, at: str, rules: list[tuple[str, GitIgnoreSpec, bool]]) -> None:
        """Walk the folder `at` (ends with `/` unless it is the root). `rules`: (folder, spec, strong), outermost
        first."""
        path = self._root / at
        try:
            children = sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError as error:
            raise PackError(f"the folder {quoted(at or '.')} cannot be read: {error.strerror}") from error
        names = {entry.name for entry in children}
        rules = [*rules]
        for name in _IGNORE_FILES:
            if name in names:
                rules.append((at, _spec(path / name), name == ".vibedignore"))
        for entry in children:
            name = at + entry.name
            if entry.name in _NEVER:
                self.skipped[name] = Why.NEVER
                continue
            try:
                self._child(entry, name, rules)
            except OSError as error:
                raise PackError(f"{quoted(name)} cannot be read: {error.strerror}") from error

    def _child(self, entry: os.DirEntry[str], name: str, rules: list[tuple[str, GitIgnoreSpec, bool]]) -> None:
        folder = entry.is_dir(follow_symlinks=False)
        shown = name + "/" if folder else name
        why = _ignored(shown, rules)
        if why is Why.GITIGNORE and shown in self._tracked:
            why = None
        if why is None and _is_secret(entry, name, folder=folder):
            why = Why.SECRET
        elif folder and why is not Why.VIBEDIGNORE and Path(entry.path, "pyvenv.cfg").exists():
            why = Why.PACKAGES
        if why is not None:
            self.skipped[shown] = why
            return
        if folder:
            self.directory(shown, rules)
            return
        try:
            info = self._link(entry, name) if entry.is_symlink() else entry.stat(follow_symlinks=False)
        except (DanglingLink, LinkOutside, DirectoryLink) as error:
            if not of_a_tool(name, to_folder=isinstance(error, DirectoryLink)):
                raise
            self.skipped[name] = Why.LINK
            return
        if not stat.S_ISREG(info.st_mode):
            raise PackError(f"{quoted(name)} is not a regular file", hint="add it to .vibedignore")
        clean_path(os.fsencode(name), self._limits)
        self.found[name] = (Path(entry.path), 0o755 if info.st_mode & 0o100 else 0o644, info.st_size)
        if len(self.found) > self._limits.files:
            raise TooManyFiles(
                f"there are more than {self._limits.files:,} files in the folder",
                hint="leave out what the app does not need with .vibedignore",
            )

    def _link(self, entry: os.DirEntry[str], name: str) -> os.stat_result:
        try:
            end = Path(entry.path).resolve(strict=True)
        except (OSError, RuntimeError):
            raise DanglingLink(f"the link {quoted(name)} points at nothing", hint="add it to .vibedignore") from None
        if not end.is_relative_to(self._root):
            raise LinkOutside(
                f"the link {quoted(name)} points out of the folder", hint="add it to .vibedignore, or copy"
            )
        if end.is_dir():
            raise DirectoryLink(f"the link {quoted(name)} points at a folder", hint="add it to .vibedignore, or copy")
        return end.stat()


def _spec(path: Path) -> GitIgnoreSpec:
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError as error:
        raise PackError(f"{quoted(path.name)} cannot be read: {error.strerror}") from error
    kept = []
    for line in lines:
        if line.rstrip().endswith("/**"):
            # In git `a/**` is all that is in `a` and not `a` itself; pathspec takes the folder for a part of it.
            line = line.rstrip() + "/*"
        try:
            GitIgnoreSpec.from_lines([line])
        except ValueError:
            continue  # git ignores what it cannot read, too
        kept.append(line)
    return GitIgnoreSpec.from_lines(kept)


def _ignored(name: str, rules: list[tuple[str, GitIgnoreSpec, bool]]) -> Why | None:
    default = None
    if _DEFAULTS.check_file(name).include:
        default = Why.PACKAGES if name.endswith("node_modules/") else Why.NEVER
    for strong in (True, False):
        for base, spec, is_strong in reversed(rules):
            if is_strong is strong:
                found = spec.check_file(name[len(base) :]).include
                if found is not None:
                    return (Why.VIBEDIGNORE if strong else default or Why.GITIGNORE) if found else None
    return default


def _is_secret(entry: os.DirEntry[str], name: str, *, folder: bool) -> bool:
    if folder:
        return entry.name in _SECRET_FOLDERS or f"/{name}".endswith("/.config/gcloud")
    if entry.name in _SECRET_FILES:
        return True
    if not entry.name.lower().endswith(_KEY_FILES) or not entry.is_file():
        return False
    with Path(entry.path).open("rb") as file:
        return _PRIVATE_KEY.search(file.read(65_536)) is not None


def _heaviest(sizes: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """The three largest files or folders; a folder that has nearly everything stands for nothing, so what is in it."""
    at = ""
    while True:
        totals: Counter[str] = Counter()
        for name, size in sizes.items():
            if name.startswith(at):
                head, slash, _ = name[len(at) :].partition("/")
                totals[f"{at}{head}{slash}"] += size
        found = totals.most_common(3)
        if not found[0][0].endswith("/") or found[0][1] < 0.9 * totals.total():
            return tuple(found)
        at = found[0][0]


def largest_text(heaviest: tuple[tuple[str, int], ...]) -> str:
    """For a message: what to leave out first."""
    return ", ".join(f"{quoted(name)} ({size_text(size)})" for name, size in heaviest)


class _Bound:
    """How large a source may become."""

    def __init__(self, usual: int, ask: Callable[[], int | None], heaviest: tuple[tuple[str, int], ...]) -> None:
        self._bound = usual
        self._ask: Callable[[], int | None] | None = ask
        self._heaviest = heaviest

    def check(self, size: int) -> None:
        """Raises `TooLarge`."""
        if size > self._bound and self._ask is not None:
            asked, self._ask = self._ask(), None
            self._bound = self._bound * _UNKNOWN_LIMIT if asked is None else asked
        if size > self._bound:
            raise TooLarge(
                f"the folder has more than {self._bound / 1e6:g} MB compressed, which is the most that is accepted",
                hint=(
                    f"leave out what the app does not need with .vibedignore; the largest, before compression: "
                    f"{largest_text(self._heaviest)}"
                ),
                details={"limit_bytes": self._bound, "largest": dict(self._heaviest)},
            )


class Writing:
    """A gzipped tar without anything that depends on the machine, the user or the time."""

    def __init__(self, out: BinaryIO, check: Callable[[int], None] = lambda size: None) -> None:
        self._gzip = _Gzip(out, check)
        self._tar = tarfile.open(fileobj=self._gzip, mode="w|", format=tarfile.PAX_FORMAT)  # type: ignore[call-overload]  # noqa: SIM115

    def __enter__(self) -> Writing:
        return self

    def __exit__(self, *error: object) -> None:
        self._gzip.ended = True

    def add(self, name: str, size: int, mode: int, content: BinaryIO) -> None:
        info = tarfile.TarInfo(name)
        info.size = size
        info.mode = mode
        self._tar.addfile(info, content)

    def close(self) -> int:
        self._tar.close()
        return self._gzip.close()


class _Gzip:
    """The write side of a gzip stream: header without name and time. `check` is told the size as it grows."""

    def __init__(self, out: BinaryIO, check: Callable[[int], None]) -> None:
        self._out = out
        self._check = check
        self._deflate = zlib.compressobj(6, zlib.DEFLATED, 31)
        self._size = 0
        self.ended = False
        """tarfile writes what it holds when it is thrown away, also after an error."""

    def write(self, data: bytes) -> int:
        if self.ended:
            return len(data)
        packed = self._deflate.compress(data)
        self._size += len(packed)
        self._check(self._size)
        self._out.write(packed)
        return len(data)

    def close(self) -> int:
        rest = self._deflate.flush()
        self._check(self._size + len(rest))
        self._out.write(rest)
        return self._size + len(rest)


def describe(packed: Packed) -> str:
    """One line for a person: how many files, how large."""
    return f"{packed.files} file{'' if packed.files == 1 else 's'}, {size_text(packed.compressed)} compressed"
