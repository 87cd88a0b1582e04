"""Attacks on vibeD itself, from the network, from the pages that apps serve, from other users' keys, from hostile
sources, and from a process that has got out of its sandbox and has nothing but its uid.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path

import httpx
import pytest

from tests.e2e.client import Client, packed
from tests.e2e.sse import events_of
from tests.e2e.waiting import eventually
from tests.hostile.ground import SECRET, City, every_socket, processes_of

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

_numbers = count(1)


@pytest.fixture(autouse=True)
def nobody_else_notices(city: City) -> Iterator[None]:
    yield
    city.unharmed()


# A page that an app serves


def test_a_page_of_an_app_cannot_use_the_api_even_with_a_key(city: City) -> None:
    client, port = city.vibed.client, city.vibed.port
    for origin in (f"http://evil.localhost:{port}", f"http://neighbour-site.localhost:{port}", "null", "http://localhost",
                   f"http://localhost:{port}.evil.localhost:{port}", f"http://localhost.:{port}", f"http://127.0.0.1:{port}",
                   f"http://localhost:{port}/", f"http://localhost:{port}@evil", "file://", "chrome-extension://x", "",
                   f"http://LOCALHOST:{port}, http://evil.localhost:{port}"):  # fmt: skip
        for method, path in (
            ("GET", "/v1/apps"),
            ("DELETE", "/v1/apps/neighbour-site"),
            ("POST", "/v1/keys"),
            ("POST", "/mcp"),
        ):
            answer = client.api(method, path, headers={"Origin": origin})
            assert answer.status_code in (400, 403), (origin, method, path, answer.status_code)
            assert SECRET not in answer.text
        preflight = client.http.request(
            "OPTIONS",
            "/v1/deploy",
            headers={"Host": f"localhost:{port}", "Origin": origin, "Access-Control-Request-Method": "POST",
                     "Access-Control-Request-Headers": "authorization"},
        )  # fmt: skip
        assert not [name for name in preflight.headers if name.startswith("access-control-")], origin


def test_the_api_answers_under_its_own_names_only(city: City) -> None:
    client, port = city.vibed.client, city.vibed.port
    key = {"Authorization": f"Bearer {client.key}"}
    for host in (f"evil.localhost:{port}", f"attacker.example:{port}", f"localhost:{port}.evil",
                 "localhost:1", "localhost", f"neighbour-site.localhost:{port}", f"api.localhost:{port}",
                 f"localhost.:{port}",
                 "169.254.169.254"):  # fmt: skip
        answer = client.http.get("/v1/apps", headers={"Host": host, **key})
        assert '"items"' not in answer.text, host
        assert "admin" not in answer.text
    for header in ("X-Forwarded-Host", "X-Original-URL", "X-Rewrite-URL", "Forwarded", "X-HTTP-Method-Override"):
        answer = client.http.get(
            "/v1/apps", headers={"Host": f"evil.localhost:{port}", header: f"localhost:{port}", **key}
        )
        assert '"items"' not in answer.text, header


def test_the_routes_between_caddy_and_vibed_are_not_reachable_from_outside(city: City) -> None:
    client, port = city.vibed.client, city.vibed.port
    for host in (f"localhost:{port}", f"127.0.0.1:{port}"):
        for path in ("/", "/config/", "/load", "/debug/pprof/"):
            assert client.http.get(path, headers={"Host": host}).status_code in (401, 404), path
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", 2019), 2).close()


# Other people's keys


@pytest.fixture(scope="module")
def mallory(city: City) -> Client:
    made = city.vibed.client.ask("POST", "/v1/keys", json={"owner": "mallory"})
    return city.vibed.client_with(made["secret"])


def test_another_owners_key_cannot_take_over_read_change_or_delete_an_app(city: City, mallory: Client) -> None:
    for name in city.apps:
        taken = mallory.post_deploy(name, {"index.html": "defaced"})
        assert taken.status_code in (403, 409), taken.text
        for method, path in (("GET", ""), ("GET", "/logs"), ("GET", "/events"), ("GET", "/versions"),
                             ("GET", "/versions/1"),
                             ("GET", "/source"), ("GET", "/versions/1/source"), ("DELETE", ""), ("POST", "/rollback"),
                             ("POST", "/redeploy"), ("PATCH", ""), ("PUT", "")):  # fmt: skip
            answer = mallory.api(method, f"/v1/apps/{name}{path}", json={"version": 1} if method == "POST" else None)
            assert answer.status_code in (403, 404, 405, 422), (method, path, answer.text)
            assert SECRET not in answer.text
    assert not set(city.apps) & {item["app_id"] for item in mallory.ask("GET", "/v1/apps")["items"]}
    assert not mallory.ask("GET", "/v1/apps", params={"owner": "admin"})["items"]
    for method, path in (("GET", "/v1/keys"), ("POST", "/v1/keys"), ("DELETE", "/v1/keys/admin")):
        assert (
            mallory.api(method, path, json={"owner": "admin", "admin": True} if method == "POST" else None).status_code
            == 403
        )


def test_a_guessed_or_malformed_key_gets_nothing(city: City) -> None:
    client, port = city.vibed.client, city.vibed.port
    for value in ("", "Bearer", "Bearer x", f"Bearer {client.key[:-1]}", f"Bearer {client.key}x",
                  f"Basic {client.key}",
                  client.key, "Bearer " + "a" * 100_000, "Bearer \u00e9",
                  f"Bearer {client.key} {client.key}"):  # fmt: skip
        headers = {b"Host": f"localhost:{port}".encode(), b"Authorization": value.encode("latin-1")}
        answer = client.http.get("/v1/apps", headers=headers)
        assert answer.status_code in (400, 401, 429, 431), (value, answer.status_code)


# Hostile sources and requests


HOSTILE_SOURCES: dict[str, dict[str, str | bytes]] = {
    "json that is deep": {"package.json": "[" * 100_000, "server.js": "x"},
    "json that is deep and valid": {"package.json": '{"a":' * 20_000 + "1" + "}" * 20_000, "server.js": "x"},
    "a number without end": {"package.json": '{"version": ' + "9" * 500_000 + "}", "server.js": "x"},
    "toml that is deep": {"wrangler.toml": "a = " + "[" * 50_000, "worker.js": "export default { fetch() {} }"},
    "toml with a long key": {"wrangler.toml": "a." * 50_000 + "b = 1", "worker.js": "export default { fetch() {} }"},
    "requirements that backtrack": {"requirements.txt": "a" * 200_000 + "[" + "," * 200_000, "app.py": "import flask"},
    "python that backtracks": {"app.py": "with " + "a" * 50_000 + ":\n" + " \n" * 50_000 + "x" * 50_000},
    "python with very many imports": {"app.py": "import " + ",".join(f"m{n}" for n in range(60_000))},
    "a procfile without end": {"Procfile": "web: " + "a;" * 300_000, "app.py": "x"},
    "a module that imports all others": {f"m{n}.py": "".join(f"import m{k}\n" for k in range(200)) for n in range(200)},
    "javascript without a statement": {"worker.js": "import" * 100_000},
    "names that are code": {"$(touch pwned).py": "x", "`id`.js": "x", "index.html": "x", "-rf": "x", "--help": "x"},
    "a start command that is shell": {"package.json": '{"scripts": {"start": "x; id | sh"}}', "a.js": ""},
    "invalid utf-8 everywhere": {"package.json": b"\xff\xfe{", "app.py": b"\xff\x00", "wrangler.toml": b"\x80"},
}  # fmt: skip


@pytest.mark.parametrize("source", HOSTILE_SOURCES.values(), ids=HOSTILE_SOURCES)
def test_the_classifier_survives(city: City, source: dict[str, str | bytes]) -> None:
    name = f"hostile-source-{next(_numbers)}"
    before = city.vibed.pids()
    answer = city.vibed.client.post_deploy(name, source)
    assert answer.status_code in (200, 202, 400, 409, 413, 422), answer.text[:500]
    assert city.vibed.pids() == before
    city.vibed.client.delete(name)


@pytest.mark.parametrize(
    "metadata",
    [
        '{"name": ' + "[" * 50_000,
        '{"name": "../../etc/x"}',
        '{"name": "neighbour-site/../x"}',
        '{"name": "x\\u0000y"}',
        '{"name": "localhost"}',
        '{"name": ".assets"}',
        '{"name": "__proto__"}',
        '{"name": "x", "env": [{"name": "A=B", "value": "1"}]}',
        '{"name": "x", "env": [{"name": "A", "value": "1\\u00002"}]}',
        '{"name": "x", "env": [{"name": "LD_PRELOAD\\n", "value": "/app/x.so"}]}',
        '{"name": "x", "owner": "admin", "lane": "host", "driver": "process", "template": "../x"}',
        '{"name": "x", "name": "neighbour-site"}',
        '{"name": "x", "entrypoint": "../../../bin/sh"}',
        '{"name": "x", "resources": {"memory_mb": 1e308, "cpu": -1}}',
        "nonsense",
    ],
)
def test_hostile_metadata_is_refused_with_a_reason(city: City, metadata: str) -> None:
    answer = city.vibed.client.api(
        "POST",
        "/v1/deploy",
        files={"source": ("s.tar.gz", _site(), "application/gzip")},
        data={"metadata": metadata},
    )
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["code"]


def test_apps_may_not_have_names_that_vibed_uses(city: City) -> None:
    for name in ("api", "localhost", "-x", "x-", "A" * 64, "a.b", "..", "*"):
        answer = city.vibed.client.post_deploy(name, {"index.html": "x"})
        assert answer.status_code in (400, 409, 422), (name, answer.text)


def test_clients_that_never_finish_their_headers_or_bodies_keep_nobody_out(city: City) -> None:
    slow = []
    for number in range(300):
        s = socket.create_connection(("127.0.0.1", city.vibed.port), 10)
        host = ("localhost", "neighbour-site.localhost", "neighbour-python.localhost")[number % 3]
        s.sendall(f"POST /v1/deploy HTTP/1.1\r\nHost: {host}:{city.vibed.port}\r\n".encode())
        if number % 2:
            key = city.vibed.client.key
            s.sendall(f"Authorization: Bearer {key}\r\nContent-Length: 9999999\r\n\r\nx".encode())
        slow.append(s)
    city.unharmed()
    for s in slow:
        s.close()


def test_uploads_that_break_off_keep_nobody_out(city: City) -> None:
    host = f"localhost:{city.vibed.port}"
    for number in range(30):
        key = city.vibed.client.key if number % 2 else "wrong"
        with socket.create_connection(("127.0.0.1", city.vibed.port), 10) as s:
            head = f"POST /v1/deploy HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n"
            s.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 99999\r\n\r\nx".encode())
        answer = city.vibed.client.http.get("/healthz", headers={"Host": host})
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("size", [1_000, 1_000_000, 20_000_000])
def test_a_refusal_is_told_whatever_is_still_being_sent(city: City, size: int) -> None:
    for headers, status in (({"Authorization": "Bearer wrong"}, (401, 429)), ({"Origin": "null"}, (403,))):
        for _ in range(5):
            answer = city.vibed.client.api("POST", "/v1/deploy", headers=headers, content=b"x" * size)
            assert answer.status_code in status, answer.text


def test_log_lines_that_look_like_events_or_terminal_codes_reach_a_reader_as_text(city: City) -> None:
    client = city.vibed.client
    name = f"hostile-lines-{next(_numbers)}"
    lines = [
        "event: gap\ndata: {}\n\nid: 9999",
        "\x1b]0;owned\x07\x1b[2J",
        '"}\n\ndata: {"stream":"system"}',
        "\u2028\u2029\x85 end",
    ]
    app = (
        "import os, sys\nfrom http.server import BaseHTTPRequestHandler, HTTPServer\n"
        f"sys.stdout.buffer.write({chr(10).join(lines).encode()!r} + b'\\nlast\\n'); sys.stdout.flush()\n"
        "HTTPServer(('127.0.0.1', int(os.environ['PORT'])), BaseHTTPRequestHandler).serve_forever()\n"
    )
    client.deploy_ready(name, {"app.py": app})
    found = eventually(lambda: [x for x in client.logs(name) if x["text"] == "last"] and client.logs(name), "its log")
    assert not [line for line in found if line["stream"] == "system" and "owned" in line["text"]]
    with client.http.stream("GET", f"/v1/apps/{name}/logs", params={"follow": "true"}, headers=_head(client)) as answer:
        seen = []
        for event in events_of(_lines(answer)):
            assert event.event in ("log", "message"), event
            seen.append(event.json)
            if seen[-1]["text"] == "last":
                break
    assert [line["text"] for line in seen] == [line["text"] for line in found][: len(seen)]
    shown = city.vibed.run("logs", name, env={"VIBED_KEY": client.key, "VIBED_URL": city.vibed.api_url})
    assert "\x1b" not in shown.stdout and "\x07" not in shown.stdout
    client.delete(name)


# Out of its sandbox, with nothing but a uid


def attempts(files: Sequence[str], sockets: Sequence[str], pids: Sequence[int]) -> list[str]:
    """What of these this process can open, write, connect to, look into or signal."""
    got = []

    def attempt(what: str, how: Callable[[], object]) -> None:
        with contextlib.suppress(OSError):
            if how() is not False:
                got.append(what)

    def read(path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read(1)

    def write(path: str, flags: int) -> None:
        os.close(os.open(path, os.O_WRONLY | flags))

    for path in files:
        attempt(f"read {path}", lambda p=path: read(p))  # type: ignore[misc]
        attempt(f"list {path}", lambda p=path: os.listdir(p))  # type: ignore[misc]
        attempt(f"write {path}", lambda p=path: write(p, 0))  # type: ignore[misc]
        attempt(f"create in {path}", lambda p=path: write(f"{p}/.hostile", os.O_CREAT))  # type: ignore[misc]
    for path in sockets:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_UNIX, kind) as s:
                attempt(f"connect {path}", lambda p=path, s=s: s.connect(p))  # type: ignore[misc]
    for pid in pids:
        for name in ("fd", "root", "cwd", "map_files"):
            attempt(f"list /proc/{pid}/{name}", lambda p=f"/proc/{pid}/{name}": os.listdir(p))  # type: ignore[misc]
        for name in ("environ", "mem", "maps"):
            attempt(f"read /proc/{pid}/{name}", lambda p=f"/proc/{pid}/{name}": read(p) or False)  # type: ignore[misc]
        attempt(f"signal {pid}", lambda p=pid: os.kill(p, 0))  # type: ignore[misc]
    return got


def as_uid(uid: int, files: Sequence[str], sockets: Sequence[str], pids: Sequence[int]) -> list[str]:
    """`attempts` in a process that has this uid and nothing else."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.chdir("/")
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            with open(into, "w") as told:
                json.dump(attempts(files, sockets, pids), told)
            status = 0
        finally:
            os._exit(status)
    os.close(into)
    with open(out) as told:
        text = told.read()
    assert os.waitpid(pid, 0)[1] == 0
    found: list[str] = json.loads(text)
    return found


