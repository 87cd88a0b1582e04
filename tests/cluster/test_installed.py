"""The same API on a cluster: what a client of one machine does is done here, with vibeD's own processes against a real
API server, agent-sandbox, and real agents at the pods' addresses.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.cluster.cluster import Namespace
from tests.cluster.installed import Installed, installed

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

SERVER = """

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        said = SAYS.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_POST = do_GET

print("serving", flush=True)
ThreadingHTTPServer(("127.0.0.1", 0), Handler).serve_forever()
"""


def server(says: str) -> dict[str, str]:
    """A small app."""
    return {"app.py": f"SAYS = {says!r}\n{SERVER}"}


@pytest.fixture
async def vibed(apps_namespace: Namespace) -> AsyncIterator[Installed]:
    async with installed(apps_namespace) as made:
        yield made


async def test_a_site_and_a_server_are_deployed_visited_redeployed_and_deleted(vibed: Installed) -> None:
    def use() -> None:
        client = vibed.client
        client.deploy_ready("pages", {"index.html": "<h1>hello</h1>", "about.html": "about"})
        assert client.visit("pages").text == "<h1>hello</h1>"
        assert client.visit("pages", "/about").text == "about"
        client.deploy_ready("todo", server("one"))
        assert client.visit("todo").text == "one"
        assert "serving" in client.log_text("todo")
        client.deploy_ready("todo", server("two"))
        assert client.visit("todo", method="POST", content=b"x").text == "two"
        app = client.app("todo")
        assert (app["phase"], app["version"], app["isolation"]) == ("Ready", 2, "process")
        client.delete("todo")

    await asyncio.to_thread(use)
