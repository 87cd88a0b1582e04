"""Making versions: the one implementation behind HTTP and MCP.

It writes the spec, has it made durable and meanwhile waits a little for the controller. What was acknowledged is true
whatever becomes of the controller, so nothing but a disk that fails can turn a deploy that was written into an error.
"""

from __future__ import annotations

from dataclasses import replace

from vibed.api import repeats
from vibed.api.controlling import Controller
from vibed.api.errors import InvalidRequest, SourceRequired
from vibed.api.identity import Caller
from vibed.api.intake import Intake
from vibed.api.making import Asked, Making
from vibed.api.measures import Measures
from vibed.api.metadata import Metadata
from vibed.api.settling import DeployResult, Settling
from vibed.api.steps import Steps
from vibed.api.visible import VisibleApps
from vibed.apps import ids
from vibed.apps.app import App
from vibed.apps.errors import VibedError
from vibed.apps.store import AppStore, Deployed, Idempotency
from vibed.config import Config
from vibed.sources.errors import SourceMissing
from vibed.sources.receiving import StagedSource
from vibed.tracing import Tracer


class Deployments:
    """Every method checks that the caller may: another's app does not exist for them."""

    def __init__(
        self,
        config: Config,
        store: AppStore,
        apps: VisibleApps,
        intake: Intake,
        link: Controller,
        tracer: Tracer,
        measures: Measures,
    ) -> None:
        self._config = config
        self._store = store
        self._apps = apps
        self._settling = Settling(config.deploy_wait_s, store, link, tracer, measures)
        self._making = Making(store, apps, intake, link, storage_limit=config.owner_storage_mb * 1_000_000)
        self._measures = measures
        self.intake = intake
        self.tracer = tracer

    async def deploy(
        self,
        caller: Caller,
        metadata: Metadata,
        staged: StagedSource | None,
        steps: Steps,
        *,
        idempotency_key: str | None = None,
        deadline: float | None = None,
    ) -> DeployResult:
        """A new app, or a new version of the caller's app of that name. `staged` is kept or discarded, never left.

        `deadline`: `time.perf_counter()` at which the answer is due.
        """
        try:
            if staged is None:
                raise SourceRequired("the 'source' part is missing", hint="send the app's folder as a tar.gz")
            if metadata.name is None:
                raise InvalidRequest(
                    "name is missing", hint="choose a name for the app", details={"field": "name", "errors": []}
                )
            app_id = ids.check(metadata.name, self._config.reserved_names)
            idempotency = repeats.idempotency(idempotency_key, "deploy", app_id, metadata, staged.digest)
            asked = Asked(caller, caller.owner, app_id, metadata, steps, idempotency)
            deployed = await self._replayed(caller.owner, idempotency) or await self._making.received(asked, staged)
        except VibedError as error:
            self._measures.refused.labels(error.error_code).inc()
            raise
        finally:
            if staged is not None:
                await self.intake.discard(staged)
        return await self._settling.settled(deployed, steps, deadline, asked.notes)

    async def redeploy(
        self,
        caller: Caller,
        app_id: str,
        metadata: Metadata,
        staged: StagedSource | None,
        steps: Steps,
        *,
        idempotency_key: str | None = None,
        deadline: float | None = None,
    ) -> DeployResult:
        """A new version of an app: with new source or some files of it, other settings, or the same again."""
        merged: StagedSource | None = None
        try:
            app = await self._apps.get(caller, app_id)
            digest = staged.digest if staged else ""
            idempotency = repeats.idempotency(idempotency_key, "redeploy", app_id, metadata, digest)
            asked = Asked(
                caller, app.owner, app_id, replace(metadata, if_exists="update"), steps, idempotency, must_exist=True
            )
            deployed = await self._replayed(app.owner, idempotency)
            if deployed is None and (metadata.files == "merge" or metadata.remove_files):
                base, merged = await self._merged(app, metadata, staged)
                asked = replace(asked, base=base)
            if deployed is None:
                source = merged or staged
                making = self._making
                deployed = await (making.kept(asked) if source is None else making.received(asked, source))
        except VibedError as error:
            self._measures.refused.labels(error.error_code).inc()
            raise
        finally:
            for received in (staged, merged):
                if received is not None:
                    await self.intake.discard(received)
        return await self._settling.settled(deployed, steps, deadline, asked.notes)

    async def _merged(self, app: App, metadata: Metadata, patch: StagedSource | None) -> tuple[str, StagedSource]:
        """The wanted version's source with `patch` in it; the digest of that source too."""
        if metadata.files != "merge":
            raise InvalidRequest(
                "remove_files takes files from the source that is there",
                hint='with "files": "merge"; a whole source has just the files that are sent',
                details={"field": "remove_files", "errors": []},
            )
        if patch is None and not metadata.remove_files:
            raise SourceRequired("no file to change was given", hint="send the files that change, or remove_files")
        version = await self._store.version(app.app_id, app.version)
        with self.intake.holding(version.source_digest):
            merged = await self.intake.overlay(
                version.source_digest, version.runtime.strip, patch, metadata.remove_files
            )
        return version.source_digest, merged

    async def rollback(
        self,
        caller: Caller,
        app_id: str,
        number: int,
        steps: Steps,
        *,
        idempotency_key: str | None = None,
        deadline: float | None = None,
    ) -> DeployResult:
        """A new version that is an earlier one again: its source, runtime, env and resources."""
        app = await self._apps.get(caller, app_id)
        idempotency = repeats.idempotency(idempotency_key, "rollback", app_id, Metadata(), str(number))
        deployed = await self._replayed(app.owner, idempotency)
        if deployed is None:
            asked = Asked(caller, app.owner, app_id, Metadata(), steps, idempotency, must_exist=True)
            try:
                deployed = await self._making.kept(asked, back_to=number)
            except SourceMissing as error:
                raise SourceMissing(
                    f"the source of version {number} of {app_id!r} is not kept any more",
                    hint="deploy it again from where you have it, or roll back to another version",
                    status=409,
                ) from error
        return await self._settling.settled(deployed, steps, deadline)

    async def _replayed(self, owner: str, idempotency: Idempotency | None) -> Deployed | None:
        return None if idempotency is None else await self._store.replay(owner, idempotency)
