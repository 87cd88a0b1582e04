"""A folder of files is a site at once."""

from __future__ import annotations

import io
import os
import signal
import tarfile

import pytest

from tests.e2e import samples
from tests.e2e.conftest import Apps
from tests.e2e.instance import Instance
from tests.e2e.waiting import eventually


def test_a_site_is_live_when_the_deploy_is_answered(vibed: Instance, apps: Apps) -> None:
    answer = vibed.client.post_deploy(apps.name("site"), samples.static(1))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    page = vibed.client.visit(body["app_id"])
    assert (page.status_code, "version 1" in page.text) == (200, True)
    assert body["url"] == f"http://{body['app_id']}.localhost:{vibed.port}"
    assert (body["version"], body["created"], body["phase"]) == (1, True, "Ready")
    assert (body["runtime"]["lane"], body["runtime"]["template"]) == ("fast", "static-nginx")
    assert body["runtime"]["why"]
    assert {"receive", "total"} <= set(body["timings"])


def test_the_only_page_is_the_first_page_whatever_its_name(vibed: Instance, apps: Apps) -> None:
    for page in ("Bericht.html", "my page.html", "index.htm"):
        app = apps.ready({page: f"<h1>{page}</h1>", "style.css": "p { }"})
        assert vibed.client.visit(app).text == f"<h1>{page}</h1>"
        assert vibed.client.visit(app, f"/{page.replace(' ', '%20')}").text == f"<h1>{page}</h1>"


def test_files_have_their_types_and_validators(vibed: Instance, apps: Apps) -> None:
    app = apps.ready({"index.html": "<h1>hi</h1>", "a/style.css": "p { }", "logo.svg": "<svg/>", "data.json": "{}"})
    for path, kind in (
        ("/", "text/html"),
        ("/a/style.css", "text/css"),
        ("/logo.svg", "image/svg"),
        ("/data.json", "json"),
    ):
        page = vibed.client.visit(app, path)
        assert page.status_code == 200
        assert kind in page.headers["content-type"]
    etag = vibed.client.visit(app).headers["etag"]
    assert vibed.client.visit(app, headers={"If-None-Match": etag}).status_code == 304
    part = vibed.client.visit(app, "/a/style.css", headers={"Range": "bytes=0-0"})
    assert (part.status_code, part.text) == (206, "p")


def test_pages_are_found_without_their_extension_and_folders_by_their_index(vibed: Instance, apps: Apps) -> None:
    app = apps.ready({"index.html": "home", "about.html": "about", "docs/index.html": "docs"})
    assert vibed.client.visit(app, "/about").text == "about"
    assert vibed.client.visit(app, "/docs/").text == "docs"
    assert vibed.client.visit(app, "/docs", follow_redirects=True).text == "docs"


def test_a_page_that_is_not_there_is_404_and_may_be_the_sites_own(vibed: Instance, apps: Apps) -> None:
    plain = apps.ready({"index.html": "home", "other.html": "other"})
    assert vibed.client.visit(plain, "/nothing").status_code == 404
    own = apps.ready({"index.html": "home", "other.html": "other", "404.html": "lost?"})
    page = vibed.client.visit(own, "/nothing")
    assert (page.status_code, page.text) == (404, "lost?")


def test_hidden_files_are_not_served(vibed: Instance, apps: Apps) -> None:
    app = apps.ready({"index.html": "home", ".env": "SECRET=1", ".git/config": "x", ".well-known/security.txt": "mail"})
    assert vibed.client.visit(app, "/.env").status_code == 404
    assert vibed.client.visit(app, "/.git/config").status_code == 404
    assert vibed.client.visit(app, "/.well-known/security.txt").text == "mail"


def test_no_path_leads_out_of_the_site(vibed: Instance, apps: Apps) -> None:
    app = apps.ready(samples.static(1))
    for path in ("/../../../../etc/passwd", "/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2f..%2fetc%2fpasswd"):
        page = vibed.client.visit(app, path)
        assert page.status_code in (400, 404), path
        assert "root:" not in page.text


def test_a_folder_that_wraps_everything_is_looked_through(vibed: Instance, apps: Apps) -> None:
    app = apps.ready({"my-site-main/index.html": "wrapped", "my-site-main/a.css": "p {}"})
    assert vibed.client.visit(app).text == "wrapped"
    assert vibed.client.visit(app, "/a.css").text == "p {}"


def test_a_tarball_made_by_tar_is_as_good(vibed: Instance, apps: Apps) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.GNU_FORMAT) as tar:
        for name, text in (("./index.html", "by hand"), ("./" + "deep/" * 30 + "page.html", "deep")):
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    app = apps.ready(out.getvalue())
    assert vibed.client.visit(app).text == "by hand"
    assert vibed.client.visit(app, "/" + "deep/" * 30 + "page.html").text == "deep"


def test_a_deleted_site_is_gone_and_its_name_is_free(vibed: Instance, apps: Apps) -> None:
    from tests.e2e.waiting import eventually

    app = apps.ready(samples.static(1))
    vibed.client.delete(app)
    eventually(lambda: vibed.client.visit(app).status_code == 404, "the site is gone")
    assert vibed.client.api("GET", f"/v1/apps/{app}").status_code == 404

    def again() -> bool:
        answer = vibed.client.post_deploy(app, samples.static(2))
        return answer.status_code == 200 and bool(answer.json()["created"])

    eventually(again, "the name can be taken again")
    assert "version 2" in vibed.client.visit(app).text


def test_rules_that_a_site_brings_are_followed_told_and_not_published(vibed: Instance, apps: Apps) -> None:
    rules = "/old /new\n/fn/* /.netlify/functions/:splat 200\n"
    files = {"index.html": "home", "new.html": "new", "_redirects": rules, "_headers": "/*\n  X-Frame-Options: DENY\n"}
    answer = vibed.client.post_deploy(app := apps.name(), files)
    (note,) = answer.json()["notes"]
    assert note.startswith("_redirects line 2 is not followed")
    page = vibed.client.visit(app, "/old", follow_redirects=True)
    assert (page.text, page.headers["x-frame-options"]) == ("new", "DENY")
    for path in ("/_redirects", "/_headers", "/.vibed.json"):
        assert vibed.client.visit(app, path).status_code == 404, path
    # the next version has none, and Caddy answers for it again
    vibed.client.deploy_ready(app, {"index.html": "plain"})
    page = vibed.client.visit(app)
    assert (page.text, "x-frame-options" in page.headers) == ("plain", False)


def test_visitors_of_a_site_with_rules_do_not_see_its_server_die(vibed: Instance, apps: Apps) -> None:
    app = apps.ready({"index.html": "home", "_headers": "/*\n  X-A: b\n"})
    for _ in range(3):
        pid = eventually(lambda: vibed.pids().get("sites"), "the site server is there")
        assert pid
        os.kill(pid, signal.SIGKILL)
        for _ in range(20):
            page = vibed.client.visit(app)
            assert (page.status_code, page.text, page.headers.get("x-a")) == (200, "home", "b")


@pytest.mark.parametrize("name", ["2048", "3d-viewer"])
def test_a_name_that_begins_with_a_digit_reaches_its_app(vibed: Instance, name: str) -> None:
    try:
        vibed.client.deploy_ready(name, samples.static(1))
        assert "version 1" in vibed.client.visit(name).text
    finally:
        vibed.client.delete(name)
