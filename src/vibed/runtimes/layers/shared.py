"""Layers of a cluster: one compressed object each, beside the sources, which a pod gets and unpacks for itself.

    layers-images/<sha256>        a tar.gz, named by its content
    layers-index/<layer key>      as on one machine (`store`)
    layers-requests/<request>     so too

No pod has state, so the folder that one machine has is here a copy of what the bucket says of layers, made when a
controller begins to lead; what it writes, it writes to the bucket first. Of the images nothing is here: whether one is
whole the bucket says by its size, and the pod that gets it by its digest.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from vibed import records
from vibed.apps.errors import VibedError
from vibed.runtimes.copies import Copies
from vibed.runtimes.layers.store import LayerStore
from vibed.runtimes.pod_disk import LAYERS_BYTES
from vibed.runtimes.workroom import Workroom
from vibed.sources.objects import Listed, Objects

log = records.logger("vibed.layers")

IMAGES = "layers-images"
_AT_ONCE = 16
_GRACE_S = 3600.0
"""So long what nothing names stays: another controller may be about to."""
_TOLD_EVERY_S = 86_400.0
"""So often is written down that a layer is used."""


class SharedLayerStore(LayerStore):
    """See the module's docstring. What the bucket fails in is an OSError, as a disk's failure is."""

    suffix = ".tar.gz"

    def __init__(self, home: Path, objects: Objects) -> None:
        super().__init__(home)
        self._objects = objects
        self._copies = Copies(objects, IMAGES, self._images, f"*{self.suffix}", LAYERS_BYTES)
        self.workroom = Workroom()
        """Of what is made here, layers and others."""

    def prepare(self) -> None:
        """Make the folders a copy of what the bucket says, and remove images that nothing names. Raises OSError."""
        for folder in (self._index, self._requests, self._images):
            shutil.rmtree(folder, ignore_errors=True)
        super().prepare()
        with failing():
            copied(self._objects, _room(self._index), self._index, lambda name: f"{name}.json")
            copied(self._objects, _room(self._requests), self._requests, lambda name: name)
            named = {entry["image"] for entry in self._entries().values()}
            swept(self._objects, IMAGES, named)

    def signed(self, digest: str, ttl_s: float) -> tuple[str, int]:
        """See `vibed.drivers.agent_sandbox.shelf.Images`."""
        there = self._objects.look(IMAGES, digest)
        return self._objects.signed(IMAGES, digest, ttl_s), there.bytes if there is not None else 0

    def fetch(self, digest: str) -> Path:
        """So too."""
        return self._copies.get(digest, self._image(digest))

    def making(self) -> AbstractContextManager[Path]:
        self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        return self.workroom.making(self._folder)

    def holding(self, base: str, pieces: Collection[str]) -> list[tuple[Path, tuple[str, ...]]]:
        return []  # a layer of a cluster is packed as its builder sends it: nothing is taken over from others

    def share(self, most: int) -> int:
        return most  # it is not this disk's

    # what is where

    def _whole(self, entry: Mapping[str, Any], image: Path) -> bool:
        with contextlib.suppress(VibedError):  # it is asked again when a pod wants it
            there = self._objects.look(IMAGES, entry["image"])
            return there is not None and bool(there.bytes == entry["bytes"])
        return True

    def _take(self, image: Path, digest: str) -> Path:
        with failing():
            self._objects.put(IMAGES, digest, image)
        image.unlink()
        return self._image(digest)

    def _used(self, path: Path) -> None:
        tell_of_use(self._objects, _room(path.parent), path)
        super()._used(path)

    def _write(self, path: Path, value: Mapping[str, Any]) -> None:
        with failing():
            self._objects.put(_room(path.parent), path.stem, json.dumps(value).encode())
        super()._write(path, value)

    def _drop(self, path: Path) -> None:
        room = IMAGES if path.parent == self._images else _room(path.parent)
        with failing():
            self._objects.delete(room, path.name.partition(".")[0])
        super()._drop(path)

    def _is_there(self, digest: str) -> bool:
        return True


def tell_of_use(objects: Objects, room: str, entry: Path) -> None:
    """Have the bucket know, now and then, that what an entry is about is used: it is as old as its object. Blocking."""
    if time.time() - entry.stat().st_mtime > _TOLD_EVERY_S:
        with contextlib.suppress(VibedError):
            objects.put(room, entry.stem, entry.read_bytes())


@contextlib.contextmanager
def failing() -> Iterator[None]:
    """What a bucket fails in is an OSError, whose text says what it is."""
    try:
        yield
    except VibedError as error:
        raise OSError(errno.EIO, error.message) from error


def copied(objects: Objects, room: str, folder: Path, name: Callable[[str], str]) -> None:
    """Have a folder's files be what a room's objects are, times included. Raises `VibedError`, OSError."""

    def one(listed: Listed) -> None:
        path = folder / name(listed.name)
        path.write_bytes(objects.get(room, listed.name))
        os.utime(path, (listed.modified, listed.modified))

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="copying") as threads:
        list(threads.map(one, objects.listing(room)))


def swept(objects: Objects, room: str, named: Collection[str]) -> None:
    """Have those of a room's objects go that nothing names, and that were not written lately. Raises `VibedError`."""
    for listed in objects.listing(room):
        if listed.name in named or _young(listed):
            continue
        # as late as can be: another controller may have written it anew; what goes all the same is made again
        there = objects.look(room, listed.name)
        if there is not None and not _young(there):
            objects.delete(room, listed.name)


def _young(listed: Listed) -> bool:
    return time.time() - listed.modified <= _GRACE_S


def _room(folder: Path) -> str:
    return f"layers-{folder.name}"
