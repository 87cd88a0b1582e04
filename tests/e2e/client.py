"""What a client of vibeD does: deploys, asks, and visits apps by their names."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.sse import ServerSent, events_of
from tests.e2e.waiting import eventually
from vibed.sources.pack import pack_directory, pack_files

Source = Mapping[str, str | bytes] | Path | bytes
SETTLE_S = 90.0
HOPELESS_S = 20.0
"""How long a template that is not available and not being built is waited for: vibeD may just be restarting."""


@dataclass(frozen=True, slots=True)
class Deployed:
    """The answer to a deploy, and how the version stood when it had settled."""

    status: int
    answer: dict[str, Any]
    version: dict[str, Any] = field(default_factory=dict)

    @property
    def app_id(self) -> str:
        return str(self.answer["app_id"])

    @property
    def number(self) -> int:
        return int(self.answer["version"])

    @property
    def phase(self) -> str:
        return str(self.version.get("phase") or self.answer["phase"])

    @property
    def reason(self) -> str:
        return str(self.version.get("reason") or self.answer["reason"])

    @property
    def message(self) -> str:
        return str(self.version.get("message") or self.answer["message"])


class Client:
    """HTTP to 127.0.0.1 with the Host header of whom it wants to reach."""

    def __init__(self, port: int, key: str) -> None:
        self.port = port
        self.key = key
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60.0, trust_env=False)

    def close(self) -> None:
        self.http.close()

    # the API

    def api(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Any call of the API, as it is answered."""
        headers = {"Host": f"localhost:{self.port}", "Authorization": f"Bearer {self.key}"}
        return self.http.request(method, path, headers={**headers, **options.pop("headers", {})}, **options)

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """Any call that has to go well; its JSON."""
        answer = self.api(method, path, **options)
        assert answer.status_code < 300, f"{method} {path}: {answer.status_code} {answer.text[:500]}"
        return answer.json() if answer.content else None

    def post_deploy(
        self, name: str, source: Source, *, headers: Mapping[str, str] | None = None, **metadata: Any
    ) -> httpx.Response:
        """`POST /v1/deploy`, as it is answered."""
        return self.api(
            "POST",
            "/v1/deploy",
            files={"source": ("source.tar.gz", packed(source), "application/gzip")},
            data={"metadata": json.dumps({"name": name, **metadata})},
            headers=dict(headers or {}),
        )

    def deploy(self, name: str, source: Source, *, settle_s: float = SETTLE_S, **metadata: Any) -> Deployed:
        """Deploy what has to be accepted, and wait until the version has settled: Ready or Failed."""
        answer = self.post_deploy(name, source, **metadata)
        assert answer.status_code in (200, 202), f"{answer.status_code} {answer.text[:800]}"
        body = answer.json()
        return Deployed(answer.status_code, body, self.settled(name, body["version"], within_s=settle_s))

    def deploy_ready(self, name: str, source: Source, *, settle_s: float = SETTLE_S, **metadata: Any) -> Deployed:
        """Deploy what has to become Ready."""
        deployed = self.deploy(name, source, settle_s=settle_s, **metadata)
        assert deployed.phase == "Ready", f"{name}: {deployed.version}\n{self.log_text(name)}"
        return deployed

    def settled(self, app_id: str, version: int, *, within_s: float = SETTLE_S) -> dict[str, Any]:
        """The version, once it is Ready or Failed."""

        def look() -> dict[str, Any] | None:
            found: dict[str, Any] = self.ask("GET", f"/v1/apps/{app_id}/versions/{version}")
            return found if found["phase"] in ("Ready", "Failed") else None

        found = eventually(look, f"version {version} of {app_id} has settled", within_s=within_s)
        assert found is not None
        return found

    def app(self, app_id: str) -> dict[str, Any]:
        """The app as it stands."""
        found: dict[str, Any] = self.ask("GET", f"/v1/apps/{app_id}")
        return found

    def delete(self, app_id: str) -> None:
        """Ask that an app goes away; one that is gone is fine."""
        answer = self.api("DELETE", f"/v1/apps/{app_id}")
        assert answer.status_code in (200, 202, 204, 404), answer.text

    def templates(self) -> dict[str, dict[str, Any]]:
        """Templates by name."""
        return {item["name"]: item for item in self.ask("GET", "/v1/templates")["items"]}

    def wait_for_template(self, name: str, *, within_s: float = 600.0) -> dict[str, Any]:
        """Until a template can be used; fails soon when it is not even being made."""
        deadline = time.monotonic() + within_s
        hopeless_at = time.monotonic() + HOPELESS_S
        while True:
            found = self.templates()[name]
            if found["available"]:
                return found
            if found["building"]:
                hopeless_at = time.monotonic() + HOPELESS_S
            assert time.monotonic() < min(deadline, hopeless_at), f"{name} is not available: {found['reason']}"
            time.sleep(0.2)

    def logs(self, app_id: str, **query: Any) -> list[dict[str, Any]]:
        """Lines of the app's log."""
        items: list[dict[str, Any]] = self.ask("GET", f"/v1/apps/{app_id}/logs", params={"format": "json", **query})[
            "items"
        ]
        return items

    def log_text(self, app_id: str) -> str:
        """The last lines of the app's log, for a failure's message."""
        answer = self.api("GET", f"/v1/apps/{app_id}/logs", params={"format": "json", "tail": 30})
        if answer.status_code != 200:
            return answer.text[:300]
        return "\n".join(f"  {line['stream']}: {line['text']}" for line in answer.json()["items"])

    def events(self, app_id: str) -> list[dict[str, Any]]:
        """What happened to the app."""
        items: list[dict[str, Any]] = self.ask("GET", f"/v1/apps/{app_id}/events", params={"format": "json"})["items"]
        return items

    @contextmanager
    def following(
        self, app_id: str, what: str = "logs", *, last_id: str | None = None, **query: Any
    ) -> Iterator[Iterator[ServerSent]]:
        """A stream of logs or events, as server-sent events."""
        headers = {"Host": f"localhost:{self.port}", "Authorization": f"Bearer {self.key}"}
        if last_id is not None:
            headers["Last-Event-ID"] = last_id
        with self.http.stream(
            "GET", f"/v1/apps/{app_id}/{what}", params={"follow": "true", **query}, headers=headers
        ) as answer:
            assert answer.status_code == 200, answer.read()
            yield events_of(answer.iter_lines())

    # apps

    def host(self, app_id: str) -> str:
        """The Host header of an app."""
        return f"{app_id}.localhost:{self.port}"

    def url(self, app_id: str, path: str = "/") -> str:
        """An app's URL, for programs that look `*.localhost` up."""
        return f"http://{self.host(app_id)}{path}"

    def visit(self, app_id: str, path: str = "/", method: str = "GET", **options: Any) -> httpx.Response:
        """One request to an app, as it is answered. Never repeated."""
        headers = {"Host": self.host(app_id), **options.pop("headers", {})}
        return self.http.request(method, path, headers=headers, **options)


def packed(source: Source) -> bytes:
    """A source as bytes: what is bytes already is sent as it is."""
    if isinstance(source, bytes):
        return source
    if isinstance(source, Path):
        out = io.BytesIO()
        pack_directory(source, out)
        return out.getvalue()
    return pack_files(source)
