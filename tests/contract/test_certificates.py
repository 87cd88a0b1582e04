"""Names with certificates: the real Caddy with vibeD's DNS providers, a real DNS server and a real ACME authority."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509

from tests.authority import CERTIFICATE_S, Authority, authority
from tests.contract.router_kit import Router, running, serve
from tests.e2e.instance import free_port
from tests.name_server import NameServer, name_server
from tests.unit import certificates
from vibed.classify.host_rules import host_rules
from vibed.cli import certificate
from vibed.drivers.site_facts import FILE, Facts
from vibed.sandboxes.driver import Endpoint

ZONE = "apps.test"


@dataclass
class Ground:
    """Ports that Caddy will have, and who looks for it there."""

    names: NameServer
    authority: Authority
    http_port: int
    https_port: int

    def settings(self, **more: Any) -> dict[str, Any]:
        """Of a vibeD with certificates."""
        return {
            "domain": ZONE,
            "listen": f"127.0.0.1:{self.http_port}",
            "listen_https": f"127.0.0.1:{self.https_port}",
            "dns_provider": "rfc2136",
            "dns_resolvers": (self.names.address,),
            "acme_ca": self.authority.directory,
            "acme_ca_roots": self.authority.roots,
            **more,
        }

    def running(
        self, *, base: Path | None = None, amended: Callable[[str], str] = str
    ) -> contextlib.AbstractAsyncContextManager[Router]:
        return running(self.settings(), self.names.credentials, amended, base)


@contextlib.contextmanager
def _ground(lifetime_s: int = CERTIFICATE_S) -> Iterator[Ground]:
    http_port, https_port = free_port(), free_port()
    with (
        name_server(free_port(), ZONE, "own.test") as names,
        authority(names.address, http_port, https_port, lifetime_s=lifetime_s) as made,
    ):
        yield Ground(names, made, http_port, https_port)


@pytest.fixture(scope="module")
def shared() -> Iterator[Ground]:
    with _ground() as made:
        yield made


@pytest.fixture
async def router(shared: Ground) -> AsyncIterator[Router]:
    async with shared.running() as made:
        await served(made)
        async with asyncio.timeout(90):  # the API's own, which may come after it
            while True:
                with contextlib.suppress(OSError):
                    await shown(made, ZONE)
                    break
                await asyncio.sleep(0.1)
        yield made


async def served(router: Router) -> certificate.Certificate:
    """The wildcard certificate, once it is there."""
    async with asyncio.timeout(90):
        while True:
            with contextlib.suppress(OSError):
                if (there := await asyncio.to_thread(certificate.served, router.config)) is not None:
                    return there
            await asyncio.sleep(0.1)


async def visit(
    router: Router, trusted: ssl.SSLContext, host: str, path: str = "/", *, http2: bool = False, method: str = "GET"
) -> httpx.Response:
    """As a browser that finds `host` at the router's port."""
    async with httpx.AsyncClient(verify=trusted, http2=http2, trust_env=False, timeout=20) as client:
        return await client.request(
            method,
            f"https://127.0.0.1:{router.config.https_port}{path}",
            headers={"Host": f"{host}:{router.config.https_port}"},
            extensions={"sni_hostname": host},
        )


