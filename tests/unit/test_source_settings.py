"""Where sources are kept is said once, checked where it is read, and reaches the processes that need it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from vibed.cli import confining, plan
from vibed.config import Config, InvalidConfiguration, load
from vibed.layout import Layout, Uids
from vibed.sources.choice import source_store
from vibed.sources.errors import StorageFull
from vibed.sources.s3 import S3Store
from vibed.sources.store import ServedStore

S3 = {"VIBED_SOURCE_STORE": "s3", "VIBED_S3_BUCKET": "apps"}


def configured(home: Path, **settings: str) -> Config:
    return load({"VIBED_HOME": str(home), **settings})


def laid_out(home: Path) -> Layout:
    layout = Layout(home, home / "run", Uids(0, rootless=True))
    layout.database.parent.mkdir(parents=True)
    return layout


def test_files_on_this_machine_are_what_is_used_where_nothing_is_said(tmp_path: Path) -> None:
    assert isinstance(source_store(configured(tmp_path), laid_out(tmp_path)), ServedStore)


def test_a_bucket_is_all_that_aws_needs(tmp_path: Path) -> None:
    assert isinstance(source_store(configured(tmp_path, **S3), laid_out(tmp_path)), S3Store)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("VIBED_SOURCE_STORE", "gcs", "source_store must be one of served, s3"),
        ("VIBED_S3_BUCKET", "", "s3_bucket is not set"),
        ("VIBED_S3_BUCKET", "A_bucket", "no name of a bucket"),
        ("VIBED_S3_BUCKET", "../other", "no name of a bucket"),
        ("VIBED_S3_ENDPOINT", "s3.example.com", "s3_endpoint must be"),
        ("VIBED_S3_ENDPOINT", "https://s3.example.com/bucket", "s3_endpoint must be"),
        ("VIBED_S3_ENDPOINT", "https://s3.example.com:port", "s3_endpoint must be"),
        ("VIBED_S3_ENDPOINT", "ftp://s3.example.com", "s3_endpoint must be"),
        ("VIBED_S3_REGION", "eu west", "s3_region"),
        ("VIBED_S3_PREFIX", "team", "end with a slash"),
        ("VIBED_S3_PREFIX", "/team/", "end with a slash"),
        ("VIBED_S3_PREFIX", "../team/", "end with a slash"),
        ("VIBED_S3_ADDRESSING", "dns", "s3_addressing must be one of path, virtual"),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_read(tmp_path: Path, name: str, value: str, told: str) -> None:
    with pytest.raises(InvalidConfiguration, match=told):
        configured(tmp_path, **{**S3, name: value})


def test_a_cache_in_which_a_few_sources_have_no_room_is_refused_where_its_volume_has_no_more(tmp_path: Path) -> None:
    on_cluster = {**S3, "VIBED_SUBSTRATE": "kubernetes"}
    configured(tmp_path, **on_cluster)
    configured(tmp_path, **on_cluster, VIBED_MAX_SOURCE_MB="256")
    configured(tmp_path, **S3, VIBED_SOURCE_CACHE_MB="1")
    with pytest.raises(InvalidConfiguration, match=r"at least four times max_source_mb \(1028\), not 1024"):
        configured(tmp_path, **on_cluster, VIBED_MAX_SOURCE_MB="257")


def test_how_much_arrives_at_a_time_is_bounded_in_a_pod_and_on_one_machine_by_its_disk(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(bytes(32).hex().encode())
    for substrate, refused in (("machine", False), ("kubernetes", True)):
        home = tmp_path / substrate
        config = replace(configured(home, **S3, VIBED_SUBSTRATE=substrate), signing_key=tmp_path / "key")
        store = source_store(config, laid_out(home))
        store.prepare()
        with (store.incoming / "arriving").open("wb") as large:
            large.truncate(4 << 30)  # takes nothing of the disk
        with pytest.raises(StorageFull, match="arrive at the same time") if refused else nullcontext():
            store.check_room()


def test_a_key_in_the_address_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        configured(tmp_path, **S3, VIBED_S3_ENDPOINT="https://AKIA:secret@s3.example.com")
    assert "secret" not in f"{caught.value.message} {caught.value.hint}".replace("AWS_SECRET_ACCESS_KEY", "")


def test_the_bucket_may_be_in_the_path_or_in_the_hosts_name(tmp_path: Path) -> None:
    async def url(**settings: str) -> str:
        store = source_store(
            configured(tmp_path, **S3, VIBED_S3_ENDPOINT="https://s3.example.com:9000", **settings),
            Layout(tmp_path, tmp_path / "run", Uids(0, rootless=True)),
        )
        return await store.signed_url("a" * 64, 60)

    import asyncio

    laid_out(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "k")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "s")
        # what the configuration says counts, whatever else is in the environment
        patch.setenv("AWS_ENDPOINT_URL_S3", "https://elsewhere.example.com")
        assert asyncio.run(url()).startswith("https://s3.example.com:9000/apps/sources/")
        assert asyncio.run(url(VIBED_S3_ADDRESSING="virtual")).startswith("https://apps.s3.example.com:9000/sources/")


def test_credentials_reach_vibeds_processes_only_where_they_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    assert "AWS_SECRET_ACCESS_KEY" not in plan._environment(configured(tmp_path))
    assert plan._environment(configured(tmp_path, **S3))["AWS_SECRET_ACCESS_KEY"] == "s"


def test_the_api_has_a_network_only_where_sources_are_kept_elsewhere(tmp_path: Path) -> None:
    layout = laid_out(tmp_path)
    assert "net" in confining.serve(configured(tmp_path), layout, {})["namespaces"]  # type: ignore[operator]
    assert "net" not in confining.serve(configured(tmp_path, **S3), layout, {})["namespaces"]  # type: ignore[operator]
