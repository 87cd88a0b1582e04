"""Export and import over HTTP: what goes out of one vibeD comes into another, and nothing else does."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import AsyncIterator, Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from api_harness import Running, archive, refused, running

from vibed.api import moved


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path / "one", tmp_path / "run1") as made:
        yield made


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path / "two", tmp_path / "run2") as made:
        yield made


@cache
def site(text: str) -> bytes:
    """The same bytes each time: an archive has the time in it."""
    return archive({"index.html": text})


async def filled(api: Running) -> str:
    """Two apps of two owners, with versions; returns the secret of the second one's key."""
    key = (await api.client.post("/v1/keys", json={"owner": "bob", "label": "laptop"})).json()
    for text in ("one", "two"):
        assert (await api.deploy("page", site(text))).status_code == 200
    assert (await api.client.post("/v1/apps/page/rollback", json={"version": 1})).status_code == 200
    as_bob = {"Authorization": f"Bearer {key['secret']}"}
    metadata = json.dumps({"name": "bobs", "env": [{"name": "WORD", "value": "höflich"}]})
    answer = await api.client.post(
        "/v1/deploy", headers=as_bob, files={"source": site("two")}, data={"metadata": metadata}
    )
    assert answer.status_code == 200, answer.text
    return str(key["secret"])


async def exported(api: Running) -> bytes:
    answer = await api.client.get("/v1/export")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    return answer.content


