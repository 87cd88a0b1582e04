"""Hostile static sites, served by the real Caddy of a complete vibeD: each test says what the attacker tries.

A site runs no code, so what is attacked is the archive's reader, the folder it is unpacked to, and the server.
"""

from __future__ import annotations

import io
import socket
import stat
import tarfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.contract.driver_kit import SUBJECTS, bench
from tests.hostile.ground import SECRET, City
from vibed.sandboxes.driver import RunFailed

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

_numbers = count(1)
SITE = {
    "index.html": 'page {{env "PATH"}} {env.HOME} {http.request.host} <!--#include file="/etc/passwd" --> <?php 1 ?>',
    ".env": "the site's own .env",
    ".git/config": "the site's own .git",
    ".htaccess": "Options +Indexes",
    "a/.hidden": "hidden in a",
    "Caddyfile": ":80 {\n\tfile_server browse {\n\t\troot /\n\t}\n}",
    "site.caddy": "import /etc/passwd",
    "999999990-1.s": "a marker's name",
    "999999990-1.s.d": "that of its link",
    "x.s.d/y": "y",
    "404.html": '404 of the site {{readFile "/etc/passwd"}}',
    "empty/keep.txt": "no index here",
    ".well-known/security.txt": "known",
}


@pytest.fixture(scope="module", autouse=True)
def site(city: City) -> Iterator[str]:
    city.vibed.client.deploy_ready("hostile-site", SITE)
    yield "hostile-site"
    city.vibed.client.delete("hostile-site")


@pytest.fixture(autouse=True)
def nobody_else_notices(city: City) -> Iterator[None]:
    yield
    city.unharmed()


def raw(city: City, path: str | bytes, host: str | bytes = "", extra: bytes = b"") -> tuple[int, bytes]:
    """Exactly this request, which no client library would send; status 0 when it was not answered."""
    target = path.encode() if isinstance(path, str) else path
    name = (host or f"hostile-site.localhost:{city.vibed.port}") if not isinstance(host, bytes) else host
    named = name.encode() if isinstance(name, str) else name
    with socket.create_connection(("127.0.0.1", city.vibed.port), 30) as s:
        s.settimeout(30)
        try:
            s.sendall(
                b"GET " + target + b" HTTP/1.1\r\nHost: " + named + b"\r\nConnection: close\r\n" + extra + b"\r\n"
            )
            answer = b""
            while piece := s.recv(65536):
                answer += piece
        except ConnectionError:
            return 0, b""
    head, _, body = answer.partition(b"\r\n\r\n")
    return (int(head.split()[1]) if len(head.split()) > 1 else 0), body


PATHS = ["/.env", "/%2eenv", "/%2Eenv", "/.%65nv", "//.env", "/./.env", "/a/../.env", "/.env/", "/.env%20", "/.env%00",
         "/.env?x",
         "/.well-known/../.env", "/.well-known/%2e%2e/.env", "/.well-known/..%2f.env", "/.well-known/../.git/config",
         "/.well-known%2f..%2f.env", "/a/.hidden", "/a%2f.hidden", "/.git/config", "/.git%2fconfig", "/.git",
         "/.htaccess",
         "/%252eenv", "/..%5c.env", "/\\.env", "/x/..;/.env", "/.ENV", "/[.]env", "/.e*", "/*nv", "/.en?", "/{.env}",
         "/%7B.env%7D", "/a/%2e%2e/%2eenv"]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_dotfiles_are_not_served_by_any_spelling_of_their_path(city: City, path: str) -> None:
    status, body = raw(city, path)
    assert b"own .env" not in body
    assert b"own .git" not in body
    assert b"hidden in a" not in body
    assert b"Options" not in body
    assert status in (0, 301, 307, 308, 400, 404)


OUTSIDE = ["/../neighbour-site/data.txt", "/../../../../../../etc/passwd", "/..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
           "/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/etc/passwd", "/....//....//etc/passwd",
           "/%c0%ae%c0%ae/etc/passwd", "/..%00/etc/passwd", "/a/..\\..\\..\\etc\\passwd", "/proc/self/environ",
           "/{env.HOME}", "/%7Benv.VIBED_HOME%7D", "/{file./etc/passwd}", "/%7Bfile./etc/passwd%7D",
           "/%7Bhttp.vars.root%7D",
           "/*", "/**/*", "/%3F/*", "/[a-z]*", "/../*/data.txt", "/..%2f*%2fdata.txt"]  # fmt: skip