def owner_of(pid: int) -> int | None:
    """The uid of a process; None when it is gone."""
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except FileNotFoundError:
        return None


def escaped(city: City, uid: int) -> list[str]:
    """What a process with this uid, and nothing else, can open of a vibeD on its machine."""
    layout = city.vibed.layout
    files = [layout.home, layout.admin_key, layout.database, layout.database.with_name("vibed.db-wal"), layout.sources,
             layout.logs, layout.own_logs, layout.sites, layout.apps, layout.ingress, layout.sandboxes, layout.runtime,
             layout.home / "state" / "signing.key", layout.home / "state"]  # fmt: skip
    for folder in (
        layout.sources, layout.logs, layout.sites, layout.own_logs, layout.apps, layout.ingress, layout.sandboxes,
    ):  # fmt: skip
        # sandboxes come and go meanwhile: os.walk passes over what has gone
        below = sorted(Path(top, name) for top, folders, names in os.walk(folder) for name in (*folders, *names))
        files += [path for path in below[:60] if not path.is_socket()]
    files += list(layout.runtime.glob("*.json"))
    pids = [*city.vibed.pids().values(), city.vibed.watchdog_pid()]
    pids += processes_of(layout.uids.sandboxes)[:20]
    sockets = every_socket(layout.runtime)
    assert len(sockets) > 8
    others = [pid for pid in pids if pid and owner_of(pid) not in (None, uid)]
    assert len(others) > 8
    return as_uid(uid, [str(path) for path in dict.fromkeys(files)], sockets, others)


