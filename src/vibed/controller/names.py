"""The port to where apps' names lead: what everybody who routes a request goes by.

On one machine it is Caddy's markers (`vibed.router.marked`), on Kubernetes the route in each app's status
(`vibed.controller.routes`). What is published outlives the controller, and is what the next one takes over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from vibed.apps.app import Route
from vibed.sandboxes.driver import Endpoint


class Published(Protocol):
    """One run to which an app's name leads."""

    @property
    def run(self) -> int: ...
    @property
    def version(self) -> int: ...
    @property
    def site(self) -> bool:
        """Whether it is a folder that is served, with no process that could end."""
        ...

    @property
    def endpoint(self) -> Endpoint: ...


class Names(Protocol):
    """See the module's docstring. What changes raises `VibedError` where it cannot be told to those who route."""

    def route(self, app_id: str) -> Route | None:
        """What of it the app's status tells; None on one machine, where a marker is all there is."""
        ...

    def published(self, app_id: str) -> Sequence[Published]:
        """The runs to which the name leads, in the order in which they are looked at."""
        ...

    def leading(self) -> Sequence[str]:
        """The apps whose name leads to a process now. Blocking."""
        ...

    def room(self, app_id: str, run: int, version: int) -> Path:
        """Where the ingress socket of a run belongs, in a folder that is there."""
        ...

    async def publish(self, app_id: str, run: int, version: int, endpoint: Endpoint) -> None:
        """Switch: every request that begins after this goes to `endpoint`."""
        ...

    async def retire(self, app_id: str, run: int) -> None:
        """No new request finds this run; those that it has go on."""
        ...

    async def forget(self, app_id: str, run: int, *, last: bool = True) -> None:
        """Remove what is left of a run, and with the `last` one of an app what all of them shared."""
        ...

    async def clear(self, app_id: str) -> None:
        """Remove all that is left of an app."""
        ...

    async def answers(self, published: Published) -> bool:
        """Whether somebody takes connections where this leads; also where that is not certain."""
        ...

    async def lead(self, domains: Mapping[str, str]) -> None:
        """Have exactly these domains, by name, lead wherever the names of their apps do."""
        ...
