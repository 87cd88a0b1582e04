"""What earlier versions left on disk goes when nothing uses it any more, and not a moment earlier."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import time
from pathlib import Path

import pytest

from vibed.controller import leftovers as module
from vibed.controller.leftovers import Leftovers
from vibed.controller.roots import BuiltRoots
from vibed.layout import Layout, Uids
from vibed.runtimes import images
from vibed.runtimes.builder import TemplateBuilder
from vibed.runtimes.digests import runtime_digest
from vibed.runtimes.exclusive import exclusive
from vibed.runtimes.templates import load_templates
from vibed.runtimes.tool import sha256_of
from vibed.runtimes.tools import Tools
from vibed.sandboxes.driver import BootFailed

TEMPLATES = load_templates()
NEW, OLD, OLDER = "a" * 64, "b" * 64, "c" * 64
DAY = 24 * 3600


class House:
    """A VIBED_HOME with its runtime directory, and the part of a controller that looks after leftovers."""

    def __init__(self, folder: Path) -> None:
        self.layout = Layout(folder / "home", folder / "run", Uids(os.geteuid(), rootless=True))
        self.tools = Tools(self.layout.home)
        self.builder = TemplateBuilder(self.layout.home, TEMPLATES, self.tools)
        self.roots = BuiltRoots(self.builder, TEMPLATES)
        self.leftovers = Leftovers(
            layout=self.layout, templates=TEMPLATES, builder=self.builder, roots=self.roots, tools=self.tools
        )
        self.layout.sandboxes.mkdir(parents=True)

    def image(self, name: str, digest: str, *, current: bool = False) -> Path:
        """An image as a build leaves it; only `current` ones are of the present definition."""
        template = TEMPLATES[name]
        folder = self.layout.templates / name / digest[:16]
        folder.mkdir(parents=True)
        if template.has_root:
            (folder / "rootfs.erofs").write_bytes(b"erofs")
        manifest = {
            "name": name,
            "digest": digest,
            "definition": template.definition_digest if current else "of an earlier version",
            "runtime": runtime_digest(template),
            "stage": template.last_stage,
            "content": "",
            "packages": {},
            "debian": {},
            "built_at": 1.0,
            "size": 5,
        }
        (folder / "manifest.json").write_text(json.dumps(manifest))
        if current:
            (folder.parent / "current").unlink(missing_ok=True)
            (folder.parent / "current").symlink_to(folder.name)
            self.roots.refresh(name)
        return folder

    def sandbox(self, name: str, digest: str, **more: object) -> Path:
        folder = self.layout.sandboxes / name
        folder.mkdir()
        (folder / "spec.json").write_text(json.dumps({"template_digest": digest, **more}))
        return folder

    def tool(self, folder: str, *, asked_s_ago: float = 2 * DAY) -> Path:
        """A tool as `install` leaves it."""
        place = self.layout.tools / folder
        place.mkdir(parents=True)
        shutil.copy2("/bin/sleep", place / "program")
        (place / "tool.json").write_text("{}")
        os.utime(place / "tool.json", (time.time(), time.time() - asked_s_ago))
        return place

    async def look(self) -> None:
        await self.leftovers.look(settled_s=0)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.fixture
def errors(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.ERROR)
    return caplog


# images


@pytest.mark.parametrize("template", ["python-313", "workerd"])
async def test_images_that_nothing_uses_go_and_the_newest_stays(house: House, template: str) -> None:
    older, old = house.image(template, OLDER), house.image(template, OLD)
    new = house.image(template, NEW, current=True)
    await house.look()
    assert new.exists() and not old.exists() and not older.exists()
    assert (new.parent / "current").resolve() == new
    assert house.roots.root(template).digest == NEW


async def test_an_image_stays_until_the_last_of_its_sandboxes_is_gone(house: House) -> None:
    old, new = house.image("python-313", OLD), house.image("python-313", NEW, current=True)
    first, second = house.sandbox("s1", OLD), house.sandbox("s2", OLD)
    house.sandbox("s3", NEW)
    await house.look()
    assert old.exists(), "two sandboxes run from it"
    shutil.rmtree(first)
    await house.look()
    assert old.exists(), "one still does"
    shutil.rmtree(second)
    await house.look()
    assert new.exists() and not old.exists()


async def test_current_leads_to_the_image_that_is_used_when_a_later_one_is_not_wanted_any_more(house: House) -> None:
    wanted, later = house.image("python-313", OLD, current=True), house.image("python-313", NEW)
    (wanted.parent / "current").unlink()
    (wanted.parent / "current").symlink_to(later.name)
    await house.look()
    assert not later.exists()
    assert (wanted.parent / "current").resolve() == wanted


async def test_an_image_of_which_a_sandbox_is_just_being_made_stays(house: House) -> None:
    old = house.image("python-313", OLD)
    house.image("python-313", NEW, current=True)
    house.sandbox(".s1", OLD)  # its folder gets its own name when it is complete
    await house.look()
    assert old.exists()


async def test_an_image_stays_for_what_was_under_way_when_it_was_replaced(house: House) -> None:
    old = house.image("python-313", OLD, current=True)
    (old / "manifest.json").write_text((old / "manifest.json").read_text().replace("1.0", "0.5"))
    house.image("python-313", NEW, current=True)
    assert house.roots.root("python-313").digest == NEW
    await house.leftovers.look()
    assert old.exists(), "it was replaced just now: a claim may have it in hand without a trace on disk"
    house.roots._since["python-313"] -= module.SETTLED_S
    await house.leftovers.look()
    assert not old.exists()


async def test_looking_at_the_disk_again_does_not_begin_the_time_anew(house: House) -> None:
    house.image("python-313", NEW, current=True)
    house.roots._since["python-313"] -= 100
    house.roots.refresh("python-313")
    assert house.roots.settled("python-313", 99) is not None
    assert house.roots.settled("python-313", 200) is None


async def test_what_the_next_build_starts_from_stays_while_there_is_no_usable_image(house: House) -> None:
    old = house.image("python-313", OLD)
    await house.look()
    assert old.exists()
    assert await house.builder.prune("python-313") == []
    with pytest.raises(BootFailed):
        house.roots.root("python-313")


async def test_nothing_is_removed_while_a_build_is_under_way(house: House, errors: pytest.LogCaptureFixture) -> None:
    old = house.image("python-313", OLD)
    house.image("python-313", NEW, current=True)
    other = house.image("node-24", OLD)
    house.image("node-24", NEW, current=True)
    staging = old.parent / ".build-now"
    staging.mkdir()
    async with exclusive(old.parent / ".busy", deadline_s=1):
        await house.look()
        assert old.exists() and staging.exists()
        assert not other.exists(), "a build of one template does not keep those of another"
    await house.look()
    assert not old.exists() and not staging.exists(), "a folder that was half built belongs to a build that was killed"
    assert errors.records == []


async def test_an_image_that_was_mounted_for_its_sandboxes_is_unmounted(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    unmounted: list[Path] = []
    monkeypatch.setattr(module.mounts, "unmount_below", unmounted.append)
    house.image("python-313", OLD)
    house.image("python-313", NEW, current=True)
    await house.look()
    assert unmounted == [house.layout.runtime / "roots" / OLD[:16]], "else its blocks stay taken until the next restart"


async def test_a_damaged_image_goes_too(house: House) -> None:
    house.image("python-313", NEW, current=True)
    damaged = house.image("python-313", OLD)
    (damaged / "manifest.json").write_text("{")
    await house.look()
    assert not damaged.exists()


async def test_what_is_not_an_image_is_left_alone(house: House) -> None:
    new = house.image("python-313", NEW, current=True)
    (new.parent / "build.log").write_text("built")
    (new.parent / "of-the-operator").mkdir()
    await house.look()
    assert {path.name for path in new.parent.iterdir()} == {
        ".busy",
        "build.log",
        "current",
        "of-the-operator",
        new.name,
    }


async def test_nothing_is_removed_when_a_sandbox_cannot_be_understood(
    house: House, errors: pytest.LogCaptureFixture
) -> None:
    old = house.image("python-313", OLD)
    house.image("python-313", NEW, current=True)
    (house.sandbox("s1", OLD) / "spec.json").write_text("{")
    await house.look()
    assert old.exists() and len(errors.records) == 1


async def test_what_cannot_be_removed_is_logged_and_stops_nothing(
    house: House, errors: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("python-313", "node-24"):
        house.image(name, OLD)
        house.image(name, NEW, current=True)
    remove = shutil.rmtree

    def stubborn(path: Path) -> None:
        if "python-313" in str(path):
            raise PermissionError(f"{path} stays")
        remove(path)

    monkeypatch.setattr(images.shutil, "rmtree", stubborn)
    await house.look()
    assert [record.facts["template"] for record in errors.records] == ["python-313"]  # type: ignore[attr-defined]
    assert not (house.layout.templates / "node-24" / OLD[:16]).exists()
    assert house.builder.ready("python-313") is not None
    monkeypatch.undo()
    await house.look()
    assert sorted(path.name for path in (house.layout.templates / "python-313").iterdir()) == [
        ".busy",
        NEW[:16],
        "current",
    ]


async def test_it_looks_again_and_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    old = house.image("python-313", OLD)
    house.image("python-313", NEW, current=True)
    house.roots._since["python-313"] -= module.SETTLED_S
    used = house.sandbox("s1", OLD)
    monkeypatch.setattr(module, "EVERY_S", 0.01)
    running = asyncio.create_task(house.leftovers.run())
    try:
        await asyncio.sleep(0.1)
        assert old.exists()
        shutil.rmtree(used)
        async with asyncio.timeout(10):
            while old.exists():
                await asyncio.sleep(0.01)
    finally:
        running.cancel()


# tools


async def test_a_tool_that_nothing_uses_and_nobody_asks_for_goes(house: House) -> None:
    pinned = house.tool(f"caddy-{house.tools.version('caddy')}")
    old = [house.tool(name) for name in ("caddy-1.0", "vibed-agent-0123456789abcdef", "workerd-1.1", "go-1.2")]
    fresh = house.tool("esbuild-9.9", asked_s_ago=3600)
    log = house.layout.tools / "caddy.log"
    log.write_text("")
    await house.look()
    assert not any(folder.exists() for folder in old)
    assert pinned.exists() and log.exists()
    assert fresh.exists(), "a newer vibeD may be installing it"
    assert {path.name for path in house.layout.tools.iterdir()} == {".busy", "caddy.log", pinned.name, fresh.name}


async def test_a_tool_that_the_watchdog_or_a_sandbox_names_stays(house: House) -> None:
    agent, caddy, workerd = (house.tool(name) for name in ("vibed-agent-01", "caddy-1.0", "workerd-1.1"))
    (house.layout.runtime / "plan.json").write_text(json.dumps({"argv": [f"{agent}/vibed-agent", "confine"]}))
    (house.layout.runtime / "caddy.confine.json").write_text(json.dumps({"root": [{"source": f"{caddy}/caddy"}]}))
    sandbox = house.sandbox("s1", NEW, confine={"root": [{"source": f"{workerd}/bin/workerd"}]})
    await house.look()
    assert agent.exists() and caddy.exists() and workerd.exists()
    shutil.rmtree(sandbox)
    await house.look()
    assert agent.exists() and caddy.exists() and not workerd.exists()


async def test_a_tool_that_a_process_runs_stays_until_it_ends(house: House) -> None:
    folder = house.tool("vibed-agent-0123456789abcdef")
    process = await asyncio.create_subprocess_exec(folder / "program", "60")
    try:
        await house.look()
        assert folder.exists()
    finally:
        process.kill()
        await process.wait()
    await house.look()
    assert not folder.exists()


async def test_what_the_controller_started_with_stays_when_its_checkout_moves_on(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = house.tool(f"workerd-{house.tools.version('workerd')}")
    monkeypatch.setattr(house.tools, "version", lambda name: "of the checkout as it is now")
    await house.look()
    assert own.exists()


async def test_a_tool_that_is_asked_for_stays_from_then_on(house: House) -> None:
    path = house.tools.path("caddy")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"caddy")
    record = path.parent / "tool.json"
    record.write_text(json.dumps({"size": 5, "sha256": sha256_of(path)}))
    os.utime(record, (0, 0))
    assert await house.tools.install("caddy") == path
    assert time.time() - record.stat().st_mtime < 60


# downloads


async def test_old_downloads_go_after_an_upgrade_only(house: House) -> None:
    old, fresh = house.layout.home / "cache/pip/http/old", house.layout.home / "cache/npm/fresh"
    for path, age in ((old, 40 * DAY), (fresh, DAY)):
        path.parent.mkdir(parents=True)
        path.write_text("")
        os.utime(path, (time.time(), time.time() - age))
    await house.look()
    assert old.exists()
    house.tool("caddy-1.0")
    await house.look()
    assert fresh.exists() and not old.exists()
