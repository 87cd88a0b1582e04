"""The client against a real API: what is written, what is refused and in which words, tokens that change."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Cluster, Namespace, Refused
from tests.cluster.control_plane import ControlPlane, kubeconfig
from tests.cluster.crds import until_established
from tests.cluster.pki import Authority
from tests.e2e.waiting import eventually
from vibed.cluster.client import Client
from vibed.cluster.connection import Connection
from vibed.cluster.errors import (
    KubeConflict,
    KubeExists,
    KubeForbidden,
    KubeGone,
    KubeInvalid,
    KubeNotFound,
    KubeUnavailable,
)
from vibed.cluster.kinds import (
    ALL,
    CONFIG_MAP,
    CRD,
    LEASE,
    NAMESPACE,
    SANDBOX_TEMPLATE,
    SANDBOX_WARM_POOL,
    SECRET,
    Kind,
    Object,
)


@pytest.fixture
async def client(cluster: Cluster, namespace: Namespace) -> AsyncIterator[Client]:
    one = Client.connect(kubeconfig=cluster.config, namespace=namespace.name)
    yield one
    await one.close()


async def test_a_certificate_without_a_key_identifier_is_trusted_by_pythons_that_are_strict_unless_told(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = ssl.create_default_context

    def of_python_3_13(*args: Any, **more: Any) -> ssl.SSLContext:
        context = default(*args, **more)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", of_python_3_13)
    client = Client.connect(kubeconfig=cluster.config)
    try:
        assert (await client.version())["gitVersion"].startswith("v1.")
    finally:
        await client.close()


def config_map(name: str, **data: str) -> Object:
    return {"metadata": {"name": name}, "data": data}


async def test_an_object_is_made_read_replaced_merged_and_deleted(client: Client) -> None:
    made = await client.create(CONFIG_MAP, config_map("one", a="1", b="1"))
    assert (await client.get(CONFIG_MAP, "one")) == made
    assert (made["kind"], "managedFields" in made["metadata"]) == ("ConfigMap", False)
    replaced = await client.replace(CONFIG_MAP, {**made, "data": {"a": "2", "b": "2"}})
    assert replaced["data"] == {"a": "2", "b": "2"}
    merged = await client.patch(CONFIG_MAP, "one", {"data": {"a": None, "c": "3"}})
    assert merged["data"] == {"b": "2", "c": "3"}
    await client.delete(CONFIG_MAP, "one")
    with pytest.raises(KubeNotFound):
        await client.get(CONFIG_MAP, "one")
    await client.delete(CONFIG_MAP, "one")


async def test_an_object_that_is_there_is_not_made_again(client: Client) -> None:
    await client.create(CONFIG_MAP, config_map("one"))
    with pytest.raises(KubeExists, match="already exists"):
        await client.create(CONFIG_MAP, config_map("one"))


async def test_who_writes_to_an_old_version_is_told(client: Client) -> None:
    old = await client.create(CONFIG_MAP, config_map("one", a="1"))
    await client.patch(CONFIG_MAP, "one", {"data": {"a": "2"}})
    with pytest.raises(KubeConflict):
        await client.replace(CONFIG_MAP, {**old, "data": {"a": "3"}})
    bound = {"metadata": {"resourceVersion": old["metadata"]["resourceVersion"]}, "data": {"a": "3"}}
    with pytest.raises(KubeConflict):
        await client.patch(CONFIG_MAP, "one", bound)
    with pytest.raises(KubeConflict):
        await client.delete(CONFIG_MAP, "one", resource_version=old["metadata"]["resourceVersion"])
    assert (await client.get(CONFIG_MAP, "one"))["data"] == {"a": "2"}


async def test_another_object_of_the_same_name_is_not_deleted(client: Client) -> None:
    first = await client.create(CONFIG_MAP, config_map("one"))
    await client.delete(CONFIG_MAP, "one", uid=first["metadata"]["uid"])
    second = await client.create(CONFIG_MAP, config_map("one"))
    await client.delete(CONFIG_MAP, "one", uid=first["metadata"]["uid"])
    assert (await client.get(CONFIG_MAP, "one"))["metadata"]["uid"] == second["metadata"]["uid"]


async def test_an_apply_makes_changes_and_takes_its_own_fields_away_and_no_others(client: Client) -> None:
    await client.apply(CONFIG_MAP, config_map("one", a="1", b="1"))
    await client.apply(CONFIG_MAP, config_map("one", x="theirs"), manager="another")
    applied = await client.apply(CONFIG_MAP, config_map("one", a="2"))
    assert applied["data"] == {"a": "2", "x": "theirs"}
    with pytest.raises(KubeConflict, match="another"):
        await client.apply(CONFIG_MAP, config_map("one", x="ours"), force=False)


async def test_a_status_is_written_through_its_subresource_alone(client: Client) -> None:
    pool = {"metadata": {"name": "p"}, "spec": {"replicas": 0, "sandboxTemplateRef": {"name": "none"}}}
    await client.create(SANDBOX_WARM_POOL, pool)
    written = await client.patch(SANDBOX_WARM_POOL, "p", {"status": {"replicas": 7}}, subresource="status")
    assert written["status"]["replicas"] == 7
    ignored = await client.patch(SANDBOX_WARM_POOL, "p", {"spec": {"replicas": 3}}, subresource="status")
    assert ignored["spec"]["replicas"] == 0


async def test_a_kind_or_a_namespace_that_is_not_there_is_named(client: Client) -> None:
    with pytest.raises(KubeNotFound) as missing:
        await client.get(Kind("nowhere.example", "v1", "things", "Thing"), "one")
    assert missing.value.hint == "is things.nowhere.example (v1) installed in the cluster?"
    with pytest.raises(KubeNotFound, match='namespaces "none" not found'):
        await client.create(CONFIG_MAP, config_map("one"), namespace="none")


async def test_an_object_that_the_api_does_not_accept_is_told_in_its_words(client: Client) -> None:
    with pytest.raises(KubeInvalid, match=r"metadata\.name"):
        await client.create(CONFIG_MAP, config_map("Not_A_Name"))
    with pytest.raises(KubeInvalid, match="field not declared in schema"):
        body = {"metadata": {"name": "p"}, "spec": {"sandboxTemplateRef": {"name": "n"}, "no_such": 1}}
        await client.apply(SANDBOX_WARM_POOL, body)
    with pytest.raises(KubeInvalid, match="may not be more than 1048576 bytes"):
        await client.create(CONFIG_MAP, config_map("one", a="x" * 1_100_000))
    # of other kinds only etcd knows a limit, and the API server says 500
    with pytest.raises(KubeInvalid, match="etcdserver: request is too large"):
        pool = {"metadata": {"name": "p", "annotations": {}}, "spec": {"sandboxTemplateRef": {"name": "n"}}}
        large = {"podTemplate": {"spec": {"containers": [{"name": "a", "image": "i", "args": ["x" * 2_000_000]}]}}}
        await client.create(SANDBOX_TEMPLATE, {**pool, "spec": large})
    with pytest.raises(KubeInvalid):
        await client.create(CONFIG_MAP, config_map("one", a="x" * 4_000_000))


@pytest.mark.parametrize("name", ["", "..", ".", "a/b", "a%2fb", "*"])
async def test_what_cannot_be_a_name_never_becomes_a_path(client: Client, name: str) -> None:
    for call in (client.get(CONFIG_MAP, name), client.delete(CONFIG_MAP, name), client.get(NAMESPACE, name)):
        with pytest.raises(KubeInvalid):
            await call
    with pytest.raises(KubeInvalid):
        await client.delete(CONFIG_MAP, "one", namespace=ALL)


async def test_a_field_of_our_crd_that_is_not_in_it_is_refused(client: Client, cluster: Cluster) -> None:
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": {"type": "string"}}}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "stricts", "singular": "strict", "kind": "Strict"}
    spec = {"group": "vibed.dev", "scope": "Namespaced", "names": names, "versions": [version]}
    strict = Kind("vibed.dev", "v1", "stricts", "Strict")
    await client.create(CRD, {"metadata": {"name": "stricts.vibed.dev"}, "spec": spec})
    try:
        until_established(cluster.kubectl, "crd/stricts.vibed.dev")
        wrong = {"metadata": {"name": "one"}, "spec": {"a": "1", "no_such": "1"}}
        with pytest.raises(KubeInvalid, match=r'unknown field "spec.no_such"'):
            await client.create(strict, wrong)
        await client.create(strict, {**wrong, "spec": {"a": "1"}})
        with pytest.raises(KubeInvalid, match=r'unknown field "spec.no_such"'):
            await client.patch(strict, "one", {"spec": {"no_such": "1"}})
    finally:
        await client.delete(CRD, "stricts.vibed.dev")


async def test_a_right_that_is_missing_is_named_as_the_rule_that_would_give_it(namespace: Namespace) -> None:
    client = Client.connect(kubeconfig=namespace.service_account("nobody"), namespace=namespace.name)
    with pytest.raises(KubeForbidden) as refused:
        await client.patch(LEASE, "one", {"spec": {}})
    assert "cannot patch resource" in refused.value.message
    rule = '{apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["patch"]}'
    assert refused.value.hint == f"give the account a Role in {namespace} with the rule {rule}"
    with pytest.raises(KubeForbidden) as refused:
        await client.objects(SECRET, namespace=ALL)
    assert refused.value.hint is not None and "a ClusterRole" in refused.value.hint
    with pytest.raises(KubeForbidden) as refused:
        await client.patch(SANDBOX_WARM_POOL, "one", {"status": {}}, subresource="status")
    assert refused.value.hint is not None and '"sandboxwarmpools/status"' in refused.value.hint
    await client.close()


async def test_a_full_quota_is_told_as_something_that_may_pass(client: Client, namespace: Namespace) -> None:
    namespace.kubectl("create", "quota", "little", "--hard=count/secrets=0")
    eventually(lambda: "count/secrets" in namespace.get("quota", "little")["status"]["used"], "the quota counts")
    with pytest.raises(KubeForbidden, match="exceeded quota") as refused:
        await client.create(SECRET, {"metadata": {"name": "one"}})
    assert refused.value.may_retry


async def test_a_watch_since_a_version_that_is_forgotten_is_gone(client: Client, cluster: Cluster) -> None:
    since = (await client.objects(SANDBOX_WARM_POOL)).resource_version
    cluster.edit_crd(SANDBOX_WARM_POOL.resource)
    async with asyncio.timeout(60):
        with pytest.raises(KubeGone, match="too old resource version"):
            while True:
                with contextlib.suppress(KubeUnavailable):  # the kind's storage is made anew for a moment
                    async for _ in client.watch(SANDBOX_WARM_POOL, since=since, lasts_s=1.0):
                        pass


async def test_a_text_with_other_ends_of_line_in_it_passes_through_a_watch(client: Client) -> None:
    since = (await client.objects(CONFIG_MAP)).resource_version
    text = "one\u0085two\u2028three\nfour"
    await client.create(CONFIG_MAP, config_map("one", text=text))
    async with asyncio.timeout(30):
        async for change in client.watch(CONFIG_MAP, since=since, fields="metadata.name=one"):
            if change.type == "ADDED":
                assert change.object["data"]["text"] == text
                return


async def test_calls_that_meet_a_restart_of_the_api_server_are_asked_again(
    client: Client, own_cluster: ControlPlane
) -> None:
    await client.create(CONFIG_MAP, config_map("one", a="0"))
    ended = asyncio.Event()

    async def read() -> int:
        times = 0
        while not ended.is_set():
            assert (await client.get(CONFIG_MAP, "one"))["metadata"]["name"] == "one"
            times += 1
            await asyncio.sleep(0.02)
        return times

    async def apply() -> int:
        times = 0
        while not ended.is_set():
            times += 1
            await client.apply(CONFIG_MAP, config_map("one", a=str(times)))
            await asyncio.sleep(0.02)
        return times

    async with asyncio.TaskGroup() as tasks:
        reading, applying = tasks.create_task(read()), tasks.create_task(apply())
        await asyncio.sleep(0.3)
        await asyncio.to_thread(own_cluster.processes.kill, "kube-apiserver")
        await asyncio.sleep(0.5)
        own_cluster.processes.again("kube-apiserver")  # not in another thread: it would end with it
        await client.get(CONFIG_MAP, "one")
        ended.set()
    assert reading.result() > 0
    assert (await client.get(CONFIG_MAP, "one"))["data"] == {"a": str(applying.result())}


async def test_an_api_that_nobody_serves_is_unavailable_when_the_deadline_is_over(tmp_path: Path) -> None:
    config = tmp_path / "kubeconfig"
    ca = Authority(tmp_path / "pki").certificate
    config.write_text(json.dumps(kubeconfig("https://127.0.0.1:9", ca, "token")))
    client = Client.connect(kubeconfig=config, deadline_s=1.0)
    with pytest.raises(KubeUnavailable) as told:
        await client.create(CONFIG_MAP, config_map("one"))
    assert told.value.may_retry and not told.value.uncertain
    await client.close()


async def test_a_server_with_a_certificate_of_another_authority_is_not_talked_to(
    cluster: Cluster, tmp_path: Path
) -> None:
    config = tmp_path / "kubeconfig"
    ca = Authority(tmp_path / "pki").certificate
    config.write_text(json.dumps(kubeconfig(cluster.server[0], ca, "token")))
    client = Client.connect(kubeconfig=config)
    with pytest.raises(KubeUnavailable, match="CERTIFICATE_VERIFY_FAILED") as told:
        await client.get(CONFIG_MAP, "one")
    assert not told.value.may_retry
    await client.close()


async def test_a_pods_token_that_was_changed_is_used_from_then_on(
    cluster: Cluster, namespace: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create"]}]
    namespace.service_account("pod", rules=rules)
    server, ca = cluster.server
    host, _, port = server.removeprefix("https://").rpartition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    mounted = tmp_path / "serviceaccount"
    mounted.mkdir()
    (mounted / "namespace").write_text(namespace.name)
    (mounted / "ca.crt").write_bytes(ca.read_bytes())

    def token(name: str) -> str:
        # bound to a Secret: it ends with it
        namespace.kubectl("create", "secret", "generic", name)
        return namespace.kubectl(
            "create", "token", "pod", "--bound-object-kind", "Secret", "--bound-object-name", name
        ).strip()

    def refused(text: str) -> bool:
        config = tmp_path / "old.kubeconfig"
        config.write_text(json.dumps(kubeconfig(server, ca, text, namespace=namespace.name)))
        try:
            namespace.kubectl("get", "configmap", "kube-root-ca.crt", config=config)
        except Refused as error:
            return "Unauthorized" in str(error)
        return False

    first = token("first")
    (mounted / "token").write_text(first)
    client = Client(namespace.name, Connection.open(None, mounted))
    await client.get(CONFIG_MAP, "kube-root-ca.crt")
    (mounted / "token").write_text(token("second"))
    namespace.kubectl("delete", "secret", "first")
    eventually(lambda: refused(first), "the old token is refused")
    assert await client.create(CONFIG_MAP, config_map("one"))
    namespace.kubectl("delete", "secret", "second")
    (mounted / "token").write_text("no token")
    with pytest.raises(KubeForbidden, match="Unauthorized") as told:
        await eventually_raises(client)
    assert told.value.hint is not None and "does not know this token" in told.value.hint
    await client.close()


async def eventually_raises(client: Client) -> None:
    for _ in range(600):
        await client.get(CONFIG_MAP, "kube-root-ca.crt")
        await asyncio.sleep(0.1)
