"""What a layer is known by: what decides its content, and nothing else."""

from __future__ import annotations

import json
from typing import Any

from vibed.apps.app import Install
from vibed.runtimes.layers.keys import Base, Owner, layer_key, request_key

BASE = Base("python-313", "python", {"flask": "3.1.3"}, {"python3.13": "3.13.5-2"})


def request(*wanted: str, owner: Owner | None = None, base: Base = BASE, installer: str = "uv 1", **more: Any) -> str:
    return request_key(Install("python", "uv", wanted=wanted, **more), {}, base, installer, owner)


def of_node(manifest: dict[str, object], lock: dict[str, object] | None = None) -> str:
    files = {"package.json": json.dumps(manifest).encode()}
    if lock is not None:
        files["package-lock.json"] = json.dumps(lock, indent=2).encode()
    return request_key(Install("node", "npm", files=tuple(files)), files, BASE, "npm 1", None)


def test_the_order_of_what_is_wanted_decides_nothing() -> None:
    assert request("flask", "humanize") == request("humanize", "flask")


def test_everything_else_that_decides_the_content_is_part_of_the_key() -> None:
    other = Base("python-313", "python", {"flask": "3.1.2"}, BASE.debian)
    newer = Base("python-313", "python", BASE.packages, {"python3.13": "3.13.6-1"})
    keys = [
        request("flask"),
        request("flask==2"),
        request("flask", constraints=("werkzeug==3",)),
        request("flask", optional=("lxml",)),
        request("flask", development=True),
        request("flask", base=other),
        request("flask", base=newer),
        request("flask", installer="uv 2"),
        request("flask", owner=Owner("ann", "d1")),
        request("flask", owner=Owner("ann", "d2")),
        request("flask", owner=Owner("bob", "d1")),
    ]
    assert len(set(keys)) == len(keys)


def test_two_facts_cannot_be_written_so_that_they_look_like_another() -> None:
    assert request("a", "b") != request("a\nwanted b")
    assert layer_key("python", BASE, "uv", ["a", "b"], None) != layer_key("python", BASE, "uv", ["a\nb"], None)


def test_an_apps_own_name_version_and_scripts_decide_nothing_of_its_packages() -> None:
    mine = {"name": "mine", "version": "1.0.0", "scripts": {"start": "node a.js"}, "dependencies": {"ms": "^2"}}
    other = {"name": "other", "dependencies": {"ms": "^2"}, "scripts": {"start": "node b.js"}}
    assert of_node(mine) == of_node(other)
    assert of_node(mine) != of_node({**mine, "dependencies": {"ms": "^3"}})
    assert of_node(mine) != of_node({**mine, "overrides": {"ms": "2.0.0"}})


def test_a_lock_is_the_same_wherever_its_files_were_found() -> None:
    def lock(name: str, place: str, integrity: str) -> dict[str, object]:
        entry = {"version": "2.1.3", "resolved": f"https://{place}/ms/-/ms-2.1.3.tgz", "integrity": integrity}
        own = {"name": name, "dependencies": {"ms": "^2"}}
        return {"name": name, "lockfileVersion": 3, "packages": {"": own, "node_modules/ms": entry}}

    manifest: dict[str, object] = {"dependencies": {"ms": "^2"}}
    first = of_node(manifest, lock("a", "one.example", "sha512-x"))
    assert first == of_node(manifest, lock("b", "two.example", "sha512-x"))
    assert first != of_node(manifest, lock("a", "one.example", "sha512-y"))


def test_what_has_no_hash_is_where_it_was_found() -> None:
    manifest: dict[str, object] = {"dependencies": {"ms": "*"}}
    keys = {
        of_node(manifest, {"packages": {"node_modules/ms": {"resolved": f"https://{place}/ms.tgz"}}}) for place in "ab"
    }
    assert len(keys) == 2


def test_a_manifest_that_cannot_be_read_is_taken_as_it_is() -> None:
    files = {"package.json": b"{"}
    assert request_key(Install("node", "npm", files=("package.json",)), files, BASE, "npm 1", None)
