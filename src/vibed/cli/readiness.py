"""Waiting until vibeD's processes run as their plan says, and are ready; and what they wrote when they are not."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx

from vibed.cli import installation, stopping, watchdog
from vibed.cli.steps import UpFailed
from vibed.config import Config
from vibed.layout import Layout

READY_S = 60.0
"""How long processes that end again and again have for becoming ready."""
SLOW_S = 300.0
"""How long processes that live have: a machine that is slow, or busy, only takes longer."""


def client(config: Config, layout: Layout) -> httpx.Client:
    """A client of the API of this machine, with the admin key."""
    return httpx.Client(
        base_url=f"http://{config.local_address}",
        headers={"Authorization": f"Bearer {installation.admin_key(layout)}", "Host": config.local_host},
        timeout=30.0,
        trust_env=False,
    )


def wait_replaced(layout: Layout) -> None:
    """Wait until every process runs as the plan says: one of before answers too, and is ended a moment later."""
    wanted = {
        command["name"]: command["fingerprint"]
        for command in json.loads((layout.runtime / "plan.json").read_text())["commands"]
    }
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        running = watchdog.running(stopping.state(layout))
        if {name: process.fingerprint for name, process in running.items()} == wanted:
            return
        time.sleep(0.02)


def wait_ready(config: Config, layout: Layout, logs: OwnLogs, say: Callable[[str], None]) -> None:
    """Wait until `/readyz` says so. Raises UpFailed."""
    began = time.monotonic()
    seen: dict[str, watchdog.Running] = {}
    ends_again = False
    answer: httpx.Response | None = None
    with client(config, layout) as api:
        while (waited := time.monotonic() - began) < (READY_S if ends_again else SLOW_S):
            with suppress(httpx.HTTPError):
                answer = api.get("/readyz", timeout=3.0)
                if answer.status_code == 200:
                    return
            for name, process in watchdog.running(stopping.state(layout)).items():
                ends_again |= seen.setdefault(name, process) != process
            say(f"waiting for the API ({waited:.0f} s)")
            time.sleep(0.05)
    said = answer.text[:300] if answer is not None else "nothing"
    raise UpFailed(
        f"vibeD was not ready after {waited:.0f} s; /readyz said {said}\n{logs.ends()}",
        hint="it goes on trying; see vibed doctor"
        if not ends_again
        else "a process ends again and again; see vibed doctor",
    )


class OwnLogs:
    """What vibeD's processes write from now on."""

    def __init__(self, layout: Layout) -> None:
        self._from = {layout.own_logs / f"{name}.log": 0 for name in ("controller", "serve", "sites", "caddy")}
        for path in self._from:
            with suppress(OSError):
                self._from[path] = path.stat().st_size

    def ends(self) -> str:
        """The last lines of each."""
        return "".join(
            f"  {path.name}: {line[:300]}\n" for path in self._from for line in self._written(path).splitlines()[-3:]
        )

    def _written(self, path: Path) -> str:
        try:
            with path.open("rb") as log:
                # a log that is shorter by now has been begun anew
                log.seek(self._from[path] if path.stat().st_size >= self._from[path] else 0)
                return log.read().decode(errors="replace")
        except OSError:
            return ""
