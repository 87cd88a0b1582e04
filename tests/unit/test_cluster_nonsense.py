"""What somebody may write into the annotations of a VibedApp ends no process that follows apps."""

from __future__ import annotations

import json

import pytest

from vibed.cluster import domains, ledger, names
from vibed.cluster.kinds import Object
from vibed.cluster.memory import facts_of

LINE = {"number": 1, "digest": "d", "size": 1, "created_at": 1.0, "created_by": "x", "what": "w", "rest": "r"}
NONSENSE = [
    "",
    "nonsense",
    "[]",
    "null",
    "[" * 100_000,
    '{"created_at": 1, "changes": 1, "lines": []}',
    '{"created_at": 1, "changes": 1e999, "lines": [' + json.dumps(LINE) + "]}",
    json.dumps({"created_at": 1, "changes": 1, "lines": [LINE | {"created_at": "yesterday"}]}),
    json.dumps({"created_at": 1, "changes": 1, "lines": [LINE | {"number": None}]}),
    json.dumps({"created_at": 1, "changes": 1, "lines": [LINE | {"resources": "all"}]}),
    json.dumps({"created_at": 1, "changes": 1, "lines": [LINE], "events": {"a": "b"}}),
    json.dumps({"created_at": 1, "changes": 1, "lines": ["one"]}),
]
PLACE = {"app_id": "app", "token": "t", "created_at": 1, "created_by": "x", "verified_at": 1}


def app(annotation: str, text: str) -> Object:
    return {
        "metadata": {
            "name": "app",
            "uid": "u",
            "generation": 1,
            "creationTimestamp": "2026-12-01T00:00:00Z",
            "annotations": {annotation: text},
        },
        "spec": {"owner": "o"},
    }


@pytest.mark.parametrize("text", NONSENSE)
def test_a_ledger_that_is_none_is_an_app_of_which_no_version_was_made(text: str) -> None:
    facts = facts_of(app(ledger.LEDGER, text))
    assert (facts.owner, facts.deployed_at, facts.unsettled) == ("o", None, False)


def test_a_ledger_that_is_one_is_read() -> None:
    text = json.dumps({"created_at": 1, "changes": 1, "lines": [LINE]})
    read = ledger.read(app(ledger.LEDGER, text))
    assert read is not None and read.newest.created_at == 1.0


@pytest.mark.parametrize(
    "text",
    [
        *NONSENSE,
        json.dumps([PLACE | {"name": "\ud800"}]),
        json.dumps([PLACE | {"name": "b\u00fccher.example"}]),
        json.dumps([PLACE | {"name": 7}]),
        json.dumps([PLACE | {"name": ["a"]}]),
        json.dumps([PLACE | {"name": "x" * 100_000}]),
    ],
)
def test_domains_that_are_none_lead_nowhere(text: str) -> None:
    assert domains.led_to(app(names.DOMAINS, text), lambda claim: None) == []
