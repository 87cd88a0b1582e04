"""Where what builds made is kept, and what of it goes.

    <home>/built/<key>.tar.gz    what was made
    <home>/built/<key>.json      how it is run; its time is when it was last used
    <home>/built/.making-*       what is in the making; what a killed vibeD left of it goes at the next start

The archive is whole and on the disk before the file beside it names it. It is compared with its digest once before this
process gives it out, and its size each time: one that was damaged is as good as none, and is made again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from vibed.runtimes.builds.built import Built
from vibed.runtimes.keeping import clear, doomed, making
from vibed.runtimes.layers.layer import Layer
from vibed.runtimes.layers.store import LayerStore
from vibed.runtimes.tool import sha256_of
from vibed.runtimes.trees import sync

_NAME = re.compile(r"([0-9a-f]{64})\.json")


class _Archive(NamedTuple):
    """As `vibed.runtimes.keeping.Kept`."""

    key: str
    bytes: int
    used_at: float


class BuiltStore:
    """Of one VIBED_HOME. All methods block, and may be called from any thread."""

    def __init__(self, home: Path, layers: LayerStore | None = None) -> None:
        """`layers`: where packages are kept among which builds wrote."""
        self._folder = home / "built"
        self._layers = layers
        self._compared: set[str] = set()
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Make the folder, and remove what was in the making when vibeD ended. Raises OSError."""
        self._folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        clear(self._folder)
        known = {self._archive(match[1]) for path in self._folder.iterdir() if (match := _NAME.fullmatch(path.name))}
        for archive in self._folder.glob("*.tar.gz"):
            if archive not in known:
                archive.unlink(missing_ok=True)

    def making(self) -> AbstractContextManager[Path]:
        """A folder for one build, on the file system of the archives; it is gone afterwards."""
        self._folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        return making(self._folder)

    def find(self, key: str) -> Built | None:
        """What that key led to, which counts as used from now on; None when it is not there, or not whole. Raises
        OSError where it is there, and the disk has no room for it.
        """
        try:
            entry: dict[str, Any] = json.loads(self._beside(key).read_text())
            archive = self._here(key)
            whole = archive.stat().st_size == entry["bytes"] and self._is_itself(key, entry["sha256"])
        except (OSError, ValueError, KeyError) as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise  # to make it anew would not help
            return None
        if not whole:
            return None
        packages: Layer | None = None
        if of := entry.get("packages"):
            packages = self._layers.find(of) if self._layers is not None else None
            if packages is None:
                return None
        with contextlib.suppress(OSError):
            self._used(self._beside(key))
        told = (entry["site"], entry["index"], entry["spa"], entry["base"], tuple(entry["notes"]))
        return Built(key, archive, *told, entry.get("entrypoint", ""), entry.get("options", {}), packages)

    def keep(self, made: Built, *, took_s: float) -> Built:
        """Take over a finished archive. Raises OSError; it is then as if nothing had been made."""
        digest = sha256_of(made.archive)
        final = self._archive(made.key)
        entry: dict[str, Any] = {
            "site": made.site,
            "index": made.index,
            "spa": made.spa,
            "base": made.base,
            "notes": list(made.notes),
            "entrypoint": made.entrypoint,
            "options": dict(made.options),
            "packages": made.packages.key if made.packages is not None else "",
            "bytes": made.archive.stat().st_size,
            "sha256": digest,
            "made_at": time.time(),
            "took_s": round(took_s, 2),
        }
        with self._lock, self._room_for(entry["bytes"]):
            self._beside(made.key).unlink(missing_ok=True)
            self._tell(made, entry)
            made.archive.chmod(0o644)
            sync(made.archive)
            made.archive.replace(final)
            text = self._folder / f".{made.key}.json"
            text.write_text(json.dumps(entry))
            sync(text)
            sync(self._folder)
            text.replace(self._beside(made.key))
            self._compared.add(made.key)
        return replace(made, archive=final)

    def keep_packages(self, made: Built, image: Path, layer: Layer, *, template: str, took_s: float) -> Built:
        """What was built with the packages as the build left them, an image; `layer`: as they were. Raises OSError."""
        if self._layers is None:
            return made
        key = hashlib.sha256(f"packages of {made.key}".encode()).hexdigest()
        kept = self._layers.keep(
            key,
            layer.kind,
            image,
            template=template,
            packages=layer.packages,
            took_s=took_s,
            private=True,
            folders=layer.folders,
        )
        return replace(made, packages=kept)

    def tidy(self, *, most_bytes: int, unused_s: float) -> list[str]:
        """Remove what has not been used for long, and the longest unused beyond `most_bytes`; returns their keys. What
        goes is made again for who wants it. Raises OSError.
        """
        known: list[_Archive] = []
        for path in self._folder.iterdir():
            match = _NAME.fullmatch(path.name)
            with contextlib.suppress(FileNotFoundError):
                if match is not None:
                    known.append(_Archive(match[1], self._bytes(match[1]), path.stat().st_mtime))
        gone = doomed(known, (), most_bytes=most_bytes, unused_s=unused_s, now=time.time())
        for key in gone:
            self._drop(key)
        return gone

    # what a store that is elsewhere does otherwise (`shared`)

    def _here(self, key: str) -> Path:
        """The archive, on this disk. Raises OSError."""
        return self._archive(key)

    def _bytes(self, key: str) -> int:
        """Raises FileNotFoundError."""
        return self._archive(key).stat().st_size

    def _room_for(self, size: int) -> AbstractContextManager[None]:
        """Have the disk have room for an archive that is kept meanwhile. Raises OSError."""
        return contextlib.nullcontext()

    def _tell(self, made: Built, entry: Mapping[str, Any]) -> None:
        """Before it is kept here. Raises OSError."""

    def _used(self, beside: Path) -> None:
        """Raises OSError."""
        os.utime(beside)

    def _drop(self, key: str) -> None:
        """Raises OSError."""
        self._beside(key).unlink(missing_ok=True)
        self._archive(key).unlink(missing_ok=True)

    def _archive(self, key: str) -> Path:
        return self._folder / f"{key}.tar.gz"

    def _beside(self, key: str) -> Path:
        return self._folder / f"{key}.json"

    def _is_itself(self, key: str, digest: str) -> bool:
        if key not in self._compared:
            if sha256_of(self._archive(key)) != digest:
                return False
            self._compared.add(key)
        return True
