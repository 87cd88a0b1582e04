"""What of `_redirects`, `_headers` and netlify.toml is understood, and that each line that is not is told."""

from __future__ import annotations

import re

import pytest

from vibed.classify.host_rules import MOST, MOST_GROUPS, MOST_PATTERNS, Redirect, Rules, host_rules, netlify_settings
from vibed.drivers.site_facts import Facts
from vibed.sources.texts import MANIFEST_HEAD


def rules(redirects: str = "", headers: str = "", netlify: str = "") -> Rules:
    files = {"dist/_redirects": redirects, "dist/_headers": headers}
    return host_rules(lambda path: files.get(path, ""), "dist/", netlify_settings(netlify))


def follow(rule: Redirect, path: str) -> str | None:
    """As those do who follow it."""
    if rule.pattern.exact:
        groups: tuple[str, ...] = ()
        if (path.rstrip("/") or "/") != rule.pattern.text:
            return None
    else:
        match = re.fullmatch(rule.pattern.text, path)
        if match is None:
            return None
        groups = match.groups(default="")
    return "".join(groups[part] if isinstance(part, int) else part for part in rule.to)


@pytest.mark.parametrize(
    ("line", "path", "to"),
    [
        ("/old /new", "/old", "/new"),
        ("/old /new", "/old/", "/new"),
        ("/old/ /new", "/old", "/new"),
        ("/old /new", "/older", None),
        ("/blog/* /news/:splat", "/blog/a/b", "/news/a/b"),
        ("/blog/* /news/:splat", "/blog", "/news/"),
        ("/blog/* /news/:splat", "/blogs", None),
        ("/:year/:slug.html /posts/:slug?y=:year", "/2024/it.html", "/posts/it?y=2024"),
        ("/a.b /c", "/axb", None),
        ("/a%20b /c", "/a b", "/c"),
        ("/* https://new.example:8443/:splat 302", "/x/y", "https://new.example:8443/x/y"),
        ("/* /index.html 200", "/", "/index.html"),
    ],
)
def test_a_line_leads_where_its_author_meant(line: str, path: str, to: str | None) -> None:
    (rule,) = rules(line).redirects
    assert follow(rule, path) == to


def test_status_and_force_are_read_and_comments_are_not() -> None:
    found = rules("# moved\n\n/a /b\n/c /d 302 # for now\n/e /f 200!\n/g /404.html 404").redirects
    assert [(rule.status, rule.force) for rule in found] == [(301, False), (302, False), (200, True), (404, False)]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("/only", "where to"),
        ("/a /b 418", "418"),
        ("https://www.example/* https://example/:splat 301!", "one host"),
        ("/api/* https://api.example/:splat 200", "fetched"),
        ("/fn/* /.netlify/functions/:splat 200", "functions"),
        ("/store id=:id /blog/:id 301", "id=:id"),
        ("/ /de 302 Language=de", "Language=de"),
        ("/a/:x /b/:y", ":y"),
        ("/*/x/* /b", "twice"),
        ("relative /x", "slash"),
        ("/x javascript:alert(1)", "neither"),
        ("/x //evil.example", "neither"),
    ],
)
def test_a_line_that_is_not_followed_is_told_with_its_number_and_why(line: str, why: str) -> None:
    found = rules(f"/fine /too\n{line}\n")
    assert len(found.redirects) == 1
    (note,) = found.notes
    assert note.startswith("_redirects line 2 is not followed: ")
    assert why in note


def test_headers_are_by_path_and_what_is_not_the_sites_to_say_is_told() -> None:
    found = rules(
        headers="""
        # all
/*
  X-Frame-Options: DENY
  Content-Security-Policy: default-src 'self'; connect-src https://x.example:8443
  Content-Length: 3
/assets/*
  ! X-Frame-Options
  Cache-Control: public, max-age=31536000, immutable
/secret
  Basic-Auth: me:word
https://x.example/y
  X-A: b
""",
    )
    assert [rule.data() for rule in found.headers] == [
        {
            "pattern": "^/(.*)$",
            "set": [
                ["X-Frame-Options", "DENY"],
                ["Content-Security-Policy", "default-src 'self'; connect-src https://x.example:8443"],
            ],
            "unset": [],
        },
        {
            "pattern": "^/assets(?:/(.*))?$",
            "set": [["Cache-Control", "public, max-age=31536000, immutable"]],
            "unset": ["X-Frame-Options"],
        },
    ]
    assert [note.partition(":")[0] for note in found.notes] == [
        "_headers line 6 is not followed",
        "_headers line 11 is not followed",
        "_headers line 12 is not followed",
    ]
    assert "anybody may read" in found.notes[1]


