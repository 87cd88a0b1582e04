"""Locks of npm 6 are renewed before anything else is done with them: what their packages say is read out of tarballs
from the registry gate, each verified by the lock's own digest, and nothing of them runs.
"""

from __future__ import annotations

import asyncio

from vibed import records
from vibed.runtimes.layers.ask import Ask
from vibed.runtimes.layers.making import Making
from vibed.runtimes.layers.npm_tree import old_lock
from vibed.runtimes.layers.npm_tree.plan import Left

log = records.logger("vibed.layers")


async def renewed(ask: Ask, making: Making, lock: str, manifest: str) -> str:
    """A lock as one of today's; as it is, where npm has to see to it. `manifest`: package.json. Raises VibedError,
    OSError.
    """
    if not old_lock.is_old(lock):
        return lock
    try:
        old = old_lock.read(lock)
        ask.say(f"reading {len(old.packages)} packages, of which a lock of npm 6 says too little")
        with making.store.making() as place:
            said = await making.steps.said(old.orders, place)
        return await asyncio.to_thread(old.renewed, manifest, said)
    except Left as why:
        log.info("a lock of npm 6 is left to npm", why=str(why))
        return lock
