"""A process that stands for election, and writes down when it led: `python -m tests.cluster.candidate CONFIG NAMESPACE
LEASE_S`. Each line is a moment (of CLOCK_BOOTTIME) at which it surely led.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from vibed.cluster.client import Client
from vibed.cluster.election import Election, boot_time

NAME = "candidates"
RENEW = 2 / 3
"""Of the lease's duration: for how long a leader leads without a renewal."""


async def main(config: str, namespace: str, lease: str) -> None:
    client = Client.connect(kubeconfig=Path(config), namespace=namespace)
    lease_s = float(lease)
    election = Election(
        client,
        NAME,
        identity=str(os.getpid()),
        lease_s=lease_s,
        renew_s=lease_s * RENEW,
        every_s=min(0.5, lease_s / 10),
    )

    async def lead() -> None:
        while True:
            began = boot_time()
            # it is asked later than `began`, and who leads then led before
            if election.leading:
                print(began, flush=True)
            await asyncio.sleep(0.01)

    running = asyncio.ensure_future(election.run(lead))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        await client.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