@pytest.mark.parametrize("path", OUTSIDE)
def test_paths_patterns_and_placeholders_do_not_lead_out_of_the_site(city: City, path: str) -> None:
    status, body = raw(city, path)
    assert SECRET.encode() not in body
    assert b"root:x:0" not in body
    assert str(city.vibed.home).encode() not in body
    assert status in (0, 301, 307, 308, 400, 404), body
    assert raw(city, "/" + "../" * 3000 + "etc/passwd")[0] in (0, 301, 308, 400, 404, 414, 431)


HOSTS = ["*.localhost", "?ostile-site.localhost", "[neighbour-site].localhost", "..localhost", "%2e%2e.localhost",
         "neighbour-site%00.localhost", "{env.HOME}.localhost", "{labels.1}.localhost", ".localhost", "a.b.localhost",
         "..%2fneighbour-site.localhost", "neighbour-sit*.localhost", "neighbour-site/../x.localhost", "sb.localhost",
         "-.localhost", "xn--.localhost", "neighbour-site\\.localhost", "999999999.s.localhost",
         "neighbour-site.sock.localhost", "neighbour-python.sock.localhost", "neighbour-python.sock"]  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_names_with_patterns_placeholders_or_dots_reach_no_app(city: City, host: str) -> None:
    for path in ("/", "/data.txt"):
        status, body = raw(city, path, f"{host}:{city.vibed.port}")
        assert SECRET.encode() not in body
        assert b"the neighbour" not in body
        assert status in (0, 400, 404, 421), (status, body[:200])


def test_configuration_templates_and_markers_in_a_site_are_nothing_but_files(city: City) -> None:
    status, body = raw(city, "/")
    assert (status, body.decode()) == (200, SITE["index.html"])
    status, body = raw(city, "/nothing-here")
    assert (status, body.decode()) == (404, SITE["404.html"])
    status, body = raw(city, "/Caddyfile")
    assert (status, body.decode()) == (404, SITE["404.html"])
    assert raw(city, "/999999990-1.s") == (200, b"a marker's name")
    status, body = raw(city, "/empty/")
    assert status == 404
    assert b"keep.txt" not in body
    assert raw(city, "/.well-known/security.txt") == (200, b"known")


def test_methods_ranges_and_headers_that_are_odd_break_nothing(city: City) -> None:
    ranges = b"Range: bytes=" + b",".join(b"0-" for _ in range(3000)) + b"\r\n"
    for extra in (ranges, b"Range: bytes=-99999999999999999999\r\n", b"If-None-Match: *\r\nIf-Range: x\r\n",
                  b"X: " + b"y" * (2 << 20) + b"\r\n", b"A: b\r\n" * 60_000,
                  b"Accept-Encoding: " + b"gzip," * 9000 + b"\r\n",

                  b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"Expect: 100-continue\r\n",
                  b"Upgrade: websocket\r\nConnection: upgrade\r\n",
                  b"X-Forwarded-Host: localhost\r\nX-Original-URL: /v1/apps\r\n"):  # fmt: skip
        status, body = raw(city, "/", extra=extra)
        assert status in (0, 200, 206, 304, 400, 412, 413, 416, 431), (status, extra[:40])
        assert len(body) < 1 << 20
        assert b"neighbour" not in body


