"""The Helm chart: what its values may be, what it makes of them, and what the API server and its accounts say to that.

Helm is the real one, and so is the API server; nodes are fake, so pods are Ready without a process and Jobs are done at
once. What its pods do on a real node is told elsewhere.
"""

from __future__ import annotations

import base64
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.cluster.cluster import Refused
from tests.cluster.releases import CHART, Asked, Helm, HelmFailed, Release, Values, laid_over
from vibed import __version__
from vibed.cli.plan import CADDY_GOGC
from vibed.cluster import rights
from vibed.config import load
from vibed.drivers.agent_sandbox.line import CONTROL_PORT, INGRESS_PORT
from vibed.drivers.agent_sandbox.templates import PodSettings, manifests
from vibed.drivers.packing import room_of
from vibed.runtimes import pod_disk
from vibed.runtimes.templates import load_templates
from vibed.sandboxes.driver import Builder
from vibed.sources.choice import ARRIVING
from vibed.sources.limits import ArchiveLimits

SECRET: Values = {
    "mode": "secret",
    "secretName": "wildcard",
    "acme": {"directory": "https://ca.example.com:9000/dir", "rootsConfigMap": "roots"},
}
EVERYTHING: Values = {
    "domain": "apps.example.com",
    "images": {"pullSecrets": ["pull"], "pullPolicy": "Never"},
    "sources": {"s3": {"existingSecret": "bucket"}},
    "sandboxes": {
        "runtimeClass": "kata-fc",
        "nodeSelector": {"pool": "sandboxes"},
        "tolerations": [{"key": "sandboxes", "operator": "Exists", "effect": "NoSchedule"}],
        "templates": ["python-313", "node-24"],
        "pools": {"python-313": 10},
    },
    "tls": {"mode": "acme-dns", "acme": {"provider": "rfc2136", "credentialsSecret": "dns", "email": "a@example.com"}},
    "router": {"service": {"type": "NodePort", "nodePort": 30080, "nodePortTls": 30443}},
    "ingress": {"enabled": True, "className": "nginx", "tlsSecretName": "wildcard"},
    "network": {
        "sourceStore": {"to": [{"ipBlock": {"cidr": "10.0.7.4/32"}}], "ports": [7070], "dns": True},
        "monitoring": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
    },
    "config": {"drain_s": 30.5, "max_files": 5000, "reserved_names": ["status"], "registries": {"go": "off"}},
    "serviceAccountAnnotations": {"api": {"iam": "x"}},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "priorityClassName": "system-cluster-critical",
    "monitoring": {"dashboards": True},
}

# What it says of itself


def test_the_chart_has_the_version_of_the_package_and_no_other_number() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


def test_every_image_is_tagged_with_that_version(helm: Helm) -> None:
    images = {
        container["image"]
        for found in helm.template({"images": {"registry": "registry.example.com/team/"}})
        for container in _containers(found)
    }
    assert images == {
        f"registry.example.com/team/vibed:{__version__}",
        f"registry.example.com/team/vibed-caddy:{__version__}",
    }


def test_it_passes_helms_own_review(helm: Helm) -> None:
    helm("lint", str(CHART), "--strict", values={})


def test_every_value_is_in_the_schema_and_has_a_comment() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    page = (CHART.parents[2] / "docs/reference/helm-values.md").read_text()
    assert sorted(_paths(schema)) == sorted(_given(values, schema))
    assert [path for path in _paths(schema) if f"| `{path}` |" not in page] == []


