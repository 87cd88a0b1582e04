"""Which source store a vibeD has, as it is configured."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from vibed.config import Config
from vibed.layout import Layout
from vibed.sources.objects import Objects
from vibed.sources.signing import signing_key
from vibed.sources.store import ServedStore, SourceStore

if TYPE_CHECKING:
    from vibed.sources.s3 import S3Store


ARRIVING = 1 << 30
"""Bytes of sources that arrive at the same time in a pod, besides two of the largest."""


def source_store(config: Config, layout: Layout) -> SourceStore:
    """Not prepared yet, which only who receives has to do. Raises OSError, ValueError for a damaged key."""
    if config.source_store == "s3":
        return s3_store(config, layout)
    return ServedStore(layout.sources, key=_key(config, layout))


def s3_store(config: Config, layout: Layout) -> S3Store:
    """As it is configured, whichever is used."""
    # it is 20 MB, which who serves files from this machine does not need
    from vibed.sources.cache import SourceCache
    from vibed.sources.s3 import S3Settings, S3Store

    # on a cluster all this is a volume of a bounded size, which the chart makes from the same settings; on one machine
    # the disk alone says how much room there is
    in_pod = config.substrate == "kubernetes"
    cache = SourceCache(layout.fetched_sources, largest=config.source_cache_mb * 500_000, bounded=in_pod)
    cache.prepare()
    return S3Store(
        S3Settings(
            bucket=config.s3_bucket,
            endpoint=config.s3_endpoint,
            region=config.s3_region,
            prefix=config.s3_prefix,
            addressing=config.s3_addressing,
        ),
        key=_key(config, layout),
        cache=cache,
        incoming=layout.fetched_sources / "incoming",
        arriving=ARRIVING + 2 * config.max_source_mb * 1_000_000 if in_pod else sys.maxsize,
    )


def objects(config: Config, layout: Layout) -> Objects | None:
    """Where what vibeD makes is kept beside sources; None where sources are files of one machine."""
    return s3_store(config, layout).objects() if config.source_store == "s3" else None


def _key(config: Config, layout: Layout) -> bytes:
    """On a cluster all pods are given the same; on one machine whoever comes first makes it."""
    if config.substrate == "kubernetes":
        return config.signing_key.read_bytes().strip()
    return signing_key(layout.signing_key)
