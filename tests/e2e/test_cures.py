"""Whoever does what the message says succeeds with the next try: failures and their cures, through the front door."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from tests.e2e.client import Client
from tests.e2e.cures import PAIRS, Pair, flask
from tests.e2e.instance import Instance
from tests.e2e.waiting import eventually

AT_ONCE = 4
"""Deploys; what takes time is waiting, for templates' processes and for registries."""
SETTLE_S = 120.0


@dataclass(frozen=True)
class Told:
    """What became of a pair."""

    phase: str
    reason: str
    message: str
    after: str
    """The phase of the app with the change, and its message."""
    answer: int
    """The status of a request to it."""


@pytest.fixture(scope="module")
def impatient() -> Iterator[Instance]:
    """A vibeD that builds, and waits for no app that does not listen."""
    vibed = Instance(start_timeout_s="20", templates="static-nginx,python-313,node-24,go-123")
    try:
        vibed.up()
        for template in ("python-313", "node-24", "go-123"):
            vibed.client.wait_for_template(template)
        yield vibed
    finally:
        left = vibed.end()
    assert not left, "a test run must leave nothing behind:\n" + "\n".join(left)


@pytest.fixture(scope="module")
def pairs(request: pytest.FixtureRequest, impatient: Instance) -> Iterator[dict[str, Future[Told]]]:
    """All pairs of this run are under way before the first is looked at."""
    asked = [item.callspec.params.get("pair") for item in request.session.items if hasattr(item, "callspec")]
    with ThreadPoolExecutor(AT_ONCE) as several:
        yield {pair.name: several.submit(_try, impatient.client, pair) for pair in PAIRS if pair in asked}


def _try(client: Client, pair: Pair) -> Told:
    name = f"cure-{pair.name}"
    answer = client.post_deploy(name, pair.broken, **pair.metadata)
    body = answer.json()
    if answer.status_code == 422:
        phase, reason = "422", str(body["code"])
        message = f"{body['message']}. {body['details'].get('hint', '')}"
    else:
        version = client.settled(name, body["version"], within_s=SETTLE_S)
        phase, reason, message = version["phase"], version["reason"], version["message"]
    again = client.post_deploy(name, pair.cured, **{**pair.metadata, **pair.cure})
    if again.status_code not in (200, 202):
        return Told(phase, reason, message, f"{again.status_code} {again.text}", 0)
    settled = client.settled(name, again.json()["version"], within_s=SETTLE_S)
    status = client.visit(name).status_code if settled["phase"] == "Ready" else 0
    client.delete(name)
    return Told(phase, reason, message, f"{settled['phase']} {settled['message']}", status)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "pair",
    [pytest.param(pair, id=pair.name, marks=[] if pair.often else [pytest.mark.everything]) for pair in PAIRS],
)
def test_the_message_names_the_cause_and_the_change_and_the_change_cures(
    pairs: dict[str, Future[Told]], pair: Pair
) -> None:
    told = pairs[pair.name].result()
    assert told.after.startswith("Ready"), f"after the change: {told.after}\nbefore: {told}"
    assert told.answer == 200
    assert pair.reason in (told.reason, told.phase), told
    for words in pair.says:
        assert words.lower() in told.message.lower(), told.message


async def test_the_words_are_the_same_over_http_mcp_and_the_command_line(impatient: Instance, tmp_path: Path) -> None:
    (pair,) = (pair for pair in PAIRS if pair.name == "python-variable")
    name = "cure-surfaces"
    for path, content in pair.broken.items():
        (tmp_path / path).write_text(str(content))
    deployed = impatient.run("deploy", str(tmp_path), "--name", name, "--yes")
    assert deployed.returncode != 0
    message = impatient.client.app(name)["message"]
    for words in pair.says:
        assert words in message
    assert message in " ".join(deployed.stderr.split())
    assert message in " ".join(impatient.run("status", name).stdout.split())
    headers = {"Authorization": f"Bearer {impatient.admin_key}", "Host": f"localhost:{impatient.port}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60, trust_env=False) as http,
        streamable_http_client(f"http://127.0.0.1:{impatient.port}/mcp", http_client=http) as streams,
        ClientSession(streams[0], streams[1]) as session,
    ):
        await session.initialize()
        found = (await session.call_tool("get_artifact_status", {"artifact_id": name})).structured_content
    assert found is not None
    assert (found["status"], found["message"]) == ("failed", message)


def test_a_page_that_fails_is_told_with_the_change_and_the_change_cures(impatient: Instance) -> None:
    client, name = impatient.client, "cure-template"
    files = {"app.py": flask(body="return render_template('home.html')"), "requirements.txt": "flask\n"}
    client.deploy_ready(name, files)
    assert "answered" not in client.app(name)["message"], "nobody asks an app to find out"
    assert client.visit(name).status_code == 500
    told = "GET / was answered 500 before any request succeeded: jinja2.exceptions.TemplateNotFound: home.html"

    def said() -> bool:
        app = client.app(name)
        return app["phase"] == "Ready" and f"{told} (app.py, line 6). Send the file in the folder" in app["message"]

    eventually(said, "the message says why", within_s=20)
    client.deploy_ready(name, {**files, "templates/home.html": "ok"})
    assert client.visit(name).text == "ok"
    assert "answered" not in client.app(name)["message"]
