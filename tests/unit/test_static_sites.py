"""What the static driver promises beyond the driver contract: where sites lie, who reads them, how they are found."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import tarfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from vibed.apps.app import Runtime
from vibed.config import Config
from vibed.drivers.static import StaticDriver
from vibed.layout import Layout, Uids
from vibed.sandboxes.driver import Limits, Prospect, Run, RunFailed, State
from vibed.sources.limits import ArchiveLimits


def archive(folder: Path, files: dict[str, str]) -> Path:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    path = folder / f"{hashlib.sha256(out.getvalue()).hexdigest()}.tar.gz"
    path.write_bytes(out.getvalue())
    return path


def site_run(source: Path, *, version: int = 1, number: int = 1, strip: str = "", root: str = "") -> Run:
    runtime = Runtime("fast", "static-nginx", "static", "index.html", "test", strip=strip, root=root, spa=True)
    return Run("a", version, number, source, runtime, {}, Limits())


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "home", tmp_path / "run", Uids(os.geteuid() or 100_000_000, rootless=os.geteuid() != 0))


async def deploy(driver: StaticDriver, run: Run) -> Path:
    sandbox = await driver.boot("static-nginx")
    started = await sandbox.run(run, socket=Path("/unused"), log_dir=Path("/unused"), on_stage=lambda stage: None)
    return started.endpoint.path


async def test_a_site_is_the_folder_below_the_wrapping_one_and_nothing_else(layout: Layout, tmp_path: Path) -> None:
    source = archive(tmp_path, {"wrap/dist/index.html": "hi", "wrap/dist/a/b.css": "x", "wrap/README.md": "no"})
    place = await deploy(StaticDriver(layout), site_run(source, strip="wrap/", root="dist/"))
    assert sorted(str(p.relative_to(place)) for p in place.rglob("*") if p.is_file()) == ["a/b.css", "index.html"]


async def test_a_site_is_readable_to_caddys_group_and_to_no_other(layout: Layout, tmp_path: Path) -> None:
    place = await deploy(StaticDriver(layout), site_run(archive(tmp_path, {"d/index.html": "hi"})))
    for path in (place.parent, place, place / "d"):
        assert path.stat().st_mode & 0o777 == 0o750
    stat = (place / "d/index.html").stat()
    assert stat.st_mode & 0o7777 == 0o640
    assert (stat.st_uid, stat.st_gid) == (os.geteuid(), layout.uids.caddy if os.geteuid() == 0 else os.getegid())


@pytest.mark.root
async def test_a_folder_that_a_killed_controller_had_just_made_is_given_to_caddy(
    layout: Layout, tmp_path: Path
) -> None:
    driver = StaticDriver(layout)
    (driver.folder / "a").mkdir(mode=0o700, parents=True)
    place = await deploy(driver, site_run(archive(tmp_path, {"index.html": "hi"})))
    for folder in (layout.sites, driver.folder, place.parent, place):
        assert folder.stat().st_gid == layout.uids.caddy
        assert folder.stat().st_mode & 0o777 == 0o750


async def test_a_source_without_a_file_below_its_root_is_refused_and_leaves_nothing(
    layout: Layout, tmp_path: Path
) -> None:
    driver = StaticDriver(layout)
    with pytest.raises(RunFailed, match="dist/"):
        await deploy(driver, site_run(archive(tmp_path, {"index.html": "hi"}), root="dist/"))
    assert list((driver.folder / "a").iterdir()) == []


async def test_a_site_with_more_files_than_is_usual_is_served_where_the_operator_allows_it(
    layout: Layout, tmp_path: Path
) -> None:
    config = Config(tmp_path, max_files=21_000)
    source = archive(tmp_path, {f"{n}.txt": "" for n in range(20_001)})
    place = await deploy(StaticDriver(layout, limits=ArchiveLimits.of(config)), site_run(source))
    assert (place / "20000.txt").is_file()


async def test_a_later_controller_finds_the_site_of_a_version_and_drops_what_else_is_there(
    layout: Layout, tmp_path: Path
) -> None:
    first = StaticDriver(layout)
    old = await deploy(first, site_run(archive(tmp_path, {"index.html": "1"})))
    new = await deploy(first, site_run(archive(tmp_path, {"index.html": "2"}), version=2, number=2))
    later = StaticDriver(layout)
    assert list(await later.adopt()) == []
    site = later.find("a", 2, spa=True)
    assert site is not None
    assert site.state is State.RUNNING
    assert site.endpoint is not None
    assert site.endpoint.path == new
    assert site.endpoint.spa
    assert not old.exists()
    assert later.find("a", 2) is site
    assert later.find("a", 1) is None
    assert later.find("b", 1) is None
    await later.close()


async def test_a_site_in_use_is_not_taken_for_a_leftover(layout: Layout, tmp_path: Path) -> None:
    driver = StaticDriver(layout)
    old = await deploy(driver, site_run(archive(tmp_path, {"index.html": "1"})))
    new = await deploy(driver, site_run(archive(tmp_path, {"index.html": "2"}), version=2, number=2))
    assert driver.find("a", 2) is not None
    assert old.exists()
    assert new.exists()


async def test_after_a_reboot_no_site_is_trusted_and_the_old_ones_go(layout: Layout, tmp_path: Path) -> None:
    place = await deploy(StaticDriver(layout, boot_id="11111111-x"), site_run(archive(tmp_path, {"index.html": "1"})))
    later = StaticDriver(layout, boot_id="22222222-x")
    await later.adopt()
    assert later.find("a", 1) is None
    await until(lambda: not (layout.sites / "11111111").exists())
    assert not place.exists()
    assert not (layout.sites / "11111111").exists()
    await later.close()


async def test_a_deleted_app_leaves_no_site(layout: Layout, tmp_path: Path) -> None:
    place = await deploy(StaticDriver(layout), site_run(archive(tmp_path, {"index.html": "1"})))
    later = StaticDriver(layout)
    await later.remove_app("a")
    assert not place.parent.exists()


def prospect(run: Run) -> Prospect:
    return Prospect(run.app_id, run.source, run.runtime.strip, run.runtime.root)


async def test_a_site_that_was_unpacked_ahead_is_not_unpacked_again(layout: Layout, tmp_path: Path) -> None:
    driver = StaticDriver(layout)
    run = site_run(archive(tmp_path, {"index.html": "ahead"}))
    driver.prepare(prospect(run))
    await until(lambda: any(driver.folder.glob(".fresh/*/index.html")))
    (ahead,) = driver.folder.glob(".fresh/*/index.html")
    inode = ahead.stat().st_ino
    place = await deploy(driver, run)
    assert (place / "index.html").stat().st_ino == inode
    assert list(driver.folder.glob(".fresh/*")) == []
    await driver.close()


async def test_a_site_that_was_unpacked_for_nothing_goes_and_leaves_other_sites_alone(
    layout: Layout, tmp_path: Path
) -> None:
    driver = StaticDriver(layout)
    run = site_run(archive(tmp_path, {"index.html": "hi"}))
    place = await deploy(driver, run)
    for app_id in ("a", "refused"):
        driver.prepare(replace(prospect(run), app_id=app_id))
    await driver.close()
    assert sorted(path.name for path in driver.folder.iterdir()) == [".fresh", "a"]
    assert list(driver.folder.glob(".fresh/*")) == []
    assert place.exists()


async def test_what_an_earlier_controller_had_half_written_or_half_removed_goes(layout: Layout, tmp_path: Path) -> None:
    earlier = StaticDriver(layout)
    await deploy(earlier, site_run(archive(tmp_path, {"index.html": "hi"})))
    half = earlier.folder / ".fresh" / "b.0123456789ab"
    removing = (earlier.folder / ".gone.012345678901", earlier.folder / "a" / ".gone.012345678901")
    for left in (half, *removing):
        (left / "css").mkdir(parents=True)
    later = StaticDriver(layout)
    await later.adopt()
    await until(lambda: not half.exists() and not any(".gone" in place for place, _, _ in os.walk(earlier.folder)))
    assert later.find("a", 1) is not None
    await later.close()


async def test_an_app_that_is_deleted_meanwhile_does_not_keep_what_is_left_of_others(layout: Layout) -> None:
    folder = StaticDriver(layout).folder
    ended = threading.Event()

    def deploy_and_delete() -> None:
        while not ended.is_set():
            for number in range(50):
                (folder / f"app{number}").mkdir(parents=True)
            for number in range(50):
                (folder / f"app{number}").rmdir()

    thread = threading.Thread(target=deploy_and_delete)
    thread.start()
    try:
        for number in range(100):
            left = folder / f".gone.{number:012d}"
            left.mkdir(parents=True)
            later = StaticDriver(layout)
            await later.adopt()
            await later.close()  # raises what the sweep raised
            assert not left.exists()
    finally:
        ended.set()
        thread.join()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


SITE = {"index.html": "hi", "_redirects": "/old /new", ".env": "KEY=1", "a.js": "x", "package.json": "{}"}


async def served(layout: Layout, tmp_path: Path, files: dict[str, str], **options: object) -> tuple[Path, bool]:
    run = site_run(archive(tmp_path, files))
    driver = StaticDriver(layout)
    sandbox = await driver.boot("static-nginx")
    run = replace(run, runtime=replace(run.runtime, spa=False, options=options))
    started = await sandbox.run(run, socket=Path("/unused"), log_dir=Path("/unused"), on_stage=lambda stage: None)
    found = StaticDriver(layout).find("a", 1)
    assert found is not None
    assert found.endpoint is not None
    assert found.endpoint.ruled == started.endpoint.ruled, "a later controller thinks otherwise of it"
    return started.endpoint.path, started.endpoint.ruled


async def test_what_configures_a_host_is_not_even_unpacked_and_rules_make_it_the_site_servers(
    layout: Layout, tmp_path: Path
) -> None:
    place, ruled = await served(layout, tmp_path, SITE)
    assert sorted(path.name for path in place.iterdir()) == [".vibed.json", "a.js", "index.html"]
    facts = place / ".vibed.json"
    assert json.loads(facts.read_text())["redirects"] == [
        {"path": "/old", "to": ["/new"], "status": 301, "force": False}
    ]
    assert facts.stat().st_mode & 0o777 == 0o640
    assert facts.stat().st_gid == (place / "a.js").stat().st_gid
    assert ruled


@pytest.mark.parametrize(
    ("files", "options", "ruled"),
    [
        ({"a.js": ""}, {}, False),
        ({"404.html": ""}, {}, False),
        ({"_redirects": "/* /index.html 200"}, {}, False),
        ({"a.js": "", "data.js.gz": ""}, {}, False),
        ({"a.js": "", "a.js.gz": ""}, {}, True),
        ({"de/404.html": ""}, {}, True),
        ({"Build/g.loader.js": "", "Build/g.wasm.br": ""}, {}, True),
        ({"_headers": "/*\n  X-A: b"}, {}, True),
        ({"a.js": ""}, {"base": "/repo/"}, True),
        # nobody's own facts count
        ({".vibed.json": "{}"}, {}, False),
    ],
)
async def test_only_a_site_that_is_more_than_files_is_the_site_servers(
    layout: Layout, tmp_path: Path, files: dict[str, str], options: dict[str, object], ruled: bool
) -> None:
    assert (await served(layout, tmp_path, {"index.html": "hi", **files}, **options))[1] == ruled


async def test_a_folder_of_pages_begins_with_their_list(layout: Layout, tmp_path: Path) -> None:
    place, _ = await served(layout, tmp_path, {"a&b.html": "", "two words.html": "", "404.html": ""}, listing=True)
    page = (place / "index.html").read_text()
    assert '<a href="./a%26b.html">a&amp;b.html</a>' in page
    assert '<a href="./two%20words.html">' in page
    assert "404" not in page
