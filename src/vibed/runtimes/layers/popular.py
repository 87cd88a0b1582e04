"""Which layers sandboxes that wait for an app should have already: those that several apps have."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from vibed.runtimes.layers.layer import LayerFacts

SHARE = 0.25
"""Of a template's apps that have a layer: to unpack one costs some five times as much as to remove it again, which each
sandbox does that gets an app without it."""
MOST = 2
"""Of one template: each is unpacked in each sandbox that waits, and removed from those that get an app without it."""


def popular(
    used: Mapping[str, Collection[str]],
    known: Callable[[str], LayerFacts | None],
    apps: Mapping[str, int],
    least: int,
) -> Mapping[str, tuple[str, ...]]:
    """Keys of layers by the template for which they were made, those first that the most apps have. `used`: the apps
    that have a layer, by its key; `known`: what is known of one, None when it has gone; `apps`: how many a template
    has; `least`: how many have to have it, and at least a `SHARE` of them all.

    What belongs to one owner is none of them, however many apps have it: a sandbox that waits is nobody's.
    """
    found: dict[str, list[str]] = {}
    for key in sorted(used, key=lambda one: (-len(used[one]), one)):
        if len(used[key]) < least:
            break
        facts = known(key)
        if facts is None or facts.private or not facts.template:
            continue
        if len(used[key]) >= SHARE * apps.get(facts.template, 0):
            found.setdefault(facts.template, []).append(key)
    return {template: tuple(keys[:MOST]) for template, keys in found.items()}