async def imported(api: Running, export: bytes, **query: str) -> dict[str, Any]:
    answer = await api.client.post("/v1/import", content=export, params=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def outcomes(report: dict[str, Any]) -> dict[str, str]:
    return {app["app_id"]: app["outcome"] for app in report["apps"]}


def members(export: bytes) -> dict[str, bytes]:
    """As any program reads it."""
    with tarfile.open(fileobj=io.BytesIO(export), mode="r:") as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


def changed(export: bytes, change: Callable[[dict[str, bytes]], None]) -> bytes:
    """The archive with other members."""
    there = members(export)
    change(there)
    return (
        b"".join(
            moved.head(name, len(content)) + content + moved.padding(len(content)) for name, content in there.items()
        )
        + moved.TAIL
    )


def with_app(export: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """The archive with something else said of the app `page`."""

    def other(there: dict[str, bytes]) -> None:
        said = json.loads(there["apps/page.json"])
        change(said)
        there["apps/page.json"] = json.dumps(said).encode()

    return changed(export, other)


async def test_apps_versions_keys_and_sources_come_into_another_vibed(one: Running, two: Running) -> None:
    secret = await filled(one)
    report = await imported(two, await exported(one))
    assert outcomes(report) == {"page": "imported", "bobs": "imported"}
    assert report["complete"] is True
    assert report["keys"] == {"imported": 1, "skipped": 0}
    left_alone = {"phase", "reason", "message", "status", "serving", "settled", "serving_version"}
    for path in ("/v1/apps/page/versions", "/v1/apps/bobs/versions"):
        before, after = [(await api.client.get(path)).json()["items"] for api in (one, two)]
        for was, is_ in zip(before, after, strict=True):
            assert {k: v for k, v in was.items() if k not in left_alone} == {
                k: v for k, v in is_.items() if k not in left_alone
            }
    for app_id in ("page", "bobs"):
        before, after = [(await api.client.get(f"/v1/apps/{app_id}")).json() for api in (one, two)]
        for name in ("owner", "version", "created_at", "last_deployed_at", "runtime"):
            assert before[name] == after[name]
    assert one.sources() == two.sources()
    who = await two.client.get("/v1/whoami", headers={"Authorization": f"Bearer {secret}"})
    assert who.json()["owner"] == "bob"
    assert (await two.client.get("/v1/apps/bobs/source")).content == site("two")
    assert (await two.store.version("bobs", 1)).env == {"WORD": "höflich"}
    assert {message["app_id"] for op, message in two.controller.calls if op == "wake"} == {"page", "bobs"}
    assert (await two.deploy("page", site("next"))).json()["version"] == 4


async def test_it_is_an_ordinary_tar_in_which_a_source_is_once_and_comes_before_its_app(one: Running) -> None:
    await filled(one)
    export = await exported(one)
    names = list(members(export))
    assert (names[0], names[-2:]) == ("vibed-export.json", ["keys.json", "end.json"])
    assert len(names) == len(set(names)) == 7
    assert json.loads(members(export)["end.json"]) == {"apps": 2, "sources": 2, "keys": 1, "left_out": []}
    for name, content in members(export).items():
        if name.startswith("apps/"):
            for version in json.loads(content)["versions"]:
                assert names.index(f"sources/{version['source']}.tar.gz") < names.index(name)
        elif name.startswith("sources/"):
            assert hashlib.sha256(content).hexdigest() in name


async def test_the_same_again_changes_nothing(one: Running, two: Running) -> None:
    await filled(one)
    export = await exported(one)
    await imported(two, export)
    before = await two.store.get("page")
    report = await imported(two, export)
    assert outcomes(report) == {"page": "skipped", "bobs": "skipped"}
    assert report["keys"] == {"imported": 0, "skipped": 1}
    assert await two.store.get("page") == before


async def test_an_app_of_the_same_owner_is_replaced_only_when_that_is_asked_for(one: Running, two: Running) -> None:
    await filled(one)
    export = await exported(one)
    await two.deploy("page", site("mine"))
    assert outcomes(await imported(two, export))["page"] == "skipped"
    assert (await two.store.versions("page"))[1] == 1
    assert outcomes(await imported(two, export, replace="true"))["page"] == "replaced"
    assert (await two.store.versions("page"))[1] == 3


async def test_an_app_of_another_owner_is_refused_and_the_others_go_on(one: Running, two: Running) -> None:
    await filled(one)
    await two.deploy("bobs", site("the admin's"))
    for replace in ("false", "true"):
        report = await imported(two, await exported(one), replace=replace)
        (refusal,) = (app for app in report["apps"] if app["app_id"] == "bobs")
        assert (refusal["outcome"], refusal["code"]) == ("refused", "NameTaken")
        assert (await two.store.get("bobs")).owner == "admin"
        assert outcomes(report)["page"] in ("imported", "replaced")


async def test_what_breaks_off_leaves_whole_apps_and_can_be_repeated(one: Running, two: Running) -> None:
    await filled(one)
    export = await exported(one)
    seen: set[str] = set()
    for length in range(1024, len(export), 512):
        report = await imported(two, export[:length])
        assert not report["complete"] or length >= len(export) - 1024
        for app in report["apps"]:
            seen.add(f"{app['app_id']} {app['outcome']}")
            assert app["outcome"] in ("imported", "skipped")
        page, total = await two.store.list()
        for app in page:
            assert (await two.store.versions(app.app_id))[1] == {"page": 3, "bobs": 1}[app.app_id]
    assert total == 2
    assert seen == {"page imported", "page skipped", "bobs imported", "bobs skipped"}


async def test_only_an_admin_may(one: Running) -> None:
    secret = await filled(one)
    as_bob = {"Authorization": f"Bearer {secret}"}
    refused(await one.client.get("/v1/export", headers=as_bob), 403, "Forbidden")
    refused(await one.client.post("/v1/import", headers=as_bob, content=b""), 403, "Forbidden")


async def test_a_source_that_is_lost_here_takes_only_old_versions_with_it(one: Running, two: Running) -> None:
    await filled(one)
    digest = {v.number: v.source_digest for v in (await one.store.versions("page"))[0]}[2]
    await one.client.delete("/v1/apps/bobs")
    (one.layout.sources / f"{digest}.tar.gz").unlink()
    assert outcomes(await imported(two, await exported(one))) == {"page": "imported"}
    kept = {v.number: v.source_kept for v in (await two.store.versions("page"))[0]}
    assert kept == {1: True, 2: False, 3: True}


async def test_an_app_that_cannot_be_read_is_left_out_and_told(one: Running, two: Running) -> None:
    await filled(one)
    digest = (await one.store.version("page", 3)).source_digest
    (one.layout.sources / f"{digest}.tar.gz").unlink()
    report = await imported(two, await exported(one))
    assert outcomes(report) == {"bobs": "imported"}
    assert [(app["app_id"], app["code"]) for app in report["left_out"]] == [("page", "SourceMissing")]


# what is no export, or was changed


async def test_what_is_no_export_is_refused(one: Running) -> None:
    for content in (b"", b"x" * 2000, site("a source"), moved.TAIL):
        refused(await one.client.post("/v1/import", content=content), 400, "MalformedExport")
    other = moved.json_member("vibed-export.json", {"format": 99}) + moved.TAIL
    body = refused(await one.client.post("/v1/import", content=other), 400, "MalformedExport")
    assert "99" in body["message"]


@pytest.mark.parametrize("name", ["../apps/x.json", "/etc/passwd", "apps/UP.json", "other.json", "sources/x.tar.gz"])
async def test_no_other_member_is_taken(one: Running, two: Running, name: str) -> None:
    export = changed(await exported(one), lambda there: there.__setitem__(name, b"{}"))
    refused(await two.client.post("/v1/import", content=export), 400, "MalformedExport")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, b"x", b"L"])
