"""A complete vibeD for the whole battery: what attackers aim at, and what must not notice."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.driver_kit import programs
from tests.e2e.instance import Instance
from tests.hostile.ground import SECRET, City

_SITE = "the neighbour's site"
_WORKER = "export default { fetch(request, env) { return new Response('the neighbour’s worker'); } };"
_PYTHON = """
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"the neighbour's app"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


@pytest.fixture(scope="session")
def agent() -> None:
    """The agent as its sources are now."""
    subprocess.run([sys.executable, "-m", "tests.prepare", "tools"], check=True, cwd=Path(__file__).parents[2])
    programs()


@pytest.fixture(scope="session")
def city(agent: None) -> Iterator[City]:
    """A vibeD with a site, a worker and a Python app, each of which has a secret."""
    instance = Instance(
        templates="static-nginx,workerd,python-313",
        pools="python-313=1,workerd=1",
        drain_s="4",
        start_timeout_s="60",
        big_packages="false",
    )
    try:
        instance.up()
        instance.client.wait_for_template("python-313")
        env = [{"name": "SECRET", "value": SECRET}]
        instance.client.deploy_ready("neighbour-site", {"index.html": _SITE, "data.txt": SECRET})
        instance.client.deploy_ready("neighbour-worker", {"worker.js": _WORKER}, env=env)
        instance.client.deploy_ready("neighbour-python", {"app.py": _PYTHON}, env=env)
        city = City(
            instance,
            {
                "neighbour-site": _SITE,
                "neighbour-worker": "the neighbour’s worker",
                "neighbour-python": "the neighbour's app",
            },
        )
        city.unharmed()
        yield city
    finally:
        left = instance.end()
    assert not left, "attacks must leave nothing behind:\n" + "\n".join(left)