# What is refused


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"replicas": 3}, "additional properties 'replicas' not allowed"),
        ({"api": {"replica": 3}}, "additional properties 'replica' not allowed"),
        ({"api": {"replicas": 0}}, "at '/api/replicas': minimum: got 0, want 1"),
        ({"api": {"replicas": "2"}}, "at '/api/replicas': got string, want integer"),
        ({"sandboxes": {"runtimeClass": "runc"}}, "at '/sandboxes/runtimeClass': value must be one of"),
        ({"sandboxes": {"pools": {"python-313": -1}}}, "at '/sandboxes/pools/python-313': minimum"),
        ({"sources": {"s3": {"bucket": ""}}}, "at '/sources/s3/bucket'"),
        ({"sources": {"s3": {"endpoint": "s3.example.com"}}}, "at '/sources/s3/endpoint'"),
        ({"domain": "Apps.Example.Com"}, "at '/domain'"),
        ({"tls": {"mode": "acme"}}, "at '/tls/mode': value must be one of"),
        ({"config": {"max_filez": 1}}, "additional properties 'max_filez' not allowed"),
        ({"config": {"max_files": "many"}}, "at '/config/max_files': got string, want integer"),
        ({"config": {"domain": "x.y"}}, "additional properties 'domain' not allowed"),
        ({"network": {"sourceStore": {"to": [{"cidr": "10.0.0.1/32"}]}}}, "additional properties 'cidr' not allowed"),
        ({"images": {"tag": "latest"}}, "additional properties 'tag' not allowed"),
        ({"tls": {"mode": "acme-dns"}, "domain": "a.example.com"}, "name the DNS provider in tls.acme.provider"),
        ({"tls": {"mode": "acme-dns", "acme": {"provider": "rfc2136"}}}, "a certificate needs a domain of yours"),
        (
            {"tls": {"mode": "secret"}, "domain": "a.example.com"},
            "name the Secret with the certificate in",
        ),
        ({"url": "https://other.example.com"}, "url must be http:// or https://, the value of domain"),
        ({"keys": {"namespace": "vibed"}}, "keys.namespace must be another namespace than the release's"),
        ({"sandboxes": {"namespace": "vibed"}}, "sandboxes.namespace must be another namespace than the release's"),
        ({"config": {"max_source_mb": 257}}, "config.source_cache_mb must be at least four times config.max_source_mb"),
        ({"config": {"source_cache_mb": 199}}, "config.source_cache_mb must be at least four times"),
    ],
    ids=lambda part: str(part)[:60] if isinstance(part, dict) else "",
)
def test_a_value_that_cannot_be_is_refused_by_name(helm: Helm, values: Values, said: str) -> None:
    with pytest.raises(HelmFailed) as refused:
        helm.template(values)
    assert said in str(refused.value)


# What is made of values


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_vibed_understands_the_configuration_that_the_values_become(helm: Helm, tmp_path: Path, values: Values) -> None:
    text = _one(helm.template(values), "ConfigMap", "vibed-config")["data"]["vibed.toml"]
    assert tomllib.loads(text)
    (tmp_path / "vibed.toml").write_text(text)
    config = load({"VIBED_CONFIG": str(tmp_path / "vibed.toml"), "VIBED_HOME": str(tmp_path)})
    assert config.domain == values.get("domain", "localhost")
    assert config.drain_s == values.get("config", {}).get("drain_s", 60.0)
    assert config.image_repository == "ghcr.io/vibed-project"
    assert config.runtime_class == values.get("sandboxes", {}).get("runtimeClass", "gvisor")
    assert (config.source_store, config.s3_bucket) == ("s3", "vibed-sources")
    assert config.https == (values.get("tls", {}).get("mode", "none") != "none")
    assert config.app_url("a") == ("https://a.apps.example.com" if values else "http://a.localhost:18080")
    assert config.max_files == values.get("config", {}).get("max_files", 20_000)
    assert dict(config.pools) == values.get("sandboxes", {}).get("pools", {})


def test_how_visitors_come_follows_from_domain_and_certificates(helm: Helm) -> None:
    acme = {"mode": "acme-dns", "acme": {"provider": "rfc2136", "credentialsSecret": "dns"}}
    ingress = {"enabled": True, "tlsSecretName": "wildcard"}
    for values, url in (
        ({}, "http://localhost:18080"),
        ({"domain": "apps.example.com"}, "http://apps.example.com"),
        ({"domain": "apps.example.com", "url": "http://apps.example.com:30080"}, "http://apps.example.com:30080"),
        ({"domain": "apps.example.com", "tls": acme}, "https://apps.example.com"),
        ({"domain": "apps.example.com", "tls": SECRET}, "https://apps.example.com"),
        ({"domain": "apps.example.com", "ingress": ingress}, "https://apps.example.com"),
    ):
        notes = helm("install", "vibed", str(CHART), "-n", "vibed", "--dry-run=client", values=values)
        assert f"VIBED_URL={url} vibed deploy" in notes.rpartition("NOTES:")[2]
        made = _one(helm.template(values), "ConfigMap", "vibed-config")["data"]["vibed.toml"]
        assert tomllib.loads(made)["public_url"] == url


