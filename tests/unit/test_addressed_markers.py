"""Markers that carry addresses: what Caddy finds in the folder of an app, whatever was told in which order."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from vibed.apps.app import Route
from vibed.router import addressed
from vibed.router.addressed import AddressedMarkers


def found(apps: Path, app_id: str) -> str | None:
    """What Caddy's `file` matcher takes: the first of a sorted glob; the run and the address of it."""
    names = sorted(path.name for path in (apps / app_id).glob("*_*"))
    return names[0].split("_", 2)[2] if names else None


@pytest.fixture
def apps(tmp_path: Path) -> Path:
    return tmp_path / "apps"


@pytest.fixture
def markers(apps: Path) -> AddressedMarkers:
    made = AddressedMarkers(apps)
    made.begin()
    return made


async def test_the_name_leads_to_what_was_told_last_be_it_an_older_run(apps: Path, markers: AddressedMarkers) -> None:
    for run in (1, 2, 12, 3):
        markers.lead("todo", Route(run, 1, f"10.0.0.{run}:8080"))
        assert found(apps, "todo") == f"{run}_10.0.0.{run}:8080"


async def test_an_older_marker_stays_for_requests_that_have_just_seen_it_and_then_goes(
    apps: Path, markers: AddressedMarkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addressed, "RETIRE_AFTER_S", 0.05)
    markers.lead("todo", Route(1, 1, "10.0.0.1:8080"))
    markers.lead("todo", Route(2, 2, "10.0.0.2:8080"))
    assert len(list((apps / "todo").iterdir())) == 2
    async with asyncio.timeout(5):
        while len(list((apps / "todo").iterdir())) > 1:
            await asyncio.sleep(0.01)
    assert found(apps, "todo") == "2_10.0.0.2:8080"


async def test_the_next_process_takes_over_what_is_there_and_its_word_comes_after_it(apps: Path) -> None:
    first = AddressedMarkers(apps)
    first.begin()
    for run in range(1, 5):
        first.lead("todo", Route(run, 1, "10.0.0.1:8080"))
        first.lead("other", Route(run, 1, "10.0.0.9:8080"))
    second = AddressedMarkers(apps)
    second.begin()
    assert found(apps, "todo") == "4_10.0.0.1:8080"
    second.lead("todo", Route(2, 1, "10.0.0.7:8080"))
    assert found(apps, "todo") == "2_10.0.0.7:8080"
    second.keep_only(frozenset({"todo"}))
    assert found(apps, "other") is None
    assert found(apps, "todo") == "2_10.0.0.7:8080"


async def test_a_name_that_was_dropped_leads_nowhere(apps: Path, markers: AddressedMarkers) -> None:
    markers.lead("todo", Route(1, 1, "10.0.0.1:8080"))
    markers.drop("todo")
    markers.drop("never-there")
    assert found(apps, "todo") is None
    assert not (apps / "todo").exists()
    markers.lead("todo", Route(1, 1, "10.0.0.1:8080"))
    assert found(apps, "todo") == "1_10.0.0.1:8080"


@pytest.mark.parametrize(
    ("app_id", "address"),
    [
        ("../etc", "10.0.0.1:80"),
        ("todo", "evil.example.com:80"),
        ("todo", "10.0.0.1:80/../../x"),
        ("todo", "10.0.0.1"),
        ("todo", "unix//run/vibed/x.sock"),
        ("", "10.0.0.1:80"),
    ],
)
async def test_what_is_no_name_and_no_address_of_a_pod_makes_no_marker(
    markers: AddressedMarkers, apps: Path, app_id: str, address: str
) -> None:
    with pytest.raises(ValueError, match="no route"):
        markers.lead(app_id, Route(1, 1, address))
    assert not list(apps.rglob("*"))


async def test_whoever_waits_for_a_run_is_told_once_the_name_leads_to_it_and_not_to_another(
    markers: AddressedMarkers,
) -> None:
    assert not await markers.reached("todo", 2, "10.0.0.2:8080", 0.01)
    waiting = asyncio.ensure_future(markers.reached("todo", 2, "10.0.0.2:8080", 10))
    await asyncio.sleep(0)
    others = (Route(1, 1, "10.0.0.1:8080"), Route(2, 1, "10.0.0.9:8080"), Route(3, 2, "10.0.0.3:8080"))
    for other in others:  # an older one, that of an earlier app of the name, and one from which it is led back
        markers.lead("todo", other)
        await asyncio.sleep(0)
        assert not waiting.done()
    markers.lead("todo", Route(2, 1, "10.0.0.2:8080"))
    assert await waiting
    assert markers.leads("todo") == Route(2, 1, "10.0.0.2:8080")


async def test_an_apps_own_domain_leads_wherever_its_name_does_until_it_is_not_its_any_more(
    apps: Path, markers: AddressedMarkers
) -> None:
    markers.name("todo", ["todo.example.com", "www.example.com", "../evil", "nodots"])
    markers.lead("todo", Route(1, 1, "10.0.0.1:8080"))
    assert found(apps, "todo.example.com") == found(apps, "todo") == "1_10.0.0.1:8080"
    assert (apps / "todo.example.com.known").exists()
    assert sorted(path.name for path in apps.iterdir() if path.name.endswith(".known")) == [
        "todo.example.com.known",
        "www.example.com.known",
    ]
    markers.name("todo", ["www.example.com"])
    assert not (apps / "todo.example.com.known").exists()
    assert found(apps, "todo.example.com") is None
    again = AddressedMarkers(apps)
    again.begin()
    again.name("other", ["www.example.com"])
    again.lead("other", Route(4, 1, "10.0.0.4:8080"))
    assert found(apps, "www.example.com") == "4_10.0.0.4:8080"
    again.name_only(frozenset({"todo"}))
    assert not (apps / "www.example.com.known").exists()
