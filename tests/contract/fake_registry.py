"""Package registries on the loopback interface: an index as PEP 503 and PEP 691 have it, npm's, a module proxy's.

They say what they are asked and by whom, and can be told to lie, to be slow and to fail.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


def wheel(name: str, version: str, files: Mapping[str, str], requires: tuple[str, ...] = ()) -> bytes:
    """A pure wheel."""
    out = io.BytesIO()
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    contents = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(out, "w") as archive:
        for path, text in contents.items():
            archive.writestr(path, text)
        record = "".join(f"{path},,\n" for path in contents)
        archive.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return out.getvalue()


def sdist(name: str, version: str, files: Mapping[str, str]) -> bytes:
    """A source distribution with the given files below its folder."""
    return _tar({f"{name}-{version}/{path}": text for path, text in files.items()})


def npm_package(files: Mapping[str, str]) -> bytes:
    """A tarball as npm's registry has them."""
    return _tar({f"package/{path}": text for path, text in files.items()})


def go_module(name: str, version: str, files: Mapping[str, str]) -> bytes:
    """A zip file as the module proxy has them."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path, text in {"go.mod": f"module {name}\n", **files}.items():
            archive.writestr(f"{name}@{version}/{path}", text)
    return out.getvalue()


def _tar(files: Mapping[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for path, text in files.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(text.encode()), 0o644
            archive.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()


@dataclass(frozen=True)
class Asked:
    """One request that came."""

    path: str
    headers: Mapping[str, str]


@dataclass
class FakeRegistry:
    """Answers at `/simple/<name>/`, `/files/<file>` and `/npm/<name>`, and keeps what it was asked."""

    port: int = 0
    host: str = "127.0.0.1"
    files: dict[str, bytes] = field(default_factory=dict)
    """Distributions by their file names."""
    packages: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """npm: versions of packages, their tarballs."""
    modules: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Go: versions of modules, their zip files."""
    asked: list[Asked] = field(default_factory=list)
    lies: set[str] = field(default_factory=set)
    """Files whose content is another than its page says."""
    broken: set[str] = field(default_factory=set)
    """Paths that break off in the middle."""
    status: dict[str, int] = field(default_factory=dict)
    """What paths that begin so are answered with instead."""
    delay_s: float = 0.0
    html: bool = False
    authorization: str = ""
    """What callers have to bring, where it is not empty."""

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def index(self) -> str:
        return f"{self.url}/simple/"

    @property
    def npm(self) -> str:
        return f"{self.url}/npm/"

    def paths(self) -> list[str]:
        """What was asked for, in its order."""
        return [one.path for one in self.asked]

    def answer(self, path: str, headers: Mapping[str, str]) -> tuple[int, str, bytes]:
        """Status, media type and body."""
        if self.authorization and headers.get("authorization") != self.authorization:
            return 401, "text/plain", b"who are you?"
        for prefix, status in self.status.items():
            if path.startswith(prefix):
                return status, "text/plain", b"not today"
        if path.startswith("/simple/"):
            return self._project(path.split("/")[2])
        if path.startswith("/files/"):
            name = path.split("/")[2]
            if name.removesuffix(".metadata") in self.files:
                if name.endswith(".metadata"):
                    return 200, "text/plain", self._metadata(name.removesuffix(".metadata"))
                content = self.files[name]
                return 200, "application/octet-stream", content[::-1] if name in self.lies else content
        if path.startswith("/go/"):
            return self._module(path.removeprefix("/go/"))
        if path.startswith("/npm/"):
            return self._package(path.removeprefix("/npm/").replace("%2f", "/"))
        return 404, "text/plain", b"no such thing"

    def _project(self, name: str) -> tuple[int, str, bytes]:
        mine = {file: data for file, data in self.files.items() if _project_of(file) == name}
        if not mine:
            return 404, "text/plain", b"no such project"
        if self.html:
            links = "".join(
                f'<a href="../../files/{file}#sha256={hashlib.sha256(data).hexdigest()}">{file}</a>'
                for file, data in mine.items()
            )
            return 200, "text/html", f"<!DOCTYPE html><html><body>{links}</body></html>".encode()
        files = [
            {
                "filename": file,
                "url": f"{self.url}/files/{file}",
                "hashes": {"sha256": hashlib.sha256(data).hexdigest()},
                **({"core-metadata": True} if file.endswith(".whl") else {}),
            }
            for file, data in mine.items()
        ]
        page = {"meta": {"api-version": "1.0"}, "name": name, "files": files}
        return 200, "application/vnd.pypi.simple.v1+json", json.dumps(page).encode()

    def _metadata(self, file: str) -> bytes:
        with zipfile.ZipFile(io.BytesIO(self.files[file])) as archive:
            return archive.read(next(name for name in archive.namelist() if name.endswith("/METADATA")))

    def _module(self, path: str) -> tuple[int, str, bytes]:
        name, _, file = path.partition("/@")
        versions = self.modules.get(name)
        if versions is None:
            return 404, "text/plain", b"not found: no such module"
        if file == "v/list":
            return 200, "text/plain", "\n".join(versions).encode()
        version = list(versions)[-1] if file == "latest" else file.removeprefix("v/").rpartition(".")[0]
        ending = file.rpartition(".")[2]
        if version not in versions:
            return 404, "text/plain", b"not found: no such version"
        if ending == "zip":
            content = versions[version]
            return 200, "application/zip", content[::-1] if f"{name}@{version}" in self.lies else content
        if ending == "mod":
            with zipfile.ZipFile(io.BytesIO(versions[version])) as archive:
                return 200, "text/plain", archive.read(f"{name}@{version}/go.mod")
        return 200, "application/json", json.dumps({"Version": version, "Time": "2026-01-01T00:00:00Z"}).encode()

    def _package(self, path: str) -> tuple[int, str, bytes]:
        name, _, file = path.partition("/-/")
        versions = self.packages.get(name)
        if versions is None:
            return 404, "application/json", b'{"error":"Not found"}'
        short = name.rpartition("/")[2]
        if file:
            content = versions[file.removeprefix(f"{short}-").removesuffix(".tgz")]
            return 200, "application/octet-stream", content[::-1] if file in self.lies else content
        told = {
            version: {
                **_told_of(data),
                "name": name,
                "version": version,
                "dist": {
                    "tarball": f"{self.npm}{name}/-/{short}-{version}.tgz",
                    "integrity": "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode(),
                },
            }
            for version, data in versions.items()
        }
        latest = list(versions)[-1]
        page = {"name": name, "dist-tags": {"latest": latest}, "versions": told}
        return 200, "application/json", json.dumps(page).encode()