def test_a_certificate_of_the_operators_is_caddys_to_read_and_nobody_elses(helm: Helm, tmp_path: Path) -> None:
    made = helm.template({"domain": "apps.example.com", "tls": SECRET})
    told = tmp_path / "vibed.toml"
    told.write_text(_one(made, "ConfigMap", "vibed-config")["data"]["vibed.toml"])
    config = load({"VIBED_CONFIG": str(told), "VIBED_HOME": str(tmp_path), "VIBED_SUBSTRATE": "kubernetes"})
    assert (config.https, config.https_port, config.dns_provider) == (True, 8443, "")
    assert config.own_url("shop.example.org") == "https://shop.example.org", "by the Service's port"
    pod = _one(made, "Deployment", "vibed-router")["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["tls"]["secret"]["secretName"] == "wildcard"
    found = {
        (container["name"], mount["name"]): mount
        for container in (*pod["initContainers"], *pod["containers"])
        for mount in container["volumeMounts"]
    }
    mount = found["caddy", "tls"]
    assert mount["mountPath"] == str(config.certificate)
    assert "subPath" not in mount, "which would stay as it was when the Secret changes"
    assert [container for container, name in found if name == "tls"] == ["caddy"]
    assert config.acme_ca_roots == Path(found["prepare", "roots"]["mountPath"]) / "ca.crt"
    assert volumes["roots"]["configMap"]["name"] == "roots"
    egress = _one(made, "NetworkPolicy", "vibed-router")["spec"]["egress"]
    assert {"ports": [{"port": 9000, "protocol": "TCP"}]} in egress
    assert not [rule for rule in egress if "to" not in rule and any(port["port"] == 53 for port in rule["ports"])]


@pytest.mark.parametrize(
    "values", [{}, {"config": {"source_cache_mb": 4096, "copied_logs_mb": 100, "max_source_mb": 500}}]
)
def test_what_is_kept_on_disk_has_room_in_its_volume(helm: Helm, tmp_path: Path, values: Values) -> None:
    """A node evicts a pod that outgrows its volume."""
    made = helm.template(values)
    (tmp_path / "vibed.toml").write_text(_one(made, "ConfigMap", "vibed-config")["data"]["vibed.toml"])
    config = load({"VIBED_CONFIG": str(tmp_path / "vibed.toml"), "VIBED_HOME": str(tmp_path)})
    builders = pod_disk.ALL_BYTES // pod_disk.MIB
    arriving = (ARRIVING >> 20) + 2 * config.max_source_mb
    for name, beside in (("vibed", arriving), ("vibed-controller", config.copied_logs_mb + builders)):
        volumes = _one(made, "Deployment", name)["spec"]["template"]["spec"]["volumes"]
        (home,) = [one["emptyDir"]["sizeLimit"] for one in volumes if one["name"] == "home"]
        assert int(home.removesuffix("Mi")) >= config.source_cache_mb + beside + 512


@pytest.mark.parametrize(
    "settings", [{}, {"max_expanded_mb": 3000}, {"max_files": 200_000}, {"max_expanded_mb": 10, "max_files": 100}]
)
def test_what_a_controller_packs_at_a_time_has_room_in_its_volume(
    helm: Helm, tmp_path: Path, settings: dict[str, int]
) -> None:
    made = helm.template({"config": settings})
    (tmp_path / "vibed.toml").write_text(_one(made, "ConfigMap", "vibed-config")["data"]["vibed.toml"])
    config = load({"VIBED_CONFIG": str(tmp_path / "vibed.toml"), "VIBED_HOME": str(tmp_path)})
    volumes = _one(made, "Deployment", "vibed-controller")["spec"]["template"]["spec"]["volumes"]
    (size,) = [one["emptyDir"]["sizeLimit"] for one in volumes if one["name"] == "tmp"]
    beside = 512 << 20  # the installers, where vibeD's image does not bring them
    assert (int(size.removesuffix("Mi")) << 20) - beside >= room_of(ArchiveLimits.of(config))


TLS: Values = {"domain": "apps.example.com", "tls": SECRET}


@pytest.mark.parametrize("values", [{}, TLS, EVERYTHING], ids=["as it is", "with certificates", "with everything"])
def test_every_port_that_a_policy_opens_is_one_at_which_something_listens(
    helm: Helm, tmp_path: Path, values: Values
) -> None:
    made = helm.template(laid_over(values, {"network": {"monitoring": [{"podSelector": {}}]}}))
    (tmp_path / "vibed.toml").write_text(_one(made, "ConfigMap", "vibed-config")["data"]["vibed.toml"])
    told = {"VIBED_CONFIG": str(tmp_path / "vibed.toml"), "VIBED_HOME": str(tmp_path), "VIBED_SUBSTRATE": "kubernetes"}
    config = load(told)
    ours = (config.api_port, config.wire_port, config.health_port)
    ports: dict[str, set[int]] = {"sandboxes": {INGRESS_PORT, CONTROL_PORT}}
    for deployment in _all(made, "Deployment"):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        component = labels["app.kubernetes.io/component"]
        ports[component] = {port["containerPort"] for one in _containers(deployment) for port in one.get("ports", ())}
        # what vibeD's own containers say is what its processes listen at; the others are Caddy's
        assert ports[component] - {8080, 8443} <= set(ours)
    let_in: set[tuple[str, str, int]] = set()
    let_out: set[tuple[str, str, int]] = set()
    for policy in _all(made, "NetworkPolicy"):
        within = "sandboxes" if policy["metadata"].get("namespace") == "vibed-apps" else ""
        labels = policy["spec"]["podSelector"].get("matchLabels", {})
        own = within or labels["app.kubernetes.io/component"]
        for rule in policy["spec"].get("ingress", ()):
            opened = {port["port"] for port in rule["ports"]}
            assert opened <= ports[own], (policy["metadata"]["name"], opened - ports[own])
            let_in |= {(_whom(peer), own, port) for peer in rule.get("from", ()) for port in opened}
            let_in |= {("anybody", own, port) for port in opened if "from" not in rule}
        for rule in policy["spec"].get("egress", ()):
            peers = [_whom(peer) for peer in rule.get("to", ())]
            let_out |= {(own, whom, port["port"]) for whom in peers if whom in ports for port in rule["ports"]}
    # both ends of each connection say the same
    assert {one for one in let_in if one[0] in ports} | {
        (own, whom, port) for own, whom, port in let_out if ("anybody", whom, port) in let_in
    } == let_out
    assert let_out


def _whom(peer: Any) -> str:
    """The component, or `sandboxes`, or something else."""
    named = peer.get("podSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/component", "")
    where = peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name", "")
    return named or ("sandboxes" if where == "vibed-apps" else "else")


def test_two_of_each_process_run_spread_and_one_may_be_away(helm: Helm) -> None:
    made = helm.template()
    for name in ("vibed", "vibed-controller", "vibed-router"):
        deployment = _one(made, "Deployment", name)
        assert deployment["spec"]["replicas"] == 2
        assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        budget = _one(made, "PodDisruptionBudget", name)["spec"]
        assert budget["maxUnavailable"] == 1
        assert budget["selector"]["matchLabels"].items() <= labels.items()
        spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert [rule["topologyKey"] for rule in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]


def test_a_service_of_vibeds_is_no_setting_of_its(helm: Helm) -> None:
    """Of a Service `vibed-router` Kubernetes tells pods as VIBED_ROUTER_PORT=tcp://…, unless it is told not to."""
    for deployment in _all(helm.template(), "Deployment"):
        assert deployment["spec"]["template"]["spec"]["enableServiceLinks"] is False


def test_every_container_is_probed_and_bounded(helm: Helm) -> None:
    for deployment in _all(helm.template(), "Deployment"):
        for container in _containers(deployment):
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]
            if container["name"] != "prepare":
                assert {"livenessProbe", "readinessProbe"} <= container.keys()


