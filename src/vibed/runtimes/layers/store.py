"""Where layers are kept, and which of them go.

    <home>/layers/images/<sha256>.erofs     named by their content
    <home>/layers/index/<layer key>.json    which image, what is in it; its time is when the layer was last used
    <home>/layers/requests/<request key>    which layer the same request led to
    <home>/layers/.making-*                 what is in the making; what a killed vibeD left of it goes at the next start

An image is there, whole, before anything names it, so a half-built one is never found. Each is compared with its name
once before this process gives it out, and its size each time: one that was damaged, or did not reach the disk before
the machine lost its power, is as good as none. So nobody who waits for a layer waits for the disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from vibed.runtimes.keeping import clear, doomed, making
from vibed.runtimes.layers.layer import MODULES, Layer, LayerFacts
from vibed.runtimes.tool import sha256_of

_KEY = re.compile("[0-9a-f]{64}")
_SOURCES = 4
"""Layers that a new one is taken from: each is a mount more in its builder."""


class LayerStore:
    """The layers of one VIBED_HOME. All methods block, and may be called from any thread."""

    suffix = ".erofs"
    """Of images."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "layers"
        self._images = self._folder / "images"
        self._index = self._folder / "index"
        self._requests = self._folder / "requests"
        self._compared: set[str] = set()
        """Images whose content was compared with their name since this process began."""
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Make the folders, and remove what was in the making when vibeD ended. Raises OSError."""
        for folder in (self._folder, self._images, self._index, self._requests):
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        clear(self._folder)
        named = {entry.get("image") for entry in self._entries().values()}
        for image in self._images.iterdir():
            if image.name.partition(".")[0] not in named:
                image.unlink(missing_ok=True)

    def making(self) -> AbstractContextManager[Path]:
        """A folder for one build, on the file system of the images; it is gone afterwards."""
        self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        return making(self._folder)

    def find(self, key: str) -> Layer | None:
        """The layer of that key, which counts as used from now on; None when there is none, or no whole one."""
        entry = self._entry(key)
        if entry is None:
            return None
        image = self._image(entry["image"])
        if not self._whole(entry, image):
            self._forget_image(entry["image"])
            return None
        with contextlib.suppress(OSError):
            self._used(self._index / f"{key}.json")
        return _layer(key, entry, image)

    def keep(
        self,
        key: str,
        kind: str,
        image: Path,
        *,
        template: str,
        packages: Mapping[str, str],
        took_s: float,
        private: bool,
        base: str = "",
        folders: Sequence[str] = (MODULES,),
        pieces: Collection[str] = (),
    ) -> Layer:
        """Take over a finished image. `base`: the digest of what it was made for; `pieces`: what another layer may take
        over from it, by the lines that pin it. Raises OSError; it is then as if nothing had been made.
        """
        digest = sha256_of(image)
        size = image.stat().st_size
        with self._lock:
            final = self._take(image, digest)
            before = self._entry(key)
            entry = {
                "kind": kind,
                "template": template,
                "base": base,
                "image": digest,
                "bytes": size,
                "packages": dict(packages),
                "made_at": time.time(),
                "took_s": round(took_s, 2),
                "private": private,
                "folders": list(folders),
                "pieces": [] if private else sorted(pieces),
                "builds": (before or {}).get("builds", 0) + 1,
                "pinned": bool((before or {}).get("pinned")),
            }
            self._write(self._index / f"{key}.json", entry)
        return _layer(key, entry, final)

    def holding(self, base: str, pieces: Collection[str]) -> list[tuple[Path, tuple[str, ...]]]:
        """Images from which some of the pieces can be taken over, and which from each: those with the most first, a few
        at most.
        """
        held = {
            key: frozenset(map(str, entry.get("pieces") or ())) & frozenset(pieces)
            for key, entry in self._entries().items()
            if entry.get("base") == base
        }
        found: list[tuple[Path, tuple[str, ...]]] = []
        wanted = set(pieces)
        while len(found) < _SOURCES and held:
            key = max(held, key=lambda one: (len(held[one] & wanted), one))
            theirs = held.pop(key) & wanted
            if not theirs:
                break
            if (layer := self.find(key)) is not None:
                found.append((layer.image, tuple(sorted(theirs))))
                wanted -= theirs
        return found

    def look(self, key: str) -> Layer | None:
        """As `find`, for who only wants to know: it does not count as used, and whether it is whole is not asked."""
        entry = self._entry(key)
        return None if entry is None else _layer(key, entry, self._image(entry["image"]))

    def facts(self, key: str) -> LayerFacts | None:
        """What is known of a layer; None when there is none."""
        entry = self._entry(key)
        try:
            return None if entry is None else _facts(key, entry, (self._index / f"{key}.json").stat().st_mtime)
        except OSError:
            return None

    def remember(self, request: str, key: str, notes: Iterable[str]) -> None:
        """The layer that a request led to. Raises OSError."""
        self._write(self._requests / request, {"layer": key, "notes": list(notes)})

    def remembered(self, request: str) -> tuple[str, tuple[str, ...]] | None:
        """The key of the layer that the same request led to before, and its notes."""
        said = _read(self._requests / request)
        if said is None or not isinstance(said.get("layer"), str) or not isinstance(said.get("notes"), list):
            return None
        return said["layer"], tuple(map(str, said["notes"]))

    def set_aside(self, request: str, why: str, fits: Collection[int] | None = None) -> None:
        """What a request asks for cannot be had on its template, and was had on another one; `fits`: the numbers of the
        templates that may have it, None where that is not known. Raises OSError.
        """
        self._write(self._requests / request, {"unmet": why, "fits": None if fits is None else sorted(fits)})

    def unmet(self, request: str, *, within_s: float) -> tuple[str, frozenset[int] | None] | None:
        """Why a request was set aside and what fits it, if that was no longer ago."""
        said = _read(self._requests / request)
        if said is None or not isinstance(why := said.get("unmet"), str):
            return None
        try:
            recent = time.time() - (self._requests / request).stat().st_mtime < within_s
        except OSError:
            return None
        fits = said.get("fits")
        return (why, frozenset(fits) if isinstance(fits, list) else None) if recent else None

    def listing(self) -> list[LayerFacts]:
        """Those that are there, the last used first."""
        found = []
        for key, entry in self._entries().items():
            with contextlib.suppress(OSError):
                used = (self._index / f"{key}.json").stat().st_mtime
                if self._is_there(entry["image"]):
                    found.append(_facts(key, entry, used))
        return sorted(found, key=lambda facts: -facts.used_at)

    def tidy(self, in_use: Collection[str], *, most_bytes: int, unused_s: float) -> list[str]:
        """Remove what is not worth its place; returns the keys. `in_use`: keys of layers that sandboxes have."""
        listed = self.listing()
        in_use = {*in_use, *(facts.key for facts in listed if facts.pinned)}
        gone = doomed(listed, in_use, most_bytes=most_bytes, unused_s=unused_s, now=time.time())
        for key in gone:
            self.remove(key)
        known = set(self._entries())
        for request in self._requests.iterdir() if self._requests.is_dir() else ():
            said = self.remembered(request.name)
            if said is None or (said[0] not in known and time.time() - request.stat().st_mtime > unused_s):
                self._drop(request)
        return gone

    def pin(self, key: str, *, pinned: bool) -> bool:
        """Have a layer stay, or go when it is not used any more; whether there is one. Raises OSError."""
        with self._lock:
            entry = self._entry(key)
            if entry is None:
                return False
            place = self._index / f"{key}.json"
            used = place.stat().st_mtime
            self._write(place, {**entry, "pinned": pinned})
            os.utime(place, (used, used))
        return True

    def free(self) -> int:
        """Bytes that are left on the disk."""
        return shutil.disk_usage(self._folder).free

    def share(self, most: int) -> int:
        """`most` bytes, or a quarter of the disk where that is less."""
        return min(most, shutil.disk_usage(self._folder).total // 4)

    def remove(self, key: str) -> None:
        """Forget a layer, and its image where no other has it. Who has it mounted keeps it."""
        with self._lock:
            entry = self._entry(key)
            self._drop(self._index / f"{key}.json")
            if entry and entry["image"] not in {other["image"] for other in self._entries().values()}:
                self._drop(self._image(entry["image"]))

    # what is on disk

    def _entries(self) -> dict[str, dict[str, Any]]:
        found = {}
        for path in self._index.glob("*.json") if self._index.is_dir() else ():
            if (entry := self._entry(path.stem)) is not None:
                found[path.stem] = entry
        return found

    def _entry(self, key: str) -> dict[str, Any] | None:
        entry = _read(self._index / f"{key}.json") if _KEY.fullmatch(key) else None
        if entry is None or not {"kind", "image", "bytes", "packages"} <= set(entry):
            return None
        return entry if _KEY.fullmatch(str(entry["image"])) else None

    def _image(self, digest: str) -> Path:
        return self._images / f"{digest}{self.suffix}"

    def _is_there(self, digest: str) -> bool:
        return self._image(digest).exists()

    def _whole(self, entry: Mapping[str, Any], image: Path) -> bool:
        try:
            return bool(image.stat().st_size == entry["bytes"]) and self._is_itself(image)
        except OSError:
            return False

    def _take(self, image: Path, digest: str) -> Path:
        """Have a finished image be kept. Raises OSError."""
        final = self._image(digest)
        self._images.mkdir(mode=0o755, parents=True, exist_ok=True)
        # also over one that is there: it may be damaged, and whoever has it mounted keeps it
        image.chmod(0o644)
        os.chown(image, os.geteuid(), os.getegid())
        image.replace(final)
        self._compared.add(digest)
        return final

    def _used(self, path: Path) -> None:
        """Of an entry. Raises OSError."""
        os.utime(path)

    def _drop(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def _is_itself(self, image: Path) -> bool:
        if image.stem in self._compared:
            return True
        if sha256_of(image) != image.stem:
            return False
        self._compared.add(image.stem)
        return True

    def _forget_image(self, digest: str) -> None:
        self._compared.discard(digest)
        self._drop(self._image(digest))

    def _write(self, path: Path, value: Mapping[str, Any]) -> None:
        """Whole or not at all. Not synced: what is lost is made again."""
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor, new = tempfile.mkstemp(dir=path.parent, prefix=".")
        try:
            with os.fdopen(descriptor, "w") as out:
                json.dump(value, out)
            Path(new).chmod(0o644)
            Path(new).replace(path)
        except BaseException:
            Path(new).unlink(missing_ok=True)
            raise


def _layer(key: str, entry: Mapping[str, Any], image: Path) -> Layer:
    folders = tuple(entry.get("folders") or (MODULES,))
    return Layer(key, entry["kind"], image, entry["bytes"], entry["packages"], folders=folders)


def _facts(key: str, entry: Mapping[str, Any], used_at: float) -> LayerFacts:
    return LayerFacts(
        key,
        str(entry["kind"]),
        str(entry.get("template", "")),
        int(entry["bytes"]),
        dict(entry["packages"]),
        float(entry.get("made_at", 0.0)),
        used_at,
        float(entry.get("took_s", 0.0)),
        bool(entry.get("private")),
        int(entry.get("builds", 1)),
        bool(entry.get("pinned")),
    )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
