"""What the files of Vercel, Firebase and Azure say of a site: whether it is a single-page app, which is done here too,
and what else, which is not and is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vibed.classify.errors import BadConfiguration
from vibed.classify.tree import Tree

_FILES = ("vercel.json", "firebase.json", "staticwebapp.config.json")
_LISTS = ("redirects", "rewrites", "routes", "headers", "responseOverrides")
_ALL = ("/(.*)", "/(.+)", "/.*", "/:path*", "/:path(.*)", "/*", "**", "*", "/**")
_FIRST_PAGE = ("/index.html", "/", "index.html")


def single_page(tree: Tree) -> bool:
    """Whether one of them has every path be the first page."""
    return any(_fallback(settings) or any(map(_is_fallback, _rules(settings))) for _, settings in _settings(tree))


def unfollowed(tree: Tree) -> list[str]:
    """What they say that is not done, a note for each."""
    notes = []
    for name, settings in _settings(tree):
        counts = []
        for key in _LISTS:
            given = settings.get(key) or ()
            rules = [rule for rule in given if not _is_fallback(rule)] if isinstance(given, (list, Mapping)) else []
            if rules:
                counts.append(f"{len(rules)} {key}")
        if counts:
            said = ", ".join(counts)
            notes.append(f"{said} of {name} are not followed: write them in _redirects and _headers, which are")
    return notes


def _settings(tree: Tree) -> list[tuple[str, Mapping[str, Any]]]:
    found = []
    for name in _FILES:
        if not tree.has(name):
            continue
        try:
            settings: Any = tree.json(name)
        except BadConfiguration:
            continue  # somebody else's file: that it cannot be read stops nothing here
        if name == "firebase.json":
            settings = settings.get("hosting", {})
            settings = settings[0] if isinstance(settings, list) and settings else settings
        if isinstance(settings, Mapping):
            found.append((name, settings))
    return found


def _rules(settings: Mapping[str, Any]) -> list[Any]:
    return [rule for key in ("rewrites", "routes") if isinstance(settings.get(key), list) for rule in settings[key]]


def _fallback(settings: Mapping[str, Any]) -> bool:
    navigation = settings.get("navigationFallback")
    return isinstance(navigation, Mapping) and navigation.get("rewrite") in _FIRST_PAGE


def _is_fallback(rule: object) -> bool:
    if not isinstance(rule, Mapping):
        return False
    source = rule.get("source", rule.get("src"))
    if not isinstance(source, str) or (source not in _ALL and not source.startswith("/((?!")):
        return False
    return rule.get("destination", rule.get("dest")) in _FIRST_PAGE