async def test_no_link_device_or_extension_is_taken(two: Running, kind: bytes) -> None:
    member = tarfile.TarInfo("apps/page.json")
    member.type, member.linkname = kind, "/etc/passwd"
    begin = moved.json_member("vibed-export.json", {"format": 1})
    answer = await two.client.post("/v1/import", content=begin + member.tobuf(tarfile.USTAR_FORMAT) + moved.TAIL)
    refused(answer, 400, "MalformedExport")


async def test_a_source_that_is_not_what_its_name_says_is_not_kept(one: Running, two: Running) -> None:
    await filled(one)

    def swap(there: dict[str, bytes]) -> None:
        first, second = (name for name in there if name.startswith("sources/"))
        there[first], there[second] = there[second], there[first]

    refused(await two.client.post("/v1/import", content=changed(await exported(one), swap)), 400, "MalformedExport")
    assert two.sources() == []
    assert (await two.store.list())[1] == 0


async def test_an_app_without_its_source_or_with_a_hostile_one_is_refused(one: Running, two: Running) -> None:
    await filled(one)
    export = await exported(one)

    def without(there: dict[str, bytes]) -> None:
        for name in [name for name in there if name.startswith("sources/")]:
            del there[name]

    report = await imported(two, changed(export, without))
    assert {app["code"] for app in report["apps"]} == {"SourceMissing"}

    hostile = archive({"../../etc/passwd": "x"})
    digest = hashlib.sha256(hostile).hexdigest()

    def climbing(there: dict[str, bytes]) -> None:
        said = json.loads(there.pop("apps/page.json"))
        for version in said["versions"]:
            version["source"] = digest
        end = {name: there.pop(name) for name in ("keys.json", "end.json")}
        there |= {f"sources/{digest}.tar.gz": hostile, "apps/page.json": json.dumps(said).encode(), **end}

    report = await imported(two, changed(export, climbing))
    (page,) = (app for app in report["apps"] if app["app_id"] == "page")
    assert (page["outcome"], page["code"]) == ("refused", "PathTraversal")
    assert digest not in {name[:64] for name in two.sources()}


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said.__setitem__("app_id", "other"),
        lambda said: said.__setitem__("owner", "a b"),
        lambda said: said.__setitem__("owner", 7),
        lambda said: said.__setitem__("versions", []),
        lambda said: said.__setitem__("versions", {}),
        lambda said: said["versions"].reverse(),
        lambda said: said["versions"][0].__setitem__("number", True),
        lambda said: said["versions"][0].__setitem__("number", 2**64),
        lambda said: said["versions"][0].__setitem__("created_at", float("inf")),
        lambda said: said["versions"][0].__setitem__("created_at", "now"),
        lambda said: said["versions"][0].__setitem__("source", "../../x"),
        lambda said: said["versions"][0].__setitem__("phase", "Happy"),
        lambda said: said["versions"][0].__setitem__("env", {"A=B": "x"}),
        lambda said: said["versions"][0].__setitem__("env", {"A": "x" * 100_000}),
        lambda said: said["versions"][0].__setitem__("env", {"A": "\0"}),
        lambda said: said["versions"][0].__setitem__("resources", {"cpu": 1e9, "memory_mb": None}),
        lambda said: said["versions"][0].__setitem__("runtime", {"root": "../"}),
        lambda said: said["versions"][0]["runtime"].__setitem__("root", "../../"),
        lambda said: said["versions"][0]["runtime"].__setitem__("strip", "/etc/"),
        lambda said: said["versions"][0].pop("timings"),
    ],
)
async def test_what_no_vibed_can_have_said_of_an_app_is_refused(
    one: Running, two: Running, change: Callable[[dict[str, Any]], None]
) -> None:
    await filled(one)
    export = with_app(await exported(one), change)
    refused(await two.client.post("/v1/import", content=export), 400, "MalformedExport")
    with pytest.raises(Exception, match="there is no app"):
        await two.store.get("page")


async def test_a_member_that_claims_to_be_huge_is_refused_before_it_is_read(two: Running) -> None:
    begin = moved.json_member("vibed-export.json", {"format": 1})
    answer = await two.client.post("/v1/import", content=begin + moved.head("apps/page.json", 5 << 30))
    refused(answer, 400, "MalformedExport")
