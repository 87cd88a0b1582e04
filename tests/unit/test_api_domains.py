"""An app's own domains over HTTP, and at the activator; with a real DNS they are in tests/e2e/test_domain.py."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from api_harness import Running, refused, running

from vibed.router.activator import create_activator

NAME = "www.example.org"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(
        tmp_path / "home", tmp_path / "run", domain="apps.example.com", dns_provider="x", listen="127.0.0.1:80"
    ) as made:
        yield made


async def added(api: Running, name: str = NAME, app_id: str = "todo", **options: Any) -> dict[str, Any]:
    answer = await api.client.post(f"/v1/apps/{app_id}/domains", json={"name": name}, **options)
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def test_a_domain_is_told_its_record_and_its_url(api: Running) -> None:
    await api.deploy()
    body = await added(api)
    assert (body["name"], body["app_id"], body["verified"], body["url"]) == (NAME, "todo", False, f"https://{NAME}")
    assert body["record"]["name"] == f"_vibed.{NAME}" and body["record"]["text"].startswith("vibed=")
    assert await added(api) == body, "it is the same when it is added again"
    page = (await api.client.get("/v1/apps/todo/domains")).json()
    assert page == {"items": [body], "total": 1}


async def test_a_domain_is_verified_by_its_own_record_alone(api: Running) -> None:
    await api.deploy()
    body = await added(api)
    verify = f"/v1/apps/todo/domains/{NAME}/verify"
    refused(await api.client.post(verify), 409, "NotVerified")
    api.controller.texts = ["v=spf1 -all", "vibed=1234"]
    told = refused(await api.client.post(verify), 409, "NotVerified")
    assert told["details"]["text"] == body["record"]["text"] and "vibed=1234" in told["message"]
    assert not [op for op, _ in api.controller.calls if op == "lead"]
    api.controller.texts.append(body["record"]["text"])
    answer = await api.client.post(verify)
    assert answer.status_code == 200 and answer.json()["verified"] is True
    assert [message["domain"] for op, message in api.controller.calls if op == "texts"] == [NAME] * 3
    assert [op for op, _ in api.controller.calls][-1] == "lead", "routers are told"
    api.controller.texts = []
    assert (await api.client.post(verify)).status_code == 200, "the record may go afterwards"


async def test_anothers_app_has_no_domains_for_me(api: Running) -> None:
    mine, theirs = await api.key("alice"), await api.key("bob")
    await api.deploy(headers=mine)
    await added(api, headers=mine)
    for method, path in (
        ("GET", "/v1/apps/todo/domains"),
        ("POST", f"/v1/apps/todo/domains/{NAME}/verify"),
        ("DELETE", f"/v1/apps/todo/domains/{NAME}"),
    ):
        refused(await api.client.request(method, path, headers=theirs), 404, "NotFound")
    refused(await api.client.post("/v1/apps/todo/domains", json={"name": NAME}, headers=theirs), 404, "NotFound")


@pytest.mark.parametrize(
    "name", ["shop.apps.example.com", "apps.example.com", "*.example.org", "https://a.example", "x"]
)
async def test_a_name_that_cannot_be_an_apps_own_is_refused(api: Running, name: str) -> None:
    await api.deploy()
    refused(await api.client.post("/v1/apps/todo/domains", json={"name": name}), 422, "InvalidDomain")


async def test_a_domain_is_removed_by_whatever_case_it_is_written_in(api: Running) -> None:
    await api.deploy()
    await added(api)
    assert (await api.client.delete(f"/v1/apps/todo/domains/{NAME.upper()}")).status_code == 204
    refused(await api.client.delete(f"/v1/apps/todo/domains/{NAME}"), 404, "NotFound")


async def test_without_certificates_there_are_no_domains(tmp_path: Path) -> None:
    async with running(tmp_path / "home", tmp_path / "run") as plain:
        await plain.deploy()
        refused(await plain.client.post("/v1/apps/todo/domains", json={"name": NAME}), 422, "NotSupported")


async def test_the_urls_of_apps_and_of_the_api_are_https(api: Running) -> None:
    body = (await api.deploy()).json()
    assert body["url"] == "https://todo.apps.example.com"
    assert body["status_url"] == "https://apps.example.com/v1/apps/todo"


class Asked:
    """The controller, as the activator asks it."""

    def __init__(self) -> None:
        self.names: list[str] = []

    async def ensure(self, app_id: str, *, timeout_s: float) -> Any:
        from vibed.apps.app import Phase
        from vibed.controller.link import Outcome

        self.names.append(app_id)
        return Outcome(Phase.READY)


async def activated(api: Running, asked: Asked, host: str) -> tuple[int, dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(dict(message))

    async def receive() -> dict[str, Any]:
        return {}

    scope = {"type": "http", "headers": [(b"host", host.encode())]}
    await create_activator(api.config, api.store, asked)(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"] or b"{}")


async def test_the_activator_wakes_the_app_of_a_verified_domain_and_of_no_other(api: Running) -> None:
    await api.deploy()
    wanted = await added(api)
    asked = Asked()
    status, body = await activated(api, asked, NAME)
    assert (status, body["code"], asked.names) == (404, "AppNotFound", [])
    await api.store.verify_domain("todo", NAME, wanted["record"]["text"].removeprefix("vibed="))
    for host in (NAME, f"{NAME}:8443", NAME.upper(), "todo.apps.example.com", "todo.apps.example.com:443"):
        assert (await activated(api, asked, host))[0] == 204, host
    assert set(asked.names) == {"todo"}
