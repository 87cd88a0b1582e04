"""What the client asks again and what it never does: against a server that answers, breaks off and delays as told."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from vibed.cluster import connection
from vibed.cluster.client import Change, Client
from vibed.cluster.errors import (
    KubeConflict,
    KubeError,
    KubeExists,
    KubeForbidden,
    KubeGone,
    KubeInvalid,
    KubeNotFound,
    KubeUnavailable,
    KubeUnconfigured,
    Request,
    refusal,
)
from vibed.cluster.kinds import CONFIG_MAP, NAMESPACE, VIBED_APP, Object

BODY: Object = {"metadata": {"name": "one"}, "data": {}}
BOUND: Object = {"metadata": {"name": "one", "resourceVersion": "5"}}
BREAK = b""
"""The answer of a server that reads a request and breaks off."""


def answer(status: int, body: object = BODY, **headers: str) -> bytes:
    content = json.dumps(body).encode()
    head = {"Content-Type": "application/json", "Content-Length": str(len(content))}
    head |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {value}" for name, value in head.items())]
    return "\r\n".join([*lines, "", ""]).encode() + content


def status(code: int, message: str = "no", reason: str = "", **details: str) -> bytes:
    return answer(code, {"kind": "Status", "message": message, "reason": reason, "code": code, "details": details})


def watched(*pieces: bytes, whole: bool = True) -> bytes:
    """The answer to a watch, in these pieces; its end is missing where it is not whole."""
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + (b"0\r\n\r\n" if whole else b"")


def event(kind: str, version: int, **data: str) -> bytes:
    item = {"metadata": {"name": "one", "resourceVersion": str(version)}, "data": data}
    return json.dumps({"type": kind, "object": item}, ensure_ascii=False).encode() + b"\n"


@dataclass
class Server:
    """Answers requests in turn, each on whatever connection it comes."""

    answers: list[bytes]
    asked: list[str] = field(default_factory=list)
    """Method and path of what was read."""
    headers: list[dict[str, str]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
                sent = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
                await reader.readexactly(int(sent.get("content-length", 0)))
                self.asked.append(head[0].removesuffix(" HTTP/1.1"))
                self.headers.append(sent)
                said = self.answers.pop(0)
                writer.write(said)
                if said == BREAK or said.startswith(b"HTTP/1.1 200 OK\r\nTransfer"):
                    break
        writer.close()


@contextlib.asynccontextmanager
async def serving(
    folder: Path, *answers: bytes, deadline_s: float = 20.0, user: Object | None = None
) -> AsyncIterator[tuple[Client, Server]]:
    script = Server(list(answers))
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    config = folder / "kubeconfig"
    config.write_text(
        json.dumps(
            {
                "current-context": "test",
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
                "users": [{"name": "test", "user": user or {"token": "t"}}],
            }
        )
    )
    client = Client.connect(kubeconfig=config, deadline_s=deadline_s)
    try:
        yield client, script
    finally:
        await client.close()
        server.close()


Call = Callable[[Client], Awaitable[object]]
READS: dict[str, Call] = {
    "get": lambda client: client.get(CONFIG_MAP, "one"),
    "objects": lambda client: client.objects(NAMESPACE),
}
REPEATABLE: dict[str, Call] = {
    "apply": lambda client: client.apply(CONFIG_MAP, BODY),
    "patch of a version": lambda client: client.patch(CONFIG_MAP, "one", BOUND),
    "delete of one object": lambda client: client.delete(CONFIG_MAP, "one", uid="u"),
    "delete of a version": lambda client: client.delete(CONFIG_MAP, "one", resource_version="5"),
}
ONCE: dict[str, Call] = {
    "create": lambda client: client.create(CONFIG_MAP, BODY),
    "replace": lambda client: client.replace(CONFIG_MAP, BOUND),
    "patch": lambda client: client.patch(CONFIG_MAP, "one", {"data": {}}),
    "delete": lambda client: client.delete(CONFIG_MAP, "one"),
}
GOOD = answer(200, {**BODY, "metadata": {"name": "one", "resourceVersion": "6"}, "items": []})


def cases(calls: dict[str, Call]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("call", calls.values(), ids=calls.keys())


@cases(READS | REPEATABLE)
@pytest.mark.parametrize("failure", [BREAK, status(500), status(504, reason="Timeout")], ids=["broken", "500", "504"])
async def test_what_changes_nothing_or_the_same_again_is_asked_until_it_is_answered(
    tmp_path: Path, call: Call, failure: bytes
) -> None:
    async with serving(tmp_path, failure, failure, GOOD) as (client, server):
        await call(client)
        assert len(server.asked) == 3


@cases(ONCE)
@pytest.mark.parametrize("failure", [BREAK, status(500), status(504, reason="Timeout")], ids=["broken", "500", "504"])
async def test_a_write_that_may_have_been_carried_out_is_not_sent_again(
    tmp_path: Path, call: Call, failure: bytes
) -> None:
    async with serving(tmp_path, failure, GOOD) as (client, server):
        with pytest.raises(KubeUnavailable) as told:
            await call(client)
        assert len(server.asked) == 1
        assert told.value.uncertain and told.value.may_retry


@cases(READS | REPEATABLE | ONCE)
@pytest.mark.parametrize(
    "refused",
    [answer(429, {}, Retry_After="0"), answer(503, {}, Retry_After="0"), answer(429, {})],
    ids=["429", "503", "429 without a time"],
)
async def test_what_the_server_has_no_room_for_is_asked_again_whatever_it_is(
    tmp_path: Path, call: Call, refused: bytes
) -> None:
    async with serving(tmp_path, refused, GOOD) as (client, server):
        await call(client)
        assert len(server.asked) == 2


@pytest.mark.parametrize("wait", ["7", "Mon, 30 Nov 2099 20:00:00 GMT"], ids=["seconds", "date"])
async def test_a_server_that_wants_to_be_asked_later_than_the_deadline_is_not_asked_before(
    tmp_path: Path, wait: str
) -> None:
    async with serving(tmp_path, answer(429, {}, Retry_After=wait), GOOD, deadline_s=3.0) as (client, server):
        with pytest.raises(KubeUnavailable) as told:
            await client.get(CONFIG_MAP, "one")
        assert len(server.asked) == 1
        assert not told.value.uncertain


async def test_503_without_a_time_is_no_promise_and_a_write_ends_with_it(tmp_path: Path) -> None:
    async with serving(tmp_path, status(503), GOOD) as (client, server):
        with pytest.raises(KubeUnavailable):
            await client.create(CONFIG_MAP, BODY)
        assert len(server.asked) == 1


async def test_a_server_that_is_silent_is_given_up_at_the_deadline(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with serving(tmp_path, deadline_s=0.5) as (client, server):
        server.serve = silent  # type: ignore[method-assign]
        listening = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        client._connection.calls.base_url = f"http://127.0.0.1:{port}"  # type: ignore[assignment]
        with pytest.raises(KubeUnavailable) as told:
            await client.replace(CONFIG_MAP, BOUND)
        assert told.value.uncertain
        listening.close()


async def test_a_list_is_read_page_by_page_and_anew_in_one_when_its_moment_is_forgotten(tmp_path: Path) -> None:
    def page(name: str, more: str) -> bytes:
        item = {"metadata": {"name": name, "managedFields": [{"manager": "x"}]}}
        return answer(200, {"metadata": {"resourceVersion": "9", "continue": more}, "items": [item]})

    whole = answer(200, {"metadata": {"resourceVersion": "10"}, "items": [{"metadata": {"name": "c"}}]})
    async with serving(tmp_path, page("a", "m1"), page("b", ""), page("a", "m1"), status(410), whole) as (
        client,
        server,
    ):
        found = await client.objects(CONFIG_MAP, labels="a=b,c", fields="x=y")
        assert [item["metadata"] for item in found.items] == [{"name": "a"}, {"name": "b"}]
        assert found.resource_version == "9"
        assert server.asked[1].endswith("?labelSelector=a%3Db%2Cc&fieldSelector=x%3Dy&limit=250&continue=m1")
        found = await client.objects(CONFIG_MAP)
        assert ([item["metadata"]["name"] for item in found.items], found.resource_version) == (["c"], "10")
        assert "limit" not in server.asked[-1]


async def test_no_more_than_a_page_of_a_list_is_ever_there_in_full(tmp_path: Path) -> None:
    def page(name: str, more: str) -> bytes:
        item = {"metadata": {"name": name}, "spec": {"much": "x" * 100}}
        return answer(200, {"metadata": {"resourceVersion": "9", "continue": more}, "items": [item]})

    async with serving(tmp_path, page("a", "m1"), page("b", "")) as (client, server):
        pages_asked_for: list[int] = []

        def trim(item: Object) -> Object:
            pages_asked_for.append(len(server.asked))
            return {"metadata": item["metadata"]}

        found = await client.objects(CONFIG_MAP, trim=trim)
        assert pages_asked_for == [1, 2]
        assert found.items == [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]


async def changes(client: Client) -> list[Change]:
    return [change async for change in client.watch(CONFIG_MAP, since="5", lasts_s=10.0)]


async def test_a_watch_is_a_bookmark_of_its_beginning_and_then_what_changes_however_it_is_cut(tmp_path: Path) -> None:
    sent = event("ADDED", 6, a="x\u2028y\u0085z") + event("MODIFIED", 7) + event("BOOKMARK", 8) + event("DELETED", 9)
    pieces = [sent[at : at + 7] for at in range(0, len(sent), 7)]
    async with serving(tmp_path, watched(*pieces)) as (client, server):
        heard = await changes(client)
        assert [(change.type, change.resource_version) for change in heard] == [
            *(("BOOKMARK", "5"), ("ADDED", "6"), ("MODIFIED", "7"), ("BOOKMARK", "8"), ("DELETED", "9")),
        ]
        assert heard[1].object["data"] == {"a": "x\u2028y\u0085z"}
        asked = "?watch=true&allowWatchBookmarks=true&resourceVersion=5&timeoutSeconds=10"
        assert server.asked == [f"GET /api/v1/namespaces/default/configmaps{asked}"]


async def test_of_a_watch_that_breaks_off_only_whole_events_are_told(tmp_path: Path) -> None:
    async with serving(tmp_path, watched(event("ADDED", 6), event("ADDED", 7)[:20], whole=False)) as (client, _):
        heard = []
        with pytest.raises(KubeUnavailable):
            async for change in client.watch(CONFIG_MAP, since="5"):
                heard.append(change.resource_version)
        assert heard == ["5", "6"]


@pytest.mark.parametrize(
    "gone",
    [
        status(410, "too old resource version", "Expired"),
        watched(json.dumps({"type": "ERROR", "object": {"code": 410, "message": "too old"}}).encode() + b"\n"),
    ],
    ids=["as an answer", "as an event"],
)
async def test_a_version_that_the_server_has_forgotten_is_gone(tmp_path: Path, gone: bytes) -> None:
    async with serving(tmp_path, gone) as (client, _):
        with pytest.raises(KubeGone, match="too old"):
            await changes(client)


async def test_another_error_in_a_watch_is_told(tmp_path: Path) -> None:
    failed = watched(json.dumps({"type": "ERROR", "object": {"code": 500, "message": "etcd"}}).encode() + b"\n")
    async with serving(tmp_path, failed) as (client, _):
        with pytest.raises(KubeUnavailable, match="etcd"):
            await changes(client)


async def test_what_is_no_kubernetes_api_is_said_to_be_none(tmp_path: Path) -> None:
    async with serving(tmp_path, answer(200, "hello"), watched(b"<html>\n")) as (client, _):
        with pytest.raises(KubeUnavailable, match="not the Kubernetes API"):
            await client.create(CONFIG_MAP, BODY)
        with pytest.raises(KubeUnavailable, match="not the Kubernetes API"):
            await changes(client)


async def test_unknown_fields_are_refused_in_our_own_kind_alone(tmp_path: Path) -> None:
    async with serving(tmp_path, GOOD, GOOD) as (client, server):
        await client.create(VIBED_APP, BODY)
        await client.create(CONFIG_MAP, BODY)
        assert "fieldValidation=Strict" in server.asked[0]
        assert "fieldValidation" not in server.asked[1]


async def test_a_token_that_the_server_refuses_is_read_again_and_only_a_new_one_is_tried(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("one\n")
    async with serving(tmp_path, GOOD, status(401), GOOD, status(401), user={"tokenFile": str(token)}) as (
        client,
        server,
    ):
        await client.get(CONFIG_MAP, "one")
        token.write_text("two\n")
        await client.create(CONFIG_MAP, BODY)
        with pytest.raises(KubeForbidden):
            await client.create(CONFIG_MAP, BODY)
        sent = [headers["authorization"] for headers in server.headers]
        assert sent == ["Bearer one", "Bearer one", "Bearer two", "Bearer two"]


async def test_a_token_is_read_again_in_time_though_the_old_one_is_still_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("one")
    monkeypatch.setattr(connection, "_REREAD_S", 0.0)
    async with serving(tmp_path, GOOD, GOOD, user={"tokenFile": str(token)}) as (client, server):
        await client.get(CONFIG_MAP, "one")
        token.write_text("two")
        await client.get(CONFIG_MAP, "one")
        assert [headers["authorization"] for headers in server.headers] == ["Bearer one", "Bearer two"]


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
async def test_a_plugin_gives_the_token_and_is_told_which_version_is_asked_of_it(tmp_path: Path, version: str) -> None:
    plugin = tmp_path / "plugin"
    plugin.write_text('#!/bin/sh\necho "$KUBERNETES_EXEC_INFO" > "$1"\necho \'{"status": {"token": "given"}}\'\n')
    plugin.chmod(0o755)
    api = f"client.authentication.k8s.io/{version}"
    user: Object = {"exec": {"apiVersion": api, "command": str(plugin), "args": [str(tmp_path / "asked")]}}
    async with serving(tmp_path, GOOD, user=user) as (client, server):
        await client.get(CONFIG_MAP, "one")
        assert server.headers[0]["authorization"] == "Bearer given"
    assert json.loads((tmp_path / "asked").read_text())["apiVersion"] == api


async def test_a_plugin_that_fails_is_told_with_its_words(tmp_path: Path) -> None:
    user: Object = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": "sh",
            "args": ["-c", "echo log in first >&2; exit 1"],
        }
    }
    async with serving(tmp_path, user=user, deadline_s=0.5) as (client, _):
        with pytest.raises(KubeUnavailable, match="log in first"):
            await client.get(CONFIG_MAP, "one")


@pytest.mark.parametrize("text", ["", "a: b: c", "clusters: 3", "{}", '{"clusters": [], "contexts": [], "users": []}'])
def test_a_kubeconfig_that_leads_nowhere_is_refused_with_a_cure(tmp_path: Path, text: str) -> None:
    config = tmp_path / "kubeconfig"
    config.write_text(text)
    with pytest.raises(KubeUnconfigured) as told:
        Client.connect(kubeconfig=config)
    assert told.value.hint
    with pytest.raises(KubeUnconfigured, match="not found"):
        Client.connect(kubeconfig=tmp_path / "none")


ASKED = Request("create", VIBED_APP, "apps", "one")


@pytest.mark.parametrize(
    ("code", "message", "reason", "expected", "retryable"),
    [
        (404, "not found", "NotFound", KubeNotFound, False),
        (409, "already exists", "AlreadyExists", KubeExists, False),
        (409, "the object has been modified", "Conflict", KubeConflict, True),
        (410, "too old", "Expired", KubeGone, True),
        (401, "Unauthorized", "Unauthorized", KubeForbidden, False),
        (403, 'User "x" cannot create resource', "Forbidden", KubeForbidden, False),
        (403, "status unknown for quota: q", "Forbidden", KubeForbidden, True),
        (403, "exceeded quota: q", "Forbidden", KubeForbidden, True),
        (403, "namespace is being terminated", "Forbidden", KubeForbidden, False),
        (422, "spec.a: Invalid", "Invalid", KubeInvalid, False),
        (400, 'unknown field "spec.b"', "BadRequest", KubeInvalid, False),
        (413, "Request entity too large", "", KubeInvalid, False),
        (500, ".spec.b: field not declared in schema", "", KubeInvalid, False),
        (500, "etcdserver: request is too large", "", KubeInvalid, False),
        (500, "etcdserver: leader changed", "", KubeUnavailable, True),
        (429, "too many requests", "TooManyRequests", KubeUnavailable, True),
        (504, "Timeout", "Timeout", KubeUnavailable, True),
    ],
)
def test_what_the_api_refuses_becomes_one_error_with_its_words(
    code: int, message: str, reason: str, expected: type[KubeError], retryable: bool
) -> None:
    error = refusal(ASKED, code, {"message": message, "reason": reason, "details": {"name": "one"}})
    assert type(error) is expected
    assert error.may_retry is retryable
    assert error.message == f"Kubernetes did not create vibedapps.vibed.dev/one in namespace apps: {message}"
