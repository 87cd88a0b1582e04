"""Waiting for the end of a supervisor, whoever started it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

from vibed.processes import start_time


class Death:
    """The end of a process that may or may not be ours, awaited through a pidfd: no polling, no confusion of pids."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self._pid = pid
        self._descriptor = descriptor
        self._happened = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._note)

    @classmethod
    def of_child(cls, pid: int) -> Death:
        return cls(pid, os.pidfd_open(pid))

    @classmethod
    def of_other(cls, pid: int | None, start: object) -> Death | None:
        """Of the process that had this pid and start time (field 22 of /proc/pid/stat); None if it is gone."""
        if not pid:
            return None
        try:
            descriptor = os.pidfd_open(int(pid))
        except OSError:
            return None
        if str(start) != start_time(int(pid)):
            os.close(descriptor)
            return None
        return cls(int(pid), descriptor)

    @property
    def happened(self) -> bool:
        return self._happened.is_set()

    @property
    def closed(self) -> bool:
        """Whether nobody here will hear of it any more."""
        return self._descriptor < 0 and not self.happened

    async def wait(self) -> None:
        await self._happened.wait()

    def kill(self) -> None:
        if not self.happened and self._descriptor >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    def close(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _note(self) -> None:
        self.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, os.WNOHANG)
        self._happened.set()
