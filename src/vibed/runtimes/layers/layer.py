"""A layer: installed packages as a read-only image, and what a sandbox has to be told to use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from vibed.sandboxes.driver import Mount

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What the agent gives every app."""
MODULES = "node_modules"
_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Layer:
    """See the module's docstring."""

    key: str
    kind: str
    """`python`, `node` or `go`."""
    image: Path
    """EROFS, named by its content."""
    bytes: int
    packages: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    """Name -> version of what is in it."""
    notes: tuple[str, ...] = ()
    """What an app's owner should know: what was left out."""
    folders: tuple[str, ...] = (MODULES,)
    """Node: where the app finds its packages, below its root; in the image they have the same names."""

    @property
    def mount(self) -> Mount:
        """Where a claim puts it."""
        return Mount(self.image, f"/layers/{self.kind}")

    @property
    def env(self) -> Mapping[str, str]:
        """Variables of the app. Python's own `site` takes a user base behind the standard library and before the
        template's packages, `.pth` files included; its scripts, and npm's, come before the template's.
        """
        if self.kind == "python":
            return {"PYTHONUSERBASE": "/layers/python", "PATH": f"/layers/python/bin:{_PATH}"}
        if self.kind == "go":
            return {"GOROOT": "/layers/go", "PATH": f"/layers/go/bin:{_PATH}"}
        return {"PATH": ":".join([*(f"/layers/node/{folder}/.bin" for folder in self.folders), _PATH])}

    @property
    def links(self) -> Mapping[str, str]:
        """Links in the app's folder, by name, where nothing of that name is there. What lies beside a folder whose
        packages they are finds them from the root.
        """
        if self.kind != "node":
            return {}
        found = {folder: f"/layers/node/{folder}" for folder in self.folders}
        return {MODULES: found[self.folders[0]], **found}


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """A layer as the operator sees it."""

    key: str
    kind: str
    template: str
    bytes: int
    packages: Mapping[str, str]
    made_at: float
    """Unix seconds, as the next."""
    used_at: float
    took_s: float
    """How long it was in the making."""
    private: bool
    """Whether it belongs to one source of one owner."""
    builds: int = 1
    """How often it was made: more than once where it had gone, or was damaged."""
    pinned: bool = False
    """Whether it stays until the operator says otherwise."""
