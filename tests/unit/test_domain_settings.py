"""What a vibeD with a domain of its own is told: its settings, its DNS provider's credentials, its URLs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from vibed.cli import credentials, setting, up
from vibed.cli.steps import UpFailed
from vibed.client.settings import settings
from vibed.config import Config, InvalidConfiguration, load
from vibed.layout import Layout, Uids
from vibed.router.caddyfile import caddyfile


def told(tmp_path: Path, **variables: str) -> Config:
    """The configuration of these `VIBED_*` variables."""
    return load({"VIBED_HOME": str(tmp_path), **{f"VIBED_{name.upper()}": text for name, text in variables.items()}})


def test_with_a_dns_provider_everybody_is_told_https_and_listens_where_browsers_look(tmp_path: Path) -> None:
    config = told(tmp_path, domain="apps.example.com", dns_provider="cloudflare")
    assert (config.api_url, config.app_url("todo")) == ("https://apps.example.com", "https://todo.apps.example.com")
    assert (config.listen, config.https_host, config.https_port) == ("0.0.0.0:80", "0.0.0.0", 443)


def test_other_ports_are_part_of_the_urls(tmp_path: Path) -> None:
    config = told(
        tmp_path,
        domain="apps.example.com",
        dns_provider="cloudflare",
        listen="10.0.0.5:8080",
        listen_https="10.0.0.5:8443",
    )
    assert config.app_url("todo") == "https://todo.apps.example.com:8443"
    assert (config.local_address, config.local_url) == ("10.0.0.5:8080", "http://127.0.0.1:8080")


def test_visitors_are_told_the_port_at_which_they_come_where_another_leads_to_vibeds(tmp_path: Path) -> None:
    ports = {"listen": "0.0.0.0:8080", "listen_https": "0.0.0.0:8443"}
    service = told(
        tmp_path, domain="apps.example.com", dns_provider="x", public_url="https://apps.example.com", **ports
    )
    assert service.app_url("todo") == "https://todo.apps.example.com"
    assert service.own_url("shop.example.org") == "https://shop.example.org"
    node_port = told(
        tmp_path, domain="apps.example.com", dns_provider="x", public_url="https://apps.example.com:30443", **ports
    )
    assert node_port.own_url("shop.example.org") == "https://shop.example.org:30443"
    for config, there in ((service, ""), (node_port, ":30443")):
        text = caddyfile(config, Layout.of(tmp_path))
        assert f"redir https://{{http.request.host}}{there}{{http.request.uri}} 308" in text


def test_without_one_a_domain_stays_plain_http_for_a_proxy_of_the_operators(tmp_path: Path) -> None:
    config = told(tmp_path, domain="apps.example.com")
    assert config.app_url("todo") == "http://todo.apps.example.com:18080"
    assert config.listen == "127.0.0.1:18080"


@pytest.mark.parametrize(
    ("names", "word"),
    [
        ({"domain": "Apps.example.com"}, "domain"),
        ({"domain": "apps.example.com {"}, "domain"),
        ({"dns_provider": "cloudflare"}, "domain"),
        ({"domain": "a.test", "dns_provider": "cloud flare"}, "dns_provider"),
        ({"domain": "a.test", "dns_provider": "x", "listen_https": "443"}, "listen_https"),
        ({"domain": "a.test", "dns_provider": "x", "listen": "0.0.0.0:443"}, "two ports"),
        ({"domain": "a.test", "dns_provider": "x", "acme_ca": "http://ca.test/"}, "acme_ca"),
        ({"domain": "a.test", "dns_provider": "x", "acme_ca": "https://ca.test/ {"}, "acme_ca"),
        ({"domain": "a.test", "dns_provider": "x", "acme_email": "me }"}, "acme_email"),
        ({"domain": "a.test", "dns_provider": "x", "dns_resolvers": "1.1.1.1:53 }"}, "dns_resolvers"),
        ({"certificate": "/tls"}, "domain"),
        ({"domain": "a.test", "certificate": "/tls"}, "Kubernetes"),
        ({"domain": "a.test", "certificate": "/tls", "dns_provider": "x"}, "two ways"),
        ({"domain": "a.test", "certificate": "/t ls", "substrate": "kubernetes"}, "plain path"),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(tmp_path: Path, names: dict[str, str], word: str) -> None:
    with pytest.raises(InvalidConfiguration, match=word):
        told(tmp_path, **names)


def test_commands_on_the_machine_find_its_vibed_without_a_certificate(tmp_path: Path) -> None:
    (tmp_path / "admin.key").write_text("vibed_secret\n")
    environ = {
        "VIBED_HOME": str(tmp_path),
        "HOME": str(tmp_path),
        "VIBED_DOMAIN": "apps.example.com",
        "VIBED_DNS_PROVIDER": "x",
    }
    found = settings(environ)
    assert (found.url, found.connect) == ("http://127.0.0.1:80", "127.0.0.1:80")
    assert settings({**environ, "VIBED_URL": "https://apps.example.com"}) == found, "it is the same vibeD"


# credentials


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_credentials_that_others_can_read_are_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(InvalidConfiguration, match="others") as refused:
        credentials.credentials(written(tmp_path / "dns.toml", 'api_token = "t"', mode))
    assert refused.value.hint == f"chmod 600 {tmp_path / 'dns.toml'}"


@pytest.mark.parametrize(
    "text", ["", "hunter2", 'api_token = "hunter2', 'api_token = ["hunter2"]', 'A-B = "hunter2"', 'a = "hun\\nter2"']
)
def test_credentials_that_are_none_are_refused_and_not_quoted(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidConfiguration) as refused:
        credentials.credentials(written(tmp_path / "dns.toml", text))
    assert "hunter2" not in str(refused.value.body()) and "hunter" not in str(refused.value.__cause__)


def handed(tmp_path: Path, text: str) -> tuple[Config, Layout, credentials.Handed]:
    layout = Layout(tmp_path / "home", tmp_path / "run", Uids(os.getuid(), rootless=True))
    layout.acme.mkdir(parents=True, exist_ok=True)
    file = written(tmp_path / "dns.toml", text)
    config = Config(layout.home, domain="apps.example.com", dns_provider="cloudflare", dns_credentials=file)
    return config, layout, credentials.hand_to_caddy(config, layout)


def test_credentials_reach_caddy_as_files_and_its_configuration_has_their_paths_alone(tmp_path: Path) -> None:
    config, layout, made = handed(tmp_path, 'api_token = "hunter2"')
    assert made.names == ("api_token",)
    assert (layout.acme / "api_token").read_text() == "hunter2"
    assert (layout.acme / "api_token").stat().st_mode & 0o777 == 0o640
    text = caddyfile(config, layout, made.names)
    assert f"api_token {{file.{layout.acme}/api_token}}" in text and "hunter2" not in text


def test_new_credentials_start_caddy_anew_and_old_ones_are_removed(tmp_path: Path) -> None:
    _, layout, before = handed(tmp_path, 'api_token = "one"\nzone_token = "z"')
    _, _, after = handed(tmp_path, 'api_token = "two"')
    assert before.digest != after.digest
    assert [path.name for path in layout.acme.iterdir()] == ["api_token"]


# vibed up --domain


def test_a_domain_without_a_dns_provider_is_told_what_is_missing_and_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UpFailed) as refused:
        up._take_domain(told(tmp_path, domain="apps.example.com"))
    said = f"{refused.value.message} {refused.value.hint}"
    for word in ("dns_provider", "dns_credentials", "cloudflare", "*.apps.example.com", "use-a-domain"):
        assert word in said
    assert not (tmp_path / "vibed.toml").exists()


def test_the_domain_is_kept_in_the_configuration_and_the_rest_of_the_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBED_HOME", str(tmp_path))
    monkeypatch.delenv("VIBED_CONFIG", raising=False)
    file = tmp_path / "vibed.toml"
    file.write_text('# ours\ndns_provider = "cloudflare"\n\n[pools]\nnode-24 = 1\n')
    setting.keep("domain", "apps.example.com")
    setting.keep("domain", "web.example.com")
    assert file.read_text() == (
        'domain = "web.example.com"\n# ours\ndns_provider = "cloudflare"\n\n[pools]\nnode-24 = 1\n'
    )
    assert load({"VIBED_HOME": str(tmp_path)}).app_url("todo") == "https://todo.web.example.com"


def _script(path: Path, says: str) -> Path:
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def test_a_caddy_of_ones_own_has_to_know_the_provider(tmp_path: Path) -> None:
    config = Config(tmp_path, domain="apps.example.com", dns_provider="gandi", caddy=tmp_path / "caddy")
    _script(tmp_path / "caddy", "dns.providers.cloudflare")
    with pytest.raises(UpFailed, match="it has cloudflare") as refused:
        up._check_caddy(config, tmp_path / "caddy")
    assert "xcaddy" in str(refused.value.hint)
    _script(tmp_path / "caddy", "dns.providers.gandi")
    up._check_caddy(config, tmp_path / "caddy")


@pytest.mark.parametrize(
    ("settings", "installed"),
    [
        ({}, ("vibed-agent", "caddy")),
        ({"domain": "a.test", "dns_provider": "rfc2136"}, ("vibed-agent", "caddy-dns")),
        ({"domain": "a.test", "dns_provider": "rfc2136", "caddy": Path("/usr/bin/caddy")}, ("vibed-agent",)),
    ],
)
def test_the_caddy_with_dns_providers_is_built_only_where_a_domain_needs_it(
    tmp_path: Path, settings: dict[str, Any], installed: tuple[str, ...]
) -> None:
    assert up._programs(Config(tmp_path, **settings)) == installed
