"""Every row by its name, in the order in which they are measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench.harness import Bench
from bench.report import Row
from bench.rows import (
    burst,
    cluster_deploys,
    cluster_many,
    cluster_node,
    cluster_router,
    fronts,
    furnished,
    general,
    healing,
    idle,
    layers,
    many,
    piku,
    redeploy,
    restart,
    router,
    serving,
    static,
    workers,
)

ROWS: Mapping[str, Callable[[Bench], Row]] = {
    "static": static.measure,
    "workerd": workers.measure,
    "workerd-bundled": workers.measure_bundled,
    "python": general.measure_python,
    "node": general.measure_node,
    "flask": general.measure_flask,
    "gunicorn": general.measure_gunicorn,
    "fastapi": general.measure_fastapi,
    "express": general.measure_express,
    **{name: furnished.row_of(name) for name in furnished.KINDS},
    "layers": layers.measure,
    "fronts": fronts.measure,
    "piku": piku.measure,
    "burst": burst.measure,
    "router": router.measure,
    **{name: serving.row_of(name) for name in serving.SERVED},
    "redeploy": redeploy.measure,
    "idle": idle.measure,
    "many": many.measure,
    "self-heal": healing.measure,
    "restart": restart.measure,
    "cluster-writes": cluster_deploys.measure_writes,
    "cluster-claim": cluster_deploys.measure_claim,
    "cluster-held": cluster_many.measure_held,
    "cluster-idle": cluster_many.measure_idle,
    "cluster-router": cluster_router.measure,
    "cluster-node": cluster_node.measure,
}
