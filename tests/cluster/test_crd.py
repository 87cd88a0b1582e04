"""The definition of a VibedApp on a real API server: what it takes, refuses and shows, and how it is upgraded."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.cluster import Cluster, Namespace, Refused
from tests.cluster.crds import until_established
from tests.cluster.vibed_apps import CRD
from vibed.cluster import definition
from vibed.cluster.client import Client
from vibed.cluster.kinds import VIBED_APP, Object

NAME = "vibedapps.vibed.dev"
UPSTREAM = Path(__file__).parent / "upstream_crd.yaml"

MANIFEST = """
apiVersion: vibed.dev/v1alpha1
kind: VibedApp
metadata:
  name: "2048"
spec:
  owner: alice
  source:
    tarballRef: sources/2048.tar.gz
  runtime:
    lane: general
    template: node-24
    entrypoint: node server.js
    env:
      - name: GREETING
        value: hello
  resources:
    cpu: "1"
  ttl: 1h30m
"""
"""As one is written for the existing definition."""


def app(name: str = "todo", **spec: Any) -> dict[str, Any]:
    """A VibedApp; `a__b=c` sets what is within."""
    said: dict[str, Any] = {"owner": "alice", "source": {"tarballRef": "x"}, "runtime": {"lane": "general"}}
    for path, value in spec.items():
        *within, last = path.split("__")
        place = said
        for part in within:
            place = place.setdefault(part, {})
        place[last] = value
    return {"apiVersion": "vibed.dev/v1alpha1", "kind": "VibedApp", "metadata": {"name": name}, "spec": said}


def stored(cluster: Cluster, body: Any) -> Any:
    """What the server would store."""
    return json.loads(cluster.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", given=body))


# what it takes and refuses


def test_a_manifest_for_the_existing_definition_applies_unchanged(apps_namespace: Namespace) -> None:
    apps_namespace.kubectl("apply", "-f", "-", given=MANIFEST)
    wanted = yaml.safe_load(MANIFEST)["spec"]
    there = apps_namespace.get("vapp", "2048")["spec"]
    assert there == {**wanted, "resources": {"cpu": "1", "memory": "256Mi"}}
    assert "unchanged" in apps_namespace.kubectl("apply", "-f", "-", given=MANIFEST)


def test_what_is_left_out_has_the_defaults_of_the_existing_definition(vibed_cluster: Cluster) -> None:
    assert stored(vibed_cluster, app())["spec"] == {
        "owner": "alice",
        "source": {"tarballRef": "x"},
        "runtime": {"lane": "general"},
        "resources": {"cpu": "500m", "memory": "256Mi"},
        "ttl": "30m",
    }


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.b", "an app's name is its DNS label"),
        ("xn--a", "the third and fourth character cannot both be hyphens"),
        ("a" * 64, "an app's name is its DNS label"),
        *((name, "are reserved") for name in ("vibed", "api", "www", "localhost")),
    ],
)
def test_a_name_that_cannot_be_reached_is_refused(vibed_cluster: Cluster, name: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        stored(vibed_cluster, app(name))


@pytest.mark.parametrize("name", ["a", "2048", "a-b", "a" * 63])
def test_any_dns_label_is_a_name(vibed_cluster: Cluster, name: str) -> None:
    assert stored(vibed_cluster, app(name))["metadata"]["name"] == name


@pytest.mark.parametrize(
    ("said", "spec"),
    [
        ("spec.runtime.lane: Unsupported value", {"runtime__lane": "slow"}),
        ("spec.runtime.env\\[1\\]: Duplicate value", {"runtime__env": [{"name": "A"}, {"name": "A"}]}),
        ("spec.env\\[1\\]: Duplicate value", {"env": [{"name": "A"}, {"name": "A"}]}),
        ("spec.env\\[0\\].name", {"env": [{"name": "1A"}]}),
        ("spec.env\\[0\\].name", {"env": [{"name": "A-B"}]}),
        ("must be a quantity", {"resources__cpu": "much"}),
        ("must be a quantity", {"resources__cpu": 0}),
        ("must be a quantity", {"resources__memory": "-1Mi"}),
        ("spec.ttl", {"ttl": "tomorrow"}),
        ("spec.runtime.port", {"runtime__port": 65536}),
        ("spec.source.digest", {"source__digest": "abc"}),
        ("say where the source is", {"source": {}}),
        ("spec.visibility: Unsupported value", {"visibility": "everyone"}),
        ("spec.egress.allowedHosts", {"egress__allowedHosts": ["https://example.com/"]}),
        ("unknown field", {"nonsense": 1}),
        ("Required value", {"owner": None}),
    ],
)
def test_a_spec_that_cannot_be_is_refused_by_its_field(vibed_cluster: Cluster, said: str, spec: dict[str, Any]) -> None:
    with pytest.raises(Refused, match=said):
        stored(vibed_cluster, app(**spec))


@pytest.mark.parametrize(
    "spec",
    [
        {"resources__cpu": 2, "resources__memory": "1.5Gi"},
        {"ttl": "1h2m3.5s"},
        {"ttl": "0s"},
        {"source": {"gitRef": "https://example.com/a.git#main"}},
        {"source": {"digest": "0" * 64}},
        {"egress__allowedHosts": ["api.example.com", "*.example.com", "db.example.com:5432"]},
        {"secretRefs": [{"name": "openai", "env": "OPENAI_API_KEY"}, {"name": "other"}], "visibility": "private"},
        {"decision": {"anything": {"at": ["all"]}, "start": {"argv": ["a"]}}, "version": 3},
    ],
)
def test_a_spec_that_may_be_is_taken_as_it_is(vibed_cluster: Cluster, spec: dict[str, Any]) -> None:
    wanted = app(**spec)["spec"]
    there = stored(vibed_cluster, app(**spec))["spec"]
    assert {name: there[name] for name in wanted} == wanted


def test_an_app_keeps_its_owner(apps_namespace: Namespace) -> None:
    apps_namespace.apply(app())
    with pytest.raises(Refused, match="an app keeps its owner"):
        apps_namespace.apply(app(owner="bob"))
    apps_namespace.apply(app(ttl="2h"))


# what kubectl shows and waits for


def test_kubectl_shows_how_an_app_stands(apps_namespace: Namespace) -> None:
    apps_namespace.apply(app())
    status = {
        "phase": "Ready", "reason": "Running", "url": "https://todo.apps.test", "template": "node-24",
        "servingVersion": 3, "isolation": "kernel",
    }  # fmt: skip
    _set_status(apps_namespace, "todo", status)
    head, row = apps_namespace.kubectl("get", "vapp").splitlines()
    assert head.split() == ["NAME", "PHASE", "URL", "RUNTIME", "VERSION", "AGE"]
    assert row.split()[:-1] == ["todo", "Ready", "https://todo.apps.test", "node-24", "3"]
    head, row = apps_namespace.kubectl("get", "vapp", "-o", "wide").splitlines()
    assert head.split()[-3:] == ["OWNER", "ISOLATION", "REASON"]
    assert row.split()[-3:] == ["alice", "kernel", "Running"]


def test_kubectl_waits_until_an_app_is_ready(apps_namespace: Namespace) -> None:
    apps_namespace.apply(app())
    with pytest.raises(Refused, match="timed out"):
        apps_namespace.kubectl("wait", "--for=condition=Ready", "vapp/todo", "--timeout=1s")
    ready = {"type": "Ready", "status": "True", "reason": "Running", "message": "", "observedGeneration": 1}
    _set_status(apps_namespace, "todo", {"conditions": [{**ready, "lastTransitionTime": "2026-11-30T20:00:00Z"}]})
    apps_namespace.kubectl("wait", "--for=condition=Ready", "vapp/todo", "--timeout=10s")
    apps_namespace.apply(app(runtime__entrypoint="other"))
    with pytest.raises(Refused, match="timed out"):
        apps_namespace.kubectl("wait", "--for=condition=Ready", "vapp/todo", "--timeout=1s")


def test_apps_are_selected_by_owner(apps_namespace: Namespace) -> None:
    apps_namespace.apply([app("one"), app("two", owner="bob")])
    there = apps_namespace.kubectl("get", "vapp", "--field-selector=spec.owner=bob", "-o", "name").split()
    assert there == ["vibedapp.vibed.dev/two"]


def test_who_writes_the_spec_cannot_write_the_status_on_the_way(apps_namespace: Namespace) -> None:
    apps_namespace.apply({**app(), "status": {"phase": "Ready"}})
    assert "status" not in apps_namespace.get("vapp", "todo")


def _set_status(namespace: Namespace, name: str, status: dict[str, Any]) -> None:
    body = json.dumps({"status": status})
    namespace.kubectl("patch", "vapp", name, "--subresource=status", "--type=merge", "-p", body)


# coming into a cluster, and being upgraded there


@pytest.fixture
def definitions(vibed_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, whose definition of a VibedApp is ours again afterwards."""
    yield vibed_cluster
    vibed_cluster.kubectl("delete", "crd", NAME, "--ignore-not-found", "--timeout=30s")
    vibed_cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRD))
    until_established(vibed_cluster.kubectl, f"crd/{NAME}")


