# ruff: noqa: E501 (locks)
"""Which package manager installs a Node project, in which version, and what its lock pins."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vibed.classify import node_locks
from vibed.runtimes.layers.managers import bun, choice
from vibed.runtimes.layers.managers.pnpm import Pnpm
from vibed.runtimes.layers.managers.tarballs import path_of
from vibed.runtimes.layers.managers.yarn import Yarn1

PNPM = """lockfileVersion: '9.0'

importers:

  .:
    dependencies:
      '@a/b':
        specifier: ^1
        version: 1.2.3(c@4.0.0)

packages:

  '@a/b@1.2.3':
    resolution: {integrity: sha512-x, tarball: https://mirror.example/npm/@a/b/-/b-1.2.3.tgz}
    peerDependencies:
      c: '*'

  c@4.0.0:
    resolution: {integrity: sha512-y}

  own@https://example.com/own.tgz:
    resolution: {tarball: https://example.com/own.tgz}
    version: 0.1.0

snapshots:

  '@a/b@1.2.3(c@4.0.0)':
    dependencies:
      c: 4.0.0
"""
YARN = """# yarn lockfile v1


"@a/b@^1", "@a/b@~1.2":
  version "1.2.3"
  resolved "https://registry.example/@a/b/-/b-1.2.3.tgz#5f2d"
  integrity sha512-x
  dependencies:
    c "*"

c@*:
  version "4.0.0"
  resolved "https://codeload.example/x/c/tar.gz/abc"
"""
BERRY = """__metadata:
  version: 8
  cacheKey: 10c0

"@a/b@npm:^1, @a/b@npm:~1.2":
  version: 1.2.3
  resolution: "@a/b@npm:1.2.3"
  dependencies:
    c: "npm:*"
  languageName: node
  linkType: hard

"app@workspace:.":
  version: 0.0.0-use.local
  resolution: "app@workspace:."
  languageName: unknown
  linkType: soft

"c@npm:*":
  version: 4.0.0
  resolution: "c@npm:4.0.0"
"""
BUN = """{
  "lockfileVersion": 1,
  "workspaces": {
    "": { "name": "app", "dependencies": { "@a/b": "^1", "lib": "workspace:*" }, }, // theirs
    "packages/lib": { "name": "lib", "version": "1.0.0", "dependencies": { "c": "^3" }, },
  },
  "packages": {
    "@a/b": ["@a/b@1.2.3", "", { "dependencies": { "c": "*" }, "peerDependencies": { "d": "1", "none": "1" }, "os": "linux", "bin": { "b": "b.js" } }, "sha512-x"],

    "@a/b/c": ["c@4.0.0", "", {}, "sha512-y"],

    "d": ["other@1.0.0+x", "", { "optionalDependencies": { "gone": "1" } }, "sha512-z"],

    "lib": ["lib@workspace:packages/lib"],

    "lib/c": ["c@3.0.0", "", {}, "sha512-w"],
  }
}
"""


@pytest.mark.parametrize(
    ("path", "text"),
    [("pnpm-lock.yaml", PNPM), ("yarn.lock", YARN), ("yarn.lock", BERRY)],
    ids=["pnpm", "yarn", "berry"],
)
def test_a_lock_tells_what_it_pins(path: str, text: str) -> None:
    assert node_locks.pinned(path, text) == [("@a/b", "1.2.3"), ("c", "4.0.0")]
    assert node_locks.locked(path, text, "@a/b", "^1") == "1.2.3"
    assert node_locks.locked(path, text, "b", "^1") is None


def test_what_has_a_hash_is_fetched_from_the_gate_and_nothing_else_is() -> None:
    placed = Yarn1().placed({"package.json": "{}", "package-lock.json": "{}"}, YARN)
    assert set(placed) == {"package.json", "yarn.lock"}
    assert 'resolved "http://127.0.0.1:3128/npm/@a/b/-/b-1.2.3.tgz#5f2d"\n  integrity sha512-x' in placed["yarn.lock"]
    assert 'resolved "https://codeload.example/x/c/tar.gz/abc"' in placed["yarn.lock"]
    moved = Pnpm(10).placed({}, PNPM)["pnpm-lock.yaml"]
    assert "{integrity: sha512-x, tarball: http://127.0.0.1:3128/npm/@a/b/-/b-1.2.3.tgz}" in moved
    assert "resolution: {tarball: https://example.com/own.tgz}" in moved


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("https://registry.example/@a/b/-/b-1.2.3.tgz", "@a/b/-/b-1.2.3.tgz"),
        ("http://mirror.example/api/npm/@a%2fb/-/b-1.2.3.tgz", "@a%2fb/-/b-1.2.3.tgz"),
        ("https://repository.example/npm/@a/b/-/@a/b-1.2.3.tgz", "@a/b/-/b-1.2.3.tgz"),
        ("https://mirror.example/c/download/c-4.0.0.tgz?cache=0&sync_timestamp=1", "c/-/c-4.0.0.tgz"),
        ("https://mirror.example/@a/b/download/@a/b-1.2.3.tgz", "@a/b/-/b-1.2.3.tgz"),
        ("https://github.example/o/c/releases/download/v4/c.tgz", ""),
        ("https://codeload.example/x/c/tar.gz/abc", ""),
    ],
)
def test_every_registry_has_a_package_at_the_same_place_however_a_mirror_says_it(address: str, path: str) -> None:
    assert path_of(address) == path


def chosen(name: str, manifest: dict[str, Any] | None = None, **files: str) -> tuple[str, bool, str]:
    found = choice.of(name, {"package.json": json.dumps(manifest or {}), **files})
    return found.manager.tool, found.lock is not None, found.note


@pytest.mark.parametrize(
    ("name", "asked", "files", "tool"),
    [
        ("pnpm", "pnpm@10.1.0", {"pnpm-lock.yaml": PNPM}, "pnpm-10"),
        ("pnpm", "pnpm@11.2.0+sha512.0", {"pnpm-lock.yaml": PNPM}, "pnpm-11"),
        ("pnpm", "", {"pnpm-lock.yaml": PNPM}, "pnpm-10"),
        ("yarn", "", {"yarn.lock": YARN}, "yarn-1"),
        ("yarn", "yarn@1.22.0", {"yarn.lock": YARN}, "yarn-1"),
        ("yarn", "yarn@4.9.0", {"yarn.lock": BERRY}, "yarn-4"),
        ("yarn", "yarn@4.9.0", {}, "yarn-4"),
        ("yarn", "", {}, "yarn-1"),
        ("npm", "npm@10.0.0", {"package-lock.json": "{}"}, "npm"),
    ],
)
def test_the_manager_is_the_one_that_is_named_and_reads_the_lock(
    name: str, asked: str, files: dict[str, str], tool: str
) -> None:
    assert chosen(name, {"packageManager": asked}, **files) == (tool, bool(files), "")


@pytest.mark.parametrize(
    ("name", "asked", "files", "tool"),
    [
        ("pnpm", "pnpm@9.15.0", {"pnpm-lock.yaml": PNPM}, "pnpm-10"),
        ("pnpm", "pnpm@12.0.0", {"pnpm-lock.yaml": PNPM}, "pnpm-11"),
        ("yarn", "yarn@3.6.0", {"yarn.lock": BERRY}, "yarn-4"),
        ("yarn", "yarn@4.0.0", {"yarn.lock": YARN}, "yarn-1"),
    ],
)
def test_where_the_version_is_not_here_the_nearest_one_installs_and_it_is_said(
    name: str, asked: str, files: dict[str, str], tool: str
) -> None:
    found = chosen(name, {"packageManager": asked}, **files)
    number = tool.rpartition("-")[2]
    assert found[:2] == (tool, True)
    assert found[2].endswith(f"{name} {number}, which reads the same lock, installed it")
    version = asked.partition("@")[2]
    assert chosen(name, {"devEngines": {"packageManager": {"name": name, "version": f"^{version}"}}}, **files) == found


def test_a_lock_that_nobody_here_reads_is_said() -> None:
    old = PNPM.replace("'9.0'", "5.4")
    assert chosen("pnpm", **{"pnpm-lock.yaml": old})[1:] == (
        False,
        "pnpm-lock.yaml has version 5, which no pnpm here reads: resolved anew",
    )


def test_buns_lock_is_npms_with_the_same_versions_at_the_same_places() -> None:
    found = bun.npm_lock(bun.read(BUN))["packages"]
    assert {at: entry.get("version") for at, entry in found.items() if at.partition("/")[0] == "node_modules"} == {
        "node_modules/@a/b": "1.2.3", "node_modules/@a/b/node_modules/c": "4.0.0", "node_modules/d": "1.0.0+x",
        "node_modules/lib": None,
    }  # fmt: skip
    assert found["node_modules/@a/b"] == {
        "name": "@a/b", "version": "1.2.3", "resolved": "http://127.0.0.1:3128/npm/@a/b/-/b-1.2.3.tgz",
        "integrity": "sha512-x", "hasInstallScript": True, "dependencies": {"c": "*"}, "peerDependencies": {"d": "*"},
        "os": ["linux"], "bin": {"b": "b.js"},
    }  # fmt: skip
    assert "optionalDependencies" not in found["node_modules/d"] and found["node_modules/d"]["name"] == "other"
    assert found["node_modules/lib"] == {"resolved": "packages/lib", "link": True}
    assert found["packages/lib/node_modules/c"]["version"] == "3.0.0"
    assert found["packages/lib"]["dependencies"] == {"c": "*"}


def test_of_buns_lock_it_is_told_what_is_for_development_and_what_can_be_done_without() -> None:
    lock = """{"lockfileVersion": 1, "workspaces": {"": {"dependencies": {"a": "1"}, "devDependencies": {"d": "1"}}},
    "packages": {"a": ["a@1.0.0", "", {"bin": "cli.js", "optionalDependencies": {"o": "1"}}, "sha512-x"],
    "d": ["d@1.0.0", "", {"dependencies": {"e": "1"}}, "sha512-x"], "e": ["e@1.0.0", "", {}, "sha512-x"],
    "o": ["o@1.0.0", "", {}, "sha512-x"],}}"""
    manifest = {"dependencies": {"a": "1"}, "devDependencies": {"d": "1"}}
    placed = bun.Bun().placed({"package.json": json.dumps(manifest)}, lock)
    found = json.loads(placed["package-lock.json"])["packages"]
    assert found[""] == {"dependencies": {"a": "*"}, "devDependencies": {"d": "*"}}
    marks = {name: {key for key in ("dev", "optional") if found[f"node_modules/{name}"].get(key)} for name in "adeo"}
    assert marks == {"a": set(), "d": {"dev"}, "e": {"dev"}, "o": {"optional"}}
    assert found["node_modules/a"]["bin"] == {"a": "cli.js"}


def test_buns_lock_is_followed_where_it_fits_and_has_only_what_a_registry_has() -> None:
    manifest = {"dependencies": {"@a/b": "^1", "lib": "workspace:*"}}
    assert chosen("bun", manifest, **{"bun.lock": BUN}) == ("npm", True, "")
    assert "does not fit" in chosen("bun", {"dependencies": {"@a/b": "^2"}}, **{"bun.lock": BUN})[2]
    git = BUN.replace('"d": ["other@1.0.0+x", ""', '"d": ["d@github:a/d#1234", ""')
    assert "d@github:a/d#1234 is of no registry" in chosen("bun", manifest, **{"bun.lock": git})[2]
    assert "was not followed" in chosen("bun", manifest, **{"bun.lock": "binary"})[2]
    assert chosen("bun", manifest) == ("npm", False, "bun is not here: npm installed it")
