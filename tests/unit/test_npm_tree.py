"""What a lock of npm's comes to without npm, and what is left to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from vibed.runtimes.gate import NPM
from vibed.runtimes.layers.npm_tree import plan
from vibed.runtimes.layers.npm_tree.plan import Left, Machine, Plan
from vibed.runtimes.layers.npm_tree.ranges import Unreadable, takes

MACHINE = Machine("x64", node="24.19.0", npm="12.2.2")
MANIFEST = {"dependencies": {"a": "^1.0.0"}, "devDependencies": {"d": "*"}, "optionalDependencies": {"o": "1"}}


def entry(package: str, version: str = "1.0.0", **more: Any) -> dict[str, Any]:
    file = f"{package}/-/{package.rpartition('/')[2]}-{version}.tgz"
    return {"version": version, "resolved": NPM + file, "integrity": "sha512-AA==", **more}


def packages() -> dict[str, Any]:
    return {
        "": {"name": "app", **MANIFEST},
        "node_modules/a": entry("a", dependencies={"@s/b": "~2.1"}, bin={"a": "./bin/a.js"}),
        "node_modules/@s/b": entry("@s/b", "2.1.4", hasInstallScript=True, peerDependencies={"a": ">=1"}),
        "node_modules/d": entry("d", dev=True, dependencies={"@s/b": "2.0.x || 3"}),
        "node_modules/d/node_modules/@s/b": entry("@s/b", "3.0.0", dev=True),
        "node_modules/o": entry("o", optional=True, optionalDependencies={"o-arm": "*", "o-x64": "*"}),
        "node_modules/o-arm": entry("o-arm", optional=True, cpu=["arm64"], dependencies={"only-arm": "*"}),
        "node_modules/o-x64": entry("o-x64", optional=True, cpu=["x64"], os=["linux"], libc=["glibc"]),
        "node_modules/only-arm": entry("only-arm", optional=True),
    }


def planned(
    found: Mapping[str, Any] | None = None,
    *,
    manifest: Mapping[str, Any] = MANIFEST,
    fresh: bool = False,
    development: bool = True,
    npmrc: str = "",
    version: int = 3,
) -> Plan:
    lock = {"name": "app", "lockfileVersion": version, "packages": packages() if found is None else found}
    files = {"package.json": json.dumps(manifest), **({".npmrc": npmrc} if npmrc else {})}
    return plan.of(files, json.dumps(lock), MACHINE, development=development, fresh=fresh)


def folders(made: Plan) -> list[str]:
    return [str(package["at"]).removeprefix("node_modules/") for package in made.packages]


def left(found: Mapping[str, Any] | None = None, **more: Any) -> str:
    with pytest.raises(Left) as told:
        planned(found, **more)
    return str(told.value)


def test_packages_lie_where_the_lock_says_without_those_for_other_machines() -> None:
    made = planned()
    assert folders(made) == ["@s/b", "a", "d", "d/node_modules/@s/b", "o", "o-x64"]
    assert made.packages[1] == {
        "at": "node_modules/a", "from": "/npm/a/-/a-1.0.0.tgz", "integrity": "sha512-AA==",
        "bin": {"a": "bin/a.js"}, "scripts": False, "bundles": False,
    }  # fmt: skip
    assert made.packages[0]["scripts"] is True
    assert made.optional == {"node_modules/o", "node_modules/o-x64"}
    assert list(json.loads(made.lock)["packages"]) == [f"node_modules/{folder}" for folder in folders(made)]


def test_what_is_for_development_alone_is_left_out_where_nobody_wants_it() -> None:
    assert folders(planned(development=False)) == ["@s/b", "a", "o", "o-x64"]


def test_an_optional_package_for_another_node_goes_and_takes_those_that_cannot_do_without_it() -> None:
    found = packages()
    found["node_modules/o"]["dependencies"] = {"o-needs": "*"}
    found["node_modules/o-needs"] = entry("o-needs", optional=True, engines={"node": ">=26"})
    assert folders(planned(found, development=False)) == ["@s/b", "a"]
    # but not what somebody else wants too
    found["node_modules/a"]["dependencies"]["only-arm"] = "*"
    found["node_modules/only-arm"].pop("optional")
    assert folders(planned(found, development=False)) == ["@s/b", "a", "only-arm"]
    assert "is for" in left({**found, "node_modules/o-needs": entry("o-needs", optional=True, engines={"node": "new"})})


def test_what_a_tarball_brings_along_is_not_fetched() -> None:
    found = packages()
    found["node_modules/a"]["bundleDependencies"] = ["c"]
    found["node_modules/a"]["dependencies"]["c"] = "*"
    found["node_modules/a/node_modules/c"] = {"version": "1.0.0", "inBundle": True, "bin": {"c": "c"}}
    made = {package["at"]: package for package in planned(found).packages}
    assert made["node_modules/a"]["bundles"]
    assert made["node_modules/a/node_modules/c"]["from"] == ""
    assert made["node_modules/a/node_modules/c"]["bin"] == {"c": "c"}
    del found["node_modules/a"]["bundleDependencies"]
    assert "brought along by nobody" in left(found)


def test_what_a_tarball_brings_along_need_not_be_in_the_lock_nor_what_lies_under_a_name_be_called_so() -> None:
    """Tailwind's package for WebAssembly, and Docusaurus, which has another react-loadable under that name."""
    found = packages()
    found["node_modules/o-arm"] |= {"bundleDependencies": ["core"], "dependencies": {"core": "^1.6.0"}}
    del found["node_modules/only-arm"]
    found["node_modules/d"]["dependencies"] |= {"loads": "npm:@d/loads@6.0.0"}
    found["node_modules/loads"] = entry("@d/loads", "6.0.0", name="@d/loads", dev=True)
    found["node_modules/@s/b"]["peerDependencies"] |= {"loads": ">=5"}
    assert folders(planned(found)) == ["@s/b", "a", "d", "d/node_modules/@s/b", "loads", "o", "o-x64"]