def test_a_process_with_a_sandboxs_uid_can_open_no_file_no_socket_and_no_process_of_vibed(city: City) -> None:
    layout = city.vibed.layout
    free = layout.uids.sandboxes[-1]
    harmless = {f"read {layout.runtime / 'watchdog.json'}"}
    assert set(escaped(city, free)) <= harmless


def test_a_process_with_the_uid_of_a_running_app_can_open_nothing_of_other_apps(city: City) -> None:
    layout = city.vibed.layout
    uid = json.loads((Path(city.vibed.sandbox_of("neighbour-python")["folder"]) / "spec.json").read_text())["uid"]
    folder = str(city.vibed.sandbox_of("neighbour-python")["folder"])
    harmless = {f"read {layout.runtime / 'watchdog.json'}"}
    assert {one for one in escaped(city, uid) if folder not in one} <= harmless


def test_a_caddy_that_was_taken_over_has_no_key_no_store_and_no_controller(city: City) -> None:
    layout = city.vibed.layout
    got = escaped(city, layout.uids.caddy)
    private = (layout.admin_key, layout.database, layout.sources, layout.logs, layout.own_logs, layout.home / "state",
               layout.controller_socket, layout.sandboxes)  # fmt: skip
    assert not [one for one in got if any(str(path) in one for path in private)]
    assert not [one for one in got if one.startswith(("write", "create", "signal")) and "caddy/" not in one
                and str(layout.serve_socket.parent) not in one]  # fmt: skip


def test_a_server_that_was_taken_over_controls_no_sandbox_and_writes_no_site(city: City) -> None:
    layout = city.vibed.layout
    got = escaped(city, layout.uids.serve)
    assert not [one for one in got if str(layout.sandboxes) in one]
    assert not [one for one in got if one.startswith(("write", "create")) and str(layout.sites) in one]
    assert not [one for one in got if one.startswith("signal")]


def _head(client: Client) -> dict[str, str]:
    return {"Host": f"localhost:{client.port}", "Authorization": f"Bearer {client.key}"}


def _lines(answer: httpx.Response) -> Iterator[str]:
    """Lines as server-sent events have them; httpx takes more characters for their end."""
    rest = b""
    for piece in answer.iter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.decode()


def _site() -> bytes:
    return packed({"index.html": "x"})
