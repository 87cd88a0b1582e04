"""Which pod of sites is emptied into another."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from vibed.drivers.agent_sandbox import site_pods
from vibed.drivers.agent_sandbox.merging import Fill, to_empty
from vibed.drivers.agent_sandbox.sandbox import PodSandbox
from vibed.sandboxes.driver import Claimed

MOST = Fill(100, 1000)


@pytest.mark.parametrize(
    ("pods", "emptied"),
    [
        ([], None),
        ([Fill(1, 1)], None),
        ([Fill(50, 10), Fill(20, 10)], 1),
        ([Fill(20, 10), Fill(50, 10), Fill(30, 10)], 0),
        # by what is deployed it may become full, not by this: one site less would make one pod of two, and one more two
        ([Fill(100, 10), Fill(1, 10)], None),
        ([Fill(70, 10), Fill(10, 10)], None),
        ([Fill(2, 600), Fill(1, 300)], None),
        # the least has more than any other has room for, and the next one has not
        ([Fill(30, 10), Fill(25, 10), Fill(20, 990)], 1),
        # what is without sites goes by itself
        ([Fill(50, 10), Fill(0, 0)], None),
    ],
)
def test_the_emptiest_goes_where_another_has_room_for_all_of_it(pods: list[Fill], emptied: int | None) -> None:
    assert to_empty(pods, MOST) == emptied


def test_nothing_moves_into_a_pod_of_another_release_but_out_of_one() -> None:
    old, new = Fill(10, 10, takes=False), Fill(5, 10)
    assert to_empty([old, new], MOST) == 0
    assert to_empty([old, Fill(10, 10, takes=False)], MOST) is None


async def test_no_more_than_a_few_sites_are_on_their_way_and_one_that_cannot_go_keeps_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr(site_pods, "monotonic", lambda: clock[0])
    pods = site_pods.SitePods(lambda template: cast(PodSandbox, None), lambda app, number: Path(), "new")
    here, there = [_pod(asyncio.get_running_loop().create_future(), sites) for sites in (10, 20)]
    pods._pods |= {here, there}
    bounds = site_pods.Bounds(100, 1 << 30)
    first = pods.to_move(bounds)
    assert len(first) == 4
    assert pods.to_move(bounds) == []
    here.guests.pop(site_pods._key(first[0]))
    (fifth,) = pods.to_move(bounds)
    assert fifth not in first
    clock[0] = 61.0
    assert len(pods.to_move(bounds)) == 4


def _pod(opened: asyncio.Future[None], sites: int) -> site_pods.SitePod:
    opened.set_result(None)
    standing = cast(PodSandbox, SimpleNamespace(exit=None, template="static-nginx"))
    pod = site_pods.SitePod(standing, "new", opened)
    for number in range(sites):
        claimed = Claimed(f"site-{sites}-{number}", 1, 1, "key")
        pod.taken[site_pods._key(claimed)] = 1
        pod.guests[site_pods._key(claimed)] = cast(site_pods.Guest, SimpleNamespace(claimed=claimed))
    return pod
