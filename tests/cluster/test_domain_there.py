"""A vibeD on a cluster with a domain: two routers with their certificates in one volume, a real ACME authority and a
real DNS server. What the chart mounts is where it would be; pods are fake, and Caddy and the agents are real.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

import httpx
import pytest
import pytest_asyncio
from cryptography import x509

from tests.authority import Authority, authority
from tests.cluster.cluster import Cluster
from tests.cluster.installed import Front, Installed, installed
from tests.cluster.ports import free_port
from tests.cluster.servers import server
from tests.e2e.waiting import eventually
from tests.name_server import NameServer, name_server

pytestmark = [pytest.mark.root, pytest.mark.timeout(400), pytest.mark.asyncio(loop_scope="module")]

ZONE, OWN = "apps.test", "own.test"
CERTIFICATE_S = 60
"""How long certificates live: long enough for what is done here, and renewed while it is done."""


@dataclass
class Certified:
    vibed: Installed
    names: NameServer
    authority: Authority
    https_ports: tuple[int, ...]
    """Of the two routers."""

    def visit(self, host: str, path: str = "/", *, router: int = 0) -> httpx.Response:
        """As a browser that trusts the authority, and comes by one of the routers."""
        port = self.https_ports[router]
        with httpx.Client(verify=self.authority.trusting(), http2=True, trust_env=False, timeout=60) as client:
            return client.get(
                f"https://127.0.0.1:{port}{path}", headers={"Host": host}, extensions={"sni_hostname": host}
            )

    def shown(self, host: str, *, router: int = 0) -> x509.Certificate | None:
        """The certificate that a visitor is shown; None where there is none."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.https_ports[router]), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            raw = secure.getpeercert(binary_form=True)
            assert raw is not None
            return x509.load_der_x509_certificate(raw)
        return None


def _eager(text: str) -> str:
    """Caddy looks every ten minutes whether something is to be renewed, which is long for these certificates."""
    return text.replace("http_port ", "renew_interval 1s\n\thttp_port ", 1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def certified(vibed_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Certified]:
    folder = tmp_path_factory.mktemp("certified")
    ports = ((free_port(), free_port()), (free_port(), free_port()))
    volume = folder / "volume"
    volume.mkdir()
    with (
        name_server(free_port(), ZONE, OWN) as names,
        authority(names.address, *ports[0], lifetime_s=CERTIFICATE_S) as made,
    ):
        secret = folder / "credentials.toml"
        secret.touch(mode=0o440)
        secret.write_text("\n".join(f'{name} = "{value}"' for name, value in names.credentials.items()))
        settings = {
            "VIBED_DOMAIN": ZONE,
            "VIBED_PUBLIC_URL": f"https://{ZONE}",
            "VIBED_DNS_PROVIDER": "rfc2136",
            "VIBED_DNS_CREDENTIALS": str(secret),
            "VIBED_DNS_RESOLVERS": names.address,
            "VIBED_ACME_CA": made.directory,
            "VIBED_ACME_CA_ROOTS": str(made.roots),
        }
        namespace = vibed_cluster.namespace(f"certified-{token_hex(3)}")
        async with installed(namespace, front=Front(ports, settings, volume, _eager)) as vibed:
            yield Certified(vibed, names, made, tuple(https for _, https in ports))


async def test_all_apps_have_one_certificate_for_both_routers_and_it_is_renewed_while_they_serve(
    certified: Certified,
) -> None:
    def use() -> None:
        client = certified.vibed.client
        answer = client.deploy_ready("todo", server("secure")).answer
        assert answer["url"] == f"https://todo.{ZONE}", "by the Service's port, and not by Caddy's"
        eventually(lambda: certified.shown(f"todo.{ZONE}"), "there is a certificate", within_s=90)
        first = certified.shown(f"todo.{ZONE}")
        assert first is not None
        for router in (0, 1):
            eventually(
                lambda router=router: (
                    (there := certified.shown(f"todo.{ZONE}", router=router)) is not None
                    and there.issuer == first.issuer
                ),
                "the other router has it from the volume",
                within_s=60,
            )
            there = certified.visit(f"todo.{ZONE}", router=router)
            assert (there.text, there.http_version) == ("secure", "HTTP/2")
        assert certified.visit(ZONE, "/v1/apps").status_code == 401, "the API wants a key there, too"
        led = client.http.get("/a", headers={"Host": f"todo.{ZONE}"})
        assert (led.status_code, led.headers["Location"]) == (308, f"https://todo.{ZONE}/a")

        def is_renewed() -> bool:
            assert certified.visit(f"todo.{ZONE}").text == "secure"
            now = certified.shown(f"todo.{ZONE}")
            return now is not None and now.not_valid_after_utc > first.not_valid_after_utc

        eventually(is_renewed, "it is renewed", within_s=120)
        kept = sorted(one.name for one in Path(certified.vibed.folder / "router-0/home/certificates").rglob("*.crt"))
        assert kept == [f"{ZONE}.crt", f"wildcard_.{ZONE}.crt"], "in the volume that the values name"

    await asyncio.to_thread(use)


async def test_a_domain_of_an_apps_own_gets_its_certificate_by_whichever_router_is_asked(
    certified: Certified,
) -> None:
    def use() -> None:
        vibed, client = certified.vibed, certified.vibed.client
        client.deploy_ready("shop", server("the shop"))
        before = certified.authority.orders()
        for name, router in ((f"www.{OWN}", 0), (f"shop.{OWN}", 1)):
            assert certified.shown(name, router=router) is None, "nobody has registered it"
            wanted = json.loads(vibed.cli("domains", "add", name, "--app", "shop", "--json"))
            refused = client.api("POST", f"/v1/apps/shop/domains/{name}/verify")
            assert refused.json()["code"] == "NotVerified", refused.text
            text = {wanted["record"]["name"].removesuffix(f".{OWN}"): wanted["record"]["text"]}
            certified.names.say(OWN, text)
            verified = json.loads(vibed.cli("domains", "verify", name, "--app", "shop", "--json"))
            assert verified["url"] == f"https://{name}"
            # the authority looks at the first router's port, whichever was visited: the challenge is in the volume
            found = eventually(
                lambda name=name, router=router: (
                    certified.shown(name, router=router) and certified.visit(name, router=router)
                ),
                f"{name} answers",
                within_s=60,
            )
            assert found is not None and found.text == "the shop"
        assert certified.authority.orders() >= before + 2
        vibed.cli("domains", "remove", f"www.{OWN}", "--app", "shop")
        eventually(lambda: certified.visit(f"www.{OWN}").status_code == 404, "it leads nowhere any more", within_s=30)

    await asyncio.to_thread(use)
