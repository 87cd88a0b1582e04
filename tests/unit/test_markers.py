"""Markers: the newest published run is what Caddy's sorted glob finds first."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vibed.router.markers import KINDS, Markers
from vibed.sandboxes.driver import Endpoint


@pytest.fixture
def markers(tmp_path: Path) -> Markers:
    return Markers(tmp_path)


def first_match(apps: Path, app_id: str) -> str:
    """What Caddy takes: the first of the sorted glob of the first kind that has one."""
    return next(found[0] for kind in KINDS if (found := globbed(apps, app_id, kind)))


def globbed(apps: Path, app_id: str, kind: str) -> list[str]:
    return sorted(path.name for path in (apps / app_id).glob(f"*.{kind}"))


def test_the_newest_run_is_found_first_whatever_kind_it_is(markers: Markers, tmp_path: Path) -> None:
    markers.publish("todo", 1, 1, Endpoint(tmp_path / "site-1", site=True))
    markers.publish("todo", 2, 2, Endpoint(markers.socket("todo", 2)))
    assert first_match(tmp_path, "todo").endswith(".a")
    markers.publish("todo", 3, 3, Endpoint(tmp_path / "site-3", site=True, spa=True))
    assert first_match(tmp_path, "todo").endswith(".p")
    assert [marker.version for marker in markers.published("todo")] == [3]


def test_an_older_marker_of_the_same_kind_stays_until_it_is_retired(markers: Markers, tmp_path: Path) -> None:
    for run in (1, 2):
        markers.publish("todo", run, run, Endpoint(markers.socket("todo", run)))
    assert [marker.version for marker in markers.published("todo")] == [2, 1]


@settings(max_examples=50)
@given(st.lists(st.integers(1, 999_999_998), min_size=1, max_size=8, unique=True))
def test_runs_sort_newest_first_at_any_number(tmp_path_factory: pytest.TempPathFactory, runs: list[int]) -> None:
    apps = tmp_path_factory.mktemp("apps")
    markers = Markers(apps)
    for run in runs:
        markers.publish("a", run, run, Endpoint(markers.socket("a", run)))
    assert [marker.run for marker in markers.published("a")] == sorted(runs, reverse=True)
    assert first_match(apps, "a") == markers.published("a")[0].path.name


def test_sockets_links_and_files_that_are_being_written_are_no_markers(markers: Markers, tmp_path: Path) -> None:
    markers.publish("a", 1, 1, Endpoint(tmp_path / "site", site=True))
    markers.socket("a", 2).touch()
    (tmp_path / "a" / "999999990.a.new").touch()
    assert [marker.run for marker in markers.published("a")] == [1]
    assert [len(globbed(tmp_path, "a", kind)) for kind in KINDS] == [0, 1, 0]


def test_a_retired_run_gets_no_new_request_but_keeps_its_socket(markers: Markers) -> None:
    markers.publish("a", 1, 1, Endpoint(markers.socket("a", 1)))
    markers.socket("a", 1).touch()
    markers.retire("a", 1)
    assert markers.published("a") == []
    assert markers.socket("a", 1).exists()
    markers.forget("a", 1)
    assert not markers.socket("a", 1).exists()


def test_a_marker_that_cannot_be_read_is_removed_rather_than_believed(markers: Markers) -> None:
    marker = markers.publish("a", 1, 1, Endpoint(markers.socket("a", 1)))
    marker.path.write_text("{")
    assert markers.published("a") == []
    assert not marker.path.exists()


def test_clearing_an_app_leaves_nothing(markers: Markers, tmp_path: Path) -> None:
    markers.publish("a", 1, 1, Endpoint(tmp_path / "site", site=True))
    markers.clear("a")
    markers.clear("never-there")
    assert not (tmp_path / "a").exists()
