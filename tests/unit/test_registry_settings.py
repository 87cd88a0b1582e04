"""Where builds get packages from: what this machine's package clients have been told."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from vibed.config import InvalidConfiguration, load
from vibed.runtimes.binaries import SOURCES
from vibed.runtimes.registries import Proxy, Registries, pinned
from vibed.runtimes.registry_settings import Said, npmrc_credentials, pip_settings
from vibed.runtimes.uv_settings import uv_settings

DEFAULT = "https://index.example/simple"


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def of(**said: object) -> Registries:
    return Said(**said).registries(DEFAULT)  # type: ignore[arg-type]


def test_without_settings_the_clients_own_defaults_count() -> None:
    found = of(
        npm={"registry": "https://npm.example/"}, go={"GOPROXY": "https://go.example,direct", "GOSUMDB": "sum.example"}
    )
    assert found == Registries(
        pypi=(DEFAULT,),
        npm="https://npm.example/",
        go="https://go.example,direct",
        sumdb="sum.example",
        binaries={source.name: source.origin for source in SOURCES},
    )


def test_pips_settings_are_those_that_an_install_would_use() -> None:
    listing = "\n".join(
        [
            "global.index-url='https://a.example/simple'",
            "global.extra-index-url='\\nhttps://b.example/simple\\nhttps://c.example/simple'",
            "install.index-url='https://d.example/simple'",
            "wheel.index-url='https://no.example/simple'",
            ":env:.trusted-host='b.example c.example:8443'",
        ]
    )
    found = of(pip=pip_settings(listing))
    assert found.pypi == ("https://d.example/simple", "https://b.example/simple", "https://c.example/simple")
    assert not found.first_index
    assert found.insecure == ("b.example", "c.example:8443")
    assert of(pip={"no-index": "true"}).pypi == ()


def test_folders_of_distributions_count_and_pages_do_not(tmp_path: Path) -> None:
    links = f"{tmp_path} file://{tmp_path} https://links.example/ /nowhere relative"
    assert of(pip={"find-links": links}).find_links == (tmp_path, tmp_path)


def test_credentials_are_taken_out_of_addresses() -> None:
    found = of(
        pip={"index-url": "https://me:p%40ss@a.example:8443/simple", "extra-index-url": "https://token@b.example/x"},
        npm={"registry": "https://u:v@npm.example/"},
        go={"GOPROXY": "https://g:h@go.example|https://other.example,direct"},
    )
    assert found.pypi == ("https://a.example:8443/simple", "https://b.example/x")
    assert found.npm == "https://npm.example/"
    assert found.go == "https://go.example|https://other.example,direct"
    assert found.authorization == {
        "https://a.example:8443/": basic("me:p@ss"),
        "https://b.example/": basic("token:"),
        "https://npm.example/": basic("u:v"),
        "https://go.example/": basic("g:h"),
    }
    assert "p@ss" not in repr(found)


def test_a_netrc_counts_for_indexes_that_say_nothing_themselves() -> None:
    found = of(pip={"index-url": "https://a.example/simple"}, netrc={"a.example": basic("n:r"), "other": basic("x:y")})
    assert found.authorization == {"https://a.example/": basic("n:r")}


def test_npms_credentials_are_read_as_npm_writes_them() -> None:
    text = f"""
