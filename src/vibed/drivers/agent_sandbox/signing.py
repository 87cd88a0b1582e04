"""How the controller proves to a pod's agent who it is (docs/reference/supervisor.md, section Pod).

The first time by a document that it signs, which names the pod, the claim and the certificate that the agent has shown;
from then on by a token. The token is derived from the private key, so that no controller has to remember one, and from
the certificate too: whoever stands between controller and agent shows another certificate, and is told a token that the
agent does not know.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from vibed.apps.errors import VibedError

PREVIOUS = "previous.pem"
_DOMAIN = b"vibed claim 1\n"
_AHEAD = b"vibed prefetch 1\n"
_TOKENS = b"vibed tokens of claims 1"
VALID_S = 120.0
"""How long a document may be on its way; clocks of a cluster's nodes agree better than that."""


class ClaimKeyInvalid(VibedError):
    """The key with which claims are signed cannot be used: says which file, and what it should be."""

    code = "ClaimKeyInvalid"
    status = 500


@dataclass(frozen=True, slots=True)
class Pod:
    """One agent, as it was met."""

    namespace: str
    uid: str
    certificate: str
    """SHA-256 of what it has shown, in hex."""


class ClaimKeys:
    """The controller's keys: the first signs, and what an earlier one has signed for is still answered to."""

    def __init__(self, keys: Sequence[Ed25519PrivateKey]) -> None:
        self._keys = tuple(keys)

    @classmethod
    def load(cls, key: Path) -> ClaimKeys:
        """From a PEM file (PKCS#8), and from `previous.pem` beside it, where there is one: the key that this one takes
        the place of. Raises `ClaimKeyInvalid`.
        """
        previous = key.with_name(PREVIOUS)
        return cls([_load(path) for path in (key, *((previous,) if previous.exists() else ()))])

    @property
    def public(self) -> str:
        """As agents have them in VIBED_CLAIM_KEYS."""
        raw = (key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw) for key in self._keys)
        return ",".join(base64.b64encode(one).decode() for one in raw)

    def documents(self, claim: str, claim_uid: str, pod: Pod) -> list[str]:
        """What makes a pod the claim's: one signed with each key, the present one first. A pod that waited in its pool
        while the key was changed knows the earlier one alone.
        """
        token = self.tokens(claim_uid, pod)[0]
        return self._signed(_DOMAIN, pod, claim=claim, token_sha256=hashlib.sha256(token.encode()).hexdigest())

    def prefetches(self, layers: Sequence[Mapping[str, object]], max_bytes: int, pod: Pod) -> list[str]:
        """What has a pod that is nobody's fetch layers, signed in the same ways."""
        return self._signed(_AHEAD, pod, layers=layers, max_bytes=max_bytes)

    def tokens(self, claim_uid: str, pod: Pod) -> list[str]:
        """What the pod knows the claim by: one for each key that may have made it, the present one first."""
        what = "\n".join((claim_uid, pod.namespace, pod.uid, pod.certificate)).encode()
        return [hmac.new(_token_key(key), what, hashlib.sha256).hexdigest() for key in self._keys]

    def _signed(self, domain: bytes, pod: Pod, **said: object) -> list[str]:
        to = {
            "pod_uid": pod.uid,
            "namespace": pod.namespace,
            "certificate_sha256": pod.certificate,
            "expires": round(time.time() + VALID_S, 3),
        }
        payload = json.dumps({**to, **said}).encode()
        return [f"{_text(payload)}.{_text(key.sign(domain + payload))}" for key in self._keys]


def _token_key(key: Ed25519PrivateKey) -> bytes:
    return hmac.new(key.private_bytes_raw(), _TOKENS, hashlib.sha256).digest()


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _load(path: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ClaimKeyInvalid(
            f"{path} cannot be read as the key that signs claims: {error}",
            hint="it has to be an Ed25519 key in PEM (PKCS#8): openssl genpkey -algorithm ed25519",
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ClaimKeyInvalid(f"{path} is no Ed25519 key", hint="openssl genpkey -algorithm ed25519")
    return key
