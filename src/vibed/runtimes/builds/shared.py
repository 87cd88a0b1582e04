"""What builds made, on a cluster: kept in the bucket of the sources, and on this disk while it is used.

built-archives/<key>    what was made
built-index/<key>       how it is run, as on one machine (`store`)
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from vibed.runtimes.builds.built import Built
from vibed.runtimes.builds.store import BuiltStore
from vibed.runtimes.copies import Copies
from vibed.runtimes.layers.shared import SharedLayerStore, copied, failing, swept, tell_of_use
from vibed.runtimes.pod_disk import BUILT_BYTES
from vibed.sources.objects import Objects

_ARCHIVES = "built-archives"
_INDEX = "built-index"


class SharedBuiltStore(BuiltStore):
    """See the module's docstring. What the bucket fails in is an OSError, as a disk's failure is."""

    def __init__(self, home: Path, layers: SharedLayerStore, objects: Objects, most_bytes: int = BUILT_BYTES) -> None:
        """`most_bytes`: of copies that are here."""
        super().__init__(home, layers)
        self._objects = objects
        self._copies = Copies(objects, _ARCHIVES, self._folder, "built-*.tar.gz", most_bytes)
        self._workroom = layers.workroom

    def prepare(self) -> None:
        """Make the folder say what the bucket says, and remove archives that nothing names. Raises OSError."""
        shutil.rmtree(self._folder, ignore_errors=True)
        super().prepare()
        with failing():
            copied(self._objects, _INDEX, self._folder, lambda name: f"{name}.json")
            swept(self._objects, _ARCHIVES, {path.stem for path in self._folder.glob("*.json")})

    def _archive(self, key: str) -> Path:
        # by its digest a source is named: this is none
        return self._folder / f"built-{key}.tar.gz"

    def _here(self, key: str) -> Path:
        with failing():
            return self._copies.get(key, self._archive(key))

    def making(self) -> AbstractContextManager[Path]:
        self._folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        return self._workroom.making(self._folder)

    def _room_for(self, size: int) -> AbstractContextManager[None]:
        return self._copies.room_for(size)

    def _bytes(self, key: str) -> int:
        try:
            return int(json.loads(self._beside(key).read_text())["bytes"])
        except (ValueError, KeyError):
            return 0

    def _tell(self, made: Built, entry: Mapping[str, Any]) -> None:
        with failing():
            self._objects.put(_ARCHIVES, made.key, made.archive)
            self._objects.put(_INDEX, made.key, json.dumps(entry).encode())

    def _used(self, beside: Path) -> None:
        tell_of_use(self._objects, _INDEX, beside)
        super()._used(beside)

    def _drop(self, key: str) -> None:
        with failing():
            self._objects.delete(_INDEX, key)
            self._objects.delete(_ARCHIVES, key)
        super()._drop(key)
