"""Pebble, the ACME server by which Let's Encrypt tests clients: a certificate authority that proves names for real."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import shutil
import ssl
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.cluster import binaries
from tests.e2e.instance import free_port
from tests.prepare import home

CERTIFICATE_S = 3600
"""How long certificates live, unless a test wants others."""


class Authority:
    """One Pebble. It looks names up at `resolver`, and for them at two ports of 127.0.0.1."""

    def __init__(self, folder: Path, resolver: str, http_port: int, https_port: int, lifetime_s: int) -> None:
        self._folder = folder
        self._resolver = resolver
        self._port, self._management = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.directory = f"https://127.0.0.1:{self._port}/dir"
        self.roots = folder / "https.pem"
        """By which its own HTTPS is trusted."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        now = datetime.datetime.now(datetime.UTC)
        own = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        self.roots.write_bytes(own.public_bytes(serialization.Encoding.PEM))
        (folder / "https.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        told = {
            "listenAddress": f"127.0.0.1:{self._port}",
            "managementListenAddress": f"127.0.0.1:{self._management}",
            "certificate": str(self.roots),
            "privateKey": str(folder / "https.key"),
            "httpPort": http_port,
            "tlsPort": https_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": False,
            "retryAfter": {"authz": 1, "order": 1},
            "keyAlgorithm": "ecdsa",
            "profiles": {"default": {"description": "of the tests", "validityPeriod": lifetime_s}},
        }
        (folder / "pebble.json").write_text(json.dumps({"pebble": told}))

    def start(self) -> None:
        """Return when it answers. Each start is a new authority, which knows nobody."""
        pebble = binaries.programs(binaries.ACME, home()) / "pebble"
        with (self._folder / "pebble.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(pebble), "-config", str(self._folder / "pebble.json"), "-dnsserver", self._resolver, "-strict"],
                env={"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"},
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                self.issues_by = self._root()
                return
            except OSError:
                assert self._process.poll() is None and time.monotonic() < deadline, self.log()
                time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    issues_by = ""
    """The root of the certificates that it issues, in PEM."""

    def trusting(self) -> ssl.SSLContext:
        """For a visitor who trusts it."""
        return ssl.create_default_context(cadata=self.issues_by)

    def orders(self) -> int:
        """How many certificates were ordered."""
        return max((int(n) for n in re.findall(r"There are now (\d+) orders in the db", self.log())), default=0)

    def log(self) -> str:
        return (self._folder / "pebble.log").read_text(errors="replace")

    def _root(self) -> str:
        context = ssl.create_default_context(cafile=str(self.roots))
        with urllib.request.urlopen(f"https://127.0.0.1:{self._management}/roots/0", context=context) as answer:
            return str(answer.read().decode())


@contextlib.contextmanager
def authority(
    resolver: str, http_port: int, https_port: int, *, lifetime_s: int = CERTIFICATE_S
) -> Iterator[Authority]:
    """A running one."""
    folder = Path(tempfile.mkdtemp(prefix="va", dir="/tmp"))
    made = Authority(folder, resolver, http_port, https_port, lifetime_s)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder)
