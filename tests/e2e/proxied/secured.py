"""A second Caddy before the same apps: vibeD's own Caddyfile, with its site for apps behind TLS."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.instance import Instance, free_port
from tests.e2e.proxied.wire import Connect
from tests.e2e.waiting import eventually
from tests.prepare import home
from vibed.runtimes.tools import Tools


@contextmanager
def secured(vibed: Instance, folder: Path) -> Iterator[Connect]:
    """Run it; what is given connects, with HTTP/2 agreed on."""
    port = free_port()
    config = folder / "Caddyfile"
    config.write_text(_with_tls((vibed.layout.runtime / "Caddyfile").read_text(), port))
    env = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    argv = [str(Tools(home()).path("caddy")), "run", "--config", str(config), "--adapter", "caddyfile"]
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        name = f"any.{vibed.client.host('any').partition('.')[2].partition(':')[0]}"
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname=name, limit=1 << 20
        )
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        return reader, writer

    async def answers() -> bool:
        try:
            _, writer = await connect()
        except OSError:
            return False
        writer.close()
        return True

    with (folder / "caddy.log").open("wb") as log:
        caddy = subprocess.Popen(argv, env=env, stdout=log, stderr=log)
    try:
        eventually(lambda: asyncio.run(answers()), "a Caddy with TLS", within_s=60)
        yield connect
    finally:
        caddy.terminate()
        caddy.wait(30)


def _with_tls(text: str, port: int) -> str:
    """What is common to all sites, and of the sites only the apps': at another port, with certificates of Caddy's own
    authority.
    """
    common, sites = [], []
    for block in re.findall(r"^\S*(?: \S+)* ?\{\n.*?^\}$", text, re.MULTILINE | re.DOTALL):
        if block.startswith(("{", "(")):
            common.append(block)
        elif block.startswith("http://*."):
            sites.append(block)
    [apps] = sites
    apps = re.sub(
        r"^http://(\*\.[^:\n]+):\d+ \{\n\tbind .*$",
        rf"https://\1:{port} {{\n\tbind 127.0.0.1\n\ttls internal",
        apps,
        flags=re.MULTILINE,
    )
    above = "\n\n".join(common).replace("auto_https off", "auto_https disable_redirects\n\tskip_install_trust")
    return f"{above.replace('protocols h1 h2c', 'protocols h1 h2')}\n\n{apps}\n"
