"""A whole vibeD with a domain: its certificate, apps' own domains, and what is secret, with a real BIND and Pebble."""

from __future__ import annotations

import json
import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.authority import Authority, authority
from tests.e2e import samples
from tests.e2e.client import Client
from tests.e2e.instance import Instance, free_port
from tests.e2e.waiting import eventually
from tests.name_server import NameServer, name_server

ZONE = "apps.test"
OWN = "own.test"


@dataclass
class Served:
    vibed: Instance
    names: NameServer
    authority: Authority
    https_port: int
    told: dict[str, Any]
    """What `vibed up` told."""

    @property
    def client(self) -> Client:
        return self.vibed.client

    def visit(self, host: str, path: str = "/", **options: Any) -> httpx.Response:
        """As a browser that trusts the authority."""
        with httpx.Client(verify=self.authority.trusting(), http2=True, trust_env=False, timeout=60) as client:
            return client.get(
                f"https://127.0.0.1:{self.https_port}{path}",
                headers={"Host": f"{host}:{self.https_port}"},
                extensions={"sni_hostname": host},
                **options,
            )

    def domains(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """`vibed domains … --json`: its exit status, and what it said."""
        done = self.vibed.run("domains", *arguments, "--json")
        return done.returncode, json.loads(done.stdout or done.stderr)

    def verified(self, name: str, app_id: str) -> None:
        """Have a domain below `OWN` lead to an app."""
        status, wanted = self.domains("add", name, "--app", app_id)
        assert status == 0, wanted
        self.names.say(OWN, {wanted["record"]["name"].removesuffix(f".{OWN}"): wanted["record"]["text"]})
        status, said = self.domains("verify", name, "--app", app_id)
        assert status == 0, said


def _port() -> int:
    """One that root alone may take, where this is root: Caddy, which is not, has to be let."""
    if os.geteuid() != 0:
        return free_port()
    for port in range(700, 1024):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            if port not in _taken:
                _taken.add(port)
                return port
    raise AssertionError("no port is free")


_taken: set[int] = set()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    http_port, https_port = _port(), _port()
    with (
        name_server(free_port(), ZONE, OWN) as names,
        authority(names.address, http_port, https_port) as made,
    ):
        vibed = Instance(
            listen=f"127.0.0.1:{http_port}",
            listen_https=f"127.0.0.1:{https_port}",
            dns_provider="rfc2136",
            dns_resolvers=names.address,
            acme_ca=made.directory,
            acme_ca_roots=str(made.roots),
            templates="static-nginx,workerd",
            pools="workerd=1",
            layers="false",
        )
        vibed.port = http_port
        secret = vibed.root / "dns.toml"
        secret.touch(mode=0o600)
        secret.write_text("\n".join(f'{name} = "{value}"' for name, value in names.credentials.items()))
        vibed.env["VIBED_DNS_CREDENTIALS"] = str(secret)
        try:
            told = vibed.up("--domain", ZONE)
            yield Served(vibed, names, made, https_port, told)
        finally:
            left = vibed.end()
        assert not left, "\n".join(left)


def test_up_waits_for_the_certificate_and_keeps_the_domain(served: Served) -> None:
    assert served.told["api_url"] == f"https://{ZONE}:{served.https_port}"
    assert served.told["example_url"] == f"https://welcome.{ZONE}:{served.https_port}"
    assert served.visit(f"welcome.{ZONE}").status_code == 200
    assert f'domain = "{ZONE}"' in (served.vibed.home / "vibed.toml").read_text()
    before = served.vibed.pids()
    assert served.vibed.up()["api_url"] == served.told["api_url"], "without saying it again"
    assert served.vibed.pids() == before


def test_every_url_that_is_told_is_one_that_a_browser_can_open(served: Served) -> None:
    answer = served.client.deploy_ready("urls", samples.static(1)).answer
    try:
        assert answer["url"] == f"https://urls.{ZONE}:{served.https_port}"
        assert answer["status_url"] == f"https://{ZONE}:{served.https_port}/v1/apps/urls"
        assert "version 1" in served.visit(f"urls.{ZONE}").text
        shown = json.loads(served.vibed.run("apps", "--json").stdout)
        assert answer["url"] in [app["url"] for app in shown["items"]]
        api = served.visit(ZONE, "/v1/apps/urls")
        assert (api.status_code, api.http_version) == (401, "HTTP/2"), "the API wants a key, there too"
    finally:
        served.client.delete("urls")


def test_doctor_tells_how_the_certificate_stands_and_where_the_names_lead(served: Served) -> None:
    done = served.vibed.run("doctor", "--json")
    findings = {one["name"]: one for one in json.loads(done.stdout)["findings"]}
    assert "until 20" in findings["certificate"]["detail"] and "trust" in findings["certificate"]["detail"]
    assert findings["domain"]["ok"] is False, "this machine's DNS does not know the name"
    assert "tool caddy-dns" in findings and "tool caddy" not in findings


def test_credentials_are_where_caddy_alone_reads_them(served: Served) -> None:
    layout = served.vibed.layout
    secret = served.names.credentials["key"]
    file = layout.acme / "key"
    assert file.read_text() == secret and file.stat().st_mode & 0o777 == 0o640
    assert layout.certificates.stat().st_mode & 0o777 == 0o700
    if os.geteuid() == 0:
        assert (file.stat().st_uid, file.stat().st_gid) == (0, layout.uids.caddy)
        assert layout.certificates.stat().st_uid == layout.uids.caddy
    for pid in (*served.vibed.pids().values(), served.vibed.watchdog_pid()):
        for part in ("cmdline", "environ"):
            assert secret.encode() not in Path(f"/proc/{pid}/{part}").read_bytes()
    kept = [layout.runtime / name for name in ("Caddyfile", "plan.json", "sites.json")]
    kept += [*layout.own_logs.glob("*.log"), *layout.runtime.glob("*.confine.json")]
    assert not [str(path) for path in kept if secret in path.read_text(errors="replace")]


@pytest.mark.root
def test_caddy_takes_a_port_of_root_and_has_no_other_right(served: Served) -> None:
    status = Path(f"/proc/{served.vibed.pids()['caddy']}/status").read_text()
    said = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    only_bind = 1 << 10  # CAP_NET_BIND_SERVICE, include/uapi/linux/capability.h
    assert {name: int(said[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == dict.fromkeys(
        ("CapEff", "CapPrm", "CapBnd"), only_bind
    )
    assert said["Uid"].split()[0] == str(served.vibed.layout.uids.caddy)


# an app's own domain


def test_a_domain_leads_to_an_app_when_its_record_is_there_and_not_before(served: Served) -> None:
    served.client.deploy_ready("shop", samples.static(1))
    name = f"www.{OWN}"
    try:
        status, wanted = served.domains("add", name.upper(), "--app", "shop")
        assert (status, wanted["name"], wanted["verified"]) == (0, name, False)
        orders = served.authority.orders()
        served.names.say(OWN, {"_vibed.www": "vibed=somebody-elses"})
        status, refused = served.domains("verify", name, "--app", "shop")
        assert (status, refused["code"]) == (1, "NotVerified")
        assert wanted["record"]["text"] in refused["message"] and "somebody-elses" in refused["message"]
        with pytest.raises(httpx.ConnectError):
            served.visit(name)
        assert served.authority.orders() == orders, "the authority heard nothing of it"

        served.names.say(OWN, {"_vibed.www": wanted["record"]["text"]})
        status, found = served.domains("verify", name, "--app", "shop")
        assert (status, found["verified"], found["url"]) == (0, True, f"https://{name}:{served.https_port}")
        assert "version 1" in served.visit(name).text
        assert served.authority.orders() == orders + 1
        served.client.deploy_ready("shop", samples.static(2))
        assert "version 2" in served.visit(name).text
        assert [one["name"] for one in served.domains("list", "--app", "shop")[1]["items"]] == [name]

        assert served.domains("remove", name, "--app", "shop")[0] == 0
        assert served.visit(name).json()["code"] == "UnknownHost"
    finally:
        served.client.delete("shop")


def test_a_verified_domain_gets_its_certificate_and_leads_on_while_vibed_is_down(served: Served) -> None:
    served.client.deploy_ready("steady", samples.worker(1))
    served.verified(f"steady.{OWN}", "steady")
    try:
        served.vibed.kill("watchdog", "serve", "controller")
        answer = served.visit(f"steady.{OWN}")
        assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
    finally:
        served.vibed.up()
        served.vibed.wait_until_ready()
        served.client.delete("steady")


def test_a_domain_wakes_its_app_after_everything_was_stopped(served: Served) -> None:
    served.client.deploy_ready("waking", samples.worker(1))
    served.verified(f"waking.{OWN}", "waking")
    try:
        assert served.visit(f"waking.{OWN}").status_code == 200
        assert served.vibed.down().returncode == 0
        served.vibed.up()
        served.vibed.wait_until_ready()
        # what it starts with may still be made ready then, which its page says
        eventually(lambda: served.visit(f"waking.{OWN}").status_code == 200, "it is awake", within_s=60, every_s=0.5)
    finally:
        served.client.delete("waking")


def test_the_deletion_of_an_app_frees_its_domain_and_the_next_app_of_its_name_has_none(served: Served) -> None:
    served.client.deploy_ready("first", samples.static(1))
    served.verified(f"free.{OWN}", "first")
    assert "version 1" in served.visit(f"free.{OWN}").text
    served.client.delete("first")
    eventually(lambda: served.visit(f"free.{OWN}").status_code == 404, "the domain leads nowhere")
    served.client.deploy_ready("first", samples.static(2))
    served.client.deploy_ready("second", samples.static(3))
    try:
        assert served.domains("list", "--app", "first")[1]["items"] == []
        assert served.visit(f"free.{OWN}").status_code == 404
        served.verified(f"free.{OWN}", "second")
        assert "version 3" in served.visit(f"free.{OWN}").text
        status, refused = served.domains("add", f"free.{OWN}", "--app", "first")
        assert (status, refused["code"]) == (1, "DomainTaken")
    finally:
        served.client.delete("first")
        served.client.delete("second")


@pytest.mark.parametrize("name", [f"shop.{ZONE}", ZONE, "localhost", "*.own.test", "shop"])
def test_a_name_that_cannot_be_an_apps_own_is_refused(served: Served, name: str) -> None:
    status, refused = served.domains("add", name, "--app", "welcome")
    assert (status, refused["code"]) == (1, "InvalidDomain")


def test_a_name_below_the_domain_that_no_certificate_is_for_is_refused(served: Served) -> None:
    orders = served.authority.orders()
    with pytest.raises((httpx.ConnectError, ssl.SSLError)):
        served.visit(f"a.b.{ZONE}")
    assert served.authority.orders() == orders
