"""A layer: installed packages as a read-only image, and what a sandbox has to be told to use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from vibed.sandboxes.driver import Mount

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What the agent gives every app."""
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
        return {"PATH": f"/layers/node/node_modules/.bin:{_PATH}"}

    @property
    def links(self) -> Mapping[str, str]:
        """Links in the app's folder, by name, where nothing of that name is there."""
        return {"node_modules": "/layers/node/node_modules"} if self.kind == "node" else {}


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
