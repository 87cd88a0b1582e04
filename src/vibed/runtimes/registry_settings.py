"""What the package clients of this machine have been told: asked of the clients themselves where they answer.

`pip config list`, `npm config list --json` and `go env` merge files, variables and defaults as those clients do; only
what npm keeps to itself (credentials) and what uv does not tell (its files) is read here. An address of a registry is
in nothing that vibeD ships: the defaults are the clients' own.
"""

from __future__ import annotations

import ast
import asyncio
import base64
import importlib
import json
import netrc
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from vibed import records
from vibed.runtimes import binaries, commands
from vibed.runtimes.registries import Bare, Proxy, Registries, basic
from vibed.runtimes.tool import ToolError
from vibed.runtimes.tools import Tools
from vibed.runtimes.uv_settings import uv_settings

log = records.logger("vibed.registries")

_DEADLINE_S = 60
_AUTHORITIES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")


async def of_clients(tools: Tools, *, environ: Mapping[str, str] = os.environ, home: Path | None = None) -> Registries:
    """The registries that this machine's own clients use; one whose client does not answer is left out. Takes about a
    second.
    """
    home, python = home or Path.home(), sys.executable
    pip, npm, go = await asyncio.gather(_pip(python, environ), _npm(tools, environ), _go(tools, environ))
    uv, known = uv_settings(environ, home), _npm_credentials(npm, environ)
    return Said(pip, uv, npm, go, known, _netrc(environ, home), dict(environ)).registries(_default_index())


def of_environment(*, environ: Mapping[str, str] = os.environ) -> Registries:
    """What the variables of the same clients say, where there are no clients: in a pod."""
    pip = {
        name: environ[variable]
        for name in ("index-url", "extra-index-url")
        if (variable := f"PIP_{name.replace('-', '_').upper()}") in environ
    }
    npm = {"registry": environ["NPM_CONFIG_REGISTRY"]} if "NPM_CONFIG_REGISTRY" in environ else {}
    go = {name: environ[name] for name in ("GOPROXY", "GOSUMDB", "GONOSUMDB") if name in environ}
    return Said(pip, uv_settings(environ, Path("/")), npm, go, environ=environ).registries("")


@dataclass(frozen=True, slots=True)
class Said:
    """What each client says."""

    pip: Mapping[str, str] = field(default_factory=dict)
    uv: Mapping[str, Any] = field(default_factory=dict)
    npm: Mapping[str, Any] = field(default_factory=dict)
    go: Mapping[str, str] = field(default_factory=dict)
    npm_credentials: Mapping[str, str] = field(default_factory=dict)
    """The Authorization header for addresses that begin so, without their scheme."""
    netrc: Mapping[str, str] = field(default_factory=dict)
    """The Authorization header by host."""
    environ: Mapping[str, str] = field(default_factory=dict)

    def registries(self, default_index: str) -> Registries:
        """All of it together."""
        bare = Bare()
        indexes, first = self._indexes(default_index)
        pypi = tuple(dict.fromkeys(bare(index) for index in indexes))
        links = [*_words(self.pip.get("find-links")), *_list(self.uv.get("find-links"))]
        npm = bare(str(self.npm.get("registry") or ""))
        scopes = {
            key.removesuffix(":registry"): bare(str(value))
            for key, value in self.npm.items()
            if key.startswith("@") and key.endswith(":registry") and value
        }
        go = bare.list(self.go.get("GOPROXY", ""))
        programs = {name: bare(address) for name, address in binaries.of_clients(self.environ).items()}
        authorization = dict(bare.found)
        for address in pypi:
            parts = urlsplit(address)
            if header := self.netrc.get(parts.hostname or ""):
                authorization.setdefault(f"{parts.scheme}://{parts.netloc}/", header)
        plain = {urlsplit(address).netloc for address in (npm, *scopes.values()) if address.startswith("http:")}
        for place, header in self.npm_credentials.items():
            scheme = "http" if place.removeprefix("//").split("/")[0] in plain else "https"
            authorization[f"{scheme}:{place}"] = header
        return Registries(
            pypi=pypi,
            first_index=first,
            find_links=tuple(path for path in map(_folder, links) if path is not None),
            npm=npm,
            npm_scopes=scopes,
            go=go,
            sumdb="" if self.go.get("GOSUMDB") == "off" else self.go.get("GOSUMDB", ""),
            go_unsummed=self.go.get("GONOSUMDB", ""),
            binaries=programs,
            authorization=authorization,
            authorities=self._authorities(),
            insecure=self._insecure(npm, scopes.values()),
            proxy=self._proxy(),
        )

    def _indexes(self, default: str) -> tuple[list[str], bool]:
        """In the order in which they count, and whether the first that has a project hides the others."""
        given = list(self.uv.get("index") or ())
        usual = [one["url"] for one in given if not one.get("default") and not one.get("explicit")]
        own = next((one["url"] for one in given if one.get("default")), self.uv.get("index-url"))
        usual += _list(self.uv.get("extra-index-url"))
        if usual or own:
            strategy = str(self.uv.get("index-strategy") or "first-index")
            last = [] if self.uv.get("no-index") else [str(own or self.pip.get("index-url") or default)]
            return [*usual, *last], strategy == "first-index"
        if _true(self.pip.get("no-index")) or self.uv.get("no-index"):
            return [], False
        return [self.pip.get("index-url") or default, *_words(self.pip.get("extra-index-url"))], False

    def _authorities(self) -> tuple[Path, ...]:
        named = [self.environ.get(name) for name in _AUTHORITIES]
        named += [self.pip.get("cert"), str(self.npm.get("cafile") or "")]
        return tuple(dict.fromkeys(Path(name) for name in named if name and Path(name).is_file()))

    def _insecure(self, npm: str, scopes: Iterable[str]) -> tuple[str, ...]:
        hosts = [*_words(self.pip.get("trusted-host")), *_list(self.uv.get("allow-insecure-host"))]
        if self.npm.get("strict-ssl") is False:
            hosts += [urlsplit(address).netloc for address in (npm, *scopes)]
        return tuple(dict.fromkeys(host for host in hosts if host))

    def _proxy(self) -> Proxy:
        def of(*names: str) -> str:
            return next((value for name in names if (value := self.environ.get(name))), "")

        mine = str(self.npm.get("proxy") or "")
        other = self.pip.get("proxy", "")
        return Proxy(
            http=of("HTTP_PROXY", "http_proxy") or mine or other,
            https=of("HTTPS_PROXY", "https_proxy") or str(self.npm.get("https-proxy") or "") or mine or other,
            none=of("NO_PROXY", "no_proxy") or ",".join(_list(self.npm.get("noproxy"))),
        )


