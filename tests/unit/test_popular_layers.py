"""Which layers sandboxes that wait have ahead."""

from __future__ import annotations

from collections.abc import Mapping

from vibed.runtimes.layers.layer import LayerFacts
from vibed.runtimes.layers.popular import MOST, popular


def facts(template: str = "python-313", *, private: bool = False) -> LayerFacts:
    return LayerFacts("", "python", template, 1, {}, 0.0, 0.0, 0.0, private)


KNOWN: Mapping[str, LayerFacts] = {"a": facts(), "b": facts(), "c": facts(), "node": facts("node-24")}


def test_what_several_apps_have_is_had_ahead_by_the_template_it_was_made_for() -> None:
    used = {"a": ["1", "2"], "node": ["3", "4", "5"], "b": ["6"]}
    assert popular(used, KNOWN.get, {}, 2) == {"python-313": ("a",), "node-24": ("node",)}
    assert popular(used, KNOWN.get, {}, 1) == {"python-313": ("a", "b"), "node-24": ("node",)}
    assert popular(used, KNOWN.get, {}, 4) == {}


def test_of_many_those_that_the_most_apps_have_and_the_same_ones_each_time() -> None:
    used = {"c": ["1", "2", "3"], "b": ["1", "2"], "a": ["1", "2"]}
    assert MOST == 2
    assert popular(used, KNOWN.get, {}, 2) == {"python-313": ("c", "a")}


def test_what_belongs_to_one_owner_and_what_has_gone_is_never_had_ahead() -> None:
    known = {"mine": facts(private=True), "installers": facts("")}
    assert popular({"mine": ["1", "2"], "gone": ["1", "2"], "installers": ["1", "2"]}, known.get, {}, 2) == {}


def test_what_few_of_a_templates_apps_have_is_not_worth_its_removal_from_all_others() -> None:
    used = {"a": ["1", "2", "3"]}
    assert popular(used, KNOWN.get, {"python-313": 12, "node-24": 500}, 3) == {"python-313": ("a",)}
    assert popular(used, KNOWN.get, {"python-313": 13}, 3) == {}
