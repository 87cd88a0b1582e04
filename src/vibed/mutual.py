"""Mutual TLS between vibeD's own processes: both sides have a certificate of one authority that signs for nobody else.

A folder (a mounted Secret) has `ca.crt`, `tls.crt` and `tls.key`; the certificate is for the name `vibed-wire`,
whatever the address of the pod that has it. Files are read for each new context, so that a renewed certificate is
taken with the next connection.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from vibed.apps.errors import VibedError

NAME = "vibed-wire"
"""In every such certificate."""


class CertificatesUnusable(VibedError):
    """The files for mutual TLS are not there, or do not belong together."""

    code = "CertificatesUnusable"


def client_side(folder: Path) -> ssl.SSLContext:
    """For who connects. Raises `CertificatesUnusable`."""
    return _context(folder, ssl.PROTOCOL_TLS_CLIENT)


def server_side(folder: Path) -> ssl.SSLContext:
    """For who listens; whoever connects has to show a certificate. Raises `CertificatesUnusable`."""
    return _context(folder, ssl.PROTOCOL_TLS_SERVER)


def _context(folder: Path, protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(folder / "ca.crt")
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise CertificatesUnusable(
            f"the certificate of vibeD's own connections cannot be used: {error}",
            hint="the Secret with ca.crt, tls.crt and tls.key is mounted there by the chart; see that it is whole",
        ) from error
    context.verify_mode = ssl.CERT_REQUIRED
    return context
