"""The router with the real Caddy: how names reach apps, sites, the activator and the fallback."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest

from tests.contract.router_kit import Router, let_go, running, serve
from tests.refused import hammer
from vibed.classify.host_rules import host_rules
from vibed.drivers.site_facts import FILE, Facts
from vibed.sandboxes.driver import Endpoint


@pytest.fixture
async def router() -> AsyncIterator[Router]:
    async with running() as made:
        yield made


ACTIVATED = b"HTTP/1.1 204 No Content\r\n\r\n"


async def test_the_api_and_apps_share_one_port_by_name(router: Router) -> None:
    await router.app("todo", 1, b"todo")
    assert (await router.ask("localhost")).text == "api"
    assert (await router.ask("127.0.0.1")).text == "api"
    assert (await router.ask("todo.localhost")).text == "todo 0"
    assert (await router.ask("TODO.localhost")).text == "todo 0"


async def test_a_foreign_host_gets_a_404_and_never_an_empty_200(router: Router) -> None:
    answer = await router.ask("evil.example")
    assert answer.status_code == 404
    assert answer.json()["code"] == "UnknownHost"


async def test_a_switch_takes_every_request_that_begins_after_it(router: Router) -> None:
    await router.app("todo", 1, b"one")
    async with httpx.AsyncClient(trust_env=False) as client:
        for run in range(2, 20):
            await router.app("todo", run, b"v%d" % run)
            for _ in range(3):
                answer = await client.post(
                    f"http://127.0.0.1:{router.config.port}/", content=b"x" * 2000, headers={"Host": "todo.localhost"}
                )
                assert answer.text == f"v{run} 2000"
            router.markers.retire("todo", run - 1)


async def test_a_name_without_a_socket_is_held_by_the_activator_and_its_body_sent_once(router: Router) -> None:
    async def activate(head: str) -> bytes:
        await asyncio.sleep(0.3)
        await router.app("late", 1, b"late")
        return ACTIVATED

    router.activate = activate
    answer = await router.ask("late.localhost", "/x?dead=1", method="POST", content=b"y" * 100_000)
    assert (answer.status_code, answer.text) == (200, "late 100000")
    (asked,) = router.asked
    assert asked.startswith(b"GET / HTTP/1.1\r\n")
    assert b"Host: late.localhost" in asked


async def test_a_socket_that_is_dead_is_told_to_the_activator_and_the_request_survives(router: Router) -> None:
    router.markers.make_room("gone")
    router.markers.publish("gone", 1, 1, Endpoint(router.markers.socket("gone", 1, 1)))

    async def activate(head: str) -> bytes:
        router.markers.forget("gone", 1)
        await router.app("gone", 2, b"back")
        return ACTIVATED

    router.activate = activate
    answer = await router.ask("gone.localhost", "/form", method="POST", content=b"z" * 300_000)
    assert (answer.status_code, answer.text) == (200, "back 300000")
    assert router.asked[0].startswith(b"GET / HTTP/1.1\r\n")


async def test_what_the_activator_answers_is_what_the_visitor_gets(router: Router) -> None:
    answer = await router.ask("nobody.localhost", headers={"Accept": "text/html"})
    assert (answer.status_code, answer.text) == (404, "no app")
    assert b"Accept: text/html" in router.asked[0]


async def test_a_client_cannot_speak_to_the_activator_with_headers_or_query_of_its_own(router: Router) -> None:
    await router.ask("nobody.localhost", "/failed?marker=1", headers={"X-Vibed-Activated": "1", "Range": "bytes=0-1"})
    assert router.asked[0].startswith(b"GET / HTTP/1.1\r\n")
    assert b"X-Vibed" not in router.asked[0] and b"Range" not in router.asked[0]


async def test_while_vibed_is_down_apps_serve_and_everything_else_says_when_to_come_back(router: Router) -> None:
    await router.app("todo", 1, b"todo")
    for server in router.servers[:2]:
        server.close()
    await let_go("api.sock")
    await let_go("activator.sock")
    router.layout.serve_socket.unlink(missing_ok=True)
    router.layout.activator_socket.unlink(missing_ok=True)
    assert (await router.ask("todo.localhost")).text == "todo 0"
    for host in ("localhost", "nobody.localhost"):
        answer = await router.ask(host, method="POST", content=b"x" * 1000)
        assert answer.status_code == 503, host
        assert answer.headers["Retry-After"] == "2"
        assert answer.json()["code"] == "VibedUnavailable"


async def test_an_app_that_dies_in_the_middle_is_not_asked_twice(router: Router) -> None:
    seen: list[bytes] = []

    async def answer(head: bytes, body: bytes) -> bytes:
        seen.append(head)
        raise OSError("gone")

    router.markers.make_room("flaky")
    router.servers.append(await serve(router.markers.socket("flaky", 1, 1), answer))
    router.markers.publish("flaky", 1, 1, Endpoint(router.markers.socket("flaky", 1, 1)))
    answer_ = await router.ask("flaky.localhost", method="POST", content=b"pay")
    assert answer_.status_code in (502, 503)
    assert answer_.json()["code"] == "AppUnreachable"
    assert len(seen) == 1
    assert router.asked == []


async def test_an_api_that_dies_in_the_middle_is_a_503_that_says_so(router: Router) -> None:
    async def answer(head: bytes, body: bytes) -> bytes:
        raise OSError("gone")

    router.servers.append(await serve(router.layout.serve_socket, answer))
    await let_go("api.sock")
    said = await router.ask("localhost", "/v1/deploy", method="POST", content=b"source")
    assert (said.status_code, said.json()["code"]) == (503, "VibedUnavailable")


def site(
    router: Router, run: int, files: dict[str, str], *, spa: bool = False, ruled: bool = False, base: str = ""
) -> None:
    """Publish a site; `ruled` has the site server answer for it, whether it needs that or not."""
    folder = router.layout.home / f"site-{run}"
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    facts = Facts.of(files, host_rules(lambda path: files.get(path, ""), ""))
    said = replace(facts, ruled=ruled or facts.ruled).text(spa=spa, base=base)
    if said is not None:
        (folder / FILE).write_text(said)
    router.markers.publish("site", run, run, Endpoint(folder, site=True, spa=spa, ruled=said is not None))


either = pytest.mark.parametrize("ruled", [False, True], ids=["caddy", "site-server"])
"""Who answers makes no difference where the site says nothing."""


@either
async def test_a_site_has_folder_indexes_clean_addresses_and_its_own_404_page(router: Router, ruled: bool) -> None:
    site(
        router,
        1,
        {"index.html": "home", "docs/index.html": "docs", "about.html": "about", "404.html": "custom"},
        ruled=ruled,
    )
    assert (await router.ask("site.localhost", "/")).text == "home"
    assert (await router.ask("site.localhost", "/docs/")).text == "docs"
    assert (await router.ask("site.localhost", "/about")).text == "about"
    missing = await router.ask("site.localhost", "/nope")
    assert (missing.status_code, missing.text) == (404, "custom")


@either
async def test_a_site_that_appears_while_its_visitor_is_held_is_served_as_any_other(
    router: Router, ruled: bool
) -> None:
    async def activate(head: str) -> bytes:
        site(router, 1, {"index.html": "just in time"}, ruled=ruled)
        return ACTIVATED

    router.activate = activate
    answer = await router.ask("site.localhost", headers={"Range": "bytes=0-3", "If-None-Match": "*"})
    assert (answer.status_code, answer.text) == (200, "just in time")
    assert (await router.ask("site.localhost", headers={"Range": "bytes=0-3"})).status_code == 206


async def test_a_switch_from_one_kind_of_app_to_another_is_seen_at_once(router: Router) -> None:
    await router.app("site", 1, b"server")
    assert (await router.ask("site.localhost")).text == "server 0"
    site(router, 2, {"index.html": "static"})
    assert (await router.ask("site.localhost")).text == "static"
    site(router, 3, {"index.html": "spa"}, spa=True)
    assert (await router.ask("site.localhost", "/deep/route")).text == "spa"
    site(router, 4, {"index.html": "static again"})
    assert (await router.ask("site.localhost")).text == "static again"
    await router.app("site", 5, b"server again")
    assert (await router.ask("site.localhost")).text == "server again 0"


@either
async def test_a_single_page_app_answers_every_route_with_its_index(router: Router, ruled: bool) -> None:
    site(router, 1, {"index.html": "spa", "app.js": "js"}, spa=True, ruled=ruled)
    assert (await router.ask("site.localhost", "/orders/7")).text == "spa"
    assert (await router.ask("site.localhost", "/app.js")).text == "js"


@either
async def test_a_site_never_shows_dotfiles_or_a_folder_listing(router: Router, ruled: bool) -> None:
    site(
        router,
        1,
        {"index.html": "x", ".env": "KEY=1", "a/.git/config": "y", "b/c.txt": "z", ".well-known/ok": "ok"},
        ruled=ruled,
    )
    for path in ("/.env", "/a/.git/config", "/b/", "/%2eenv", "/b/../.env", "/..%2f..%2fetc/passwd"):
        assert (await router.ask("site.localhost", path)).status_code in (400, 404), path
    assert (await router.ask("site.localhost", "/.well-known/ok")).text == "ok"


@either
async def test_a_browser_asks_again_for_a_site_so_that_a_redeploy_is_seen(router: Router, ruled: bool) -> None:
    site(router, 1, {"index.html": "one"}, ruled=ruled)
    first = await router.ask("site.localhost")
    assert first.headers["Cache-Control"] == "no-cache"
    site(router, 2, {"index.html": "two"}, ruled=ruled)
    again = await router.ask("site.localhost", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.text) == (200, "two")


@either
@pytest.mark.parametrize("spa", [False, True])
async def test_a_folder_without_its_slash_leads_to_the_folder_so_that_its_relative_files_are_found(
    router: Router, spa: bool, ruled: bool
) -> None:
    files = {"index.html": "home", "calculator/index.html": "calc", "calculator/a.js": "js", "a b/ü/index.html": "odd"}
    site(router, 1, files, spa=spa, ruled=ruled)
    for path, to in (
        ("/calculator", "/calculator/"),
        ("/calculator?x=1&y=a%20b", "/calculator/?x=1&y=a%20b"),
        ("//evil.example/../calculator", "/calculator/"),
    ):
        for method in ("GET", "HEAD"):
            answer = await router.ask("site.localhost", path, method=method)
            assert (answer.status_code, answer.headers["Location"]) == (308, to)
    assert (await router.ask("site.localhost", "/calculator/")).text == "calc"
    assert (await router.ask("site.localhost", "/calculator/index.html")).text == "calc"
    assert (await router.ask("site.localhost", "/calculator/a.js")).text == "js"
    assert (await router.ask("site.localhost", "/a%20b/%C3%BC")).status_code == 308


@either
async def test_a_page_or_file_with_a_slash_too_many_leads_to_it(router: Router, ruled: bool) -> None:
    site(
        router, 1, {"index.html": "home", "about.html": "about", "about/team.html": "team", "x.css": "css"}, ruled=ruled
    )
    for path, to in (("/about/", "/about"), ("/about/team/?q=1", "/about/team?q=1"), ("/x.css/", "/x.css")):
        answer = await router.ask("site.localhost", path)
        assert (answer.status_code, answer.headers["Location"]) == (308, to)
    assert (await router.ask("site.localhost", "/about")).text == "about"
    assert (await router.ask("site.localhost", "/about.html")).text == "about"


@either
async def test_a_page_goes_before_a_folder_of_its_name(router: Router, ruled: bool) -> None:
    site(router, 1, {"index.html": "home", "docs.html": "page", "docs/index.html": "folder"}, ruled=ruled)
    assert (await router.ask("site.localhost", "/docs")).text == "page"
    assert (await router.ask("site.localhost", "/docs/")).text == "folder"


TYPED = {
    "font.otf": "font/otf",
    "font.woff2": "font/woff2",
    "main.ts": "text/javascript; charset=utf-8",
    "lib.mjs": "text/javascript; charset=utf-8",
    "app.webmanifest": "application/manifest+json",
    "code.wasm": "application/wasm",
    "photo.AVIF": "image/avif",
    "main.js.map": "application/json",
    "scene.glb": "model/gltf-binary",
    "song.m4a": "audio/mp4",
    "notes.md": "text/markdown; charset=utf-8",
    "subtitles.vtt": "text/vtt; charset=utf-8",
    "what.ever": "application/octet-stream",
    "LICENSE": "application/octet-stream",
    "page.htm": "text/html; charset=utf-8",
}


@either
async def test_types_are_of_a_table_of_ours_and_not_of_the_hosts(router: Router, ruled: bool) -> None:
    site(router, 1, {"index.html": "home", **dict.fromkeys(TYPED, "x")}, ruled=ruled)
    for name, kind in TYPED.items():
        answer = await router.ask("site.localhost", f"/{name}", method="HEAD")
        assert answer.headers["Content-Type"] == kind, name
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert (await router.ask("site.localhost", "/")).headers["Content-Type"] == "text/html; charset=utf-8"


@either
async def test_what_a_site_has_no_page_for_is_404_whatever_the_request_asks_of_a_page(
    router: Router, ruled: bool
) -> None:
    site(router, 1, {"index.html": "home", "404.html": "custom page", "empty/x.txt": "x"}, ruled=ruled)
    for path in ("/nope", "/nope/", "/empty/", "/empty", "/index.html/x", "/.git/config"):
        answer = await router.ask("site.localhost", path, headers={"Range": "bytes=0-2", "If-None-Match": "*"})
        assert (answer.status_code, answer.text) == (404, "custom page"), path
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    for path in ("/", "/nope"):
        answer = await router.ask("site.localhost", path, method="POST", content=b"x")
        assert answer.status_code in (404, 405)
        assert "AppUnreachable" not in answer.text


async def test_the_rules_that_a_site_brings_for_its_host_are_followed(router: Router) -> None:
    files = {
        "index.html": "home",
        "new.html": "new",
        "app/index.html": "app",
        "_redirects": "/old /new\n/docs/* https://docs.example/:splat 302\n/app/* /app/index.html 200\n/* /new 404",
        "_headers": "/*\n  X-Frame-Options: DENY\n/new\n  Cache-Control: public, max-age=60",
    }
    site(router, 1, files)
    old = await router.ask("site.localhost", "/old?q=1")
    assert (old.status_code, old.headers["Location"]) == (301, "/new?q=1")
    assert (await router.ask("site.localhost", "/docs/a/b")).headers["Location"] == "https://docs.example/a/b"
    assert (await router.ask("site.localhost", "/app/orders/7")).text == "app"
    missing = await router.ask("site.localhost", "/nope")
    assert (missing.status_code, missing.text) == (404, "new")
    new = await router.ask("site.localhost", "/new")
    assert (new.text, new.headers["X-Frame-Options"], new.headers["Cache-Control"]) == (
        "new", "DENY", "public, max-age=60",
    )  # fmt: skip
    again = await router.ask("site.localhost", "/new", headers={"If-None-Match": new.headers["ETag"]})
    assert again.status_code == 304


async def test_a_site_with_rules_outlives_its_server_and_a_client_cannot_ask_for_anothers(router: Router) -> None:
    async def activate(head: str) -> bytes:
        return ACTIVATED

    router.activate = activate
    site(router, 1, {"index.html": "home", "_headers": "/*\n  X-A: b"})
    for _ in range(3):
        answer = await router.ask("site.localhost", headers={"X-Vibed-Site": "/other/1-1.r"})
        assert (answer.text, answer.headers["X-A"]) == ("home", "b")
        assert router.site_server is not None
        router.site_server.kill()
        await router.site_server.wait()
        # while there is none, whoever asks is held: the activator says that the app is there, and Caddy tries again
        asked = asyncio.create_task(router.ask("site.localhost"))
        await asyncio.sleep(0.3)
        await router.serve_sites()
        assert ((await asked).status_code, (await asked).text) == (200, "home")


@pytest.mark.parametrize("host", ["*.localhost", "?.localhost", "[a].localhost", "..localhost", "a.b.localhost"])
async def test_a_strange_host_finds_no_app(router: Router, host: str) -> None:
    await router.app("a", 1, b"a")
    answer = await router.ask(host)
    assert answer.status_code in (400, 404)


async def converse(
    router: Router, host: str, head: str, pieces: AsyncIterator[bytes] | None = None
) -> tuple[bytes, asyncio.StreamReader]:
    """Send a request as it is written here, and go on sending; the head of the answer, and the rest of it to read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", router.config.port)
    router.clients.append(writer)
    writer.write(head.replace("HOST", f"{host}:{router.config.port}").replace("\n", "\r\n").encode() + b"\r\n\r\n")

    async def send() -> None:
        with contextlib.suppress(OSError):
            async for piece in pieces or _nothing():
                writer.write(piece)
                await writer.drain()

    sending = asyncio.create_task(send())
    try:
        async with asyncio.timeout(20):
            return await reader.readuntil(b"\r\n\r\n"), reader
    finally:
        sending.cancel()


