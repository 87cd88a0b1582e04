"""What a name answers when no app does, and who may speak to the API."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.e2e import samples
from tests.e2e.conftest import Apps
from tests.e2e.instance import Instance

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
PROGRAM = {"Accept": "application/json"}


def test_an_unknown_name_is_a_helpful_404(vibed: Instance) -> None:
    page = vibed.client.visit("nobody-took-this", headers=BROWSER)
    assert page.status_code == 404
    assert page.headers["content-type"].startswith("text/html")
    assert "nobody-took-this" in page.text
    assert "vibed deploy --name nobody-took-this" in page.text
    answer = vibed.client.visit("nobody-took-this", "/any/path?x=1", "POST", headers=PROGRAM, content=b"x" * 100_000)
    assert (answer.status_code, answer.json()["code"]) == (404, "AppNotFound")
    assert answer.json()["details"]["retryable"] is False


@pytest.mark.parametrize("label", ["UPPER", "under_score", "a" * 64, "-dash", "1digit", "%3cscript%3e"])
def test_a_name_that_cannot_be_an_apps_is_a_404(vibed: Instance, label: str) -> None:
    answer = vibed.client.visit(label, headers=PROGRAM)
    assert answer.status_code in (400, 404)
    assert "<script>" not in answer.text


def test_a_name_is_found_whatever_its_case(vibed: Instance, apps: Apps) -> None:
    app = apps.ready(samples.static(1))
    assert "version 1" in vibed.client.visit(app.upper()).text


@pytest.mark.parametrize("host", ["example.com", "evil.example", "a.b.localhost", "", "localhost.evil.example"])
def test_a_host_that_is_not_ours_gets_nothing(vibed: Instance, host: str) -> None:
    answer = vibed.client.http.get("/v1/apps", headers={"Host": host, "Authorization": f"Bearer {vibed.admin_key}"})
    assert answer.status_code in (400, 404, 421), answer.text
    assert "items" not in answer.text


def test_an_app_that_is_starting_holds_the_visitor_and_then_says_so(vibed: Instance, apps: Apps) -> None:
    vibed.client.wait_for_template("python-313")
    name = apps.name()
    source = samples.python_after("import time", "time.sleep(13)")
    deploy = threading.Thread(target=lambda: vibed.client_with(vibed.admin_key).post_deploy(name, source))
    deploy.start()
    try:
        while vibed.client.api("GET", f"/v1/apps/{name}").status_code != 200:
            time.sleep(0.05)
        with ThreadPoolExecutor(2) as visitors:
            person = visitors.submit(vibed.client.visit, name, headers=BROWSER)
            program = visitors.submit(vibed.client_with(vibed.admin_key).visit, name, headers=PROGRAM)
        page, answer = person.result(), program.result()
        assert page.status_code == 503, page.text
        assert page.headers["retry-after"]
        assert f"{name} is starting" in page.text
        assert 'http-equiv="refresh"' in page.text
        assert answer.status_code == 503
        assert answer.json()["details"]["retryable"] is True
        held = vibed.client.visit(name, headers=PROGRAM)
        assert (held.status_code, held.text) == (200, "version 1\n"), "a request is held until the app is there"
    finally:
        deploy.join()


def test_an_app_that_failed_says_so_without_its_log(vibed: Instance, apps: Apps) -> None:
    vibed.client.wait_for_template("python-313")
    deployed = apps.deploy(samples.python_after("raise RuntimeError('the database password is hunter2')"))
    assert deployed.phase == "Failed"
    page = vibed.client.visit(deployed.app_id, headers=BROWSER)
    assert page.status_code == 503
    assert f"{deployed.app_id} is not running" in page.text
    assert f"vibed logs {deployed.app_id}" in page.text
    assert "hunter2" not in page.text
    answer = vibed.client.visit(deployed.app_id, headers=PROGRAM)
    assert answer.json()["code"] == deployed.reason
    assert answer.json()["details"]["retryable"] is False


@pytest.mark.parametrize("path", ["/v1/apps", "/v1/templates", "/v1/keys", "/mcp"])
def test_every_call_needs_a_key_on_loopback_too(vibed: Instance, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer vibed_wrong"}, {"Authorization": f"Basic {vibed.admin_key}"}):
        answer = vibed.client.http.get(path, headers={"Host": f"localhost:{vibed.port}", **headers})
        assert answer.status_code == 401, (path, headers, answer.text)
        told = answer.json()
        # clients of MCP show what has its protocol's form, and nothing else
        assert (told["error"]["data"] if path == "/mcp" else told)["code"] == "Unauthorized"
    assert vibed.client.http.get("/healthz", headers={"Host": f"localhost:{vibed.port}"}).status_code == 200


@pytest.mark.parametrize("origin", ["http://an-app.localhost:{port}", "https://evil.example", "null"])
def test_a_page_of_another_origin_cannot_use_the_api_even_with_a_key(vibed: Instance, origin: str) -> None:
    headers = {"Origin": origin.format(port=vibed.port)}
    answer = vibed.client.post_deploy("from-a-page", samples.static(1), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "CrossOrigin")
    assert "access-control-allow-origin" not in answer.headers
    assert vibed.client.api("OPTIONS", "/v1/deploy", headers=headers).status_code in (401, 403, 405)
    assert vibed.client.api("GET", "/v1/apps/from-a-page").status_code == 404


def test_the_api_is_not_reached_through_an_apps_name(vibed: Instance, apps: Apps) -> None:
    app = apps.ready(samples.static(1))
    answer = vibed.client.visit(app, "/v1/apps", headers={"Authorization": f"Bearer {vibed.admin_key}"})
    assert answer.status_code == 404
    assert "items" not in answer.text


def test_the_routers_own_headers_cannot_be_set_by_a_visitor(vibed: Instance) -> None:
    headers = {**PROGRAM, "X-Forwarded-Host": f"localhost:{vibed.port}", "X-Vibed-App": "welcome"}
    assert vibed.client.visit("nobody-took-this", headers=headers).status_code == 404


async def test_many_visitors_of_an_app_that_is_starting_are_all_served(vibed: Instance, apps: Apps) -> None:
    vibed.client.wait_for_template("python-313")
    name = apps.name()
    source = samples.python_after("import time", "time.sleep(3)")
    deploying = asyncio.create_task(asyncio.to_thread(vibed.client.post_deploy, name, source))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{vibed.port}", trust_env=False, timeout=30) as http:
        while vibed.client.api("GET", f"/v1/apps/{name}").status_code != 200:
            await asyncio.sleep(0.02)
        answers = await asyncio.gather(
            *(http.post("/", headers={"Host": vibed.client.host(name)}, content=b"x") for _ in range(20)),
            *(http.get("/", headers={"Host": vibed.client.host(name)}) for _ in range(20)),
        )
    await deploying
    assert [answer.status_code for answer in answers[20:]] == [200] * 20
    assert {answer.status_code for answer in answers[:20]} == {501}, "the app itself refuses POST"
