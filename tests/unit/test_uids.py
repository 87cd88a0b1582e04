"""Which uids sandboxes get; that they separate them for real is in tests/hostile."""

from __future__ import annotations

import json
from pathlib import Path

from vibed.supervision.uids import UidPool


def _alive(folder: Path, *uids: int) -> None:
    for uid in uids:
        (folder / f"s{uid}").mkdir()
        (folder / f"s{uid}" / "spec.json").write_text(json.dumps({"uid": uid}))


def test_a_uid_that_was_given_back_comes_last_again(tmp_path: Path) -> None:
    pool = UidPool(range(1000, 1006), tmp_path)
    first = pool.take()
    pool.give_back(first)
    assert [pool.take() for _ in range(3)] == [1002, 1004, first]


def test_it_goes_on_behind_the_live_sandboxes_of_before(tmp_path: Path) -> None:
    _alive(tmp_path, 1000, 1004)
    pool = UidPool(range(1000, 1010), tmp_path)
    assert [pool.take() for _ in range(3)] == [1006, 1008, 1002]


def test_live_sandboxes_outside_the_range_are_none_of_its_business(tmp_path: Path) -> None:
    """They are there after a change of `uid_base`; taking them over and ending them needs the pool."""
    _alive(tmp_path, 500, 9000)
    pool = UidPool(range(1000, 1004), tmp_path)
    assert [pool.take() for _ in range(2)] == [1000, 1002]
    pool.give_back(9000)


def test_a_range_that_was_moved_by_one_gives_out_nobodys_uid(tmp_path: Path) -> None:
    """A sandbox has two uids; those of before lie across the new pairs."""
    _alive(tmp_path, 1003)
    pool = UidPool(range(1000, 1010), tmp_path)
    assert {pool.take() for _ in range(3)} == {1000, 1006, 1008}
