"""The Kubernetes API as vibeD calls it: objects as dicts, errors as types, a deadline on every call.

What is asked again, and when, is the heart of it (docs/explanation/kubernetes.md): an answer that says "not now"
(429) is obeyed for its Retry-After; reads are repeated whatever failed; a write is repeated only where it surely was
not carried out, or where carrying it out twice comes to the same.
"""

from __future__ import annotations

import asyncio
import enum
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import time
from typing import Any, Literal

import httpx2
import msgspec
from lightkube.core.exceptions import ConfigError

from vibed.cluster.connection import Connection
from vibed.cluster.errors import (
    KubeConflict,
    KubeError,
    KubeGone,
    KubeInvalid,
    KubeNotFound,
    KubeUnavailable,
    Request,
    refusal,
)
from vibed.cluster.kinds import ALL, VIBED_APP, Kind, Object

MANAGER = "vibed"
"""The field manager of what vibeD writes."""

DEADLINE_S = 30.0
"""How long one call may take with all its repetitions (a list: each page of it)."""

_PAGE = 250  # objects: some 1 MB of VibedApps, decoded in about 10 ms, in which nothing else happens
_LONGEST_PAUSE_S = 10.0
_FIRST_PAUSE_S = 0.1
_ATTEMPT = httpx2.Timeout(15.0, connect=5.0, pool=DEADLINE_S)
_GRACE_S = 15.0


@dataclass(frozen=True, slots=True)
class Objects:
    """What a list answered: the objects as they were at one moment, from which a watch goes on."""

    items: list[Object]
    resource_version: str