async def _nothing() -> AsyncIterator[bytes]:
    for piece in ():
        yield piece


async def _for_ever(piece: bytes, *, every_s: float) -> AsyncIterator[bytes]:
    while True:
        yield piece
        await asyncio.sleep(every_s)


async def test_a_body_that_is_too_large_for_the_api_is_refused_before_the_api_hears_of_it(router: Router) -> None:
    reached = []

    async def api(head: bytes, body: bytes) -> bytes:
        reached.append(head)
        return b"api"

    router.servers.append(await serve(router.layout.serve_socket, api))
    for length in ("2000001", "99999999999999"):
        head, reader = await converse(
            router, "localhost", f"POST /v1/deploy HTTP/1.1\nHost: HOST\nContent-Length: {length}\nConnection: close"
        )
        assert head.startswith(b"HTTP/1.1 413 ")
        assert b"BodyTooLarge" in await reader.read()
    assert reached == []


async def test_a_body_in_chunks_that_becomes_too_large_for_the_api_is_a_413(router: Router) -> None:
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 16):
            pass

    router.layout.serve_socket.unlink()
    router.servers.append(await asyncio.start_unix_server(swallow, str(router.layout.serve_socket)))
    await let_go("api.sock")
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    head, reader = await converse(
        router,
        "localhost",
        "POST /v1/deploy HTTP/1.1\nHost: HOST\nTransfer-Encoding: chunked",
        _for_ever(chunk, every_s=0),
    )
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"BodyTooLarge" in await reader.read(400)