async def shown(router: Router, host: str) -> x509.Certificate:
    """The certificate that a visitor of `host` is shown. Raises ssl.SSLError when the handshake is refused."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", router.config.https_port, ssl=context, server_hostname=host)
    raw = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return x509.load_der_x509_certificate(raw)


# the wildcard


async def test_one_certificate_is_for_all_apps_and_the_api_has_its_own(router: Router, shared: Ground) -> None:
    await router.app("todo", 1, b"todo")
    trusted = shared.authority.trusting()
    assert (await visit(router, trusted, f"todo.{ZONE}")).text == "todo 0"
    assert (await visit(router, trusted, ZONE)).text == "api"
    orders = shared.authority.orders()
    await router.app("another", 1, b"another")
    assert (await visit(router, trusted, f"another.{ZONE}")).text == "another 0"
    assert shared.authority.orders() == orders
    names = (await shown(router, f"another.{ZONE}")).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == [f"*.{ZONE}"]


async def test_a_site_and_a_name_that_leads_nowhere_are_as_in_plain_http(router: Router, shared: Ground) -> None:
    site = router.layout.home / "site"
    site.mkdir(parents=True)
    (site / "index.html").write_text("a site")
    router.markers.publish("page", 1, 1, Endpoint(site, site=True))
    trusted = shared.authority.trusting()
    assert (await visit(router, trusted, f"page.{ZONE}")).text == "a site"
    assert (await visit(router, trusted, f"nobody.{ZONE}")).text == "no app"
    assert router.asked, "the activator was asked"


async def test_http2_is_spoken_to_who_speaks_it(router: Router, shared: Ground) -> None:
    await router.app("todo", 1, b"todo")
    answer = await visit(router, shared.authority.trusting(), f"todo.{ZONE}", http2=True)
    assert (answer.http_version, answer.text) == ("HTTP/2", "todo 0")


async def test_a_websocket_is_upgraded_over_tls_and_its_frames_pass(router: Router, shared: Ground) -> None:
    async def upgraded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        key = next(line[18:].strip() for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
        writer.write(b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        while piece := await reader.read(100):
            writer.write(piece)
        writer.close()

    router.markers.make_room("chat")
    router.servers.append(await asyncio.start_unix_server(upgraded, str(router.markers.socket("chat", 1, 1))))
    router.markers.publish("chat", 1, 1, Endpoint(router.markers.socket("chat", 1, 1)))
    trusted = shared.authority.trusting()
    trusted.set_alpn_protocols(["http/1.1"])
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", router.config.https_port, ssl=trusted, server_hostname=f"chat.{ZONE}"
    )
    writer.write(
        f"GET / HTTP/1.1\r\nHost: chat.{ZONE}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    async with asyncio.timeout(20):
        assert (await reader.readline()).startswith(b"HTTP/1.1 101 ")
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in await reader.readuntil(b"\r\n\r\n")
        frame = b"\x81\x85\x00\x00\x00\x00hello"
        writer.write(frame)
        assert await reader.readexactly(len(frame)) == frame
    writer.transport.abort()


async def test_plain_http_leads_to_https_and_serves_nobody(router: Router) -> None:
    await router.app("todo", 1, b"todo")
    for host in (f"todo.{ZONE}", ZONE):
        answer = await router.ask(host, "/a?b=%20c", method="POST", content=b"said")
        assert (answer.status_code, answer.headers["Location"]) == (
            308,
            f"https://{host}:{router.config.https_port}/a?b=%20c",
        )
    assert (await router.ask("evil.example")).json()["code"] == "UnknownHost"


async def test_this_machine_asks_the_api_in_plain_http(router: Router) -> None:
    """Its commands work before there is a certificate. From elsewhere the same Host gets nothing: `far` in the file."""
    assert (await router.ask("127.0.0.1")).text == "api"


async def test_browsers_are_told_to_stay_with_https_unless_the_app_says_otherwise(
    router: Router, shared: Ground
) -> None:
    async def answer(head: bytes, body: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\nStrict-Transport-Security: max-age=0\r\nContent-Length: 2\r\n\r\nok"

    await router.app("todo", 1, b"todo")
    router.markers.make_room("own")
    router.servers.append(await serve(router.markers.socket("own", 1, 1), answer))
    router.markers.publish("own", 1, 1, Endpoint(router.markers.socket("own", 1, 1)))
    trusted = shared.authority.trusting()
    told = (await visit(router, trusted, f"todo.{ZONE}")).headers.get_list("Strict-Transport-Security")
    assert told == ["max-age=2592000"]
    told = (await visit(router, trusted, f"own.{ZONE}")).headers.get_list("Strict-Transport-Security")
    assert told == ["max-age=0"]


async def test_what_is_secret_is_in_no_log_and_no_configuration(router: Router, shared: Ground) -> None:
    secret = shared.names.credentials["key"]
    assert secret not in router.log.read_text()
    assert secret not in (router.layout.home.parent / "Caddyfile").read_text()


# an app's own domain


async def test_a_name_that_is_not_registered_is_refused_and_the_authority_hears_nothing(
    router: Router, shared: Ground
) -> None:
    await router.app("todo", 1, b"todo")
    orders = shared.authority.orders()
    for name in ("www.own.test", f"a.b.{ZONE}", "todo", "127.0.0.1"):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await shown(router, name)
    assert (await router.ask("www.own.test")).json()["code"] == "UnknownHost"
    assert shared.authority.orders() == orders


async def test_a_registered_name_gets_a_certificate_when_its_first_visitor_comes_and_leads_to_the_app(
    router: Router, shared: Ground
) -> None:
    await router.app("todo", 1, b"todo")
    orders = shared.authority.orders()
    router.markers.lead({"shop.own.test": "todo"})
    assert shared.authority.orders() == orders, "nobody came yet"
    trusted = shared.authority.trusting()
    answer = await visit(router, trusted, "shop.own.test", "/a", http2=True)
    assert (answer.text, answer.http_version) == ("todo 0", "HTTP/2")
    assert "Strict-Transport-Security" not in answer.headers, "the name is its owner's, who may take it elsewhere"
    assert shared.authority.orders() == orders + 1
    led = await router.ask("shop.own.test", "/a?b=c")
    assert (led.status_code, led.headers["Location"]) == (
        308,
        f"https://shop.own.test:{router.config.https_port}/a?b=c",
    )
    async with httpx.AsyncClient(verify=trusted, trust_env=False) as client:
        answer = await client.get(
            f"https://127.0.0.1:{router.config.https_port}/",
            headers={"Host": "SHOP.Own.Test"},
            extensions={"sni_hostname": "shop.own.test"},
        )
        assert answer.text == "todo 0"


async def test_a_domain_follows_its_app_through_a_switch_to_a_site_and_back(router: Router, shared: Ground) -> None:
    await router.app("moves", 1, b"one")
    router.markers.lead({"moves.own.test": "moves"})
    trusted = shared.authority.trusting()
    assert (await visit(router, trusted, "moves.own.test")).text == "one 0"
    await router.app("moves", 2, b"two")
    assert (await visit(router, trusted, "moves.own.test")).text == "two 0"
    site = router.layout.home / "pages"
    site.mkdir(parents=True)
    (site / "index.html").write_text("a site")
    router.markers.publish("moves", 3, 3, Endpoint(site, site=True))
    assert (await visit(router, trusted, "moves.own.test")).text == "a site"
    rules = host_rules(lambda path: "/old /new 301" if path == "_redirects" else "", "")
    (site / FILE).write_text(str(Facts.of(["index.html", "_redirects"], rules).text(spa=False, base="")))
    router.markers.publish("moves", 4, 4, Endpoint(site, site=True, ruled=True))
    answer = await visit(router, trusted, "moves.own.test", "/old")
    assert (answer.status_code, answer.headers["Location"]) == (301, "/new"), "by the site server"
    await router.app("moves", 5, b"five")
    assert (await visit(router, trusted, "moves.own.test")).text == "five 0"


async def test_a_domain_of_an_app_that_is_not_running_is_asked_of_the_activator(router: Router, shared: Ground) -> None:
    router.markers.lead({"sleeps.own.test": "sleeps"})

    async def wake(head: str) -> bytes:
        assert "Host: sleeps.own.test" in head
        await router.app("sleeps", 1, b"awake")
        return b"HTTP/1.1 204 No Content\r\n\r\n"

    router.activate = wake
    assert (await visit(router, shared.authority.trusting(), "sleeps.own.test", method="POST")).text == "awake 0"


async def test_a_domain_that_was_removed_leads_nowhere_at_once(router: Router, shared: Ground) -> None:
    await router.app("todo", 1, b"todo")
    router.markers.lead({"gone.own.test": "todo"})
    trusted = shared.authority.trusting()
    assert (await visit(router, trusted, "gone.own.test")).text == "todo 0"
    router.markers.lead({})
    answer = await visit(router, trusted, "gone.own.test")
    assert (answer.status_code, answer.json()["code"]) == (404, "UnknownHost")


# when something is away


async def test_certificates_survive_a_restart_while_the_authority_and_the_dns_are_away(tmp_path: Path) -> None:
    with _ground() as ground:
        async with ground.running(base=tmp_path) as router:
            await served(router)
            before = await shown(router, f"todo.{ZONE}")
        trusted = ground.authority.trusting()
        ground.authority.stop()
        ground.names.stop()
        async with ground.running(base=tmp_path) as router:
            await served(router)
            await router.app("todo", 1, b"todo")
            assert (await visit(router, trusted, f"todo.{ZONE}")).text == "todo 0"
            assert (await shown(router, f"todo.{ZONE}")).serial_number == before.serial_number


async def test_without_a_certificate_nothing_is_served_until_the_dns_is_back_and_it_comes_by_itself(
    tmp_path: Path,
) -> None:
    with _ground() as ground:
        ground.names.stop()
        async with ground.running(base=tmp_path) as router:
            await router.app("todo", 1, b"todo")
            async with asyncio.timeout(60):
                while "could not get certificate" not in router.log.read_text():
                    await asyncio.sleep(0.1)
            assert await asyncio.to_thread(certificate.served, router.config) is None
            assert (await router.ask(f"todo.{ZONE}")).status_code == 308, "and not the app in plain HTTP"
            ground.names.start()
            await served(router)
            assert (await visit(router, ground.authority.trusting(), f"todo.{ZONE}")).text == "todo 0"


async def test_a_certificate_is_renewed_while_it_is_served(tmp_path: Path) -> None:
    """Caddy looks every ten minutes; a certificate that lives for half a minute needs to be looked at more often."""

    def eager(text: str) -> str:
        return text.replace("http_port ", "renew_interval 1s\n\thttp_port ", 1)

    with _ground(lifetime_s=30) as ground:
        async with ground.running(base=tmp_path, amended=eager) as router:
            await router.app("todo", 1, b"todo")
            await served(router)
            first = await shown(router, f"todo.{ZONE}")
            trusted = ground.authority.trusting()
            async with asyncio.timeout(90):
                while (now := await shown(router, f"todo.{ZONE}")).serial_number == first.serial_number:
                    assert (await visit(router, trusted, f"todo.{ZONE}")).text == "todo 0"
                    await asyncio.sleep(0.2)
            assert now.not_valid_after_utc > first.not_valid_after_utc
            assert (await visit(router, trusted, f"todo.{ZONE}")).text == "todo 0"


# a certificate that somebody else renews


def _issued(folder: Path, issuer: Path) -> Path:
    """A new certificate, as a mounted Secret has it: behind a link that is moved in one step."""
    fresh = certificates.signed(issuer, folder / f"..{time.monotonic_ns()}", ZONE, f"*.{ZONE}")
    link = folder / "..new"
    link.symlink_to(fresh.name)
    link.rename(folder / "..data")
    for name in ("tls.crt", "tls.key"):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    return folder


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[tuple[Router, Path, ssl.SSLContext]]:
    """A router of a cluster whose certificate is in a Secret, the Secret's folder, and who trusts its issuer."""
    issuer = certificates.authority(tmp_path / "ca")
    folder = _issued(tmp_path / "secret", issuer)
    settings = {
        "substrate": "kubernetes",
        "domain": ZONE,
        "listen": f"127.0.0.1:{free_port()}",
        "listen_https": f"127.0.0.1:{free_port()}",
        "certificate": folder,
        "acme_ca": "https://127.0.0.1:1/dir",
        "public_url": f"https://{ZONE}",
    }
    async with running(settings) as router:
        yield router, folder, ssl.create_default_context(cafile=str(issuer / "ca.crt"))


