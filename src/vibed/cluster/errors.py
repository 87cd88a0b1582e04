"""What the Kubernetes API answers when it does not do what was asked.

Each error has the API's own words, and a cure where the fact tells one: a right that is missing is named as the rule
that would grant it. What a status means is read in the API's source (apimachinery, pkg/api/errors) and was tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vibed.apps.errors import VibedError
from vibed.cluster.kinds import ALL, Kind


class KubeError(VibedError):
    """The Kubernetes API did not do what vibeD asked of it."""

    code = "KubernetesError"
    status = 502


class KubeUnconfigured(KubeError):
    """There is no usable way to a Kubernetes API: no kubeconfig, no ServiceAccount, or one that cannot be read."""

    code = "KubernetesUnconfigured"
    status = 500


class KubeNotFound(KubeError):
    """The object, its namespace or its kind is not there."""

    code = "KubernetesNotFound"


class KubeExists(KubeError):
    """An object of that name is there already."""

    code = "KubernetesExists"


class KubeConflict(KubeError):
    """The object was changed by somebody else in between: read it again and decide again."""

    code = "KubernetesConflict"
    status = 409
    retryable = True


class KubeGone(KubeError):
    """The API no longer knows what happened since that resourceVersion: everything has to be listed again."""

    code = "KubernetesGone"
    retryable = True


class KubeForbidden(KubeError):
    """The API does not let this account do it, or a quota does not."""

    code = "KubernetesForbidden"


class KubeInvalid(KubeError):
    """The API does not accept the object as it is."""

    code = "KubernetesInvalid"


class KubeUnavailable(KubeError):
    """The API could not be reached, had no room for the request, or failed over it.

    `uncertain` says that a write may have been carried out all the same.
    """

    code = "KubernetesUnavailable"
    status = 503
    retryable = True

    def __init__(
        self, message: str, *, uncertain: bool = False, hint: str | None = None, retryable: bool = True
    ) -> None:
        super().__init__(
            message, hint=hint, retryable=retryable, details={"uncertain": uncertain} if uncertain else None
        )
        self.uncertain = uncertain


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked, in the words that RBAC has for it."""

    verb: str
    kind: Kind
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def resource(self) -> str:
        """The resource as an RBAC rule names it, without its group."""
        return f"{self.kind.plural}/{self.subresource}" if self.subresource else self.kind.plural

    def __str__(self) -> str:
        what = f"{self.verb} {self.kind.resource}{'/' + self.name if self.name else ''}"
        if self.subresource:
            what += f" ({self.subresource})"
        if not self.kind.namespaced:
            return what
        return f"{what} in {'all namespaces' if self.namespace == ALL else f'namespace {self.namespace}'}"


def refusal(request: Request, code: int, status: Mapping[str, Any]) -> KubeError:
    """The error for an answer with HTTP status `code` and the body `status` (a `Status`; empty where it had none)."""
    said = str(status.get("message") or f"HTTP status {code}")
    reason = str(status.get("reason") or "")
    details: Mapping[str, Any] = status.get("details") or {}
    message = f"Kubernetes did not {request}: {said}"
    if code == 404:
        if details.get("name"):
            return KubeNotFound(message)
        return KubeNotFound(
            message, hint=f"is {request.kind.resource} ({request.kind.version}) installed in the cluster?"
        )
    if code == 409:
        return KubeExists(message) if reason == "AlreadyExists" else KubeConflict(message)
    if code == 410:
        return KubeGone(message)
    if code in (401, 403):
        return _forbidden(request, code, said, message)
    # an apply of a field that the CRD lacks is 500, and so is an object that is too large for etcd
    if 400 <= code < 429 or "field not declared in schema" in said or "request is too large" in said:
        return KubeInvalid(message)
    # 504: the API gave up waiting; other 5xx: it may have failed after it had written
    uncertain = code >= 500 and code != 503 and request.verb not in ("get", "list", "watch")
    return KubeUnavailable(message, uncertain=uncertain)


def _forbidden(request: Request, code: int, said: str, message: str) -> KubeForbidden:
    if code == 401:
        return KubeForbidden(
            message, hint="the API does not know this token or certificate: it has expired, or is another cluster's"
        )
    if "status unknown for quota" in said:
        return KubeForbidden(
            message, retryable=True, hint="the ResourceQuota is new: the cluster takes up to three minutes to count"
        )
    if "exceeded quota" in said:
        return KubeForbidden(
            message, retryable=True, hint="delete what is not needed, or raise the namespace's ResourceQuota"
        )
    if "cannot" not in said:  # an admission's own words, which say more than we could
        return KubeForbidden(message)
    rule = f'{{apiGroups: ["{request.kind.group}"], resources: ["{request.resource}"], verbs: ["{request.verb}"]}}'
    where = (
        "a ClusterRole" if not request.kind.namespaced or request.namespace == ALL else f"a Role in {request.namespace}"
    )
    return KubeForbidden(
        message,
        hint=f"give the account {where} with the rule {rule}",
        details={"verb": request.verb, "resource": request.resource},
    )
