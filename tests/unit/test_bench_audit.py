"""What a deploy costs an API server is counted from its audit log."""

from __future__ import annotations

import json
from pathlib import Path

from bench import audit


def line(verb: str, resource: str, agent: str = "vibed/0.5.0", stage: str = "ResponseComplete", **more: object) -> str:
    about = {"resource": resource, "namespace": "vibed-apps", "name": "one"} | more
    event = {"verb": verb, "userAgent": agent, "stage": stage, "objectRef": about, "responseStatus": {"code": 201}}
    return json.dumps(event) + "\n"


def test_only_our_own_writes_of_this_time_are_counted_and_none_that_the_clock_makes(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_text(line("create", "vibedapps"))
    before = audit.position(tmp_path)
    with log.open("a") as file:
        file.write(line("create", "sandboxclaims"))
        file.write(line("patch", "vibedapps", subresource="status") * 2)
        file.write(line("patch", "sandboxes", agent="agent-sandbox-controller/v0"))
        file.write(line("update", "leases"))
        file.write(line("get", "vibedapps"))
        file.write(line("create", "secrets", stage="RequestReceived"))
        file.write(line("delete", "sandboxclaims")[:-9])  # still being written
    assert audit.count_writes(tmp_path, since=before) == {"create sandboxclaims": 1, "patch vibedapps/status": 2}
    assert audit.count_writes(tmp_path)["create vibedapps"] == 1
    assert [write.verb for write in audit.writes(tmp_path, since=before)] == [
        "create",
        "patch",
        "patch",
        "patch",
        "update",
    ]


def test_an_api_server_keeps_writes_alone_in_its_log(tmp_path: Path) -> None:
    name, policy, *_ = audit.flags(tmp_path)
    rules = json.loads(Path(policy).read_text())["rules"]
    assert name == "--audit-policy-file"
    assert [rule["level"] for rule in rules] == ["Metadata", "None"]


def test_a_log_that_is_not_there_yet_has_nothing_in_it(tmp_path: Path) -> None:
    assert audit.position(tmp_path) == 0
    assert audit.count_writes(tmp_path) == {}