@dataclass(frozen=True, slots=True)
class Change:
    """One event of a watch. Of a BOOKMARK the object has nothing but its resourceVersion."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: Object

    @property
    def resource_version(self) -> str:
        """From where a later watch goes on."""
        return str(self.object["metadata"]["resourceVersion"])


class _Again(enum.Enum):
    """What of a call may be repeated after its connection or its answer failed."""

    ALWAYS = "it changes nothing, or changes the same again"
    UNSENT = "only what the server surely has not carried out"


@dataclass(frozen=True, slots=True)
class Client:
    """One API server. Made by `connect`; `close` ends it.

    Every call raises `KubeForbidden`, `KubeInvalid` and `KubeUnavailable` (after its deadline, or at once where a
    repetition would not be safe: `uncertain` then says that a write may have been carried out), and what its own
    documentation adds. `namespace` is the client's own where a call names none; `kinds.ALL` lists and watches all of
    them.
    """

    namespace: str
    _connection: Connection
    _deadline_s: float = field(default=DEADLINE_S)

    @classmethod
    def connect(
        cls, *, kubeconfig: Path | None = None, namespace: str = "default", deadline_s: float = DEADLINE_S
    ) -> Client:
        """By the file, or else as the pod's ServiceAccount, or else by KUBECONFIG. Raises `KubeUnconfigured`.

        Nothing is sent yet.
        """
        return cls(namespace, Connection.open(kubeconfig), deadline_s)

    async def close(self) -> None:
        """End all connections; calls under way fail."""
        await self._connection.close()

    async def version(self) -> Object:
        """What the server says of itself: `major`, `minor`, `gitVersion`."""
        try:
            response = await self._connection.calls.get("/version", timeout=_ATTEMPT)
            said = msgspec.json.decode(response.content)
        except (httpx2.HTTPError, ConfigError, msgspec.DecodeError) as error:
            raise KubeUnavailable(f"Kubernetes could not be asked for its version: {error!r}") from error
        if not isinstance(said, dict) or "gitVersion" not in said:
            raise KubeUnavailable(f"what answered is not the Kubernetes API: {response.content[:200]!r}")
        return said

    async def get(self, kind: Kind, name: str, *, namespace: str | None = None) -> Object:
        """The object as it is now. Raises `KubeNotFound`."""
        return await self._object("GET", self._request("get", kind, namespace, name), again=_Again.ALWAYS)

    async def objects(
        self,
        kind: Kind,
        *,
        namespace: str | None = None,
        labels: str = "",
        fields: str = "",
        trim: Callable[[Object], Object] = lambda item: item,
    ) -> Objects:
        """All that match the selectors, as they are now: never from a server's cache that may be behind, since a
        controller that takes an old list for the present claims twice. Read in pages, all of the same moment; `trim`
        takes from each object what is not wanted, so that no more than a page is ever there in full.
        """
        try:
            return await self._pages(kind, namespace, labels, fields, trim, limit=_PAGE)
        except KubeGone:
            # The snapshot that the pages are of has been compacted between two of them, which a single page cannot
            # meet.
            return await self._pages(kind, namespace, labels, fields, trim, limit=0)

    async def create(self, kind: Kind, body: Object, *, namespace: str | None = None) -> Object:
        """Make the object; its answer has what the API added. Raises `KubeExists`, and `KubeNotFound` where the
        namespace or the kind is missing.
        """
        request = self._request("create", kind, namespace)
        return await self._object("POST", request, _typed(kind, body), params=_written_by(kind), again=_Again.UNSENT)

    async def replace(self, kind: Kind, body: Object, *, namespace: str | None = None, subresource: str = "") -> Object:
        """Put the object in the place of the one that has its name. Raises `KubeNotFound`, and `KubeConflict` where the
        body names a resourceVersion that is no longer the present one.
        """
        request = self._request("update", kind, namespace, _name(body), subresource)
        return await self._object("PUT", request, _typed(kind, body), params=_written_by(kind), again=_Again.UNSENT)

    async def patch(
        self, kind: Kind, name: str, body: Object, *, namespace: str | None = None, subresource: str = ""
    ) -> Object:
        """Merge `body` into the object (RFC 7396: None removes, lists are replaced). With a
        `metadata.resourceVersion` it holds for that version alone. Raises `KubeNotFound`, `KubeConflict`.
        """
        bound = "resourceVersion" in body.get("metadata", {})
        return await self._object(
            "PATCH",
            self._request("patch", kind, namespace, name, subresource),
            body,
            content_type="application/merge-patch+json",
            params=_written_by(kind),
            again=_Again.ALWAYS if bound else _Again.UNSENT,
        )

    async def apply(
        self,
        kind: Kind,
        body: Object,
        *,
        namespace: str | None = None,
        manager: str = MANAGER,
        force: bool = True,
        subresource: str = "",
        dry_run: bool = False,
    ) -> Object:
        """Server-side apply: make or change the object so that it has these fields, and take away those that this
        manager applied earlier and that are not in `body`; `dry_run` only answers what would be. Raises
        `KubeConflict` where another manager owns one and `force` is off.
        """
        return await self._object(
            "PATCH",
            self._request("patch", kind, namespace, _name(body), subresource),
            _typed(kind, body),
            content_type="application/apply-patch+yaml",  # JSON is YAML
            params={
                **_written_by(kind),
                "fieldManager": manager,
                "force": "true" if force else "false",
                **({"dryRun": "All"} if dry_run else {}),
            },
            again=_Again.ALWAYS,
        )

    async def delete(
        self,
        kind: Kind,
        name: str,
        *,
        namespace: str | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
        propagation: str = "Background",
    ) -> None:
        """Have the object deleted; that it is not there, or is another than the one with `uid`, is as good.

        Raises `KubeConflict` where it is no longer at `resource_version`.
        """
        only = {"uid": uid, "resourceVersion": resource_version}
        preconditions = {key: value for key, value in only.items() if value is not None}
        body: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if preconditions:
            body["preconditions"] = preconditions
        request = self._request("delete", kind, namespace, name)
        try:
            await self._send("DELETE", request, body, again=_Again.ALWAYS if preconditions else _Again.UNSENT)
        except KubeNotFound:
            return
        except KubeConflict:
            if uid is None or await self._is(kind, name, namespace, uid):
                raise

    async def watch(
        self,
        kind: Kind,
        *,
        since: str,
        namespace: str | None = None,
        labels: str = "",
        fields: str = "",
        lasts_s: float = 300.0,
    ) -> AsyncGenerator[Change, None]:
        """What changes after the resourceVersion `since`; first a BOOKMARK of `since` itself, as soon as the server
        watches.

        It ends by itself, without an error: after `lasts_s`, or whenever the server likes (it ends those that do not
        keep up, and all of a CRD that is edited); who wants to go on watches again since the last change's or
        bookmark's version. Nothing is repeated here. Raises `KubeGone` where the server no longer knows what came
        after `since`.
        """
        request = self._request("watch", kind, namespace)
        params = _selected(labels, fields) | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": since,
            "timeoutSeconds": str(max(1, round(lasts_s))),
        }
        timeout = httpx2.Timeout(lasts_s + _GRACE_S, connect=5.0, pool=5.0)
        try:
            async with self._connection.watches.stream(
                "GET", _path(request), params=params, timeout=timeout
            ) as response:
                if response.status_code >= 300:
                    raise refusal(request, response.status_code, _status(await response.aread()))
                yield Change("BOOKMARK", {"metadata": {"resourceVersion": since}})
                async for line in _lines(response):
                    yield _change(request, line)
        except (httpx2.HTTPError, ConfigError) as error:
            raise _unreachable(request, error, uncertain=False) from error

    async def _is(self, kind: Kind, name: str, namespace: str | None, uid: str) -> bool:
        try:
            return bool((await self.get(kind, name, namespace=namespace))["metadata"]["uid"] == uid)
        except KubeNotFound:
            return False

    async def _pages(
        self,
        kind: Kind,
        namespace: str | None,
        labels: str,
        fields: str,
        trim: Callable[[Object], Object],
        *,
        limit: int,
    ) -> Objects:
        request = self._request("list", kind, namespace)
        params = _selected(labels, fields) | ({"limit": str(limit)} if limit else {})
        items: list[Object] = []
        while True:
            page = _decoded(request, await self._send("GET", request, params=params, again=_Again.ALWAYS))
            for item in page.get("items") or ():
                # the items of a list of built-in kinds do not say what they are
                item.setdefault("apiVersion", kind.api_version)
                item.setdefault("kind", kind.kind)
                items.append(trim(_lean(item)))
            more = page["metadata"].get("continue")
            if not more:
                return Objects(items, page["metadata"]["resourceVersion"])
            params["continue"] = more

    def _request(
        self, verb: str, kind: Kind, namespace: str | None, name: str | None = None, subresource: str = ""
    ) -> Request:
        where = (self.namespace if namespace is None else namespace) if kind.namespaced else ""
        request = Request(verb, kind, where, name or "", subresource)
        if name == "" or (where == ALL and verb not in ("list", "watch")):
            raise KubeInvalid(f"vibeD cannot {request}: that names no single object")
        return request

    async def _object(
        self,
        method: str,
        request: Request,
        body: Object | None = None,
        *,
        again: _Again,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        answer = await self._send(method, request, body, again=again, params=params, content_type=content_type)
        return _lean(_decoded(request, answer))

    async def _send(
        self,
        method: str,
        request: Request,
        body: Object | None = None,
        *,
        again: _Again,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> bytes:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._deadline_s
        path = _path(request)
        content = None if body is None else msgspec.json.encode(body)
        headers = {} if content is None else {"Content-Type": content_type}
        back_off = _FIRST_PAUSE_S
        while True:
            try:
                async with asyncio.timeout_at(end):
                    response = await self._connection.calls.request(
                        method, path, params=params, content=content, headers=headers, timeout=_ATTEMPT
                    )
                if response.status_code < 300:
                    return response.content
                error = refusal(request, response.status_code, _status(response.content))
                pause = _asked_to_wait(response)
                if pause is None and response.status_code >= 500 and again is _Again.ALWAYS and error.may_retry:
                    pause = back_off
            except (httpx2.HTTPError, ConfigError, TimeoutError) as failure:
                unsent = isinstance(
                    failure, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout | ConfigError
                )
                error = _unreachable(request, failure, uncertain=method != "GET" and not unsent)
                error.__cause__ = failure
                pause = back_off if (again is _Again.ALWAYS or unsent) and error.may_retry else None
            if pause is None:
                raise error
            # With jitter, or all who were refused together would come back together.
            pause *= random.uniform(1.0, 1.3)
            if loop.time() + pause >= end:
                raise error
            await asyncio.sleep(pause)
            back_off = min(2 * back_off, _LONGEST_PAUSE_S)


def _path(request: Request) -> str:
    try:
        return request.kind.path(request.namespace, request.name, request.subresource)
    except ValueError as error:
        raise KubeInvalid(f"vibeD cannot {request}: {error}") from error


def _name(body: Object) -> str:
    return str(body["metadata"]["name"])


def _typed(kind: Kind, body: Object) -> Object:
    return {"apiVersion": kind.api_version, "kind": kind.kind, **body}


def _written_by(kind: Kind) -> dict[str, str]:
    # What the CRD of another does not know is dropped by the API, as its owner wants; in ours it is a mistake of ours.
    strict = {"fieldValidation": "Strict"} if kind.group == VIBED_APP.group else {}
    return {"fieldManager": MANAGER, **strict}


def _selected(labels: str, fields: str) -> dict[str, str]:
    selectors = {"labelSelector": labels, "fieldSelector": fields}
    return {key: value for key, value in selectors.items() if value}


def _lean(item: Object) -> Object:
    """Without what the API keeps about who wrote which field: often half of an object, and of no use to us."""
    item.get("metadata", {}).pop("managedFields", None)
    return item


def _decoded(request: Request, answer: bytes) -> Object:
    try:
        decoded = msgspec.json.decode(answer)
    except msgspec.DecodeError as error:
        raise KubeUnavailable(f"what answered is not the Kubernetes API ({request}): {answer[:200]!r}") from error
    if not isinstance(decoded, dict):
        raise KubeUnavailable(f"what answered is not the Kubernetes API ({request}): {answer[:200]!r}")
    return decoded


def _status(answer: bytes) -> Mapping[str, Any]:
    """The `Status` in the body of a refusal; proxies and the API server itself sometimes answer in plain text."""
    try:
        status = msgspec.json.decode(answer)
    except msgspec.DecodeError:
        return {"message": answer[:500].decode(errors="replace").strip()}
    return status if isinstance(status, dict) else {}


def _asked_to_wait(response: httpx2.Response) -> float | None:
    """Seconds after which the server wants to be asked again what it has not begun; None where it does not say so.

    429 is given before a request is carried out, and 503 with Retry-After while the server starts or ends
    (apiserver, pkg/server/filters). 500 has Retry-After too, where the storage failed halfway: that is no such promise.
    """
    after = response.headers.get("Retry-After")
    if response.status_code == 429:
        return _seconds(after or "1")
    return _seconds(after) if response.status_code == 503 and after else None


def _seconds(after: str) -> float:
    try:
        wanted = float(after)
    except ValueError:
        try:
            wanted = parsedate_to_datetime(after).timestamp() - time()
        except ValueError:
            wanted = 1.0
    return min(max(wanted, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)


def _unreachable(request: Request, error: Exception, *, uncertain: bool) -> KubeUnavailable:
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    message = f"Kubernetes could not be asked to {request}: {said}"
    if "CERTIFICATE_VERIFY_FAILED" in said:
        hint = (
            "the API's certificate is not of the authority that the kubeconfig (or the ServiceAccount's ca.crt) names"
        )
        return KubeUnavailable(message, hint=hint, retryable=False)
    return KubeUnavailable(message, uncertain=uncertain)


async def _lines(response: httpx2.Response) -> AsyncIterator[bytes]:
    """The lines of a watch. Not httpx' own lines: those end at U+0085 and U+2028 too, which JSON may hold within a
    text.

    What follows the last end of line when the connection ends is no whole event.
    """
    rest = bytearray()
    async for piece in response.aiter_raw():
        *lines, tail = piece.split(b"\n")
        for line in lines:
            yield bytes(rest + line) if rest else line
            rest.clear()
        rest += tail


def _change(request: Request, line: bytes) -> Change:
    event = _decoded(request, line)
    if event["type"] == "ERROR":
        status: Mapping[str, Any] = event["object"]
        error: KubeError = refusal(request, int(status.get("code") or 500), status)
        raise error
    return Change(event["type"], _lean(event["object"]))