@pytest.fixture
async def client(definitions: Cluster) -> AsyncIterator[Client]:
    made = Client.connect(kubeconfig=definitions.config)
    yield made
    await made.close()


def _with(change: Any, *, schema: int) -> Object:
    """Ours with another schema."""
    crd = copy.deepcopy(definition.ours())
    crd["metadata"]["annotations"][definition.SCHEMA] = str(schema)
    change(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"])
    return crd


def _newer() -> Object:
    return _with(lambda of: of["spec"]["properties"].update(mood={"type": "string"}), schema=9)


def _older() -> Object:
    def without(of: dict[str, Any]) -> None:
        del of["spec"]["properties"]["egress"], of["status"]["properties"]["refusedGeneration"]

    return _with(without, schema=0)


async def test_it_comes_into_an_empty_cluster_and_is_served_when_it_is_said_to_be(
    definitions: Cluster, client: Client
) -> None:
    definitions.kubectl("delete", "crd", NAME, "--timeout=30s")
    assert (await definition.apply(client, dry_run=True)).action == "created"
    assert definitions.kubectl("get", "crd", NAME, "--ignore-not-found") == ""
    assert (await definition.apply(client)).action == "created"
    assert (await client.objects(VIBED_APP)).items == []
    again = await definition.apply(client)
    assert (again.action, list(again.changes), again.schema) == (
        "unchanged",
        [],
        definition.schema_of(definition.ours()),
    )


async def test_the_existing_definition_is_upgraded_and_its_apps_stay_as_they_are(
    definitions: Cluster, client: Client, apps_namespace: Namespace
) -> None:
    definitions.kubectl("delete", "crd", NAME, "--timeout=30s")
    definitions.kubectl("apply", "-f", str(UPSTREAM))
    until_established(definitions.kubectl, f"crd/{NAME}")
    # ours would not let the second one in; it has to be usable and to go all the same
    apps_namespace.kubectl("apply", "-f", "-", given=MANIFEST)
    apps_namespace.kubectl("apply", "-f", "-", given=json.dumps(app("api", runtime__env=[{"name": "A"}])))
    _set_status(apps_namespace, "2048", {"phase": "Ready", "podIP": "10.0.0.7", "sandboxRef": "claim"})
    before = apps_namespace.get("vapp", "2048")
    done = await definition.apply(client)
    assert done.action == "changed"
    assert {"spec.decision: new", "spec.egress.allowedHosts: new", "columns: changed"} <= set(done.changes)
    assert not [change for change in done.changes if change.endswith(": gone")]
    after = apps_namespace.get("vapp", "2048")
    assert (after["spec"], after["status"], after["metadata"]["generation"]) == (before["spec"], before["status"], 1)
    assert "unchanged" in apps_namespace.kubectl("apply", "-f", "-", given=MANIFEST)
    apps_namespace.kubectl("annotate", "vapp", "api", "note=kept")
    apps_namespace.kubectl("delete", "vapp", "api", "--timeout=20s")


async def test_an_older_definition_of_ours_is_upgraded_and_says_what_is_new(client: Client) -> None:
    await definition.apply(client, crd=_older(), downgrade=True)
    tried = await definition.apply(client, dry_run=True)
    done = await definition.apply(client)
    assert list(done.changes) == list(tried.changes)
    assert {"spec.egress: new", "status.refusedGeneration: new", "schema: 0 before, 1 now"} <= set(done.changes)


async def test_a_newer_definition_is_left_in_place(client: Client) -> None:
    assert (await definition.apply(client, crd=_newer())).schema == 9
    done = await definition.apply(client)
    assert (done.action, done.schema) == ("kept", 9)


async def test_going_back_is_refused_while_an_app_has_something_in_a_field_that_would_go(
    definitions: Cluster, client: Client, apps_namespace: Namespace
) -> None:
    await definition.apply(client, crd=_newer())
    apps_namespace.apply([app("glad", mood="glad"), app("plain")])
    with pytest.raises(definition.DefinitionWouldDrop, match=r"spec\.mood of .*/glad") as caught:
        await definition.apply(client, downgrade=True)
    assert caught.value.extra["fields"] == ["spec.mood"]
    assert apps_namespace.get("vapp", "glad")["spec"]["mood"] == "glad"
    apps_namespace.kubectl("delete", "vapp", "glad")
    done = await definition.apply(client, downgrade=True)
    assert "spec.mood: gone" in done.changes


async def test_names_that_another_definition_has_are_told(definitions: Cluster, client: Client) -> None:
    definitions.kubectl("delete", "crd", NAME, "--timeout=30s")
    other = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "others.vibed.dev"},
        "spec": {
            "group": "vibed.dev",
            "scope": "Namespaced",
            "names": {"kind": "Other", "plural": "others", "singular": "other", "shortNames": ["vapp"]},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
            ],
        },
    }
    definitions.apply(other)
    until_established(definitions.kubectl, "crd/others.vibed.dev")
    try:
        with pytest.raises(definition.DefinitionRefused, match="vapp"):
            await definition.apply(client)
    finally:
        definitions.kubectl("delete", "crd", "others.vibed.dev", "--timeout=30s")


def test_the_command_says_what_it_does(definitions: Cluster) -> None:
    def vibed(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "vibed.cli.main", "crds", *arguments], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = ("--kubeconfig", str(definitions.config))
    definitions.kubectl("delete", "crd", NAME, "--timeout=30s")
    assert vibed("apply", "--dry-run", *where) == f"{NAME}: would be created\n"
    assert vibed("apply", *where) == f"{NAME}: created\n"
    assert vibed("apply", *where) == f"{NAME}: as it should be\n"
    assert json.loads(vibed("apply", "--json", *where))["action"] == "unchanged"
    assert yaml.safe_load(vibed("show")) == definition.ours()