def test_netlify_toml_says_the_same_as_the_two_files() -> None:
    found = rules(
        netlify="""
[[redirects]]
from = "/*"
to = "/index.html"
status = 200
[[redirects]]
from = "/old/:id"
to = "/new/:id"
force = true
[[redirects]]
from = "/x"
to = "/y"
conditions = {Country = ["de"]}
[[headers]]
for = "/*"
[headers.values]
X-Robots-Tag = "noindex"
"""
    )
    assert found.single_page
    assert not found.plain
    assert found.redirects[1].data() == {
        "pattern": "^/old/([^/]+)/?$",
        "to": ["/new/", 0],
        "status": 301,
        "force": True,
    }
    assert found.headers[0].set == (("X-Robots-Tag", "noindex"),)
    assert [note[:38] for note in found.notes] == ["redirect 3 of netlify.toml is not foll"]


def test_the_rule_of_single_page_apps_alone_leaves_a_site_plain() -> None:
    assert rules("/* /index.html 200").plain
    assert rules("/* /index.html 200").single_page
    assert rules().plain
    assert not rules("/a /b").plain


def test_rules_and_what_is_told_of_them_are_bounded() -> None:
    found = rules("\n".join(f"/{n} /x" for n in range(MOST + 30)))
    assert len(found.redirects) == MOST
    assert len(found.notes) == 13
    assert found.notes[-1] == "and 18 more rules of the site are not followed"
    assert rules("/" + "a" * 100_000 + " /x").redirects == []
    assert "longer" in rules("/" + "a" * 600 + " /x").notes[0]


def test_rules_that_are_tried_one_by_one_are_fewer() -> None:
    found = rules("\n".join(f"/{n}/* /x" for n in range(MOST_PATTERNS + 1)) + "\n/plain /x")
    assert len(found.redirects) == MOST_PATTERNS + 1
    assert found.redirects[-1].pattern.text == "/plain"
    assert found.notes == (
        f"_redirects line {MOST_PATTERNS + 1} is not followed: {MOST_PATTERNS} rules with : or * are",
    )


def test_a_rule_that_would_take_long_to_try_is_not_followed() -> None:
    placeholders = "".join(f"/:a{n}" for n in range(MOST_GROUPS))
    assert len(rules(f"{placeholders} /x").redirects) == 1
    found = rules(f"{placeholders}/* /x\n/after /y", f"{placeholders}/*\n  X-A: b")
    assert [rule.to for rule in found.redirects] == [("/y",)]
    assert found.headers == []
    assert found.notes == tuple(
        f"{file} line 1 is not followed: it has more than {MOST_GROUPS} : and *" for file in ("_redirects", "_headers")
    )


def test_the_headers_of_all_rules_are_bounded_together() -> None:
    said = "\n  X-A: b" * (MOST // 2 + 1)
    found = rules(headers=f"/a{said}\n/b{said}\n/c\n  X-B: c")
    assert [rule.pattern.text for rule in found.headers] == ["/a", "/c"]
    assert found.notes == (f"_headers line {MOST // 2 + 3} is not followed: {MOST} headers are, in all rules",)


def test_what_the_most_that_a_site_can_say_becomes_is_read_by_the_site_server() -> None:
    """agent/sites/rules.go reads 8 MiB: a site with more would answer nothing."""
    odd = "\x01" * 100  # six letters each in JSON
    deep = "/".join([odd] * 4)
    names = [f"{deep}/{n}/{name}" for n in range(20_000) for name in ("a.loader.js", "a.wasm.br")]
    redirects = "\n".join(f"/{n}/{'.' * 20}{'*' if n < MOST_PATTERNS else ''} /{odd}" for n in range(MOST))
    headers = "\n".join(f"/{n}/{'.' * 20}*\n  X-A: {'é' * 200}" for n in range(MOST))
    said = rules(redirects[:MANIFEST_HEAD], headers[:MANIFEST_HEAD])
    text = Facts.of(names, said).text(spa=False, base="")
    assert text is not None
    assert len(text) < 8 << 20
