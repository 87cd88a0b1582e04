"""What the drivers' probes found, kept for this boot of the machine: a new controller need not wait for them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

from vibed.runtimes.tools import Tools
from vibed.sandboxes.driver import Isolation, Probe

DRIVER_TOOLS: Mapping[str, tuple[str, ...]] = {
    "static": (),
    "workerd": ("vibed-agent", "workerd", "esbuild"),
    "gvisor": ("vibed-agent", "runsc"),
    "process": ("vibed-agent",),
}


class RememberedProbes:
    """In `file`, which goes with the machine's boot."""

    def __init__(self, file: Path, tools: Tools) -> None:
        self._file = file
        self._tools = tools

    def probes(self) -> dict[str, Probe]:
        """Of the drivers that worked, with the tools that are there now."""
        try:
            kept = json.loads(self._file.read_text())
            return {
                driver: Probe(True, Isolation(probe["isolation"]), probe["detail"])
                for driver, probe in kept.items()
                if probe["tools"] == self._versions(driver)
                and all(self._tools.installed(name) for name in DRIVER_TOOLS.get(driver, ()))
            }
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def keep(self, driver: str, probe: Probe) -> None:
        """Note what a probe found. Raises OSError."""
        kept: dict[str, object] = {}
        with contextlib.suppress(OSError, ValueError):
            kept = json.loads(self._file.read_text())
        kept.pop(driver, None)
        if probe.ok:
            kept[driver] = {
                "isolation": probe.isolation.value,
                "detail": probe.detail,
                "tools": self._versions(driver),
            }
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(kept))
        fresh.replace(self._file)

    def _versions(self, driver: str) -> list[str]:
        return [self._tools.version(name) for name in DRIVER_TOOLS.get(driver, ())]
