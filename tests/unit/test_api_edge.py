"""What every request passes first, and what every answer looks like."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from api_harness import ADMIN_KEY, Running, refused, running

from vibed.api import body as body_module
from vibed.api import edge, schema
from vibed.api.identity import WrongKeys
from vibed.apps.errors import StoreUnavailable, VibedError

ROUTES = [
    ("POST", "/v1/deploy"),
    ("GET", "/v1/apps"),
    ("GET", "/v1/apps/a"),
    ("PATCH", "/v1/apps/a"),
    ("DELETE", "/v1/apps/a"),
    ("POST", "/v1/apps/a/redeploy"),
    ("POST", "/v1/apps/a/rollback"),
    ("POST", "/v1/apps/a/request"),
    ("GET", "/v1/apps/a/logs"),
    ("GET", "/v1/apps/a/events"),
    ("GET", "/v1/apps/a/versions"),
    ("GET", "/v1/apps/a/versions/1"),
    ("GET", "/v1/apps/a/source"),
    ("GET", "/v1/templates"),
    ("GET", "/v1/layers"),
    ("POST", "/v1/layers"),
    ("GET", "/v1/layers/bakes/b"),
    ("POST", "/v1/layers/k/pin"),
    ("POST", "/v1/layers/k/unpin"),
    ("DELETE", "/v1/layers/k"),
    ("GET", "/v1/keys"),
    ("POST", "/v1/keys"),
    ("DELETE", "/v1/keys/k"),
    ("GET", "/v1/whoami"),
    ("GET", "/v1/apps/a/domains"),
    ("POST", "/v1/apps/a/domains"),
    ("POST", "/v1/apps/a/domains/d/verify"),
    ("DELETE", "/v1/apps/a/domains/d"),
    ("GET", "/v1/export"),
    ("POST", "/v1/import"),
]


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path / "home", tmp_path / "run") as made:
        yield made


@pytest.mark.parametrize(("method", "path"), [*ROUTES, ("GET", "/v1/nothing"), ("POST", "/mcp"), ("GET", "/v1")])
@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Basic YTpi", "Bearer wrong", f"Bearer {ADMIN_KEY}x", f"Token {ADMIN_KEY}"],
)
async def test_every_call_needs_a_key_on_this_machine_too(
    api: Running, method: str, path: str, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    request = api.client.build_request(method, path, headers=headers)
    if authorization is None:
        del request.headers["authorization"]
    answer = await api.client.send(request)
    refused(answer, 401, "Unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/openapi.json"])
async def test_health_metrics_and_openapi_need_none(api: Running, path: str) -> None:
    request = api.client.build_request("GET", path)
    del request.headers["authorization"]
    assert (await api.client.send(request)).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "todo.localhost:18080", "localhost:1", "localhost.evil.example:18080", ""]
)
@pytest.mark.parametrize("path", ["/v1/apps", "/healthz", "/mcp", "/openapi.json"])
async def test_a_name_that_is_not_the_apis_is_not_answered(api: Running, host: str, path: str) -> None:
    refused(await api.client.get(path, headers={"Host": host}), 421, "Misdirected")


@pytest.mark.parametrize("host", ["localhost:18080", "127.0.0.1:18080", "[::1]:18080", "LocalHost:18080"])
async def test_the_apis_own_names_are_answered(api: Running, host: str) -> None:
    assert (await api.client.get("/v1/apps", headers={"Host": host})).status_code == 200


async def test_a_production_domain_is_answered_with_and_without_its_port(tmp_path: Path) -> None:
    async with running(tmp_path / "home", tmp_path / "run", domain="apps.example.com") as api:
        for host in ("apps.example.com", "apps.example.com:18080"):
            assert (await api.client.get("/v1/apps", headers={"Host": host})).status_code == 200
        refused(await api.client.get("/v1/apps", headers={"Host": "todo.apps.example.com"}), 421, "Misdirected")


@pytest.mark.parametrize(
    "origin",
    ["http://evil.localhost:18080", "null", "http://localhost", "https://evil.example", "http://localhost:180800", ""],
)
@pytest.mark.parametrize("path", ["/v1/apps", "/mcp", "/healthz"])
async def test_a_page_of_another_origin_is_refused_even_with_the_key(api: Running, origin: str, path: str) -> None:
    answer = await api.client.get(path, headers={"Origin": origin})
    refused(answer, 403, "CrossOrigin")
    assert not [name for name in answer.headers if name.startswith("access-control-")]


async def test_a_preflight_is_not_granted(api: Running) -> None:
    answer = await api.client.options(
        "/v1/deploy", headers={"Origin": "http://evil.localhost:18080", "Access-Control-Request-Method": "POST"}
    )
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control-")]


async def test_answers_carry_security_headers_an_id_and_no_cookie(api: Running) -> None:
    for path in ("/v1/apps", "/v1/nothing", "/healthz"):
        headers = (await api.client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["x-request-id"]
        assert "set-cookie" not in headers
        assert "server" not in headers


async def test_a_cookie_is_not_a_key(api: Running) -> None:
    request = api.client.build_request(
        "GET", "/v1/apps", headers={"Cookie": f"key={ADMIN_KEY}; Authorization={ADMIN_KEY}"}
    )
    del request.headers["authorization"]
    refused(await api.client.send(request), 401, "Unauthorized")


async def test_a_key_in_the_query_is_not_a_key(api: Running) -> None:
    request = api.client.build_request("GET", f"/v1/apps?key={ADMIN_KEY}&token={ADMIN_KEY}")
    del request.headers["authorization"]
    refused(await api.client.send(request), 401, "Unauthorized")


async def test_errors_have_one_form_everywhere(api: Running) -> None:
    refused(await api.client.get("/v1/nothing"), 404, "NotFound")
    refused(await api.client.get("/nothing"), 404, "NotFound")
    answer = await api.client.put("/v1/apps")
    refused(answer, 405, "MethodNotAllowed")
    assert answer.headers["allow"] == "GET"


@pytest.mark.parametrize("method", ["TRACE", "PUT", "PROPFIND", "CONNECT", "X-OWN"])
async def test_a_method_that_is_not_possible_names_all_that_are(api: Running, method: str) -> None:
    answer = await api.client.request(method, "/v1/apps/a")
    refused(answer, 405, "MethodNotAllowed")
    assert answer.headers["allow"] == "DELETE, GET, PATCH"
    answer = await api.client.request(method, "/healthz")
    refused(answer, 405, "MethodNotAllowed")
    assert answer.headers["allow"] == "GET"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/keys", {"owner": "bob", "admin": 0}),
        ("/v1/keys", {"owner": "bob", "admin": "true"}),
        ("/v1/keys", {"owner": "bob", "label": 7}),
        ("/v1/apps/a/rollback", {"version": "1"}),
        ("/v1/apps/a/rollback", {"version": 1.0}),
        ("/v1/apps/a/rollback", {"version": True}),
        ("/v1/apps/a/request", {"path": "/", "body": 5}),
        ("/v1/apps/a/request", {"method": "get"}),
    ],
)
async def test_a_value_of_another_type_is_not_taken_for_the_right_one(api: Running, path: str, body: Any) -> None:
    await api.deploy("a")
    refused(await api.client.post(path, json=body), 422, "InvalidRequest")
    assert (await api.client.get("/v1/keys")).json()["total"] == 0
    broken = await api.client.post("/v1/keys", content=b"{", headers={"Content-Type": "application/json"})
    refused(broken, 400, "MalformedRequest")
    body = refused(await api.client.post("/v1/keys", content=b'{"owner": "a"}'), 422, "InvalidRequest")
    assert "Content-Type: application/json" in body["details"]["hint"]
    body = refused(await api.client.post("/v1/keys", json={"owner": "a b", "more": 1}), 422, "InvalidRequest")
    assert {problem["field"] for problem in body["details"]["errors"]} == {"owner", "more"}
    body = refused(await api.client.get("/v1/apps?limit=0"), 422, "InvalidRequest")
    assert body["details"]["field"] == "limit"
    refused(await api.client.get("/v1/apps?phase=Nonsense"), 422, "InvalidRequest")


def test_an_error_can_be_sent_whatever_it_names() -> None:
    half = "\ud800"
    error = VibedError(half, hint=half, details={half: half, "errors": [{half: (half, 1, None)}]})
    json.dumps(error.body(), ensure_ascii=False).encode()
    assert error.message == str(error) == r"\ud800"


async def test_what_nobody_foresaw_is_a_500_with_an_id_and_no_traceback(
    api: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("secret detail of the inside")

    monkeypatch.setattr(api.store, "list", broken)
    answer = await api.client.get("/v1/apps")
    body = refused(answer, 500, "Internal")
    assert "secret detail" not in answer.text
    assert "Traceback" not in answer.text
    assert body["details"]["request_id"] == answer.headers["x-request-id"]
    assert "request_failed" in caplog.messages


async def test_a_store_that_cannot_be_used_is_503_and_says_when_to_retry(
    api: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*args: Any, **kwargs: Any) -> None:
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(api.store, "list", full)
    answer = await api.client.get("/v1/apps")
    body = refused(answer, 503, "StoreUnavailable")
    assert body["details"]["retryable"] is True
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("method", "path", "field"),
    [
        ("POST", "/v1/apps/a/suspend", "suspend"),
        ("POST", "/v1/apps/a/resume", "resume"),
        ("GET", "/v1/apps/a/share-links", "share-links"),
        ("POST", "/v1/apps/a/share-links", "share-links"),
        ("DELETE", "/v1/apps/a/share-links/x", "share-links"),
        ("GET", "/v1/audit", "audit"),
        ("GET", "/v1/users", "users"),
        ("GET", "/v1/users/alice", "users"),
        ("GET", "/v1/quotas", "quotas"),
        ("PATCH", "/v1/quotas/alice", "quotas"),
    ],
)
async def test_a_route_that_is_not_built_yet_is_refused_by_name(
    api: Running, method: str, path: str, field: str
) -> None:
    body = refused(await api.client.request(method, path), 422, "NotSupported")
    assert body["details"]["field"] == field


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/keys"),
        ("PATCH", "/v1/apps/a"),
        ("PATCH", "/v1/apps/redeploy"),
        ("POST", "/v1/apps/a/rollback"),
    ],
)
async def test_a_json_body_is_bounded(api: Running, method: str, path: str) -> None:
    big = b'{"owner": "' + b"x" * 300_000 + b'"}'
    answer = await api.client.request(method, path, content=big, headers={"content-type": "application/json"})
    refused(answer, 413, "BodyTooLarge")

    async def unannounced() -> AsyncIterator[bytes]:
        for at in range(0, len(big), 10_000):
            yield big[at : at + 10_000]

    answer = await api.client.request(method, path, content=unannounced(), headers={"content-type": "application/json"})
    refused(answer, 413, "BodyTooLarge")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PATCH", "/v1/apps/redeploy"),
        ("POST", "/v1/apps/redeploy"),
        ("PATCH", "/v1/apps/a/redeploy"),
        ("POST", "/v1/apps/a/b/redeploy"),
        ("POST", "/v1/users/redeploy"),
    ],
)
async def test_only_a_redeploy_itself_may_have_a_body_as_large_as_a_source(
    api: Running, method: str, path: str
) -> None:
    refused(await api.client.request(method, path, content=b" " * 300_000), 413, "BodyTooLarge")
    refused(await api.client.post("/v1/apps/a/redeploy", content=b" " * 300_000), 404, "NotFound")


async def test_a_settings_change_bounds_its_body_itself_too(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "LARGEST_JSON", 1 << 30)
    answer = await api.client.patch("/v1/apps/a", content=b" " * 300_000 + b'{"env": []}')
    refused(answer, 422, "InvalidRequest")


@pytest.mark.parametrize(
    ("chunks", "length", "read", "closes"),
    [
        pytest.param(20, 20_000, 20, False, id="all of it is read and the connection is used again"),
        pytest.param(20, None, 20, False, id="a body of unknown length too"),
        pytest.param(20, 999_000_000, 0, True, id="not what is much too large"),
        pytest.param(None, 20_000, 3, True, id="not for long when the client falls silent"),
        pytest.param(0, 0, 0, False, id="there is none"),
    ],
)
async def test_the_rest_of_a_body_is_read_before_a_refusal(
    api: Running, monkeypatch: pytest.MonkeyPatch, chunks: int | None, length: int | None, read: int, closes: bool
) -> None:
    monkeypatch.setattr(body_module, "PATIENCE_S", 0.05)
    monkeypatch.setattr(body_module, "LINGER_S", 0.05)
    sent: list[dict[str, Any]] = []
    received = 0

    async def receive() -> dict[str, Any]:
        nonlocal received
        if chunks is None and received == 3:
            await asyncio.sleep(60)
        received += 1
        return {"type": "http.request", "body": b"x" * 1000, "more_body": received != chunks}

    async def send(message: Any) -> None:
        sent.append({**message, "received": received})

    framing = (b"transfer-encoding", b"chunked") if length is None else (b"content-length", str(length).encode())
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/deploy",
        "headers": [(b"host", b"localhost:18080"), (b"authorization", b"Bearer wrong"), framing],
        "client": None,
    }
    await api.app(scope, receive, send)
    assert sent[0]["status"] == 401
    assert sent[0]["received"] == read, "before the first byte of the answer"
    assert ((b"connection", b"close") in sent[0]["headers"]) is closes


async def test_wrong_keys_are_slowed_down_and_right_ones_never(api: Running) -> None:
    alice = await api.key("alice")
    codes = [
        (await api.client.get("/v1/apps", headers={"Authorization": f"Bearer wrong-{n}"})).status_code
        for n in range(30)
    ]
    assert codes[0] == 401
    answer = await api.client.get("/v1/apps", headers={"Authorization": "Bearer wrong"})
    refused(answer, 429, "TooManyAttempts")
    assert int(answer.headers["retry-after"]) >= 1
    assert (await api.client.get("/v1/apps", headers=alice)).status_code == 200
    elsewhere = {"Authorization": "Bearer wrong", "X-Forwarded-For": "198.51.100.7"}
    assert (await api.client.get("/v1/apps", headers=elsewhere)).status_code == 401


def test_wrong_keys_are_forgiven_with_time_and_addresses_are_bounded() -> None:
    wrong = WrongKeys(burst=2, per_second=1.0, addresses=3)
    assert wrong.count("a", now=0.0) is None
    assert wrong.count("a", now=0.0) is None
    assert wrong.count("a", now=0.0) is not None
    assert wrong.count("a", now=1.0) is None
    for address in "bcdefg":
        wrong.count(address, now=1.0)
    assert len(wrong._seen) == 3


async def test_openapi_lists_what_is_built_and_nothing_else(api: Running) -> None:
    document = (await api.client.get("/openapi.json")).json()
    routes = {(method.upper(), path) for path, operations in document["paths"].items() for method in operations}
    wanted = {(method, path.replace("/apps/a", "/apps/{app_id}")) for method, path in ROUTES}
    wanted = {
        (method, path.replace("/versions/1", "/versions/{number}").replace("/keys/k", "/keys/{key_id}"))
        for method, path in wanted
    }
    wanted = {(method, path.replace("/domains/d", "/domains/{name}")) for method, path in wanted}
    wanted = {
        (method, path.replace("/bakes/b", "/bakes/{bake_id}").replace("/layers/k", "/layers/{key}"))
        for method, path in wanted
    }
    assert routes == wanted | {("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/metrics")}
    fields = document["components"]["schemas"]["DeployMetadata"]["properties"]
    assert set(fields) == {"name", "runtime", "env", "env_mode", "resources", "if_exists", "if_same"}
    assert set(document["components"]["schemas"]["RuntimeRequest"]["properties"]) == {
        "lane", "template", "entrypoint", "port", "warm",
    }  # fmt: skip
    text = str(document)
    for absent in ("share-links", "suspend", "egress", "visibility", "HTTPValidationError"):
        assert absent not in text
    for path, operations in document["paths"].items():
        if path.startswith("/v1"):
            for operation in operations.values():
                assert operation["security"] == [{"key": []}]
                assert operation["responses"]["401"]["content"]["application/json"]["schema"]["$ref"].endswith("/Error")


async def test_every_reference_in_openapi_leads_somewhere(api: Running) -> None:
    document = (await api.client.get("/openapi.json")).json()

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            here = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return here + [found for item in value.values() for found in references(item)]
        return [found for item in value for found in references(item)] if isinstance(value, list) else []

    for reference in references(document):
        place: Any = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


async def test_there_are_no_documentation_pages_that_load_scripts(api: Running) -> None:
    for path in ("/docs", "/redoc"):
        refused(await api.client.get(path), 404, "NotFound")


async def test_errors_fit_their_schema(api: Running) -> None:
    schema.Error.model_validate((await api.client.get("/v1/apps/nothing")).json())
