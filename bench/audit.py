"""Who wrote what to a Kubernetes API, from its server's audit log: how many writes a deploy costs.

On two cores the API server is the limit, so counts say more than milliseconds, and they are the same on every machine.
The server's metrics count requests too, but not by client.

    plane = ControlPlane(folder, programs, flags={"kube-apiserver": audit.flags(folder)})
    before = audit.position(folder)
    ...deploy...
    audit.count_writes(folder, since=before)      # {"create sandboxclaims": 1, ...}
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

OURS = "vibed/"
"""How the User-Agent of vibeD's own client begins (vibed.cluster.connection)."""
BY_THE_CLOCK = frozenset({"leases"})
"""What is written as time goes by, deploys or none."""

_WRITES = ("create", "update", "patch", "delete", "deletecollection")
_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [{"level": "Metadata", "verbs": list(_WRITES)}, {"level": "None"}],
}
_QUIET_S = 0.5


@dataclass(frozen=True, slots=True)
class Write:
    """One request that wrote, or tried to."""

    agent: str
    verb: str
    resource: str
    """With its subresource: `vibedapps/status`."""
    namespace: str
    name: str
    code: int
    """The answer's HTTP status."""


def flags(folder: Path) -> Sequence[str]:
    """The flags with which an API server keeps its audit log in `folder`; writes the policy there."""
    policy = folder / "audit-policy.json"
    policy.write_text(json.dumps(_POLICY))
    return ("--audit-policy-file", str(policy), "--audit-log-path", str(_log(folder)))


def position(folder: Path) -> int:
    """Where the log ends now, in bytes."""
    return _settled(_log(folder))


def writes(folder: Path, *, since: int = 0) -> list[Write]:
    """All writes after that position, whoever made them; waits until the log is quiet."""
    log = _log(folder)
    end = _settled(log)
    if end <= since:
        return []
    with log.open("rb") as file:
        file.seek(since)
        return list(parse(file.read(end - since).decode()))


def count_writes(
    folder: Path, *, since: int = 0, agent: str = OURS, without: frozenset[str] = BY_THE_CLOCK
) -> Counter[str]:
    """How often those whose User-Agent begins with `agent` wrote, by verb and resource; refused ones count too, since
    the API server worked for them.
    """
    found = (write for write in writes(folder, since=since) if write.agent.startswith(agent))
    return Counter(f"{write.verb} {write.resource}" for write in found if write.resource not in without)


def parse(text: str) -> Iterator[Write]:
    """The lines of an audit log (audit.k8s.io/v1, one Event each); what is not whole is passed over."""
    for line in text.split("\n"):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        about = event.get("objectRef") or {}
        if event.get("stage") != "ResponseComplete" or event.get("verb") not in _WRITES:
            continue
        parts = (about.get("resource", ""), about.get("subresource", ""))
        yield Write(
            agent=event.get("userAgent", ""),
            verb=event["verb"],
            resource="/".join(part for part in parts if part),
            namespace=about.get("namespace", ""),
            name=about.get("name", ""),
            code=int((event.get("responseStatus") or {}).get("code", 0)),
        )


def _log(folder: Path) -> Path:
    return folder / "audit.log"


def _settled(log: Path) -> int:
    """The log's size once it has not grown for a while: an answer may be out before its line is."""
    size = -1
    while size != (now := log.stat().st_size if log.exists() else 0):
        size = now
        time.sleep(_QUIET_S)
    return size
