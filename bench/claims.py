"""Bare SandboxClaims: what agent-sandbox takes for them, with nothing of vibeD around."""

from __future__ import annotations

import asyncio
import secrets
import time

from vibed.cluster.client import Client
from vibed.cluster.informer import Informer
from vibed.cluster.kinds import SANDBOX_CLAIM, Object, is_ready

_LONG_S = 300.0


async def ready_after(client: Client, pool: str, count: int = 1) -> float:
    """Seconds until so many claims of a pool that are made at once are all Ready; then they are deleted. Raises
    TimeoutError, and `KubeError`.
    """
    ready: set[str] = set()
    changed = asyncio.Event()

    def hear(old: Object | None, new: Object | None) -> None:
        if new is not None and is_ready(new):
            ready.add(new["metadata"]["name"])
            changed.set()

    informer = Informer(client, SANDBOX_CLAIM, on_change=hear)
    following = asyncio.create_task(informer.run())
    await informer.synced()
    names = [f"bare-{secrets.token_hex(4)}" for _ in range(count)]
    bodies = [{"metadata": {"name": name}, "spec": {"warmPoolRef": {"name": pool}}} for name in names]
    began = time.monotonic()
    try:
        await asyncio.gather(*(client.create(SANDBOX_CLAIM, body) for body in bodies))
        async with asyncio.timeout(_LONG_S):
            while not ready.issuperset(names):
                changed.clear()
                await changed.wait()
        return time.monotonic() - began
    finally:
        following.cancel()
        await asyncio.gather(*(client.delete(SANDBOX_CLAIM, name) for name in names))
