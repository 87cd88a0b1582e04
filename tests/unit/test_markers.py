"""Markers: what Caddy takes first is the run that was published last."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vibed.router.markers import Markers
from vibed.sandboxes.driver import Endpoint


@pytest.fixture
def apps(tmp_path: Path) -> Path:
    return made(tmp_path)


@pytest.fixture
def markers(apps: Path) -> Markers:
    return Markers(apps, apps.parent / "ingress")


def made(place: Path) -> Path:
    for name in ("apps", "ingress"):
        (place / name).mkdir()
    return place / "apps"


def reached(apps: Path, app_id: str) -> Path | None:
    """Where Caddy gets to: the first of the sorted glob of sites, or else what the app's link leads to."""
    for found in sorted((apps / app_id).glob("*.[sp]")):
        return found.with_name(f"{found.name}.d").readlink()
    link = apps / f"{app_id}.sock"
    return link.readlink() if link.is_symlink() else None


def site(apps: Path, number: int, *, spa: bool = False) -> Endpoint:
    return Endpoint(apps.parent / f"site-{number}", site=True, spa=spa)


def socket(markers: Markers, run: int, version: int | None = None) -> Endpoint:
    markers.make_room("todo")
    return Endpoint(markers.socket("todo", run, version or run))


def test_the_run_that_was_published_last_is_reached_whatever_kind_it_is(markers: Markers, apps: Path) -> None:
    for number, endpoint in enumerate(
        (site(apps, 1), socket(markers, 2), socket(markers, 3), site(apps, 4), site(apps, 5, spa=True),
         socket(markers, 6), site(apps, 7, spa=True)), start=1,
    ):  # fmt: skip
        markers.publish("todo", number, number, endpoint)
        assert reached(apps, "todo") == endpoint.path
        assert (markers.published("todo")[0].run, markers.published("todo")[0].site) == (number, endpoint.site)


def test_a_sockets_run_and_version_are_known_from_its_link(markers: Markers, apps: Path) -> None:
    markers.publish("todo", 12, 7, socket(markers, 12, 7))
    (marker,) = markers.published("todo")
    assert (marker.run, marker.version, marker.endpoint.path) == (12, 7, apps / "todo.sock")
    assert markers.with_sockets() == ["todo"]


def test_an_older_site_stays_until_it_is_retired(markers: Markers, apps: Path) -> None:
    for run in (1, 2):
        markers.publish("todo", run, run, site(apps, run))
    assert [marker.version for marker in markers.published("todo")] == [2, 1]
    markers.retire("todo", 2)
    assert reached(apps, "todo") == site(apps, 1).path


@settings(max_examples=50)
@given(st.lists(st.integers(1, 999_999_998), min_size=1, max_size=8, unique=True))
def test_sites_sort_newest_first_at_any_number(tmp_path_factory: pytest.TempPathFactory, runs: list[int]) -> None:
    apps = made(tmp_path_factory.mktemp("place"))
    markers = Markers(apps, apps.parent / "ingress")
    for run in runs:
        markers.publish("todo", run, run, site(apps, run))
    assert [marker.run for marker in markers.published("todo")] == sorted(runs, reverse=True)
    assert reached(apps, "todo") == site(apps, max(runs)).path


def test_links_and_files_that_are_being_written_are_no_markers(markers: Markers, apps: Path) -> None:
    markers.publish("todo", 1, 1, site(apps, 1))
    socket(markers, 2).path.touch()
    (apps / "todo" / "999999990-9.s.d.new").touch()
    (apps / "other.sock.new").symlink_to("nowhere")
    assert [marker.run for marker in markers.published("todo")] == [1]
    assert markers.with_sockets() == []


def test_a_retired_run_gets_no_new_request_but_keeps_its_socket(markers: Markers, apps: Path) -> None:
    endpoint = socket(markers, 1)
    endpoint.path.touch()
    markers.publish("todo", 1, 1, endpoint)
    markers.retire("todo", 1)
    assert markers.published("todo") == []
    assert endpoint.path.exists()
    markers.forget("todo", 1)
    assert not endpoint.path.parent.exists()


def test_retiring_or_forgetting_an_older_run_leaves_the_newer_alone(markers: Markers, apps: Path) -> None:
    for run in (1, 11):
        socket(markers, run).path.touch()
        markers.publish("todo", run, run, socket(markers, run))
    markers.retire("todo", 1)
    markers.forget("todo", 1)
    assert reached(apps, "todo") == socket(markers, 11).path
    assert socket(markers, 11).path.exists()


@pytest.mark.parametrize("kind", ["site", "socket"])
def test_a_marker_that_cannot_be_read_is_removed_rather_than_believed(markers: Markers, apps: Path, kind: str) -> None:
    marker = markers.publish("todo", 1, 1, site(apps, 1) if kind == "site" else socket(markers, 1))
    marker.path.unlink()
    broken = marker.path.with_name("1.s") if kind == "site" else marker.path
    broken.write_text("{")
    assert markers.published("todo") == []
    assert not broken.exists()


def test_clearing_an_app_leaves_nothing(markers: Markers, apps: Path) -> None:
    markers.publish("todo", 1, 1, socket(markers, 1))
    markers.publish("todo", 2, 2, site(apps, 2))
    markers.clear("todo")
    markers.clear("never-there")
    assert list(apps.iterdir()) == [] and list((apps.parent / "ingress").iterdir()) == []


@pytest.mark.root
def test_a_folder_that_a_killed_controller_had_just_made_is_given_to_caddy(apps: Path) -> None:
    markers = Markers(apps, apps.parent / "ingress", gid=100_000_001)
    for parent in (apps, apps.parent / "ingress"):
        (parent / "todo").mkdir(mode=0o750)
    markers.make_room("todo")
    markers.publish("todo", 1, 1, site(apps, 1))
    for parent in (apps, apps.parent / "ingress"):
        assert (parent / "todo").stat().st_gid == 100_000_001