def _told_of(tarball: bytes) -> dict[str, object]:
    """What npm's registry tells of a package's own package.json."""
    with tarfile.open(fileobj=io.BytesIO(tarball)) as archive:
        file = archive.extractfile("package/package.json")
        manifest = json.loads(file.read()) if file is not None else {}
    kept = (
        "bin", "dependencies", "scripts", "optionalDependencies", "peerDependencies", "peerDependenciesMeta",
        "bundleDependencies", "os", "cpu", "libc", "engines",
    )  # fmt: skip
    told = {key: manifest[key] for key in kept if key in manifest}
    return {**told, **({"hasInstallScript": True} if "install" in manifest.get("scripts", {}) else {})}


def _project_of(file: str) -> str:
    stem = file.removesuffix(".tar.gz").removesuffix(".whl")
    name = stem.split("-")[0] if file.endswith(".whl") else stem.rpartition("-")[0]
    return name.lower().replace("_", "-").replace(".", "-")


@contextmanager
def fake_registry(
    host: str = "127.0.0.1", network: Callable[[], AbstractContextManager[None]] = nullcontext
) -> Iterator[FakeRegistry]:
    """One that listens until the context ends; at an address of another `network`, where one is given."""
    registry = FakeRegistry(host=host)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            registry.asked.append(Asked(self.path, headers))
            time.sleep(registry.delay_s)
            # asked as a proxy, it answers for whatever host
            status, kind, body = registry.answer(urlsplit(self.path).path, headers)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.path in registry.broken:
                body = body[: len(body) // 2]
                self.close_connection = True
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            return

    with network():
        server = ThreadingHTTPServer((host, 0), Handler)
    server.daemon_threads = True
    registry.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
