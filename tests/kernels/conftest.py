"""Guests run beside the tests that come first: an emulated processor takes more than a minute, and nobody's time."""

from __future__ import annotations

import asyncio
import shlex
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.kernels import guest
from tests.prepare import home
from vibed.sandboxes.tools import Tools

_FOLDER = Path(__file__).parent


def _confinement() -> guest.Done:
    """The confinement's own tests as a program. Sandboxes' uids run it too: no place for pytest's folders."""
    program = home() / "kernels" / "confine.test"
    program.parent.mkdir(parents=True, exist_ok=True)
    go = asyncio.run(Tools(home()).install("go"))
    subprocess.run(
        [str(go), "test", "-c", "-o", str(program), "./confine"],
        cwd=guest.REPOSITORY / "agent",
        env={"PATH": "/usr/bin:/bin", "HOME": str(Path.home()), "CGO_ENABLED": "0"},
        check=True,
    )
    return guest.run(f"uname -r && cd agent/confine && {shlex.quote(str(program))} -test.v")


def _control_groups() -> guest.Done:
    inside = shlex.quote(str(_FOLDER / "inside"))
    return guest.run(f"{shlex.quote(sys.executable)} -m pytest -p no:cacheprovider -q {inside}")


class Guests:
    """What guests are asked to do, one after the other; begun once."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="guest")
        self._begun: dict[Callable[[], guest.Done], Future[guest.Done]] = {}

    def begin(self) -> None:
        for work in (_confinement, _control_groups):
            self._begun.setdefault(work, self._pool.submit(work))

    def confinement(self) -> guest.Done:
        """The console of the confinement's tests. Skips where no guest can be booted."""
        return self._of(_confinement)

    def control_groups(self) -> guest.Done:
        """The console of the tests in `inside`. Skips where no guest can be booted."""
        return self._of(_control_groups)

    def end(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        guest.end_all()

    def _of(self, work: Callable[[], guest.Done]) -> guest.Done:
        self.begin()
        try:
            return self._begun[work].result()
        except guest.CannotBoot as why:
            pytest.skip(str(why))


_GUESTS = pytest.StashKey[Guests]()


def pytest_collection_finish(session: pytest.Session) -> None:
    if any(item.path.parent == _FOLDER for item in session.items) and not session.config.option.collectonly:
        guests = session.config.stash[_GUESTS] = Guests()
        guests.begin()


def pytest_sessionfinish(session: pytest.Session) -> None:
    guests = session.config.stash.get(_GUESTS, None)
    if guests is not None:
        guests.end()


@pytest.fixture
def guests(request: pytest.FixtureRequest) -> Guests:
    return request.config.stash[_GUESTS]
