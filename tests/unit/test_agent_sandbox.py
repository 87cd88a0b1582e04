"""The driver `agent-sandbox` by itself: what it signs, how it names claims, what pods are made of, copies of logs."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.unit.cluster_api import Api
from vibed.apps.app import Resources as Asked
from vibed.apps.app import Runtime, Start
from vibed.cluster.client import Client
from vibed.config import Config
from vibed.controller.placement import Placements, Refusal
from vibed.drivers.agent_sandbox.claims import claim_name, killed_for_memory
from vibed.drivers.agent_sandbox.driver import AgentSandboxDriver, Place
from vibed.drivers.agent_sandbox.line import FIRST_LINE_BYTES
from vibed.drivers.agent_sandbox.log_room import LogRoom
from vibed.drivers.agent_sandbox.mirror import Mirror
from vibed.drivers.agent_sandbox.shelf import Signed
from vibed.drivers.agent_sandbox.signing import ClaimKeyInvalid, ClaimKeys, Pod
from vibed.drivers.agent_sandbox.templates import PodSettings, manifests
from vibed.runtimes.templates import Resources, load_templates
from vibed.sandboxes.driver import Builder, Limits, Run
from vibed.sources.store import ServedStore
from vibed.supervision.runlogs import LogReader

POD = Pod("vibed-apps", "6f1f", "ab" * 32)


@pytest.fixture
def key() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


# signing


def test_a_document_names_pod_claim_token_and_certificate_and_is_signed(key: ed25519.Ed25519PrivateKey) -> None:
    keys = ClaimKeys([key])
    payload, _, signature = keys.documents("todo-7", "uid of the claim", POD)[0].partition(".")
    raw = base64.urlsafe_b64decode(payload + "==")
    key.public_key().verify(base64.urlsafe_b64decode(signature + "=="), b"vibed claim 1\n" + raw)
    said = json.loads(raw)
    assert (said["pod_uid"], said["namespace"], said["claim"]) == ("6f1f", "vibed-apps", "todo-7")
    assert said["certificate_sha256"] == POD.certificate
    (token,) = keys.tokens("uid of the claim", POD)
    assert said["token_sha256"] == hashlib.sha256(token.encode()).hexdigest()
    assert token not in raw.decode()


def test_a_token_is_for_one_claim_one_pod_one_certificate_and_one_key(key: ed25519.Ed25519PrivateKey) -> None:
    keys = ClaimKeys([key])
    others = [
        keys.tokens("another claim", POD),
        keys.tokens("claim", Pod("default", POD.uid, POD.certificate)),
        keys.tokens("claim", Pod(POD.namespace, "another", POD.certificate)),
        keys.tokens("claim", Pod(POD.namespace, POD.uid, "cd" * 32)),
        ClaimKeys([ed25519.Ed25519PrivateKey.generate()]).tokens("claim", POD),
    ]
    assert keys.tokens("claim", POD) == ClaimKeys([key]).tokens("claim", POD)  # nobody has to remember it
    assert len({token for tokens in [keys.tokens("claim", POD), *others] for token in tokens}) == 6


def test_the_key_is_read_from_its_file_and_others_are_refused(key: ed25519.Ed25519PrivateKey, tmp_path: Path) -> None:
    how = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    good, bad, nothing = tmp_path / "good.pem", tmp_path / "bad.pem", tmp_path / "nothing.pem"
    good.write_bytes(key.private_bytes(*how))
    bad.write_bytes(rsa.generate_private_key(65537, 2048).private_bytes(*how))
    nothing.write_text("no key")
    assert base64.b64decode(ClaimKeys.load(good).public) == key.public_key().public_bytes_raw()
    for path in (bad, nothing, tmp_path / "missing.pem"):
        with pytest.raises(ClaimKeyInvalid) as refused:
            ClaimKeys.load(path)
        assert path.name in refused.value.message


def test_the_key_that_was_replaced_is_read_from_beside_it_and_signs_for_those_who_know_it_alone(
    key: ed25519.Ed25519PrivateKey, tmp_path: Path
) -> None:
    how = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    new = ed25519.Ed25519PrivateKey.generate()
    (tmp_path / "key.pem").write_bytes(new.private_bytes(*how))
    (tmp_path / "previous.pem").write_bytes(key.private_bytes(*how))
    keys = ClaimKeys.load(tmp_path / "key.pem")
    assert [base64.b64decode(one) for one in keys.public.split(",")] == [
        new.public_key().public_bytes_raw(),
        key.public_key().public_bytes_raw(),
    ]
    documents = keys.documents("todo-7", "uid", POD)
    assert len(documents) == 2
    for signer, document in zip((new, key), documents, strict=True):
        payload, _, signature = document.partition(".")
        raw = base64.urlsafe_b64decode(payload + "==")
        signer.public_key().verify(base64.urlsafe_b64decode(signature + "=="), b"vibed claim 1\n" + raw)
    assert keys.tokens("uid", POD) == [*ClaimKeys([new]).tokens("uid", POD), *ClaimKeys([key]).tokens("uid", POD)]
    (tmp_path / "previous.pem").write_text("no key")
    with pytest.raises(ClaimKeyInvalid, match=r"previous\.pem"):
        ClaimKeys.load(tmp_path / "key.pem")


# claims


def test_a_claim_is_named_after_its_run_and_never_too_long() -> None:
    assert claim_name("todo", 7) == "todo-7"
    assert claim_name("todo", 7, 2) == "todo-7-r2"
    long = "a" * 63
    names = {claim_name(long, 7), claim_name("a" * 62 + "b", 7), claim_name(long, 8), claim_name(long, 7, 3)}
    assert len(names) == 4
    assert all(len(name) <= 63 for name in names)
    assert claim_name("a" * 50 + "-" * 8 + "bbbbb", 7)[:50] == "a" * 50


@pytest.mark.parametrize("state", ["state", "lastState"])
def test_a_pod_that_was_killed_for_its_memory_is_known_by_its_container(state: str) -> None:
    assert killed_for_memory({"status": {"containerStatuses": [{state: {"terminated": {"reason": "OOMKilled"}}}]}})
    assert not killed_for_memory({"status": {"containerStatuses": [{state: {"terminated": {"reason": "Error"}}}]}})
    assert not killed_for_memory({"status": {}})


# what pods are given


async def test_a_builder_reaches_nothing_and_is_sent_what_an_app_gets_for_itself(
    key: ed25519.Ed25519PrivateKey, tmp_path: Path
) -> None:
    source = tmp_path / f"{'a' * 64}.tar.gz"
    source.write_bytes(b"an archive")
    store = ServedStore(tmp_path / "sources", key=bytes(32), base_url="https://bucket.example")
    place = Place("apps", lambda app_id: None, lambda app, run: tmp_path / "log")
    client = cast(Client, Api())
    driver = AgentSandboxDriver(client, place, ClaimKeys([key]), SETTINGS, shelf=Signed(store), builder=Builder())
    sent: list[Path] = []

    async def send(file: Path) -> str:
        sent.append(file)
        return "a" * 64

    async def ask(op: str, timeout: float, **arguments: object) -> dict[str, object]:
        raise AssertionError(op)

    runtime = Runtime("general", "python-313", "python", "app.py", "", start=Start(("python3", "app.py")))
    run = Run("todo", 1, 1, source, runtime, {}, Limits())
    given = (await driver.order(run, send, ask, builder=False))["source"]
    assert isinstance(given, dict) and given["url"].startswith("https://bucket.example")
    assert sent == []
    given = (await driver.order(run, send, ask, builder=True))["source"]
    assert given == {"sha256": "a" * 64, "size": 10}
    assert sent == [source]


# templates


@dataclass(frozen=True)
class Small:
    name: str = "python-313"
    kind: str = "python"
    resources: Resources = Resources(memory_mb=512, cpus=1.5, disk_mb=400)
    unavailable: str | None = None
    definition_digest: str = "d" * 64


SETTINGS = PodSettings("registry.example/vibed", "1.2.3", runtime_class="gvisor")


def test_a_template_and_its_pool_are_these_objects() -> None:
    template, pool = manifests(Small(), SETTINGS, "key one,key two", 3)
    labels = {"app.kubernetes.io/managed-by": "vibed", "vibed.dev/template": "python-313"}
    metadata = {"name": "python-313", "labels": labels, "annotations": {"vibed.dev/template-digest": "d" * 64}}
    assert pool == {
        "apiVersion": "extensions.agents.x-k8s.io/v1beta1",
        "kind": "SandboxWarmPool",
        "metadata": metadata,
        "spec": {
            "replicas": 3,
            "sandboxTemplateRef": {"name": "python-313"},
            "updateStrategy": {"type": "Recreate"},
        },
    }
    assert template == {
        "apiVersion": "extensions.agents.x-k8s.io/v1beta1",
        "kind": "SandboxTemplate",
        "metadata": metadata,
        "spec": {
            "networkPolicyManagement": "Unmanaged",
            "podTemplate": {
                "metadata": {"labels": {"vibed.dev/pool": "apps", "vibed.dev/template": "python-313"}},
                "spec": {
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": 10,
                    "runtimeClassName": "gvisor",
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 1000,
                        "runAsGroup": 1000,
                        "fsGroup": 1000,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [
                        {
                            "name": "app",
                            "image": "registry.example/vibed/vibed-template-python-313:1.2.3",
                            "imagePullPolicy": "IfNotPresent",
                            "command": ["/usr/lib/vibed/vibed-agent", "pod"],
                            "workingDir": "/",
                            "env": [
                                {"name": "VIBED_CLAIM_KEYS", "value": "key one,key two"},
                                {"name": "VIBED_TEMPLATE", "value": "python-313"},
                                {"name": "VIBED_TEMPLATE_DIGEST", "value": "d" * 64},
                                {"name": "VIBED_POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
                                {
                                    "name": "VIBED_POD_NAMESPACE",
                                    "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}},
                                },
                            ],
                            "ports": [
                                {"name": "app", "containerPort": 20080},
                                {"name": "control", "containerPort": 20081},
                                {"name": "probes", "containerPort": 20082},
                            ],
                            "readinessProbe": {
                                "httpGet": {"path": "/readyz", "port": "probes"},
                                "periodSeconds": 1,
                                "timeoutSeconds": 2,
                                "failureThreshold": 3,
                            },
                            "resources": {
                                "requests": {"cpu": "50m", "memory": "152Mi", "ephemeral-storage": "100Mi"},
                                "limits": {"cpu": "1500m", "memory": "608Mi", "ephemeral-storage": "3900Mi"},
                            },
                            "securityContext": {
                                "allowPrivilegeEscalation": False,
                                "readOnlyRootFilesystem": True,
                                "runAsNonRoot": True,
                                "capabilities": {"drop": ["ALL"]},
                            },
                            "volumeMounts": [
                                {"name": "app", "mountPath": "/app"},
                                {"name": "home", "mountPath": "/home/app"},
                                {"name": "tmp", "mountPath": "/tmp"},
                                {"name": "layers", "mountPath": "/layers"},
                                {"name": "agent", "mountPath": "/run/vibed"},
                            ],
                        }
                    ],
                    "volumes": [
                        {"name": "app", "emptyDir": {"sizeLimit": "400Mi"}},
                        {"name": "home", "emptyDir": {"sizeLimit": "100Mi"}},
                        {"name": "tmp", "emptyDir": {"sizeLimit": "200Mi"}},
                        {"name": "layers", "emptyDir": {"sizeLimit": "2400Mi"}},
                        {"name": "agent", "emptyDir": {"sizeLimit": "800Mi"}},
                    ],
                    "tolerations": [
                        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}
                        for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
                    ],
                },
            },
        },
    }


def test_an_operator_says_where_pods_run_and_with_what_images_are_pulled() -> None:
    settings = PodSettings(
        "r", "t", node_selector={"pool": "kata"}, tolerations=[{"key": "kata"}], pull_secrets=["registry"]
    )
    template, _ = manifests(Small(), settings, "", 0)
    pod = template["spec"]["podTemplate"]["spec"]
    assert "runtimeClassName" not in pod
    assert (pod["nodeSelector"], pod["tolerations"][0]) == ({"pool": "kata"}, {"key": "kata"})
    assert pod["imagePullSecrets"] == [{"name": "registry"}]


def test_an_operator_may_say_how_long_pods_stay_on_a_node_that_is_gone() -> None:
    long = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "tolerationSeconds": 600}
    template, _ = manifests(Small(), PodSettings("r", "t", tolerations=[long]), "", 0)
    said = {one["key"]: one["tolerationSeconds"] for one in template["spec"]["podTemplate"]["spec"]["tolerations"]}
    assert said == {"node.kubernetes.io/unreachable": 600, "node.kubernetes.io/not-ready": 30}
    template, _ = manifests(Small(), PodSettings("r", "t", tolerations=[{"operator": "Exists"}]), "", 0)
    assert template["spec"]["podTemplate"]["spec"]["tolerations"] == [{"operator": "Exists"}]


@pytest.mark.parametrize("site_pod_mb", [64, 512, 4096])
def test_a_pod_of_sites_has_room_for_all_of_them_and_for_their_archives(site_pod_mb: int) -> None:
    template, _ = manifests(load_templates()["static-nginx"], PodSettings("r", "t", site_pod_mb=site_pod_mb), "", 0)
    pod = template["spec"]["podTemplate"]["spec"]
    sizes = {one["name"]: int(one["emptyDir"]["sizeLimit"].removesuffix("Mi")) for one in pod["volumes"]}
    assert sizes["app"] >= 2 * site_pod_mb
    assert sizes["agent"] > site_pod_mb


def test_in_a_workers_pod_the_agent_is_told_what_the_worker_is_run_by() -> None:
    template, _ = manifests(load_templates()["workerd"], PodSettings("r", "t"), "", 0)
    (container,) = template["spec"]["podTemplate"]["spec"]["containers"]
    assert container["command"][:5] == ["/usr/lib/vibed/vibed-agent", "pod", "--", "/usr/bin/workerd", "serve"]
    assert container["command"][-1] == "/usr/lib/vibed/worker/shim.capnp"


def test_an_app_whose_template_has_no_pods_is_refused_and_does_not_wait_for_them(tmp_path: Path) -> None:
    placements = Placements(Config(tmp_path), load_templates(), {}, only="agent-sandbox")
    refused = placements.place(Runtime("general", "base-al2023", "binary", "", ""), Asked())
    assert isinstance(refused, Refusal)
    assert refused.reason == "TemplateUnavailable"
    assert "python-313" in refused.message


# the copy of a log


def line(seq: object, text: object = "x", **more: object) -> dict[str, object]:
    return {"seq": seq, "ts": 1764000000.5, "stream": "stdout", "text": text, **more}


def test_a_log_is_copied_so_that_it_is_read_as_every_other(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path / "todo" / "0000000007")
    mirror.add([line(1, "one"), line(2, "two", cont=True)])
    mirror.add([line(2, "again"), line(3, "three", stream="system")])
    mirror.say(1764000001.0, "the pod is gone")
    read = [(one.seq, one.stream, one.text) for one, _ in LogReader(tmp_path / "todo").read(10)]
    assert read == [
        (1, "stdout", "one"),
        (2, "stdout", "two"),
        (3, "system", "three"),
        (4, "system", "the pod is gone"),
    ]
    assert Mirror(tmp_path / "todo" / "0000000007").after == 4


def test_copies_of_logs_take_no_more_than_their_room_and_the_oldest_lines_go_first(tmp_path: Path) -> None:
    room = LogRoom(tmp_path, 40_000)
    mirrors = [Mirror(tmp_path / f"app-{number}" / "0000000001", room) for number in range(5)]
    text, taken = "x" * 1000, []
    for seq in range(1, 31):
        for mirror in mirrors:
            mirror.add([line(seq, text)])
        taken.append(sum(one.stat().st_size for one in tmp_path.rglob("*.jsonl")))
    assert max(taken) <= 40_000
    assert max(taken) > 20_000, "there is room for some"
    read = [one.seq for one, _ in LogReader(tmp_path / "app-4").read(100)]
    assert read == list(range(read[0], 31)), "what is left is the end of it, without a gap"
    assert mirrors[0].after == 30


def test_what_a_pod_says_that_is_no_line_is_left_out(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path / "todo" / "0000000007")
    mirror.add(
        ["text", None, line("1"), line(0), line(2**60), line(1, ["no text"]), line(1, "y" * 100_000, stream="x")]
    )
    ((only, _),) = LogReader(tmp_path / "todo").read(10)
    assert (only.seq, only.stream, len(only.text)) == (1, "stdout", 16 << 10)


def test_a_copy_is_rotated_as_the_original(tmp_path: Path) -> None:
    folder = tmp_path / "todo" / "0000000007"
    mirror = Mirror(folder)
    for start in range(1, 3_001, 100):
        mirror.add([line(seq, "z" * 3_000) for seq in range(start, start + 100)])
    assert all(file.stat().st_size <= 4 << 20 for file in folder.iterdir())
    assert sorted(file.name for file in folder.iterdir()) == ["log.1.jsonl", "log.jsonl"]
    assert LogReader(tmp_path / "todo").read(10_000)[-1][0].seq == 3_000


def test_the_first_line_that_is_sent_is_as_long_as_the_agent_reads() -> None:
    gate = (Path(__file__).parents[2] / "agent" / "pod" / "gate.go").read_text()
    assert f"proofBytes = {FIRST_LINE_BYTES >> 10} << 10" in gate