def test_visitors_are_let_out_before_what_serves_them_ends(helm: Helm) -> None:
    spec = _one(helm.template({"config": {"drain_s": 90}}), "Deployment", "vibed-router")["spec"]["template"]["spec"]
    caddy = next(container for container in spec["containers"] if container["name"] == "caddy")
    pause = caddy["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pause > 0
    assert spec["terminationGracePeriodSeconds"] >= pause + 90
    # a side-car starts before Caddy and ends after it
    router = next(container for container in spec["initContainers"] if container["name"] == "router")
    assert router["restartPolicy"] == "Always"
    assert router["startupProbe"]["httpGet"]["path"] == "/readyz"


def test_caddy_collects_its_garbage_as_seldom_as_on_one_machine(helm: Helm) -> None:
    spec = _one(helm.template(), "Deployment", "vibed-router")["spec"]["template"]["spec"]
    caddy = next(container for container in spec["containers"] if container["name"] == "caddy")
    assert {"name": "GOGC", "value": CADDY_GOGC} in caddy["env"]


def test_what_faces_visitors_has_neither_a_token_nor_a_key(helm: Helm) -> None:
    spec = _one(helm.template(EVERYTHING), "Deployment", "vibed-router")["spec"]["template"]["spec"]
    caddy = next(container for container in spec["containers"] if container["name"] == "caddy")
    mounted = {mount["name"] for mount in caddy["volumeMounts"]}
    assert mounted.isdisjoint({"token", "wire", "keys", "claims"})
    assert spec["automountServiceAccountToken"] is False


def test_only_the_controller_holds_what_proves_it_to_sandboxes_and_only_the_api_the_admins_key(helm: Helm) -> None:
    holders: dict[str, set[str]] = {}
    for deployment in _all(helm.template(), "Deployment"):
        spec = deployment["spec"]["template"]["spec"]
        for volume in spec["volumes"]:
            if "secret" in volume:
                holders.setdefault(volume["secret"]["secretName"], set()).add(deployment["metadata"]["name"])
    assert holders == {
        "vibed-wire": {"vibed", "vibed-controller", "vibed-router"},
        "vibed-claims": {"vibed-controller"},
        "vibed-sources": {"vibed", "vibed-controller"},
    }, "the admin's key is in the API's environment alone"


def test_no_role_reaches_beyond_two_namespaces_but_for_the_hooks(helm: Helm) -> None:
    for found in helm.template(EVERYTHING):
        if found["kind"] in ("ClusterRole", "ClusterRoleBinding"):
            assert found["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
            assert "hook-succeeded" in found["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
        for rule in found.get("rules", ()) if found["kind"] in ("Role", "ClusterRole") else ():
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
            if "secrets" in rule["resources"]:
                assert (found["kind"], found["metadata"]["namespace"]) == ("Role", "vibed-keys")


def test_sandboxes_are_reached_on_two_ports_and_reach_nothing(helm: Helm) -> None:
    policies = {
        policy["metadata"]["name"]: policy["spec"]
        for policy in _all(helm.template(), "NetworkPolicy")
        if policy["metadata"].get("namespace") == "vibed-apps"
    }
    assert policies.keys() == {"vibed-deny", "vibed-in"}
    assert policies["vibed-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    way_in = {
        rule["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]: rule["ports"]
        for rule in policies["vibed-in"]["ingress"]
    }
    assert way_in == {
        "router": [{"port": INGRESS_PORT, "protocol": "TCP"}],
        "controller": [{"port": CONTROL_PORT, "protocol": "TCP"}],
    }


def test_who_gets_packages_for_builders_is_the_controller_and_not_from_private_networks(helm: Helm) -> None:
    ways_out = {
        policy["metadata"]["name"]: [
            peer["ipBlock"]["except"]
            for rule in policy["spec"].get("egress", ())
            for peer in rule.get("to", ())
            if "ipBlock" in peer
        ]
        for policy in _all(helm.template(), "NetworkPolicy")
    }
    (blocked,) = ways_out.pop("vibed-controller")
    assert {"169.254.0.0/16", "10.0.0.0/8", "192.168.0.0/16", "172.16.0.0/12"} <= set(blocked)
    assert not any(ways_out.values())


def test_sandboxes_reach_the_source_store_where_the_operator_says_where_it_is(helm: Helm) -> None:
    policy = _one(helm.template(EVERYTHING), "NetworkPolicy", "vibed-out-sources")["spec"]
    assert policy["egress"][0] == {
        "to": [{"ipBlock": {"cidr": "10.0.7.4/32"}}],
        "ports": [{"port": 7070, "protocol": "TCP"}],
    }


def test_no_builder_reaches_anything_whatever_the_operator_says(helm: Helm) -> None:
    template = load_templates()["python-313"]
    settings = PodSettings("registry.example/vibed", "1.0")

    def lets_out(labels: Mapping[str, str]) -> list[str]:
        policies = [
            policy
            for policy in _all(helm.template(EVERYTHING), "NetworkPolicy")
            if policy["metadata"].get("namespace") == "vibed-apps" and policy["spec"].get("egress")
        ]
        selectors = [(one["metadata"]["name"], one["spec"]["podSelector"]) for one in policies]
        assert all(not selector.keys() - {"matchLabels"} for _, selector in selectors)
        return [name for name, selector in selectors if selector.get("matchLabels", {}).items() <= labels.items()]

    apps, builders = (
        manifests(template, settings, "key", 1, builder)[0]["spec"]["podTemplate"]["metadata"]["labels"]
        for builder in (None, Builder())
    )
    assert lets_out(apps) == ["vibed-out-sources"]
    assert lets_out(builders) == []
    assert lets_out({}) == []


def test_the_dashboard_shows_metrics_that_there_are(helm: Helm) -> None:
    text = _one(helm.template(EVERYTHING), "ConfigMap", "vibed-dashboard")["data"]["vibed.json"]
    expressions = [target["expr"] for panel in json.loads(text)["panels"] for target in panel.get("targets", ())]
    assert len(expressions) >= 6
    known = (CHART.parents[2] / "docs/reference/metrics.md").read_text()
    for expression in expressions:
        for name in re.findall(r"vibed_\w+", expression):
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            assert f"`{name}`" in known or f"`{base}`" in known, name


# What the API server says


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_the_api_server_takes_every_manifest(own_release: Release, values: Values) -> None:
    if values:
        values = laid_over(values, {"router": {"service": {"nodePort": 0, "nodePortTls": 0}}})
    own_release.helm(
        "install", "vibed", str(CHART), "--namespace", own_release.namespace, "--dry-run=server",
        values=own_release.values(values),
    )  # fmt: skip


def test_it_installs_and_its_pods_are_admitted_where_only_restricted_ones_are(release: Release) -> None:
    pods = release.cluster.get("pods", "-n", release.namespace, "-l", "app.kubernetes.io/component!=hook")["items"]
    assert len(pods) == 6
    assert {pod["status"]["phase"] for pod in pods} == {"Running"}
    for name in (release.namespace, release.apps):
        labels = release.cluster.get("namespace", name)["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_hooks_leave_nothing_behind(release: Release) -> None:
    assert release.cluster.get("jobs,serviceaccounts,roles", "-n", release.namespace, "-l", _HOOK)["items"] == []
    cluster_wide = release.cluster.get("clusterroles,clusterrolebindings", "-l", _HOOK)["items"]
    assert [found for found in cluster_wide if found["metadata"]["name"].endswith(release.namespace)] == []


_HOOK = "app.kubernetes.io/component=hook"


def test_a_pod_that_is_not_restricted_is_refused_in_the_namespace_of_apps(release: Release) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "loose"},
        "spec": {"containers": [{"name": "app", "image": "x"}]},
    }
    with pytest.raises(Refused, match="violates PodSecurity"):
        release.cluster.kubectl("create", "-n", release.apps, "-f", "-", given=pod)


def test_the_secrets_are_what_they_are_for(release: Release) -> None:
    made = {
        name: {key: base64.b64decode(text) for key, text in data.items()} for name, data in release.secrets().items()
    }
    assert made.keys() == {"vibed-wire", "vibed-claims", "vibed-keys", "vibed-sources"}
    authority = x509.load_pem_x509_certificate(made["vibed-wire"]["ca.crt"])
    certificate = x509.load_pem_x509_certificate(made["vibed-wire"]["tls.crt"])
    certificate.verify_directly_issued_by(authority)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["vibed-wire"]
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert {x509.OID_SERVER_AUTH, x509.OID_CLIENT_AUTH} <= set(usage)
    key = load_pem_private_key(made["vibed-wire"]["tls.key"], None)
    assert isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    assert key.public_key() == certificate.public_key()
    assert isinstance(load_pem_private_key(made["vibed-claims"]["key.pem"], None), Ed25519PrivateKey)
    assert len(bytes.fromhex(made["vibed-sources"]["signing"].decode())) == 32
    assert len(made["vibed-keys"]["admin"]) >= 40


def test_an_upgrade_and_a_rollback_keep_the_secrets_and_an_uninstall_leaves_nothing(own_release: Release) -> None:
    own_release.install()
    before = own_release.secrets()
    own_release.upgrade({"api": {"replicas": 3}, "config": {"drain_s": 30}})
    assert own_release.secrets() == before
    assert _replicas(own_release, "vibed") == 3
    own_release.rollback()
    assert own_release.secrets() == before
    assert _replicas(own_release, "vibed") == 2
    own_release.uninstall()
    kinds = "deployments,services,secrets,configmaps,serviceaccounts,roles,rolebindings,leases,networkpolicies,jobs,pdb"
    left = own_release.cluster.get(kinds, "-n", own_release.namespace)["items"]
    own = {"kube-root-ca.crt", "default"}  # Kubernetes' own, in every namespace
    assert [
        f"{found['kind']}/{found['metadata']['name']}" for found in left if found["metadata"]["name"] not in own
    ] == []
    for namespace in (own_release.apps, own_release.keys):
        with pytest.raises(Refused, match="not found"):
            own_release.cluster.get("namespace", namespace)


def test_the_namespace_of_apps_stays_where_the_operator_wants_it(own_release: Release) -> None:
    own_release.install({"sandboxes": {"keepNamespace": True}})
    own_release.uninstall()
    assert own_release.cluster.get("namespace", own_release.apps)["status"]["phase"] == "Active"
    # and is taken over again
    own_release.install({"sandboxes": {"createNamespace": False}})


def test_a_deployment_that_was_scaled_by_hand_is_told_and_not_overrun(own_release: Release) -> None:
    own_release.install()
    own_release.cluster.kubectl("scale", "deployment/vibed", "--replicas=5", "-n", own_release.namespace)
    with pytest.raises(HelmFailed, match="conflict"):
        own_release.upgrade({"api": {"replicas": 3}})
    assert _replicas(own_release, "vibed") == 5


# Who may do what

YES, NO = True, False

OF_THE_WHOLE_CLUSTER: Mapping[Asked, bool] = {
    ("list", "secrets", ""): NO,
    ("list", "pods", ""): NO,
    ("list", "nodes", ""): NO,
    ("list", "namespaces", ""): NO,
    ("list", "customresourcedefinitions.apiextensions.k8s.io", ""): NO,
}

MAY: Mapping[str, Mapping[Asked, bool]] = {
    # writes what is wanted, keeps keys
    "vibed": {
        ("create", "vibedapps.vibed.dev", "apps"): YES,
        ("patch", "vibedapps.vibed.dev", "apps"): YES,
        ("create", "controllerrevisions.apps", "apps"): YES,
        ("list", "secrets", "keys"): YES,
        ("patch", "leases.coordination.k8s.io vibed-store", "keys"): YES,
        ("create", "secrets", "keys"): YES,
        ("get", "secrets vibed-claims", "release"): NO,
        ("list", "secrets", "release"): NO,
        ("get", "leases.coordination.k8s.io vibed-controller", "release"): YES,
        ("update", "leases.coordination.k8s.io vibed-housekeeping", "release"): YES,
        ("update", "leases.coordination.k8s.io vibed-controller", "release"): NO,
        ("get", "secrets", "apps"): NO,
        ("create", "secrets", "apps"): NO,
        ("create", "pods", "apps"): NO,
        ("get", "pods", "apps"): NO,
        ("create", "pods/exec", "apps"): NO,
        ("create", "sandboxclaims.extensions.agents.x-k8s.io", "apps"): NO,
        ("get", "secrets", "kube-system"): NO,
        ("list", "vibedapps.vibed.dev", "default"): NO,
        **OF_THE_WHOLE_CLUSTER,
    },
    # claims sandboxes and tells how apps stand; no key, no Secret anywhere, no way into a pod
    "vibed-controller": {
        ("create", "sandboxclaims.extensions.agents.x-k8s.io", "apps"): YES,
        ("delete", "sandboxclaims.extensions.agents.x-k8s.io", "apps"): YES,
        ("patch", "sandboxwarmpools.extensions.agents.x-k8s.io", "apps"): YES,
        ("patch", "vibedapps.vibed.dev/status", "apps"): YES,
        ("watch", "pods", "apps"): YES,
        ("watch", "pods", "release"): YES,
        ("list", "leases.coordination.k8s.io vibed-controller", "release"): YES,
        ("update", "leases.coordination.k8s.io vibed-controller", "release"): YES,
        ("update", "leases.coordination.k8s.io another", "release"): NO,
        ("get", "secrets", "release"): NO,
        ("list", "secrets", "release"): NO,
        ("get", "secrets", "apps"): NO,
        ("create", "pods", "apps"): NO,
        ("delete", "pods", "release"): NO,
        ("create", "pods/exec", "apps"): NO,
        ("get", "pods/log", "apps"): NO,
        ("create", "vibedapps.vibed.dev", "apps"): NO,
        ("create", "sandboxclaims.extensions.agents.x-k8s.io", "default"): NO,
        **OF_THE_WHOLE_CLUSTER,
    },
    # looks
    "vibed-router": {
        ("watch", "vibedapps.vibed.dev", "apps"): YES,
        ("get", "leases.coordination.k8s.io vibed-controller", "release"): YES,
        ("patch", "vibedapps.vibed.dev", "apps"): NO,
        ("patch", "vibedapps.vibed.dev/status", "apps"): NO,
        ("delete", "vibedapps.vibed.dev", "apps"): NO,
        ("get", "controllerrevisions.apps", "apps"): YES,
        ("list", "controllerrevisions.apps", "apps"): NO,
        ("watch", "configmaps", "keys"): YES,
        ("create", "configmaps", "keys"): NO,
        ("get", "secrets", "keys"): NO,
        ("get", "secrets", "release"): NO,
        ("get", "secrets", "apps"): NO,
        ("get", "pods", "apps"): NO,
        ("update", "leases.coordination.k8s.io vibed-controller", "release"): NO,
        **OF_THE_WHOLE_CLUSTER,
    },
    # what a pod without an account of its own is: nobody
    "default": {
        ("get", "secrets", "apps"): NO,
        ("list", "vibedapps.vibed.dev", "apps"): NO,
        **OF_THE_WHOLE_CLUSTER,
    },
}
"""By account: verb; resource, with a subresource or the name of one object; where (nothing: everywhere)."""


@pytest.mark.parametrize("account", MAY)
def test_each_account_may_do_its_work_and_nothing_else(release: Release, account: str) -> None:
    assert release.may(account, list(MAY[account])) == MAY[account]


@pytest.mark.parametrize(
    ("account", "needed"),
    [("vibed", rights.API), ("vibed-controller", rights.CONTROLLER), ("vibed-router", rights.ROUTER)],
    ids=["vibed", "vibed-controller", "vibed-router"],
)
def test_each_account_has_what_the_store_needs(release: Release, account: str, needed: Sequence[rights.Right]) -> None:
    asked: list[Asked] = []
    for right in needed:
        resource, _, subresource = right.resource.partition("/")
        what = ".".join(filter(None, (resource, right.group))) + (f"/{subresource}" if subresource else "")
        # a Lease is granted by its name, except to be made, which RBAC cannot hold to one
        named = " vibed-store" if resource == "leases" else ""
        where = "apps" if right.namespace == "apps" else "keys"
        asked += [(verb, what if verb == "create" else what + named, where) for verb in right.verbs]
    may = release.may(account, asked)
    assert [what for what, allowed in may.items() if not allowed] == []


def _replicas(release: Release, name: str) -> int:
    found = release.cluster.get("deployment", name, "-n", release.namespace)
    replicas: int = found["spec"]["replicas"]
    return replicas


def _all(made: list[Any], kind: str) -> list[Any]:
    return [found for found in made if found["kind"] == kind]


def _one(made: list[Any], kind: str, name: str) -> Any:
    found = [item for item in _all(made, kind) if item["metadata"]["name"] == name]
    assert len(found) == 1, (kind, name, [item["metadata"]["name"] for item in _all(made, kind)])
    return found[0]


def _containers(found: Any) -> list[Any]:
    if found["kind"] not in ("Deployment", "Job"):
        return []
    spec = found["spec"]["template"]["spec"]
    return [*spec.get("initContainers", ()), *spec["containers"]]


def _paths(schema: Any, path: str = "") -> list[str]:
    """Every value that the schema names, `config`'s own keys aside."""
    found = []
    for name, part in schema.get("properties", {}).items():
        whole = f"{path}.{name}".lstrip(".")
        if whole != "global":  # Helm's own
            found += [whole, *(_paths(part, whole) if whole != "config" else ())]
    return found


def _given(values: Any, schema: Any, path: str = "") -> list[str]:
    """Every value of values.yaml, as deep as the schema has names."""
    found = []
    for name, value in values.items():
        part, whole = schema["properties"].get(name, {}), f"{path}.{name}".lstrip(".")
        found += [whole, *(_given(value, part, whole) if "properties" in part else ())]
    return found
