"""vibeD's processes, as `vibed up` and the chart's containers run them: what stays for months.

They have no options, so they are run without the parser of options (`vibed.cli.main`), which is 20 MB of memory and a
quarter of a second of each start: nothing here may import it.
"""

from __future__ import annotations


def serve() -> None:
    """Run the API: on a Unix socket behind the Caddy that `vibed up` starts, or in a pod of a cluster."""
    from vibed.config import load

    if (config := load()).substrate == "kubernetes":
        from vibed.cli import pods

        pods.run(pods.serve, config)
        return
    from vibed.api.serve import run
    from vibed.mcp.http import McpOverHttp

    run(beside=[McpOverHttp])


def router(prepare: bool = False) -> None:
    """Run a router, beside its Caddy in a pod of a cluster; with --prepare only write Caddy's configuration."""
    from vibed.cli import pods
    from vibed.config import load

    if prepare:
        pods.prepare_router(load())
    else:
        pods.run(pods.route, load())


def controller() -> None:
    """Run the controller."""
    import uvloop

    from vibed.config import load

    if (found := load()).substrate == "kubernetes":
        from vibed.cli import pods

        pods.run(pods.control, found)
        return
    from vibed.controller.service import run
    from vibed.layout import Layout
    from vibed.turns import take_quick_turns

    take_quick_turns()
    config = load()
    uvloop.run(run(config, Layout.of(config.home, uid_base=config.uid_base)))
