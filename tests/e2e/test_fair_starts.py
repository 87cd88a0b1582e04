"""Nobody starves nobody: what one user's apps do to another's deploys."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.e2e import samples
from tests.e2e.conftest import Apps
from tests.e2e.instance import Instance
from tests.e2e.waiting import eventually

HANGS = {
    "app.py": "import time\nfrom http.server import BaseHTTPRequestHandler, HTTPServer\n"
    "print('connecting to a database that is not there', flush=True)\ntime.sleep(3600)\n"
    "HTTPServer(('', 8080), BaseHTTPRequestHandler).serve_forever()\n"
}


def test_twelve_apps_that_never_listen_keep_nobody_elses_from_starting(second: Instance, second_apps: Apps) -> None:
    second.client.wait_for_template("python-313")
    made = second.client.ask("POST", "/v1/keys", json={"owner": "bob"})
    bob = second.client_with(made["secret"])
    names = [second_apps.name("hangs") for _ in range(12)]
    theirs = second_apps.name("theirs")
    with ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(second.client.post_deploy, name, HANGS) for name in names]
        waits = eventually(
            lambda: [name for name in names if _reason(second, name) == "WaitingForTurn"], "some wait for their turn"
        )
        assert waits
        told = second.client.app(waits[-1])
        assert "of your apps are starting (" in told["message"]
        bob.deploy_ready(theirs, samples.python_hello(1))
        assert [name for name in names if _reason(second, name) == "WaitingForTurn"], "he did not wait for all of them"
        for answer in asked:
            assert answer.result().status_code == 202
    bob.delete(theirs)
    bob.close()
    second.client.api("DELETE", f"/v1/keys/{made['key_id']}")


def _reason(vibed: Instance, name: str) -> str:
    answer = vibed.client.api("GET", f"/v1/apps/{name}")
    return str(answer.json().get("reason", ""))