async def test_who_goes_on_sending_to_the_api_is_answered_all_the_same(router: Router) -> None:
    """An answer that the API gives before the end of a body (401, say) is there at once."""

    async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\n\r\nwho?")

    router.layout.serve_socket.unlink()
    router.servers.append(await asyncio.start_unix_server(refuses, str(router.layout.serve_socket)))
    await let_go("api.sock")
    head, reader = await converse(
        router,
        "localhost",
        "POST /v1/apps HTTP/1.1\nHost: HOST\nContent-Length: 100000",
        _for_ever(b"x", every_s=0.05),
    )
    assert head.startswith(b"HTTP/1.1 401 ")
    assert await reader.readexactly(4) == b"who?"


async def test_an_answer_of_a_known_length_is_passed_on_as_it_comes(router: Router) -> None:
    seen = asyncio.Event()

    async def trickles(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
        await seen.wait()
        writer.write(b"half")

    router.markers.make_room("slow")
    path = router.markers.socket("slow", 1, 1)
    router.servers.append(await asyncio.start_unix_server(trickles, str(path)))
    router.markers.publish("slow", 1, 1, Endpoint(path))
    _, reader = await converse(router, "slow.localhost", "GET / HTTP/1.1\nHost: HOST")
    async with asyncio.timeout(20):
        assert await reader.readexactly(4) == b"half"
        seen.set()
        assert await reader.readexactly(4) == b"half"


async def test_an_app_whose_backlog_is_full_is_waited_for_and_nobody_else_is_asked(router: Router) -> None:
    router.markers.make_room("busy")
    path = router.markers.socket("busy", 1, 1)
    listener = socket.socket(socket.AF_UNIX)
    with contextlib.ExitStack() as others:
        listener.bind(str(path))
        listener.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                other = others.enter_context(socket.socket(socket.AF_UNIX))
                other.setblocking(False)
                other.connect(str(path))
        router.markers.publish("busy", 1, 1, Endpoint(path))
        asking = asyncio.create_task(router.ask("busy.localhost", "/pay", method="POST", content=b"y" * 300_000))
        done, _ = await asyncio.wait([asking], timeout=0.5)
        assert not done, asking.result().text

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(300_000)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npaid" if body else b"")

        listener.setblocking(False)
        router.servers.append(await asyncio.start_unix_server(answer, sock=listener, backlog=100))
        assert (await asking).text == "paid"
    assert router.asked == []


async def test_nothing_is_asked_twice_of_an_api_that_dies_in_the_middle(router: Router) -> None:
    seen: list[bytes] = []

    async def answer(head: bytes, body: bytes) -> bytes:
        seen.append(head)
        raise OSError("gone")

    router.servers.append(await serve(router.layout.serve_socket, answer))
    await let_go("api.sock")
    for method in ("GET", "POST"):
        assert (await router.ask("localhost", method=method)).status_code == 503
    assert len(seen) == 2


async def test_who_sends_a_body_to_a_site_is_answered_and_knows_whether_the_connection_goes_on(router: Router) -> None:
    site(router, 1, {"index.html": "home"})
    wanted = {
        ("site.localhost", "POST /"): (405,),
        ("site.localhost", "PUT /nothing"): (405,),
        ("site.localhost", "GET /"): (200,),
    }
    kept, lost = await hammer(router.config.port, wanted, clients=8, rounds=15)
    assert lost == []
    assert kept
    assert b"panic" not in router.log.read_bytes()


async def test_a_connection_whose_body_caddy_has_not_read_ends_with_the_answer_that_says_so(router: Router) -> None:
    site(router, 1, {"index.html": "home"})
    wanted = {
        ("nobody.localhost", "POST /hook"): (404,),
        ("nobody.localhost", "GET /"): (404,),
        ("elsewhere.example", "POST /"): (404,),
        ("site.localhost", "GET /"): (200,),
    }
    _, lost = await hammer(
        router.config.port, wanted, clients=8, rounds=15, sizes=(1_000, 60_000, 200_000), fields=[""]
    )
    assert lost == []
    assert b"panic" not in router.log.read_bytes()


async def test_a_connection_whose_body_was_not_read_to_its_end_ends_with_the_answer_and_caddy_lives(
    router: Router,
) -> None:
    """Where another request could follow, the rest of the body would be read twice at once, which ends the process."""

    async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\nConnection: close\r\nX-Vibed-Unread: 1\r\n\r\nwho?"
        )
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()

    router.markers.make_room("early")
    path = router.markers.socket("early", 1, 1)
    router.servers.append(await asyncio.start_unix_server(refuses, str(path)))
    router.markers.publish("early", 1, 1, Endpoint(path))

    async def one(framing: str, body: tuple[bytes, bytes]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", router.config.port)
        head = f"POST / HTTP/1.1\r\nHost: early.localhost\r\n{framing}\r\n\r\n".encode()
        async with asyncio.timeout(20):
            writer.write(head + body[0])
            said = await reader.readuntil(b"\r\n\r\n")
            assert b" 401 " in said and b"\r\nConnection: close\r\n" in said and b"X-Vibed" not in said
            assert await reader.readexactly(4) == b"who?"
            writer.write(body[1] + b"GET / HTTP/1.1\r\nHost: early.localhost\r\n\r\n")
        # Nothing comes any more. The end may be left to the client, who was told: net/http can wait for the end of a
        # read that the last byte of the body has only begun.
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            async with asyncio.timeout(0.2):
                assert await reader.read() == b""
        writer.close()

    for _ in range(10):
        await asyncio.gather(
            *(one("Content-Length: 10", (b"half,", b"half.")) for _ in range(10)),
            *(one("Transfer-Encoding: chunked", (b"5\r\nhalf,\r\n", b"0\r\n\r\n")) for _ in range(10)),
        )
    assert b"panic" not in router.log.read_bytes()
    assert (await router.ask("localhost")).text == "api"
