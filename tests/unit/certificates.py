"""Certificates for tests of mutual TLS, made by openssl as an operator would."""

from __future__ import annotations

import subprocess
from pathlib import Path

from vibed.mutual import NAME


def authority(folder: Path, name: str = "vibed-test") -> Path:
    """A folder with `ca.crt` and `ca.key`."""
    folder.mkdir(parents=True, exist_ok=True)
    _openssl(folder, "-keyout", "ca.key", "-out", "ca.crt", "-subj", f"/CN={name}")
    return folder


def signed(authority: Path, folder: Path, name: str = NAME, *others: str) -> Path:
    """A folder as the chart mounts it: `ca.crt`, and `tls.crt` and `tls.key` for `name` and others."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ca.crt").write_bytes((authority / "ca.crt").read_bytes())
    signing = ("-CA", str(authority / "ca.crt"), "-CAkey", str(authority / "ca.key"))
    all_names = ",".join(f"DNS:{one}" for one in (name, *others))
    names = ("-addext", f"subjectAltName={all_names}", "-addext", "basicConstraints=critical,CA:FALSE")
    _openssl(folder, *signing, "-keyout", "tls.key", "-out", "tls.crt", "-subj", f"/CN={name}", *names)
    return folder


def _openssl(folder: Path, *arguments: str) -> None:
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    subprocess.run(["openssl", "req", "-x509", *key, *arguments], cwd=folder, check=True, capture_output=True)
