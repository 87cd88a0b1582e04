"""Packages that another one stands in for."""

from __future__ import annotations

import pytest

from vibed.apps.app import Install
from vibed.runtimes.layers import twins
from vibed.runtimes.layers.pins import Pin


@pytest.mark.parametrize(
    ("wanted", "installed"),
    [
        (("psycopg2==2.9.9",), ("psycopg2-binary==2.9.9",)),
        (("Psycopg2 >= 2.8 ; python_version > '3'",), ("psycopg2-binary >= 2.8 ; python_version > '3'",)),
        (("opencv_python", "flask"), ("opencv-python-headless", "flask")),
        (("opencv-contrib-python~=4.9",), ("opencv-contrib-python-headless~=4.9",)),
        (("psycopg2==2.9.9", "psycopg2-binary==2.9.1"), ("psycopg2-binary==2.9.1",)),
        (("psycopg2==2.9.9 --hash=sha256:00 --hash=sha256:11",), ("psycopg2-binary==2.9.9",)),
        (("psycopg2 @ git+https://example.org/it",), ("psycopg2 @ git+https://example.org/it",)),
        (("opencv-python-inference-engine",), ("opencv-python-inference-engine",)),
    ],
)
def test_what_a_list_names_is_had_under_the_name_that_needs_nothing(
    wanted: tuple[str, ...], installed: tuple[str, ...]
) -> None:
    assert twins.asked_for(Install("python", "uv", wanted=wanted)).wanted == installed


def test_a_lock_counts_for_the_twin_and_what_may_be_left_out_may_be_so_still() -> None:
    before = Install("python", "uv", wanted=("psycopg2",), constraints=("psycopg2==2.9.5",), optional=("psycopg2",))
    after = twins.asked_for(before)
    assert (after.constraints, after.optional) == (("psycopg2-binary==2.9.5",), ("psycopg2-binary",))


def test_the_owner_is_told_of_what_the_list_names_and_of_nothing_else() -> None:
    pins = [Pin("psycopg2-binary", "2.9.9", ""), Pin("opencv-python-headless", "4.10", "")]
    listed = Install("python", "uv", wanted=("psycopg2==2.9.9", "opencv-python-headless"))
    assert [note.partition(":")[0] for note in twins.notes(listed, pins)] == [
        "psycopg2-binary is installed for psycopg2"
    ]
