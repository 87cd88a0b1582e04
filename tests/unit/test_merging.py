"""Which pod of sites is emptied into another."""

from __future__ import annotations

import pytest

from vibed.drivers.agent_sandbox.merging import Fill, to_empty

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
