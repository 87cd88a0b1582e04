"""What the harness says of a series of measurements."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.quantiles import Quantiles


def test_a_quantile_is_a_sample_that_was_seen() -> None:
    found = Quantiles.of([30.0, 10.0, 20.0])
    assert (found.p50, found.p90, found.p99) == (20.0, 30.0, 30.0)


def test_the_middle_of_an_even_number_is_the_lower_of_the_two() -> None:
    assert Quantiles.of([1.0, 2.0, 3.0, 4.0]).p50 == 2.0


def test_one_sample_is_every_quantile() -> None:
    found = Quantiles.of([7.0])
    assert found == Quantiles(n=1, p50=7.0, p90=7.0, p99=7.0, least=7.0, most=7.0)


def test_p99_of_a_hundred_samples_leaves_out_the_worst_and_of_fewer_does_not() -> None:
    assert Quantiles.of([float(n) for n in range(1, 101)]).p99 == 99.0
    assert Quantiles.of([float(n) for n in range(1, 100)]).p99 == 99.0


def test_no_samples_is_an_error_and_not_a_zero() -> None:
    with pytest.raises(ValueError, match="no samples"):
        Quantiles.of([])


@given(st.lists(st.floats(min_value=0, max_value=1e6), min_size=1, max_size=300))
def test_quantiles_are_in_order_and_among_the_samples(samples: list[float]) -> None:
    found = Quantiles.of(samples)
    assert found.least <= found.p50 <= found.p90 <= found.p99 <= found.most
    assert {found.least, found.p50, found.p90, found.p99, found.most} <= set(samples)
    assert sum(one <= found.p50 for one in samples) * 2 >= len(samples)
