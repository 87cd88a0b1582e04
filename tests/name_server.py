"""BIND, a real DNS server, for one zone or several: unpacked from Debian's packages, not installed, since one that is
installed takes port 53 of the machine.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.prepare import CannotPrepare, home

KEY = {
    "key_name": "caddy.",
    "key_alg": "hmac-sha256",
    "key": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0",
}
"""With which updates are signed, by the names that the provider `rfc2136` has for it; `server` is beside them."""

_ZONE = """$TTL 1
@ IN SOA ns.{zone}. admin.{zone}. ( {serial} 60 60 3600 1 )
@ IN NS ns.{zone}.
ns IN A 127.0.0.1
@ IN A 127.0.0.1
* IN A 127.0.0.1
{records}
"""


def unpack() -> Path:
    """Where BIND's files are, which are downloaded once. Raises CannotPrepare."""
    folder = home() / "bind" / platform.machine()
    if folder.exists():
        return folder
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise CannotPrepare("BIND comes as Debian packages, and this machine has no apt-get or dpkg-deb")
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".bind-", dir=folder.parent))
    try:
        wanted = _packages()
        if (
            wanted
            and subprocess.run(["apt-get", "download", "-qq", *wanted], cwd=staging, capture_output=True).returncode
        ):
            # a list that is older than the archive names packages that are not there any more
            subprocess.run(["apt-get", "update", "-qq"], capture_output=True)
            wanted = _packages()
            subprocess.run(["apt-get", "download", "-qq", *wanted], cwd=staging, check=True, capture_output=True)
        for archive in staging.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(archive), str(staging)], check=True)
            archive.unlink()
        staging.chmod(0o755)
        staging.rename(folder)
    except subprocess.CalledProcessError as error:
        raise CannotPrepare(f"{error.cmd}: {(error.stderr or b'').decode(errors='replace')}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def _packages() -> list[str]:
    """BIND and what it needs that the machine has not."""
    for _ in range(2):
        simulated = ["apt-get", "-s", "install", "--no-install-recommends", "bind9"]
        said = subprocess.run(simulated, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
        found = [line.split()[1] for line in said.stdout.splitlines() if line.startswith("Inst ")]
        if said.returncode == 0:
            return found
        subprocess.run(["apt-get", "update", "-qq"], capture_output=True)
    raise CannotPrepare(f"apt knows no bind9: {said.stderr.strip()}")


class NameServer:
    """One BIND, authoritative for its zones; below each, every name leads to 127.0.0.1."""

    def __init__(self, folder: Path, port: int, zones: tuple[str, ...]) -> None:
        """The first zone takes updates that are signed with `KEY`; the others have what `say` gives them."""
        self._folder = folder
        self.port = port
        self._serials: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None
        for zone in zones:
            self._write(zone, {})
        stanzas = []
        for zone in zones:
            policy = "update-policy { grant caddy. zonesub ANY; };" if zone == zones[0] else ""
            stanzas.append(f'zone "{zone}" {{ type primary; file "{zone}.zone"; {policy} }};')
        (folder / "named.conf").write_text(
            f'options {{ directory "{folder}"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};'
            f' recursion no; pid-file none; session-keyfile "{folder}/session.key"; dnssec-validation no; }};\n'
            "controls {};\n"
            f'key "{KEY["key_name"]}" {{ algorithm {KEY["key_alg"]}; secret "{KEY["key"]}"; }};\n' + "\n".join(stanzas)
        )

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def credentials(self) -> dict[str, str]:
        """What the provider `rfc2136` is given."""
        return {**KEY, "server": self.address}

    def start(self) -> None:
        """Return when it answers."""
        files = unpack()
        libraries = [str(path) for path in (files / "usr/lib").iterdir() if path.is_dir()]
        with (self._folder / "named.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(files / "usr/sbin/named"), "-g", "-n", "1", "-c", str(self._folder / "named.conf")],
                env={"LD_LIBRARY_PATH": ":".join(libraries), "PATH": "/usr/bin:/bin"},
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            assert self._process.poll() is None, self.log()
            time.sleep(0.02)
        raise AssertionError(self.log())

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def say(self, zone: str, texts: Mapping[str, str]) -> None:
        """Have a zone that takes no updates say these texts (name below the zone ▸ TXT).

        The name above each gets its address by itself: it exists by now, and a wildcard stands for none that does
        (RFC 4592, 2.2.2).
        """
        assert self._process is not None
        serial = self._write(zone, texts)
        self._process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 60
        while f"zone {zone}/IN: loaded serial {serial}" not in self.log():
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)

    def log(self) -> str:
        return (self._folder / "named.log").read_text(errors="replace")

    def _write(self, zone: str, texts: Mapping[str, str]) -> int:
        serial = self._serials[zone] = self._serials.get(zone, 0) + 1
        records = "\n".join(
            f'{name} IN TXT "{text}"\n{name.partition(".")[2] or "@"} IN A 127.0.0.1' for name, text in texts.items()
        )
        (self._folder / f"{zone}.zone").write_text(_ZONE.format(zone=zone, serial=serial, records=records))
        return serial


@contextlib.contextmanager
def name_server(port: int, *zones: str) -> Iterator[NameServer]:
    """A running one."""
    folder = Path(tempfile.mkdtemp(prefix="vn", dir="/tmp"))
    server = NameServer(folder, port, zones)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)
