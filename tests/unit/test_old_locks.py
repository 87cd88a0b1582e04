"""What a lock of npm 6 comes to as one of today's, and what of such locks is left to npm."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from vibed.runtimes.layers.npm_tree import marks, old_lock
from vibed.runtimes.layers.npm_tree.graph import Graph
from vibed.runtimes.layers.npm_tree.plan import Left, Machine, of


def entry(version: str = "1.0.0", **more: Any) -> dict[str, Any]:
    return {"version": version, "integrity": "sha1-AA==", **more}


def lock(packages: Mapping[str, Any], version: int = 1) -> str:
    return json.dumps({"name": "app", "lockfileVersion": version, "requires": True, "dependencies": packages})


def says(**manifest: Any) -> dict[str, Any]:
    return {"manifest": manifest, "scripts": False, "shrinkwrap": False, "programs": None}


def renewed(packages: Mapping[str, Any], said: Mapping[str, Any], **asked: Any) -> dict[str, Any]:
    """The packages of the new lock, without `node_modules/`; the project asks for `a` if for nothing else."""
    old = old_lock.read(lock(packages))
    told = {f"node_modules/{name}": one for name, one in said.items()}
    made = json.loads(old.renewed(json.dumps(asked or {"dependencies": {"a": "1"}}), told))
    assert made["lockfileVersion"] == 3
    return {at.removeprefix("node_modules/"): one for at, one in made["packages"].items()}


def test_only_a_lock_of_npm_5_or_6_is_one() -> None:
    assert old_lock.is_old(lock({}))
    assert not old_lock.is_old(lock({}, version=2))
    assert not old_lock.is_old('{"lockfileVersion": 1, "packages": {}}')
    assert not old_lock.is_old("{'")


def test_what_packages_say_is_put_as_npm_puts_it() -> None:
    said = says(
        name="@s/a", bin="./cli.js", dependencies={"b": "1", "c": "2"}, optionalDependencies={"c": "2"},
        bundledDependencies=True, license={"type": "MIT"}, engines={"node": ">=4"}, os=[],
    )  # fmt: skip
    packages = {"@s/a": entry(), "b": entry(bundled=True), "c": entry(bundled=True)}
    found = renewed(packages, {"@s/a": {**said, "scripts": True}}, dependencies={"@s/a": "1"})["@s/a"]
    assert found == {
        "version": "1.0.0", "integrity": "sha1-AA==", "bundleDependencies": ["b", "c"], "hasInstallScript": True,
        "license": "MIT", "dependencies": {"b": "1"}, "bin": {"a": "cli.js"}, "engines": {"node": ">=4"},
        "optionalDependencies": {"c": "2"},
    }  # fmt: skip


def test_commands_are_named_in_every_way_that_there_ever_was() -> None:
    def commands(programs: object = None, **manifest: Any) -> object:
        return renewed({"a": entry()}, {"a": {**says(**manifest), "programs": programs}})["a"].get("bin")

    assert commands(name="a", bin={"x/../y": "..\\bin\\y", "": "z"}) == {"y": "bin/y"}
    assert commands(name="a", bin=["bin/one.js"]) == {"one.js": "bin/one.js"}
    assert commands(["bin/one", "bin/sub/two", "bin/.no"]) == {"one": "bin/one", "two": "bin/sub/two"}
    assert commands(["bin/one"], bin={}) is None


def test_what_nobody_asks_for_is_not_there_and_the_others_are_marked() -> None:
    names = ["a", "only-dev", "both", "optional", "peer", "may-lack", "deep", "nobody"]
    said = {
        "a": says(dependencies={"deep": "1"}, optionalDependencies={"both": "1", "optional": "1"}),
        "only-dev": says(dependencies={"both": "1", "deep": "1"}),
        "deep": says(
            peerDependencies={"peer": "1", "may-lack": "1"}, peerDependenciesMeta={"may-lack": {"optional": True}}
        ),
    }
    found = renewed(dict.fromkeys(names, entry()), said, dependencies={"a": "1"}, devDependencies={"only-dev": "1"})
    assert {
        name: sorted(key for key, value in one.items() if value is True) for name, one in found.items() if name
    } == {"a": [], "only-dev": ["dev"], "both": ["devOptional"], "optional": ["optional"], "peer": ["peer"], "deep": []}


def test_what_lies_below_what_nobody_asks_for_is_asked_for_by_nobody() -> None:
    nested = {"": {}, "node_modules/a": {"dependencies": {"b": "*"}}, "node_modules/a/node_modules/b": {}}
    assert all("extraneous" in mine for at, mine in marks.of(Graph(nested)).items() if at)


def test_where_a_package_says_nothing_the_locks_own_words_do() -> None:
    packages = {"a": entry(requires={"b": "^1"}), "b": entry("npm:@s/other@2.0.0")}
    found = renewed(packages, {"a": {"manifest": None}})
    assert found["a"]["dependencies"] == {"b": "^1"}
    assert (found["b"]["name"], found["b"]["version"]) == ("@s/other", "2.0.0")


def test_what_brings_a_lock_of_its_own_is_npms_to_lay_out() -> None:
    old = old_lock.read(lock({"a": entry()}))
    manifest = json.dumps({"dependencies": {"a": "1"}})
    new = old.renewed(manifest, {"node_modules/a": {**says(), "shrinkwrap": True}})
    with pytest.raises(Left, match="hasShrinkwrap"):
        of({"package.json": manifest}, new, Machine("x64", "24.0.0", "12.0.0"), development=True, fresh=False)


@pytest.mark.parametrize(
    ("packages", "why"),
    [
        ({"a": entry("git+ssh://git@host.example/a.git#0")}, "of no registry"),
        ({"a": entry("file:../a")}, "of no registry"),
        ({"a": {"version": "1.0.0"}}, "has no digest"),
        ({"a": entry(dependencies={"b": {"version": "1.0.0"}})}, "a/node_modules/b has no digest"),
        ({"../a": entry()}, "the lock has"),
        ({"a": []}, "the lock has"),
        ({"a": entry(dependencies=[1])}, "of its own kind"),
    ],
)
def test_what_is_of_no_registry_or_has_no_digest_is_left_to_npm(packages: Any, why: str) -> None:
    with pytest.raises(Left, match=why):
        old_lock.read(lock(packages))


def test_each_package_is_asked_for_where_every_registry_has_it() -> None:
    packages = {
        "@s/a": entry(resolved="http://mirror.example/@s/a/download/@s/a-1.0.0.tgz?cache=0"),
        "b": entry("2.0.0+build", dependencies={"c": {"version": "1.0.0", "bundled": True}}),
    }
    asked = [(one["at"], one["from"]) for one in old_lock.read(lock(packages)).orders["packages"]]
    assert asked == [
        ("node_modules/@s/a", "/npm/@s/a/-/a-1.0.0.tgz"),
        ("node_modules/b", "/npm/b/-/b-2.0.0.tgz"),
        ("node_modules/b/node_modules/c", ""),
    ]
    with pytest.raises(Left, match="of no registry"):
        _ = old_lock.read(lock({"a": entry(resolved="https://host.example/a.tgz")})).orders