def archive(*members: tuple[str, bytes, str, bytes], mode: int = 0o644) -> bytes:
    """Members as (name, type, link target, content)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, kind, target, content in (("index.html", tarfile.REGTYPE, "", b"page"), *members):
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size, member.mode = kind, target, len(content), mode
            tar.addfile(member, io.BytesIO(content) if content else None)
    return out.getvalue()


LINKS = {
    "a link to a file of the host": ("passwd.txt", tarfile.SYMTYPE, "/etc/passwd", b""),
    "a link that climbs": ("passwd.txt", tarfile.SYMTYPE, "../../../../../../etc/passwd", b""),
    "a link to another app": ("data.txt", tarfile.SYMTYPE, "../../neighbour-site", b""),
    "a link to the kernel": ("proc", tarfile.SYMTYPE, "/proc/self/root", b""),
    "a link to vibeD's sockets": ("run", tarfile.SYMTYPE, "/run/vibed", b""),
    "a hard link": ("passwd.txt", tarfile.LNKTYPE, "/etc/passwd", b""),
    "a device": ("disk", tarfile.BLKTYPE, "", b""),
    "a pipe that never answers": ("pipe", tarfile.FIFOTYPE, "", b""),
    "a name that climbs": ("../neighbour-site/index.html", tarfile.REGTYPE, "", b"defaced"),
    "an absolute name": ("/etc/cron.d/hostile", tarfile.REGTYPE, "", b"* * * * * root id"),
    "a name with a line break": ("a\nb", tarfile.REGTYPE, "", b"x"),
    "a name with a backslash": ("..\\..\\x", tarfile.REGTYPE, "", b"x"),
}


@pytest.mark.parametrize("member", LINKS.values(), ids=LINKS)
def test_an_archive_is_refused_that_holds(city: City, member: tuple[str, bytes, str, bytes]) -> None:
    answer = city.vibed.client.post_deploy(f"hostile-archive-{next(_numbers)}", archive(member))
    assert answer.status_code == 422 or answer.status_code == 400, answer.text
    assert not Path("/etc/cron.d/hostile").exists()


@pytest.mark.parametrize("member", LINKS.values(), ids=LINKS)
async def test_the_static_driver_itself_unpacks_nothing_outside_with(
    tmp_path: Path, member: tuple[str, bytes, str, bytes]
) -> None:
    """Past the API: the folder is made from the archive a second time, by other code."""
    static = SUBJECTS["static"]
    async with bench(tmp_path) as on:
        run = static.run(on, {"index.html": "page"})
        run.source.write_bytes(archive(member))
        with pytest.raises(RunFailed):
            await static.start(on, static.driver(on), run)
        assert [path for path in on.layout.sites.rglob("*") if path.is_symlink() or path.is_file()] == []


def test_modes_of_the_archive_make_no_setuid_and_no_writable_file(city: City) -> None:
    client = city.vibed.client
    name = client.deploy_ready(
        f"hostile-modes-{next(_numbers)}", archive(("tool.sh", tarfile.REGTYPE, "", b"x"), mode=0o7777)
    ).app_id
    found = list(city.vibed.layout.sites.glob(f"*/{name}/*/*"))
    assert {path.name for path in found} == {"index.html", "tool.sh"}
    for path in found:
        info = path.lstat()
        assert stat.S_IMODE(info.st_mode) == 0o640
        assert (info.st_uid, info.st_gid) == (0, city.vibed.layout.uids.caddy)
    client.delete(name)


def test_a_bomb_and_too_many_files_are_refused_and_very_many_are_served(city: City) -> None:
    client = city.vibed.client
    bomb = client.post_deploy(
        f"hostile-bomb-{next(_numbers)}", archive(("zeros.bin", tarfile.REGTYPE, "", bytes(250 << 20)))
    )
    assert bomb.status_code in (413, 422), bomb.text
    many = {"index.html": "page", **{f"d{n % 50}/f{n}.txt": "x" for n in range(25_000)}}
    members = [(name, tarfile.REGTYPE, "", b"x") for name in many if name != "index.html"]
    refused = client.post_deploy(f"hostile-many-{next(_numbers)}", archive(*members))
    assert refused.status_code in (413, 422), refused.text
    fits = {name: many[name] for name in list(many)[:12_000]}
    name = client.deploy_ready(f"hostile-fits-{next(_numbers)}", fits).app_id
    assert client.visit(name, "/d1/f1.txt").text == "x"
    client.delete(name)


def test_a_fallback_page_and_a_404_page_cannot_be_used_to_leave_the_site(city: City) -> None:
    client = city.vibed.client
    name = client.deploy_ready(
        f"hostile-spa-{next(_numbers)}", {"index.html": "spa", ".env": "own", "404.html/x": "y"}
    ).app_id
    host = f"{name}.localhost:{city.vibed.port}"
    for path in [*PATHS, *OUTSIDE]:
        status, body = raw(city, path, host)
        assert SECRET.encode() not in body and b"root:x:0" not in body and body != b"own", path
        assert status < 500, path
    client.delete(name)
