"""What a cause is told of the app, and what it answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from vibed.apps.app import Runtime


@dataclass(frozen=True, slots=True)
class About:
    """The app whose error is explained."""

    kind: str = ""
    """`python`, `node`, `go`, `worker`, `binary`."""
    template: str = ""
    memory_mb: int = 0
    disk_mb: int = 0
    unset: tuple[str, ...] = ()
    """Environment variables that its source reads and that it was not given."""
    fills: Mapping[str, str] = field(default_factory=dict)
    """What its source gives the value of such a variable: an option, an argument or a name -> the variable."""
    start: str = ""
    """What starts it, for a person."""
    prepares: str = ""
    """A command that makes its tables, and that nothing runs; empty where its source has none."""
    wanted: tuple[str, ...] = ()
    """The lines of its own list of packages, where it was installed by one."""
    installed: Mapping[str, str] = field(default_factory=dict)
    """Versions of the packages that it finds, by name (Python's canonically), as far as they are known."""

    @classmethod
    def of(
        cls,
        runtime: Runtime,
        given: Collection[str],
        *,
        memory_mb: int = 0,
        disk_mb: int = 0,
        installed: Mapping[str, str] | None = None,
    ) -> About:
        """`given`: the variables that its owner sets."""
        return cls(
            runtime.kind,
            runtime.template,
            memory_mb,
            disk_mb,
            tuple(name for name in runtime.reads if name not in given),
            {option: name for option, name in runtime.fills.items() if name not in given},
            runtime.entrypoint,
            runtime.prepares,
            runtime.install.wanted if runtime.install is not None else (),
            installed or {},
        )


@dataclass(frozen=True, slots=True)
class Cause:
    """What is behind an error, for its author."""

    told: str
    """What is wrong: the rest of a sentence that begins with `the app`; empty where the error's own words say it."""
    hint: str
    """What to change."""
    code: str = ""
    """A code of its own; empty: the one that the failure came with."""
    complete: bool = False
    """Whether `told` says all that the error's own line does, so that the line need not be quoted."""
    before: int = 0
    """The first minor of Python 3 that has not what a package needs; 0 where that is not what is wrong."""