async def test_a_certificate_in_a_secret_is_served_and_a_new_one_without_a_restart(
    kept: tuple[Router, Path, ssl.SSLContext], tmp_path: Path
) -> None:
    router, folder, trusted = kept
    first = await shown(router, f"todo.{ZONE}")
    assert (await visit(router, trusted, f"todo.{ZONE}")).text == "no app"
    assert (await shown(router, ZONE)).serial_number == first.serial_number
    _issued(folder, tmp_path / "ca")
    async with asyncio.timeout(30):
        while (now := await shown(router, f"todo.{ZONE}")).serial_number == first.serial_number:
            await asyncio.sleep(0.1)
    assert (await visit(router, trusted, f"todo.{ZONE}")).text == "no app"
    # half of a change, and something that is no certificate: what was right is served on
    (folder / "..data" / "tls.key").write_text("no key")
    async with asyncio.timeout(30):
        while "served on" not in router.log.read_text():
            assert (await shown(router, f"todo.{ZONE}")).serial_number == now.serial_number
            await asyncio.sleep(0.1)
    assert (await visit(router, trusted, f"todo.{ZONE}")).text == "no app"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await shown(router, "www.elsewhere.test")
    assert "obtain" not in router.log.read_text(), "no authority is asked for what is in the Secret"


async def test_with_another_port_in_front_visitors_are_led_there(
    kept: tuple[Router, Path, ssl.SSLContext],
) -> None:
    router, _, _ = kept
    led = await router.ask(f"todo.{ZONE}", "/a")
    assert (led.status_code, led.headers["Location"]) == (308, f"https://todo.{ZONE}/a"), "a Service leads 443 to it"
