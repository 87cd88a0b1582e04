"""App ids: a name is a DNS label, and a refused one comes with the nearest that is valid."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vibed.apps import ids
from vibed.apps.errors import InvalidName


@pytest.mark.parametrize("name", ["a", "todo", "my-app-2", "2048", "3d-viewer", "0", "a" * 63])
def test_a_dns_label_is_a_name_also_one_that_begins_with_a_digit(name: str) -> None:
    assert ids.check(name) == name


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("My App", "my-app"),
        ("1st!", "1st"),
        ("-2048", "2048"),
        ("2048_game", "2048-game"),
        ("a-", "a"),
        ("ünï cödé", "uni-code"),
        ("a" * 64, "a" * 63),
        ("", "app"),
        ("../etc", "etc"),
        ("www", "www-app"),
        ("api", "api-app"),
        ("localhost", "localhost-app"),
        ("xn--80ak6aa92e", "xn-80ak6aa92e"),
    ],
)
def test_another_is_refused_with_the_nearest_valid_one(name: str, nearest: str) -> None:
    with pytest.raises(InvalidName) as caught:
        ids.check(name)
    assert caught.value.extra["nearest"] == nearest
    assert ids.check(nearest) == nearest


def test_the_operator_reserves_more() -> None:
    with pytest.raises(InvalidName):
        ids.check("grafana", reserved=("grafana",))


@given(st.text(max_size=100))
def test_the_nearest_is_always_valid(name: str) -> None:
    assert ids.check(ids.nearest(name))
