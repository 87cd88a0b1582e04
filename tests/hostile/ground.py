"""Where attacks happen: a hostile app and its neighbour on one driver, beside a complete vibeD with apps of its own.

The attacker is the contract's general app with the programs of `apps/general` beside it: a test names a program, a
function and its arguments, and judges what it says it got. Whatever happens, the neighbour and the other vibeD must not
notice (`Ground.unharmed`, `City.unharmed`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.contract.driver_kit import GENERAL_APP, Bench, Running, Subject
from tests.e2e.instance import Instance
from vibed.sandboxes.driver import Driver, Limits, Sandbox, State

APPS = Path(__file__).parent / "apps"
SECRET = f"a-neighbours-secret-{secrets.token_hex(8)}"
"""What the neighbour knows, in its environment, its files and its memory. No attacker may ever see it."""
HOST_SECRET = f"the-hosts-secret-{secrets.token_hex(8)}"
"""What lies on the host, readable for every uid there."""
QUICK = Limits(cpus=2.0, memory_mb=192, pids=64, disk_mb=32)


def program(*names: str) -> dict[str, str | bytes]:
    """The files of hostile programs by their path in the source."""
    folder = APPS.joinpath(*names)
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class Attacker:
    """A running general app that is hostile."""

    def __init__(self, app: Running) -> None:
        self.app = app

    @property
    def sandbox(self) -> Sandbox:
        return self.app.sandbox

    @property
    def alive(self) -> bool:
        return self.sandbox.state is State.RUNNING

    async def attack(self, where: str, what: str, *arguments: Any, within_s: float = 90.0) -> Any:
        """What a program of `apps/general/attacks` returns."""
        call = (
            f"__import__('json').dumps(__import__('importlib').import_module('attacks.{where}').{what}"
            f"(*__import__('json').loads({json.dumps(arguments)!r})))"
        )
        async with asyncio.timeout(within_s):
            told = await self.app.ask(call)
        try:
            return json.loads(told)
        except ValueError:
            raise AssertionError(f"attacks.{where}.{what} did not end as it should: {told[:2000]}") from None


@dataclass
class Ground:
    """One driver with an attacker that is used again and again, and a neighbour."""

    on: Bench
    subject: Subject
    driver: Driver
    city: City
    neighbour: Running
    host_secret: Path
    _attacker: Attacker | None = field(default=None)

    async def attacker(self) -> Attacker:
        """The shared one; a new one if the last did not survive."""
        if self._attacker is None or not self._attacker.alive:
            self._attacker = await self.fresh(urgent=False)
        return self._attacker

    async def fresh(self, *, limits: Limits = QUICK, urgent: bool = True, **options: Any) -> Attacker:
        """One of its own, for an attack that it may not survive. One that is not urgent began as a warm process."""
        files: Mapping[str, str | bytes] = {"app.py": GENERAL_APP, **program("general")}
        run = self.subject.run(self.on, files, app="hostile", env={"GREETING": "evil"}, limits=limits, **options)
        sandbox = await self.subject.boot(self.on, self.driver, urgent=urgent)
        return Attacker(await self.subject.start(self.on, self.driver, run, sandbox))

    async def unharmed(self) -> None:
        """The neighbour answers as before, and so does the vibeD beside it."""
        async with asyncio.timeout(60):
            assert (await self.neighbour.get()).body.startswith("hello neighbour")
        await asyncio.to_thread(self.city.unharmed)

    def marks(self) -> list[str]:
        """Names and contents that belong to others: the host's folders, other sandboxes, secrets."""
        on = self.on
        return [
            SECRET,
            HOST_SECRET,
            self.neighbour.sandbox.id,
            on.layout.runtime.name,
            str(on.layout.home),
            str(self.city.vibed.root),
            self.city.vibed.layout.runtime.name,
            self.city.vibed.admin_key,
        ]

    def host_paths(self) -> list[str]:
        """Files of the host and of others that an attacker would like to read."""
        layout = self.city.vibed.layout
        box = self.on.layout.sandboxes / self.neighbour.sandbox.id
        return [
            str(self.host_secret),
            "/etc/shadow",
            "/root",
            "/home",
            "/var/lib/dpkg/status",
            "/var/log",
            "/boot",
            str(Path(__file__)),
            str(box),
            str(box / "spec.json"),
            str(box / "in"),
            str(self.on.layout.runtime),
            str(self.on.layout.home),
            str(layout.home),
            str(layout.admin_key),
            str(layout.database),
            str(layout.sources),
            str(layout.runtime),
            str(layout.apps),
            str(layout.ingress),
        ]

    def uids(self, sandbox: Sandbox) -> set[int]:
        """Those that a sandbox's processes have on the host."""
        uid = int(json.loads((self.on.layout.sandboxes / sandbox.id / "spec.json").read_text())["uid"])
        return {uid, self.on.host().uids.app(uid)}

    def host_sockets(self) -> list[str]:
        """Every Unix socket of vibeD on this machine but the attacker's own."""
        return every_socket(self.on.layout.runtime) + every_socket(self.city.vibed.layout.runtime)


@dataclass
class City:
    """A complete vibeD with three apps that must go on."""

    vibed: Instance
    apps: Mapping[str, str]
    """Name -> what its page says."""

    def unharmed(self) -> None:
        """All its apps answer, the API answers, and it finds itself ready."""
        client = self.vibed.client
        for name, text in self.apps.items():
            answer = client.visit(name)
            assert (answer.status_code, answer.text.strip()) == (200, text), (
                f"{name}: {answer.status_code} {answer.text}"
            )
        ready = client.api("GET", "/readyz")
        assert ready.status_code == 200, ready.text
        names = {item["app_id"] for item in client.ask("GET", "/v1/apps")["items"]}
        assert set(self.apps) <= names


def every_socket(folder: Path) -> list[str]:
    """All sockets below a folder of the host, of which sandboxes come and go."""
    return [str(path) for top, _, names in os.walk(folder) for name in names if (path := Path(top) / name).is_socket()]


def processes_of(uids: Collection[int]) -> list[int]:
    """Pids of all processes of the machine that run as one of these uids."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and process.stat().st_uid in uids:
                found.append(int(process.name))
    return found


def log_of(app: Running) -> list[dict[str, Any]]:
    """The log as a reader has to read it: lines end with LF and nothing else."""
    raw = (app.log_dir / "log.jsonl").read_bytes()
    return [json.loads(line) for line in raw[: raw.rfind(b"\n") + 1].split(b"\n")[:-1]]
