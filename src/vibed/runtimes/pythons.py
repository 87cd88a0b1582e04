"""Where a Python lies in a template's root: Debian's own, or a relocatable build that uv brings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

DEBIAN, RELOCATED = "usr", "usr/local"


@dataclass(frozen=True, slots=True)
class Python:
    """Of one root; paths are below it."""

    version: str
    """Such as `3.13`."""
    prefix: str

    @property
    def program(self) -> str:
        return f"{self.prefix}/bin/python{self.version}"

    @property
    def library(self) -> str:
        """The standard library."""
        return f"{self.prefix}/lib/python{self.version}"

    @property
    def site(self) -> str:
        """Where packages are installed; of Debian's own, the place for local ones."""
        return f"usr/local/lib/python{self.version}/{'dist' if self.prefix == DEBIAN else 'site'}-packages"

    @property
    def compiled(self) -> Iterable[str]:
        """What is compiled to bytecode, each folder once."""
        return (self.library, self.site) if self.prefix == DEBIAN else (self.library,)


def python_of(root: Path) -> Python | None:
    """The Python of a root; None where it has none."""
    for prefix in (RELOCATED, DEBIAN):
        for program in sorted((root / prefix / "bin").glob("python3.[0-9]*")):
            version = program.name.removeprefix("python")
            if version.removeprefix("3.").isdigit():
                return Python(version, prefix)
    return None
