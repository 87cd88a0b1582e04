"""An app's own domains: adding them, showing whose they are, removing them."""

from __future__ import annotations

from collections.abc import Sequence

from vibed import records
from vibed.api.controlling import Controller
from vibed.api.errors import NotSupported
from vibed.api.identity import Caller
from vibed.api.visible import VisibleApps
from vibed.apps import domains
from vibed.apps.domains import Domain, NotVerified
from vibed.apps.errors import VibedError
from vibed.apps.store import AppStore
from vibed.config import Config

log = records.logger("vibed.api")


class Naming:
    """Every method checks that the caller may see the app. Raises `NotFound`."""

    def __init__(self, config: Config, store: AppStore, apps: VisibleApps, link: Controller) -> None:
        self._config = config
        self._store = store
        self._apps = apps
        self._link = link

    async def list(self, caller: Caller, app_id: str) -> Sequence[Domain]:
        """The app's domains, oldest first."""
        await self._apps.get(caller, app_id)
        return await self._store.domains(app_id)

    async def add(self, caller: Caller, app_id: str, name: str) -> Domain:
        """Have a name wait to be shown to be the app's owner's. Raises `InvalidDomain`, `DomainTaken`,
        `TooManyDomains`, `NotSupported` where vibeD gets no certificates.
        """
        await self._apps.get(caller, app_id)
        if not self._config.https:
            raise NotSupported(
                "this vibeD has no certificates, which an app's own domain needs",
                hint="the operator gives vibeD a domain of its own first: docs/how-to/use-a-domain.md",
                details={"field": "name"},
            )
        name = domains.check(name, self._config.domain, self._config.reserved_names)
        made = await self._store.add_domain(app_id, name, by=caller.owner)
        log.info("domain_added", app_id=app_id, domain=name, by=caller.owner)
        return made

    async def verify(self, caller: Caller, app_id: str, name: str) -> Domain:
        """Look for the record, and have the name lead to the app when it is there. Raises `NotVerified`,
        `DomainTaken`, `DnsUnavailable`.
        """
        wanted = await self._find(caller, app_id, name)
        if wanted.verified_at is None:
            texts = await self._link.texts(wanted.name)
            if not wanted.shown_by(texts):
                there = f"it says {', '.join(repr(text[:80]) for text in texts[:3])}" if texts else "there is no record"
                raise NotVerified(
                    f"{wanted.record} does not say {wanted.text!r}: {there}",
                    hint="add that TXT record where the domain's DNS is kept; what was looked for before is "
                    "remembered for some minutes",
                    details={"record": wanted.record, "text": wanted.text},
                )
            wanted = await self._store.verify_domain(app_id, wanted.name, wanted.token)
            log.info("domain_verified", app_id=app_id, domain=wanted.name, by=caller.owner)
        await self._lead()
        return wanted

    async def remove(self, caller: Caller, app_id: str, name: str) -> None:
        """Free a name; it leads nowhere from now on."""
        wanted = await self._find(caller, app_id, name)
        await self._store.remove_domain(app_id, wanted.name)
        log.info("domain_removed", app_id=app_id, domain=wanted.name, by=caller.owner)
        await self._lead()

    async def _find(self, caller: Caller, app_id: str, name: str) -> Domain:
        plain = name.strip().rstrip(".").lower()
        for domain in await self.list(caller, app_id):
            if domain.name == plain:
                return domain
        raise domains.absent(app_id, plain)

    async def _lead(self) -> None:
        try:
            await self._link.lead()
        except VibedError as error:
            # the controller looks by itself, within seconds
            log.info("controller_not_told_of_domains", code=error.error_code)