def test_an_alias_is_fetched_by_its_own_name_where_the_lock_does_not_say_from_where() -> None:
    manifest = {"dependencies": {"mine": "npm:@s/theirs@^2"}}
    theirs = entry("@s/theirs", "2.4.0+build.7", name="@s/theirs")
    del theirs["resolved"]
    made = planned({"": manifest, "node_modules/mine": theirs}, manifest=manifest)
    assert made.packages[0]["from"] == "/npm/@s/theirs/-/theirs-2.4.0.tgz"
    assert "wants mine" in left({"": manifest, "node_modules/mine": entry("mine", "2.4.0")}, manifest=manifest)


def test_a_lock_that_does_not_say_what_package_json_asks_for_is_npms() -> None:
    assert "other dependencies" in left(manifest={**MANIFEST, "dependencies": {"a": "^1.1.0"}})
    assert "other devDependencies" in left(manifest={"dependencies": {"a": "^1.0.0"}})
    found = packages()
    found["node_modules/@s/b"]["version"] = "2.2.0"
    assert "wants @s/b@~2.1" in left(found)
    # npm has made it, and knows of overrides
    assert folders(planned(found, fresh=True))
    found = packages()
    del found["node_modules/@s/b"]
    assert "wants @s/b" in left(found)
    found = {**packages(), "node_modules/more": entry("more")}
    assert left(found) == "nothing asks for node_modules/more"
    assert left(manifest={**MANIFEST, "overrides": {"a": "1.0.0"}}) == "package.json has overrides"


@pytest.mark.parametrize(
    "change",
    [
        {"resolved": "git+ssh://git@example.com/a.git#0"},
        {"resolved": "https://example.com/a.tgz"},
        {"resolved": NPM + "-/tarball/token/a.tgz"},
        {"resolved": NPM + "a/-/../../../x.tgz"},
        {"integrity": None},
        {"integrity": "md5-AA=="},
        {"link": True, "resolved": "packages/a"},
        {"hasShrinkwrap": True},
        {"extraneous": True},
        {"patched": {"path": "a.patch"}},
        {"os": ["darwin"]},
        {"bin": {"../a": "a"}},
        {"bin": {"a": "../../a"}},
        {"bin": "a.js"},
        {"dependencies": ["b"]},
    ],
    ids=str,
)
def test_a_package_that_npm_does_more_for_leaves_it_all_to_npm(change: Mapping[str, Any]) -> None:
    found = packages()
    found["node_modules/a"] |= change
    assert left(found, fresh=True)


@pytest.mark.parametrize(
    "at", ["packages/a", "node_modules/../a", "node_modules/a/lib/b", "/node_modules/a", "node_modules/"]
)
def test_a_place_that_is_none_of_a_package_is_npms(at: str) -> None:
    assert "the lock has" in left({**packages(), at: entry("a")}, fresh=True)


def test_a_lock_or_settings_that_are_not_known_are_npms() -> None:
    assert left(version=1) == left(version=4) == "the lock is of another version"
    assert left(npmrc="fund=false\ninstall-strategy = nested\n") == ".npmrc has install-strategy"
    assert folders(planned(npmrc="# ours\nfund=false\n"))


def test_a_command_that_two_packages_have_is_the_first_ones() -> None:
    found = packages()
    found["node_modules/d"]["bin"] = {"a": "d.js", "d": "d.js"}
    found["node_modules/d/node_modules/@s/b"]["bin"] = {"a": "b.js"}
    commands = {package["at"]: package["bin"] for package in planned(found).packages}
    assert commands["node_modules/a"] == {"a": "bin/a.js"}
    assert commands["node_modules/d"] == {"d": "d.js"}
    # in another folder it is another one
    assert commands["node_modules/d/node_modules/@s/b"] == {"a": "b.js"}


@pytest.mark.parametrize(
    ("spec", "yes", "no"),
    [
        ("^1.2.3", "1.2.3 1.9.0", "1.2.2 2.0.0 1.3.0-beta.1"),
        ("^0.2.3", "0.2.9", "0.3.0"),
        ("^0.0.3", "0.0.3", "0.0.4"),
        ("^0", "0.9.0", "1.0.0"),
        ("~1.2", "1.2.9", "1.3.0"),
        ("1.2.x", "1.2.0", "1.3.0"),
        ("1 - 2.1", "1.0.0 2.1.9", "2.2.0"),
        (">=1.2.3-beta.2 <2", "1.2.3-beta.3 1.9.9", "1.2.3-beta.1 1.2.4-beta.3 2.0.0"),
        ("^18 || >= 20.1", "18.4.0 20.1.0", "19.0.0 20.0.9"),
        ("*", "1.0.0", "1.0.0-rc.1"),
        (">1", "2.0.0", "1.9.9"),
        ("v1.0.0", "1.0.0 1.0.0+build", "1.0.1"),
        ("<1.0.0", "0.9.9", "1.0.0 1.0.0-rc.1"),
    ],
)  # fmt: skip
def test_ranges_take_what_they_take_at_npm(spec: str, yes: str, no: str) -> None:
    assert [version for version in yes.split() if not takes(spec, version)] == []
    assert [version for version in no.split() if takes(spec, version)] == []


@pytest.mark.parametrize("spec", ["latest", "node >= 6", "^1.2.3 foo", "1.2.3.4", "git+https://x.example/y"])
def test_what_is_no_range_is_said(spec: str) -> None:
    with pytest.raises(Unreadable):
        takes(spec, "1.0.0")
