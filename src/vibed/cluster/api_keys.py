"""API keys: a Secret for each, in vibeD's own namespace, with the hash of the key's secret and never the secret.

It is found by its name, which follows from that hash; a label has the key's id. When a key was last used is an
annotation that is written rarely: what this process knows beyond it is in memory.
"""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace

from vibed.apps.app import Key
from vibed.apps.errors import NotFound
from vibed.apps.restoring import KeptKey
from vibed.cluster import names
from vibed.cluster.client import Client
from vibed.cluster.errors import KubeExists, KubeNotFound
from vibed.cluster.kinds import SECRET, Object

WRITTEN_EVERY_S = 600.0
"""A key's last use."""
_TYPE = "vibed.dev/api-key"
_USED = "vibed.dev/last-used"


class ApiKeys:
    """Of one installation."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self._used: dict[str, float] = {}
        """By key id: uses that may not be written."""

    async def create(self, owner: str, *, admin: bool, label: str, secret_sha256: str) -> Key:
        """Raises `KubeExists` for a secret that has one."""
        key = Key(f"key-{uuid.uuid4().hex[:12]}", owner, admin, label, time.time())
        await self._create(key, secret_sha256)
        return key

    async def restore(self, kept: KeptKey) -> bool:
        """Add a key as it was elsewhere; False when there is one of that id or that secret."""
        if await self._secrets(kept.key.key_id):
            return False
        try:
            await self._create(kept.key, kept.secret_sha256)
        except KubeExists:
            return False
        return True

    async def _create(self, key: Key, secret_sha256: str) -> None:
        said = {
            "secret_sha256": secret_sha256,
            "owner": key.owner,
            "admin": "true" if key.admin else "false",
            "label": key.label,
            "created_at": repr(key.created_at),
        }
        used = {} if key.last_used_at is None else {"annotations": {_USED: repr(key.last_used_at)}}
        body: Object = {
            "metadata": {"name": names.api_key(secret_sha256), "labels": {names.KEY: key.key_id}, **used},
            "type": _TYPE,
            "immutable": True,
            "data": {name: base64.b64encode(value.encode()).decode() for name, value in said.items()},
        }
        await self._client.create(SECRET, body, namespace=self._namespace)

    async def find(self, secret_sha256: str) -> Key | None:
        """The key with that secret's hash."""
        try:
            found = await self._client.get(SECRET, names.api_key(secret_sha256), namespace=self._namespace)
        except KubeNotFound:
            return None
        if found.get("type") != _TYPE or _text(found, "secret_sha256") != secret_sha256:
            return None
        return self._read(found)

    async def all(self) -> Sequence[Key]:
        """The oldest first."""
        found = await self._client.objects(SECRET, namespace=self._namespace, labels=names.KEY)
        keys = [self._read(secret) for secret in found.items if secret.get("type") == _TYPE]
        return sorted(keys, key=lambda key: key.created_at)

    async def kept(self) -> Sequence[KeptKey]:
        """The same, with what is kept of their secrets."""
        found = await self._client.objects(SECRET, namespace=self._namespace, labels=names.KEY)
        keys = [
            KeptKey(self._read(one), _text(one, "secret_sha256")) for one in found.items if one.get("type") == _TYPE
        ]
        return sorted(keys, key=lambda kept: kept.key.created_at)

    async def used(self, used: Mapping[str, float]) -> None:
        """Remember; write what is new by enough."""
        for key_id, at in used.items():
            if at <= self._used.get(key_id, 0.0):
                continue
            found = await self._secrets(key_id)
            if not found:
                self._used.pop(key_id, None)
                continue
            self._used[key_id] = at
            for secret in found:
                known = _written_use(secret)
                if known is None or at >= known + WRITTEN_EVERY_S:
                    await self._write(secret, at)

    async def revoke(self, key_id: str) -> None:
        """Raises `NotFound`."""
        found = await self._secrets(key_id)
        for secret in found:
            await self._client.delete(SECRET, secret["metadata"]["name"], namespace=self._namespace)
        self._used.pop(key_id, None)
        if not found:
            raise NotFound(f"there is no key {key_id!r}")

    async def _write(self, secret: Object, at: float) -> None:
        body: Object = {"metadata": {"annotations": {_USED: repr(at)}}}
        try:
            await self._client.patch(SECRET, secret["metadata"]["name"], body, namespace=self._namespace)
        except KubeNotFound:
            return

    async def _secrets(self, key_id: str) -> list[Object]:
        if not key_id.replace("-", "").isalnum() or len(key_id) > 63:
            return []  # no label has such a value, and the API would refuse the question
        labels = f"{names.KEY}={key_id}"
        found = (await self._client.objects(SECRET, namespace=self._namespace, labels=labels)).items
        return [secret for secret in found if secret.get("type") == _TYPE]

    def _read(self, secret: Object) -> Key:
        key = Key(
            key_id=secret["metadata"]["labels"][names.KEY],
            owner=_text(secret, "owner"),
            admin=_text(secret, "admin") == "true",
            label=_text(secret, "label"),
            created_at=float(_text(secret, "created_at")),
        )
        used = [at for at in (_written_use(secret), self._used.get(key.key_id)) if at is not None]
        return replace(key, last_used_at=max(used, default=None))


def _text(secret: Object, name: str) -> str:
    return base64.b64decode((secret.get("data") or {}).get(name, "")).decode()


def _written_use(secret: Object) -> float | None:
    said = (secret["metadata"].get("annotations") or {}).get(_USED)
    return None if said is None else float(said)