; a comment
registry=https://npm.example/
//npm.example/:_authToken=${{TOKEN}}
//npm.example/private/:_auth = "dTpw"
//other.example/:username=u
//other.example/:_password={base64.b64encode(b"secret").decode()}
//half.example/:username=u
"""
    assert npmrc_credentials(text, {"TOKEN": "t0ken"}) == {
        "//npm.example/": "Bearer t0ken",
        "//npm.example/private/": "Basic dTpw",
        "//other.example/": basic("u:secret"),
    }


def test_scopes_have_registries_of_their_own() -> None:
    npm = {"registry": "https://npm.example/", "@acme:registry": "http://acme.example:4873/", "strict-ssl": False}
    found = of(npm=npm, npm_credentials={"//acme.example:4873/": "Bearer a", "//npm.example/": "Bearer n"})
    assert found.npm_scopes == {"@acme": "http://acme.example:4873/"}
    assert found.authorization == {"http://acme.example:4873/": "Bearer a", "https://npm.example/": "Bearer n"}
    assert found.insecure == ("npm.example", "acme.example:4873")


def test_the_way_out_and_whom_to_trust(tmp_path: Path) -> None:
    authority = tmp_path / "company.pem"
    authority.write_text("-----BEGIN CERTIFICATE-----")
    environ = {"HTTPS_PROXY": "http://proxy.example:3128", "no_proxy": ".example", "SSL_CERT_FILE": str(authority)}
    found = of(environ=environ, npm={"cafile": str(authority), "proxy": "http://npm-proxy.example"})
    assert found.proxy == Proxy("http://npm-proxy.example", "http://proxy.example:3128", ".example")
    assert found.authorities == (authority,)
    assert of(pip={"proxy": "http://p.example", "cert": "/nowhere"}).proxy == Proxy(
        "http://p.example", "http://p.example"
    )


def test_sums_that_are_not_checked_here_are_not_checked_in_a_build() -> None:
    assert of(go={"GOSUMDB": "off"}).sumdb == ""
    assert of(go={"GOSUMDB": "sum.example+key https://mirror.example/sums"}).sumdb.startswith("sum.example+key ")
    assert of(go={"GONOSUMDB": "corp.example/*"}).go_unsummed == "corp.example/*"


@pytest.mark.parametrize(
    ("environ", "file", "expected", "first"),
    [
        ({"UV_DEFAULT_INDEX": "https://u.example/s"}, "", ("https://u.example/s",), True),
        ({"UV_INDEX_URL": "https://u.example/s"}, "", ("https://u.example/s",), True),
        ({"UV_INDEX": "corp=https://c.example/s"}, "", ("https://c.example/s", "https://pip.example/s"), True),
        ({"UV_EXTRA_INDEX_URL": "https://x.example/s"}, "", ("https://x.example/s", "https://pip.example/s"), True),
        ({}, 'index-url = "https://f.example/s"', ("https://f.example/s",), True),
        ({}, '[pip]\nindex-url = "https://f.example/s"', ("https://f.example/s",), True),
        (
            {"UV_INDEX_STRATEGY": "unsafe-best-match"},
            '[[index]]\nurl = "https://i.example/s"\n[[index]]\nurl = "https://d.example/s"\ndefault = true\n'
            '[[index]]\nurl = "https://torch.example/s"\nexplicit = true',
            ("https://i.example/s", "https://d.example/s"),
            False,
        ),
        ({"UV_NO_INDEX": "1"}, "", (), False),
        ({}, "", ("https://pip.example/s",), False),
    ],
)
def test_what_uv_is_told_comes_before_what_pip_is(
    tmp_path: Path, environ: dict[str, str], file: str, expected: tuple[str, ...], first: bool
) -> None:
    config = tmp_path / "uv.toml"
    config.write_text(file)
    uv = uv_settings({**environ, "UV_CONFIG_FILE": str(config)}, tmp_path)
    found = of(uv=uv, pip={"index-url": "https://pip.example/s"})
    assert (found.pypi, found.first_index) == (expected, first)


def test_uvs_named_indexes_have_credentials_in_variables(tmp_path: Path) -> None:
    environ = {
        "UV_INDEX": "my-corp=https://c.example/s",
        "UV_INDEX_MY_CORP_USERNAME": "u",
        "UV_INDEX_MY_CORP_PASSWORD": "p",
    }
    found = of(uv=uv_settings(environ, tmp_path))
    assert found.pypi == ("https://c.example/s", DEFAULT)
    assert found.authorization == {"https://c.example/": basic("u:p")}


# What the operator pins


def test_what_is_pinned_comes_in_place_of_the_clients_settings(tmp_path: Path) -> None:
    clients = of(
        pip={
            "index-url": "https://a.example/simple",
            "extra-index-url": "https://b.example",
            "find-links": str(tmp_path),
        },
        npm={"registry": "https://npm.example/", "@acme:registry": "https://acme.example/"},
        go={"GOPROXY": "https://go.example", "GOSUMDB": "sum.example"},
    )
    table = {"pypi": "https://u:p@m.example/simple", "npm": "https://m.example/npm", "sumdb": "off"}
    found = pinned(clients, table)
    assert found == Registries(
        pypi=("https://m.example/simple",),
        first_index=True,
        npm="https://m.example/npm",
        go="https://go.example",
        binaries=clients.binaries,
        authorization={"https://m.example/": basic("u:p")},
    )
    assert pinned(clients, {}) == clients


def test_programs_of_packages_come_from_where_their_clients_are_told_or_the_operator_says() -> None:
    assert of().binaries["prisma"].startswith("https://")
    clients = of(environ={"PRISMA_ENGINES_MIRROR": "https://u:p@own.example/engines"})
    assert clients.binaries["prisma"] == "https://own.example/engines"
    assert clients.authorization == {"https://own.example/": basic("u:p")}
    assert pinned(clients, {"binaries": {"prisma": "https://m.example/p"}}).binaries["prisma"] == "https://m.example/p"
    assert pinned(clients, {"binaries": {"prisma": "off"}}).binaries["prisma"] == ""
    with pytest.raises(InvalidConfiguration, match="unknown source 'prism'"):
        pinned(clients, {"binaries": {"prism": "off"}})


def test_credentials_come_from_files_and_variables(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("user:pass:word\n")
    table = {
        "credentials": {
            "https://a.example/": f"file:{secret}",
            "https://b.example/": "env:TOKEN",
            "https://c.example/": "env:HEADER",
        }
    }
    found = pinned(Registries(), table, {"TOKEN": "t0ken", "HEADER": "Basic abc"})
    assert found.authorization == {
        "https://a.example/": basic("user:pass:word"),
        "https://b.example/": "Bearer t0ken",
        "https://c.example/": "Basic abc",
    }
    for place in ("file:/nowhere", "env:NOBODY", "env:EMPTY"):
        with pytest.raises(InvalidConfiguration, match=place):
            pinned(Registries(), {"credentials": {"https://a.example/": place}}, {"EMPTY": ""})


def test_the_file_and_the_variable_say_the_same(tmp_path: Path) -> None:
    text = 'pypi = ["https://a.example", "https://b.example"]\nnpm_scopes = {"@acme" = "https://c.example"}'
    (tmp_path / "vibed.toml").write_text(f"[registries]\n{text}")
    home = {"VIBED_HOME": str(tmp_path)}
    assert load(home).registries["pypi"] == ["https://a.example", "https://b.example"]
    (tmp_path / "vibed.toml").unlink()
    assert load({**home, "VIBED_REGISTRIES": text}).registries["npm_scopes"] == {"@acme": "https://c.example"}


@pytest.mark.parametrize(
    "table",
    [
        'pipy = "x"',
        "pypi = 3",
        'pypi = ["a", 3]',
        'npm = ["a"]',
        'npm_scopes = "a"',
        'credentials = { "https://a.example" = "the secret itself" }',
        "not toml",
    ],
)
def test_what_makes_no_sense_is_said_when_vibed_starts(tmp_path: Path, table: str) -> None:
    with pytest.raises(InvalidConfiguration):
        load({"VIBED_HOME": str(tmp_path), "VIBED_REGISTRIES": table})