def npmrc_credentials(text: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The Authorization header for addresses that begin so (`//host/path/`), from the lines of an .npmrc."""
    parts: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        if match := re.match(r"\s*(//[^\s=]+?):(_authToken|_auth|username|_password)\s*=\s*(.*?)\s*$", line):
            place, key, value = match.groups()
            value = re.sub(r"\$\{(\w+)\??\}", lambda name: environ.get(name[1], ""), value.strip("\"'"))
            parts.setdefault(place if place.endswith("/") else f"{place}/", {})[key] = value
    found = {}
    for place, said in parts.items():
        if token := said.get("_authToken"):
            found[place] = f"Bearer {token}"
        elif auth := said.get("_auth"):
            found[place] = f"Basic {auth}"
        elif "username" in said and "_password" in said:
            password = base64.b64decode(said["_password"] + "==").decode(errors="replace")
            found[place] = basic(said["username"], password)
    return found


def pip_settings(listing: str) -> dict[str, str]:
    """What `pip config list` lists: what is for all commands, over it what is for install, over it the variables."""
    sections: dict[str, dict[str, str]] = {}
    for line in listing.splitlines():
        if match := re.match(r"(:env:|[\w-]+)\.([\w-]+)=(.*)$", line):
            section, name, value = match.groups()
            try:
                sections.setdefault(section, {})[name] = str(ast.literal_eval(value))
            except (ValueError, SyntaxError):
                continue
    return {
        **sections.get("global", {}),
        **sections.get("download", {}),
        **sections.get("install", {}),
        **sections.get(":env:", {}),
    }


async def _pip(python: str, environ: Mapping[str, str]) -> Mapping[str, str]:
    return pip_settings(await _said("pip", [python, "-m", "pip", "config", "list"], environ))


async def _npm(tools: Tools, environ: Mapping[str, str]) -> Mapping[str, Any]:
    try:
        npm = await tools.npm()
    except ToolError as error:
        log.warning("npm cannot be asked for its registry", error=str(error))
        return {}
    node = tools.path("node").parent
    env = {**environ, "PATH": f"{node}:{environ.get('PATH', os.defpath)}"}
    return _object(await _said("npm", [*npm, "config", "list", "--json"], env))


async def _go(tools: Tools, environ: Mapping[str, str]) -> Mapping[str, str]:
    if not tools.installed("go"):
        return {name: environ[name] for name in ("GOPROXY", "GOSUMDB", "GONOSUMDB") if name in environ}
    argv = [str(tools.path("go")), "env", "-json", "GOPROXY", "GOSUMDB", "GONOSUMDB"]
    env = {**environ, "GOTOOLCHAIN": "local", "HOME": environ.get("HOME", "/")}
    return {name: str(value) for name, value in _object(await _said("go", argv, env)).items()}


async def _said(client: str, argv: list[str], environ: Mapping[str, str]) -> str:
    try:
        # in a folder without settings of its own
        return await commands.output(argv, deadline_s=_DEADLINE_S, cwd=Path("/"), env=environ)
    except (commands.CommandFailed, OSError) as error:
        log.warning("a package client does not tell its settings", client=client, error=str(error))
        return ""


def _npm_credentials(npm: Mapping[str, Any], environ: Mapping[str, str]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name in ("globalconfig", "userconfig"):
        found |= npmrc_credentials(_text(Path(str(npm.get(name) or os.devnull))), environ)
    lines = (f"{name[11:]}={value}" for name, value in environ.items() if name.lower().startswith("npm_config_//"))
    return found | npmrc_credentials("\n".join(lines), environ)


def _netrc(environ: Mapping[str, str], home: Path) -> Mapping[str, str]:
    try:
        hosts = netrc.netrc(environ.get("NETRC") or str(home / ".netrc")).hosts
    except (OSError, netrc.NetrcParseError):
        return {}
    return {host: basic(user, password or "") for host, (user, _, password) in hosts.items() if user}


def _default_index() -> str:
    """pip's own, which its settings do not list."""
    try:
        return str(importlib.import_module("pip._internal.models.index").PyPI.simple_url)
    except (ImportError, AttributeError):
        log.warning("pip does not tell its index: name one in its settings or in vibed.toml")
        return ""


def _folder(link: str) -> Path | None:
    path = Path(unquote(link.removeprefix("file://")))
    return path if path.is_absolute() and path.is_dir() else None


def _object(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _words(text: str | None) -> list[str]:
    return (text or "").split()


def _list(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value] if value else []
    return [str(one) for one in value or () if one]


def _true(value: object) -> bool:
    return str(value).lower() in ("1", "true", "yes", "on")
