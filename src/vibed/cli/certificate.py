"""The certificate for all names below the domain as a visitor gets it, for `vibed up` and `vibed doctor`.

Caddy gets and renews it by itself (`vibed.router.caddyfile`). Until the first one is there nothing is served under the
domain, since a browser would warn of anything else; an old one is served on, whatever the certificate authority does.
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from vibed.config import EVERYWHERE, Config
from vibed.layout import Layout

FIRST_S = 90.0
"""How long `vibed up` waits for the first one; it comes later all the same."""
SOON_S = 7 * 86_400
"""Caddy renews when a third of the time is left: less than this of 90 days means that it fails again and again."""
_ANSWER_S = 5.0


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is served."""

    issuer: str
    expires: float
    """Unix seconds."""
    lasts_s: float
    """From its beginning to its end."""
    distrusted: str = ""
    """Why this machine does not trust it; empty when it does."""

    @property
    def left_s(self) -> float:
        return self.expires - time.time()

    @property
    def renewing_fails(self) -> bool:
        """Whether it should have been renewed long ago."""
        return self.left_s < min(SOON_S, self.lasts_s / 6)

    def __str__(self) -> str:
        until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self.expires))
        return f"issued by {self.issuer}, until {until}"


def served(config: Config) -> Certificate | None:
    """The certificate that a visitor of an app gets; None while there is none. Raises OSError where nothing listens."""
    from cryptography import x509

    host = "127.0.0.1" if config.https_host in EVERYWHERE else config.https_host.strip("[]")
    name = f"vibed.{config.domain}"
    plain = ssl.create_default_context()
    plain.check_hostname = False
    plain.verify_mode = ssl.CERT_NONE
    with socket.create_connection((host, config.https_port), timeout=_ANSWER_S) as connection:
        try:
            with plain.wrap_socket(connection, server_hostname=name) as secure:
                raw = secure.getpeercert(binary_form=True)
        except (ssl.SSLError, ConnectionError):
            return None
    if raw is None:
        return None
    parsed = x509.load_der_x509_certificate(raw)
    begins, ends = parsed.not_valid_before_utc.timestamp(), parsed.not_valid_after_utc.timestamp()
    issuer = parsed.issuer.rfc4514_string()
    for attribute in parsed.issuer.get_attributes_for_oid(x509.NameOID.COMMON_NAME):
        issuer = str(attribute.value)
    distrusted = ""
    strict = ssl.create_default_context()
    if config.acme_ca_roots is not None:
        with suppress(OSError, ssl.SSLError):
            strict.load_verify_locations(config.acme_ca_roots)
    with socket.create_connection((host, config.https_port), timeout=_ANSWER_S) as connection:
        try:
            strict.wrap_socket(connection, server_hostname=name).close()
        except ssl.SSLCertVerificationError as error:
            distrusted = error.verify_message
    return Certificate(issuer, ends, ends - begins, distrusted)


def wait_for_first(config: Config, layout: Layout, say: Callable[[str], None]) -> Certificate | None:
    """Wait for it for `FIRST_S` at most."""
    began = time.monotonic()
    while True:
        with suppress(OSError):
            if (there := served(config)) is not None:
                return there
        waited = time.monotonic() - began
        if waited > FIRST_S:
            return None
        say(f"waiting for {config.acme_ca} ({waited:.0f} s){f': {reason}' if (reason := trouble(layout)) else ''}")
        time.sleep(0.25)


def trouble(layout: Layout) -> str:
    """What Caddy said last about a certificate that it could not get; empty when it said nothing."""
    told = ""
    with suppress(OSError):
        with (layout.own_logs / "caddy.log").open("rb") as log:
            log.seek(max(0, log.seek(0, 2) - 200_000))
            lines = log.read().decode(errors="replace").splitlines()
        for line in lines:
            with suppress(ValueError, AttributeError):
                said = json.loads(line)
                if said.get("level") == "error" and str(said.get("logger", "")).startswith("tls"):
                    told = f"{said.get('identifier', '')} {said.get('error') or said.get('msg')}".strip()
    return told[:400]
