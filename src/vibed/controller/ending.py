"""How a sandbox ended, and how that is told."""

from __future__ import annotations

import asyncio
import time

from vibed.sandboxes.diagnosis import About, last_words, why_it_ended
from vibed.sandboxes.driver import Exit, Sandbox


async def how_it_ended(sandbox: Sandbox) -> Exit:
    """What its supervisor says, if that comes soon: the socket goes a moment before the account of why."""
    try:
        async with asyncio.timeout(1.0):
            return await sandbox.wait()
    except TimeoutError:
        return Exit(None, None, False, time.time())


def account(ended: Exit) -> tuple[str, str]:
    """How it ended and why, as a message; and the app's own error, empty where its last lines say nothing of why."""
    said, hint = why_it_ended(ended, About())
    # of one that was killed for memory they do not
    error = last_words(ended.tail) if not ended.oom else ""
    return f"{said}." + (f" {hint}." if hint else ""), error
