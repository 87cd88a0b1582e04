"""What the sandboxes of this driver tell of themselves, whether they have a pod of their own or a place in one."""

from __future__ import annotations

from vibed.sandboxes.driver import Claimed, Endpoint, Exit, State


class Standing:
    """The part of `vibed.sandboxes.driver.Sandbox` that is only told."""

    def __init__(self, driver: str, id: str, template: str, template_digest: str) -> None:
        self._driver = driver
        self._id = id
        self._template = template
        self._template_digest = template_digest
        self._state = State.WARM
        self._claimed: Claimed | None = None
        self._endpoint: Endpoint | None = None
        self._exit: Exit | None = None

    @property
    def id(self) -> str:
        return self._id

    @property
    def driver(self) -> str:
        return self._driver

    @property
    def template(self) -> str:
        return self._template

    @property
    def template_digest(self) -> str:
        return self._template_digest

    @property
    def state(self) -> State:
        return self._state

    @property
    def claimed(self) -> Claimed | None:
        return self._claimed

    @property
    def endpoint(self) -> Endpoint | None:
        return self._endpoint

    @property
    def exit(self) -> Exit | None:
        return self._exit
