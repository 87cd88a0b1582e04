"""Whose a domain is, as the DNS says: asked by a process of its own (`vibed.router.texts`)."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from vibed.apps.errors import VibedError
from vibed.router import texts

_RESOLV_CONF = Path("/etc/resolv.conf")


class DnsUnavailable(VibedError):
    """No DNS server could be asked about a domain."""

    code = "DnsUnavailable"
    status = 503
    retryable = True


async def texts_at(name: str, resolvers: Sequence[str], *, uid: int) -> Sequence[str]:
    """The texts at `name`. `resolvers`: `host:port`, or none for the machine's; `uid`: whom to ask as, where this is
    root. Raises DnsUnavailable.
    """
    servers = list(resolvers)
    if not servers:
        try:
            servers = texts.servers_of_machine(_RESOLV_CONF.read_text())
        except OSError as error:
            raise DnsUnavailable(
                f"{_RESOLV_CONF} cannot be read: {error}", hint="the operator sets dns_resolvers"
            ) from error
    program = [sys.executable, "-I", "-S", texts.__file__, str(uid if os.geteuid() == 0 else 0), name, *servers]
    asking = await asyncio.create_subprocess_exec(
        *program, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(texts.ANSWER_S * (len(servers) + 1)):
            said, trouble = await asking.communicate()
    except TimeoutError as error:
        raise DnsUnavailable("the DNS does not answer", hint="try again") from error
    finally:
        if asking.returncode is None:
            asking.kill()
            await asking.wait()
    if asking.returncode:
        told = trouble.decode(errors="replace").strip()[-300:]
        raise DnsUnavailable(f"the DNS could not be asked for {name!r}: {told}", hint="try again in a moment")
    found: list[str] = json.loads(said)
    return found
