"""What an owner's apps may take, and which old sources make way."""

from __future__ import annotations

import pytest

from vibed.apps.storage import Kept, StorageLimitReached, by_app, make_room, taken

MB = 1_000_000


def kept(app: str, number: int, digest: str, source: int = 1, unpacked: int = 0, *, needed: bool = False) -> Kept:
    return Kept(app, number, digest, source * MB, unpacked * MB, needed, float(number))


def test_a_source_that_several_versions_or_apps_have_is_there_once() -> None:
    versions = [kept("a", 1, "x", 10), kept("a", 2, "x", 10), kept("b", 1, "x", 10), kept("b", 2, "y", 5, 20)]
    assert taken(versions) == 35 * MB
    assert by_app(versions) == {"a": 10 * MB, "b": 35 * MB}


def test_nothing_goes_while_everything_fits() -> None:
    assert make_room([kept("a", 1, "x", 40)], kept("a", 2, "y", 60), 100 * MB) == []


def test_the_oldest_sources_go_first_and_no_more_than_have_to() -> None:
    versions = [kept("a", n, f"d{n}", 10) for n in range(1, 6)] + [kept("a", 6, "d6", 10, needed=True)]
    assert make_room(versions, kept("a", 7, "new", 15), 60 * MB) == ["d1", "d2"]


def test_what_serves_should_serve_or_was_good_last_stays_and_so_does_a_source_that_they_share() -> None:
    versions = [kept("a", 1, "x", 30), kept("b", 2, "x", 30, needed=True), kept("b", 3, "y", 30)]
    assert make_room(versions, kept("a", 4, "new", 20), 60 * MB) == ["y"]


def test_a_source_that_is_deployed_again_is_as_young_as_its_newest_version() -> None:
    versions = [kept("a", 1, "x", 10), kept("a", 2, "y", 10), kept("a", 3, "x", 10), kept("a", 4, "z", 10, needed=True)]
    assert make_room(versions, kept("a", 5, "new", 10), 30 * MB) == ["y"]
    assert make_room(versions, kept("a", 5, "x", 10), 20 * MB) == ["y"], "what is just being deployed stays"


def test_a_site_makes_way_for_its_own_next_version_and_not_for_anothers() -> None:
    site = kept("site", 1, "x", 4, 566, needed=True)
    assert make_room([site], kept("site", 2, "y", 4, 566), 1_000 * MB) == []
    with pytest.raises(StorageLimitReached):
        make_room([site], kept("other", 1, "y", 4, 566), 1_000 * MB)


def test_who_is_refused_is_told_what_takes_how_much_and_what_to_delete() -> None:
    versions = [kept(f"app-{n}", 1, f"d{n}", 1, 100 * n, needed=True) for n in range(1, 8)]
    with pytest.raises(StorageLimitReached) as refused:
        make_room(versions, kept("app-7", 2, "new", 2, 900), 3_000 * MB)
    error = refused.value
    assert (error.http_status, error.may_retry) == (507, False)
    assert "'app-7' would take 902 MB" in error.message and "app-7 701 MB, app-6 601 MB" in error.message
    assert "app-6" in str(error.hint) and "app-7" not in str(error.hint), "to delete itself would not help it"
    details = error.body()["details"]
    assert isinstance(details, dict)
    assert (details["limit_bytes"], details["needed_bytes"]) == (3_000 * MB, 902 * MB)
    assert [app["app_id"] for app in details["apps"]] == ["app-7", "app-6", "app-5", "app-4", "app-3"]


def test_an_owner_without_apps_is_told_that_the_version_alone_is_too_large() -> None:
    with pytest.raises(StorageLimitReached, match="would take 101 MB, and all apps of one owner may take 100 MB") as e:
        make_room([], kept("a", 1, "x", 101), 100 * MB)
    assert e.value.hint is not None and e.value.hint.startswith("leave large files out")
