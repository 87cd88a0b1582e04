"""The start-up probe of a driver that runs code: boot a sandbox, run a small app in it, get its answer, end it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import secrets
import shutil
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path

from vibed.apps.app import Runtime
from vibed.apps.errors import VibedError
from vibed.sandboxes.driver import Limits, Probe, Run
from vibed.sandboxes.supervisor import SupervisedDriver

_DEADLINE_S = 90.0


async def probe(
    driver: SupervisedDriver,
    template: str,
    source: Mapping[str, bytes],
    runtime: Runtime,
    env: Mapping[str, str],
    limits: Limits,
    expected: bytes,
) -> Probe:
    """Run `source` and expect an answer that contains `expected`. Never raises."""
    began = time.perf_counter()
    folder = driver.host.layout.runtime / f"probe-{secrets.token_hex(4)}"
    try:
        folder.mkdir(mode=0o700, parents=True)
        archive = folder / "source.tar.gz"
        archive.write_bytes(_pack(source))
        async with asyncio.timeout(_DEADLINE_S):
            sandbox = await driver.boot(template)
            try:
                socket = folder / "app.sock"
                run = Run("vibed-probe", 1, 1, archive, runtime, env, limits, start_timeout_s=20)
                await sandbox.run(run, socket=socket, log_dir=folder / "log", on_stage=lambda stage: None)
                answer = await _get(socket)
            finally:
                await asyncio.shield(sandbox.destroy(0))
        if expected not in answer:
            return Probe(False, driver.isolation, f"an app in it answered {answer[:200]!r} instead of {expected!r}")
    except TimeoutError:
        return Probe(False, driver.isolation, f"an app in it did not answer within {_DEADLINE_S:g} s")
    except (VibedError, OSError) as error:
        return Probe(False, driver.isolation, str(error))
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, True)
    took = (time.perf_counter() - began) * 1000
    return Probe(True, driver.isolation, f"ran an app of {template} in {took:.0f} ms; {driver.host.cgroups.detail}")


def _pack(source: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in source.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = 0o644
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


async def _get(socket: Path) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n")
        return await reader.read(65_536) + await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
