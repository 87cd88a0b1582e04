"""All VibedApps of a namespace as a process remembers them: an informer, and of each app what it is looked for by.

What decides whether an app is looked for (its owner, when it was deployed, whether anything is to be done about it) is
worked out once for each change of the app. A look through thousands of apps at rest would otherwise read thousands of
ledgers, and there is one with each deploy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from vibed import records
from vibed.apps.app import Phase
from vibed.cluster import ledger as ledgers
from vibed.cluster import seen, spec
from vibed.cluster.errors import KubeError
from vibed.cluster.informer import Informer, Lists
from vibed.cluster.kinds import VIBED_APP, Object
from vibed.cluster.ledger import Ledger

log = records.logger("vibed.cluster")

_UNFINISHED = (Phase.PENDING, Phase.CLAIMING, Phase.STARTING)


@dataclass(frozen=True, slots=True)
class Facts:
    """What an app is looked for by."""

    owner: str
    deleted: bool
    deployed_at: float | None
    """Of its newest version, Unix seconds; None where no version was made of it yet."""
    unsettled: bool
    """Whether a controller has something to do (`AppStore.unsettled`)."""
    undecided: bool
    """Whether a version has to be made of what was applied by hand."""


class Memory:
    """See the module's docstring. `run` keeps it up to date; `on_change` hears as an informer's does."""

    def __init__(
        self,
        client: Lists,
        namespace: str,
        on_change: Callable[[Object | None, Object | None], None] = lambda old, new: None,
    ) -> None:
        self._apps = Informer(client, VIBED_APP, namespace=namespace, on_change=self._changed)
        self._facts: dict[str, Facts] = {}
        self._on_change = on_change

    @property
    def trouble(self) -> KubeError | None:
        """Why it is not kept up to date at this moment."""
        return self._apps.trouble

    async def run(self) -> None:
        await self._apps.run()

    async def synced(self) -> None:
        """Wait until all apps are in it."""
        await self._apps.synced()

    def get(self, app_id: str) -> Object | None:
        return self._apps.get(app_id)

    def all(self) -> Iterable[Object]:
        return self._apps.all()

    def some(self, wanted: Callable[[Facts], bool]) -> list[Object]:
        """The apps of which that is true."""
        names = [name for name, facts in self._facts.items() if wanted(facts)]
        return [app for name in names if (app := self._apps.get(name)) is not None]

    def by_last_deploy(self) -> list[Object]:
        """Those that have a version and are not being deleted, the last that was deployed first."""
        there = [
            (-facts.deployed_at, name)
            for name, facts in self._facts.items()
            if facts.deployed_at is not None and not facts.deleted
        ]
        return [app for _, name in sorted(there) if (app := self._apps.get(name)) is not None]

    def learn(self, app: Object) -> None:
        """See `vibed.cluster.informer.Informer.learn`."""
        self._apps.learn(app)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self._facts[new["metadata"]["name"]] = facts_of(new)
        elif old is not None:
            self._facts.pop(old["metadata"]["name"], None)
        self._on_change(old, new)


def facts_of(app: Object) -> Facts:
    """Of an app as the API has it."""
    ledger, deployed_at = ledgers.read(app), None
    deleted = "deletionTimestamp" in app["metadata"]
    try:
        unsettled, undecided = ledger is not None and is_unsettled(app, ledger), is_undecided(app, ledger)
        deployed_at = None if ledger is None else ledger.newest.created_at
    except Exception:
        # whoever may edit an app may have written anything there; who looks at it alone says what is wrong with it
        log.exception("an app cannot be read", app=app["metadata"]["name"])
        unsettled, undecided = False, True
    return Facts(str((app.get("spec") or {}).get("owner")), deleted, deployed_at, unsettled, undecided)


def is_unsettled(app: Object, ledger: Ledger) -> bool:
    """Whether its status lags behind its versions, or the newest of these is neither Ready nor Failed."""
    status, deleted = seen.read(app, ledger), "deletionTimestamp" in app["metadata"]
    return (
        deleted
        or status.observed_generation != ledger.changes
        or status.phase in _UNFINISHED
        or seen.result(app, ledger.newest).phase not in (Phase.READY, Phase.FAILED)
    )


def is_undecided(app: Object, ledger: Ledger | None) -> bool:
    """Whether no version was made of its spec, nor was it refused."""
    metadata = app["metadata"]
    refused = (app.get("status") or {}).get("refusedGeneration") == metadata["generation"]
    return "deletionTimestamp" not in metadata and not refused and (ledger is None or not spec.is_decided(app, ledger))
