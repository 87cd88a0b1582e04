"""What is said of a machine, or of a user, that gives less than everything."""

from __future__ import annotations

from pathlib import Path

from vibed.supervision.cgroups import CONTROLLERS, Cgroups
from vibed.supervision.limitations import limitations

ALL = Cgroups("ab", dict.fromkeys(CONTROLLERS, Path("/sys/fs/cgroup")), unified=True)
NONE = Cgroups("ab", {}, unified=True, why="none is delegated", cure="have one delegated")


def test_as_root_with_all_bounds_there_is_nothing_to_say() -> None:
    assert limitations(ALL, privileged=True) == ()


def test_without_root_the_one_uid_is_named_with_its_cure() -> None:
    (told,) = limitations(ALL, privileged=False)
    assert "one uid" in told
    assert "sudo" in told


def test_bounds_that_cannot_be_enforced_are_named_with_why_and_the_cure() -> None:
    (told,) = limitations(NONE, privileged=True)
    assert "memory, CPU and processes of a sandbox are not bounded" in told
    assert "none is delegated; have one delegated" in told
    assert told in limitations(NONE, privileged=False)
