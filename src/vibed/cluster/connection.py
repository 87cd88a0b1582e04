"""How the API server is reached: address, certificates, credentials, and connections that notice a dead peer.

lightkube reads kubeconfig files and ServiceAccounts and makes the TLS context. Ours is what it lacks (1.0.1): a
ServiceAccount's token is read again each minute, and not only once the API refuses it, since an API server that extends
tokens (the default) accepts one for a year that was to be changed each hour, and counts it as stale; plugins that speak
`v1` of the exec credentials; keep-alive probes.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import ssl
import time
import urllib.request
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import msgspec
import yaml
from lightkube.config.client_adapter import user_auth, verify_cluster
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.config.models import NameValue, User, UserExec
from lightkube.core.exceptions import ConfigError

from vibed import __version__
from vibed.cluster.errors import KubeUnconfigured

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# what lightkube raises for a file that is none, or has another form
_UNREADABLE = (ConfigError, OSError, KeyError, ValueError, TypeError, AttributeError, yaml.YAMLError)
_CONNECTIONS = 16
_REREAD_S = 60.0
# below the API server's own 90 s (apiserver, pkg/server/secure_serving.go), so that a request never meets a
# connection that is just being closed
_IDLE_S = 45.0
# A peer that vanished (a node that lost power, a NAT that forgot) says nothing: it is found dead after 30 s.
_KEEP_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000),
)


@dataclass(frozen=True, slots=True)
class Connection:
    """Two HTTP clients to one API server. Watches have theirs: they hold a connection each, for minutes, and must not
    take those away that calls need. HTTP/1.1 for both: one connection of HTTP/2 has room for 100 streams at most,
    loses all of them together, and its framing costs Python more than connections cost the API server.
    """

    calls: httpx2.AsyncClient
    watches: httpx2.AsyncClient

    @classmethod
    def open(cls, kubeconfig: Path | None, service_account: Path = SERVICE_ACCOUNT) -> Connection:
        """By the file, or else in-cluster, or else by KUBECONFIG or ~/.kube/config. Nothing is sent yet.

        Raises `KubeUnconfigured`.
        """
        try:
            config = _configuration(kubeconfig, service_account)
            user = _spoken(config.user or User())
            auth = Rotated(Path(user.token_file)) if user.token_file else user_auth(user)
            verify = _as_lenient_as_others(verify_cluster(config.cluster, user, config.abs_file))
        except _UNREADABLE as error:
            raise KubeUnconfigured(
                f"no way to a Kubernetes API: {error}",
                hint="name a kubeconfig file, or run in a pod that has a ServiceAccount",
            ) from error
        # one line for each request at level INFO otherwise
        logging.getLogger("httpx2").setLevel(logging.WARNING)

        def client(connections: int | None) -> httpx2.AsyncClient:
            limits = httpx2.Limits(
                max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=_IDLE_S
            )
            return httpx2.AsyncClient(
                base_url=config.cluster.server,
                auth=auth,
                transport=httpx2.AsyncHTTPTransport(
                    verify=verify, limits=limits, proxy=_proxy(config.cluster.server), socket_options=_KEEP_ALIVE
                ),
                # the API server compresses what is large, at its own expense, which is the dearer one
                headers={
                    "User-Agent": f"vibed/{__version__}",
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",
                },
            )

        return cls(calls=client(_CONNECTIONS), watches=client(None))

    async def close(self) -> None:
        """End both, with what is under way."""
        await self.calls.aclose()
        await self.watches.aclose()


def _as_lenient_as_others(context: ssl.SSLContext) -> ssl.SSLContext:
    """Python 3.13 asks of certificates all that RFC 5280 does, such as an Authority Key Identifier. Many clusters' lack
    that, and no other client minds: they are verified as before.
    """
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


class Rotated(httpx2.Auth):
    """A bearer token from a file that somebody else changes: read again each minute, and when it is refused."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._token = ""
        self._read_at = 0.0

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        if not self._token or time.monotonic() - self._read_at > _REREAD_S:
            self._read()
        sent = self._token
        request.headers["Authorization"] = f"Bearer {sent}"
        response = yield request
        if response.status_code != 401:
            return
        self._read()
        if self._token != sent:
            request.headers["Authorization"] = f"Bearer {self._token}"
            yield request

    def _read(self) -> None:
        try:
            self._token = self._path.read_text().strip()
        except OSError as error:
            raise ConfigError(f"the token file cannot be read: {error}") from error
        self._read_at = time.monotonic()


def _configuration(kubeconfig: Path | None, service_account: Path) -> SingleConfig:
    if kubeconfig is not None:
        found = KubeConfig.from_file(kubeconfig)
    elif (service_account / "token").exists():
        found = KubeConfig.from_service_account(service_account)
    else:
        named = os.environ.get("KUBECONFIG") or "~/.kube/config"
        if os.pathsep in named:
            raise ConfigError(f"KUBECONFIG names several files ({named}); vibeD reads one")
        found = KubeConfig.from_file(named)
    chosen = found.get()
    if chosen is None:
        raise ConfigError("no context is chosen in the kubeconfig file")
    return chosen


def _spoken(user: User) -> User:
    """The user with an exec plugin as lightkube takes it: it knows v1beta1 by name, and v1 has the same form; plugins
    of `v1` read from KUBERNETES_EXEC_INFO which version is asked of them.
    """
    plugin: UserExec | None = user.exec
    if plugin is None:
        return user
    asked = {"apiVersion": plugin.apiVersion, "kind": "ExecCredential", "spec": {"interactive": False}}
    spoken = msgspec.structs.replace(
        plugin,
        apiVersion=plugin.apiVersion.replace("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
        if plugin.apiVersion.endswith("/v1")
        else plugin.apiVersion,
        env=[*(plugin.env or []), NameValue("KUBERNETES_EXEC_INFO", json.dumps(asked))],
    )
    return msgspec.structs.replace(user, exec=spoken)


def _proxy(server: str) -> str | None:
    """The proxy that the environment names for this server, as kubectl would use it."""
    parts = urlsplit(server)
    if urllib.request.proxy_bypass(parts.netloc):
        return None
    return urllib.request.getproxies().get(parts.scheme)
