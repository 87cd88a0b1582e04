"""What the drivers of one vibeD share: its folders, programs, templates, groups and uids."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Protocol

from vibed.layout import Layout
from vibed.sources.limits import DEFAULT_LIMITS, ArchiveLimits
from vibed.supervision.cgroups import Cgroups
from vibed.supervision.roots import Roots
from vibed.supervision.uids import UidPool


class Programs(Protocol):
    """Where the programs that vibeD installed are (`vibed.runtimes.tools.Tools`)."""

    def path(self, name: str) -> Path: ...


class Host:
    """What the drivers of one vibeD share."""

    def __init__(
        self,
        layout: Layout,
        programs: Programs,
        roots: Roots,
        *,
        cgroups: Cgroups | None = None,
        limits: ArchiveLimits = DEFAULT_LIMITS,
    ) -> None:
        """`limits` are those that sources were accepted by."""
        self.layout = layout
        self.limits = limits
        self.programs = programs
        self.roots = roots
        self.cgroups = cgroups or Cgroups.find(layout.runtime.name)
        self.uids = UidPool(layout.uids.sandboxes, layout.sandboxes)

    @cached_property
    def agent(self) -> Path:
        """The `vibed-agent` binary, as it was when it was first needed: a checkout's may change meanwhile."""
        return self.programs.path("vibed-agent")

    @property
    def privileged(self) -> bool:
        """Whether other uids, mounts on the host and mounts into warm sandboxes are possible."""
        return not self.layout.uids.rootless
