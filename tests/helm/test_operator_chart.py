"""Every template of helm/kit19-operator, and values it refuses."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from kit19_ray.operate.api import crd, rbac
from kit19_ray.operate.controller.metrics import ControllerMetrics
from kit19_ray.serve import metrics as serve_metrics
from tests.helm.rendering import REPO, Helm, Json, Loader, assert_hardened, kinds, only

CHART = "kit19-operator"


def test_defaults_render_what_one_namespace_needs(helm: Helm) -> None:
    objects = helm.render(CHART, {})
    assert kinds(objects) == {
        "ClusterRole", "CustomResourceDefinition", "Deployment", "NetworkPolicy", "PodDisruptionBudget", "Role",
        "RoleBinding", "Service", "ServiceAccount",
    }  # fmt: skip
    assert assert_hardened(objects, read_only=True) == 2
    for one in objects:
        assert one["metadata"].get("namespace", "place") == "place"
        assert one["metadata"]["labels"]["app.kubernetes.io/instance"] == "rel"


def test_deployment(helm: Helm) -> None:
    deployment = only(helm.render(CHART, {}), "Deployment")
    spec = deployment["spec"]["template"]["spec"]
    assert deployment["spec"]["strategy"] == {"type": "Recreate"} and deployment["spec"]["replicas"] == 1
    (container,) = spec["containers"]
    assert container["command"] + container["args"] == [
        "python", "-m", "kit19_ray", "operate", "--namespace", "place", "--lease-namespace", "place",
        "--lease-name", "rel", "--metrics-port", "8080", "--health-port", "8081",
    ]  # fmt: skip
    assert spec["automountServiceAccountToken"] is True and spec["serviceAccountName"] == "rel"
    assert spec["volumes"] == [{"name": "tmp", "emptyDir": {}}]
    assert container["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]
    assert {probe for probe in container if probe.endswith("Probe")} == {
        "startupProbe", "livenessProbe", "readinessProbe",
    }  # fmt: skip
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert (
        deployment["spec"]["selector"]["matchLabels"].items()
        <= deployment["spec"]["template"]["metadata"]["labels"].items()
    )


def test_deployment_takes_what_the_pod_values_say(helm: Helm) -> None:
    toleration = {"key": "system", "operator": "Exists"}
    values = {
        "nameOverride": "runs",
        "replicas": 2,
        "image": {"name": "registry.example.com:5000/kit19:1.2.3", "pullPolicy": "Always", "pullSecrets": ["r"]},
        "env": [{"name": "AWS_REGION", "value": "eu-west-1"}],
        "envFrom": [{"secretRef": {"name": "s3"}}],
        "resources": {"limits": {"memory": "1Gi"}},
        "pod": {
            "labels": {"team": "ml"},
            "annotations": {"note": "yes"},
            "nodeSelector": {"kubernetes.io/arch": "amd64"},
            "tolerations": [toleration],
            "affinity": {"nodeAffinity": {}},
            "priorityClass": "high",
            "terminationGraceSeconds": 5,
        },
    }  # fmt: skip
    deployment = only(helm.render(CHART, values), "Deployment", "runs")
    template = deployment["spec"]["template"]
    spec, container = template["spec"], template["spec"]["containers"][0]
    assert deployment["spec"]["replicas"] == 2
    assert template["metadata"]["labels"]["team"] == "ml" and template["metadata"]["annotations"] == {"note": "yes"}
    assert container["image"] == "registry.example.com:5000/kit19:1.2.3"
    assert container["imagePullPolicy"] == "Always" and spec["imagePullSecrets"] == [{"name": "r"}]
    assert {"name": "AWS_REGION", "value": "eu-west-1"} in container["env"]
    assert container["envFrom"] == [{"secretRef": {"name": "s3"}}]
    assert container["resources"]["limits"] == {"cpu": "1", "memory": "1Gi"}
    assert spec["nodeSelector"] == {"kubernetes.io/arch": "amd64"} and spec["tolerations"] == [toleration]
    assert spec["affinity"] == {"nodeAffinity": {}} and spec["priorityClassName"] == "high"
    assert spec["terminationGracePeriodSeconds"] == 5


def test_rights_are_those_the_operator_lists(helm: Helm) -> None:
    objects = helm.render(CHART, {"watchNamespaces": ["a", "b"]})
    roles = {(o["metadata"]["namespace"], o["metadata"]["name"]): o["rules"] for o in objects if o["kind"] == "Role"}
    working, leasing = rbac.manifests(rbac.RULES), rbac.manifests(rbac.LEASE_RULES)
    assert roles == {("a", "rel"): working, ("b", "rel"): working, ("place", "rel-lease"): leasing}
    bindings = [one for one in objects if one["kind"] == "RoleBinding"]
    assert {(one["metadata"]["namespace"], one["roleRef"]["name"]) for one in bindings} == roles.keys()
    for one in bindings:
        assert one["subjects"] == [{"kind": "ServiceAccount", "name": "rel", "namespace": "place"}]
    arguments = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments[:5] == ["operate", "--namespace", "a", "--namespace", "b"]


def test_cluster_wide_is_one_cluster_role(helm: Helm) -> None:
    objects = helm.render(CHART, {"clusterWide": True})
    role, binding = only(objects, "ClusterRole", "place-rel"), only(objects, "ClusterRoleBinding")
    assert role["rules"] == rbac.manifests(rbac.RULES)
    assert role["metadata"]["name"] == binding["roleRef"]["name"] == "place-rel"
    assert only(objects, "Role")["metadata"]["name"] == "rel-lease"
    assert "--all-namespaces" in only(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]


def test_rights_and_account_may_be_someone_elses(helm: Helm) -> None:
    objects = helm.render(CHART, {"rbac": {"create": False}, "serviceAccount": {"create": False, "name": "mine"}})
    assert not kinds(objects) & {"Role", "RoleBinding", "ClusterRole", "ServiceAccount"}
    assert only(objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == "mine"
    annotated = helm.render(CHART, {"serviceAccount": {"name": "own", "annotations": {"role": "x"}}})
    account = only(annotated, "ServiceAccount", "own")
    assert account["metadata"]["annotations"] == {"role": "x"} and account["automountServiceAccountToken"] is False


def test_secrets_are_read_by_name_where_they_are_named(helm: Helm) -> None:
    """C3: `create` cannot be narrowed by name in Kubernetes, `get` can."""

    def rules(values: Json) -> list[Json]:
        role = only(helm.render(CHART, values), "Role", "rel")
        return [rule for rule in role["rules"] if rule["resources"] == ["secrets"]]

    assert [rule["verbs"] for rule in rules({})] == [["get"], ["create"]]
    get, create = rules({"rbac": {"secretNames": ["kit19-s3", "hub"]}})
    assert get["resourceNames"] == ["kit19-s3", "hub"] and "resourceNames" not in create


def test_crd_is_the_operators_and_is_kept(helm: Helm) -> None:
    definition = only(helm.render(CHART, {}), "CustomResourceDefinition")
    assert definition["spec"] == crd.definition()["spec"]
    values = helm.values({})
    older = helm("template", "rel", f"helm/{CHART}", "--kube-version", "1.24.0", "--values", values).stdout
    (made,) = [one for one in yaml.load_all(older, Loader) if one and one["kind"] == "CustomResourceDefinition"]
    assert made["spec"] == crd.definition(rules=False)["spec"]  # CEL came with 1.25
    assert definition["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    loose = only(helm.render(CHART, {"crds": {"keep": False}}), "CustomResourceDefinition")
    assert "annotations" not in loose["metadata"]
    assert "CustomResourceDefinition" not in kinds(helm.render(CHART, {"crds": {"enabled": False}}))


def test_network_policy(helm: Helm) -> None:
    peer = {"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}
    values = {"networkPolicy": {"metricsFrom": [peer], "egressPorts": [6443, 9000]}}
    policy = only(helm.render(CHART, values), "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"][0] == {"from": [{"podSelector": {}}, peer], "ports": [{"port": 8080, "protocol": "TCP"}]}
    assert [port["port"] for port in policy["egress"][0]["ports"]] == [53, 53, 5353, 5353, 6443, 9000]
    assert "NetworkPolicy" not in kinds(helm.render(CHART, {"networkPolicy": {"enabled": False}}))


def test_disruption_budget(helm: Helm) -> None:
    budget = only(helm.render(CHART, {"podDisruptionBudget": {"maxUnavailable": 0}}), "PodDisruptionBudget")
    assert budget["apiVersion"] == "policy/v1" and budget["spec"]["maxUnavailable"] == 0
    assert "PodDisruptionBudget" not in kinds(helm.render(CHART, {"podDisruptionBudget": {"enabled": False}}))


def test_service_monitor_only_when_asked_for(helm: Helm) -> None:
    values = {"metrics": {"serviceMonitor": {"enabled": True, "interval": "10s", "labels": {"release": "prometheus"}}}}
    objects = helm.render(CHART, values)
    monitor, service = only(objects, "ServiceMonitor"), only(objects, "Service")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["endpoints"][0]["interval"] == "10s"
    assert monitor["spec"]["endpoints"][0]["port"] in [port["name"] for port in service["spec"]["ports"]]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()


def test_dashboard_asks_for_metrics_the_operator_has(helm: Helm) -> None:
    values = {"dashboards": {"enabled": True, "annotations": {"folder": "ML"}}}
    config_map = only(helm.render(CHART, values), "ConfigMap")
    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert config_map["metadata"]["annotations"] == {"folder": "ML"}
    dashboard = yaml.safe_load(config_map["data"]["kit19-runs.json"])
    asked = set(re.findall(r"kit19_\w+", str(dashboard["panels"]) + str(dashboard["templating"])))
    declared = {
        line.split()[2] for line in ControllerMetrics().text().decode().splitlines() if line.startswith("# TYPE")
    }
    assert asked and all(name.removesuffix("_bucket") in declared for name in asked), asked - declared
    cells = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in dashboard["panels"]]
    assert len(set(cells)) == len(cells)


def serving_names() -> set[str]:
    """What Prometheus gets of the servers."""
    found = set()
    for name, metric in serve_metrics.METRICS.items():
        suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}[metric.kind]
        found |= {f"ray_{name}{suffix}" for suffix in suffixes}
    return found


@pytest.mark.parametrize("chart", [CHART, "kit19-run"])
def test_the_serving_dashboard_asks_for_metrics_and_labels_the_servers_have(helm: Helm, chart: str) -> None:
    values: Json = {"dashboards": {"enabled": True}}
    if chart != CHART:
        values |= {"config": {"root": "s3://bucket/r", "serve": {"model": "m"}}, "serve": {"enabled": True}}
    (text,) = [one["data"]["kit19-serving.json"] for one in helm.render(chart, values)
               if "kit19-serving.json" in one.get("data", {})]  # fmt: skip
    dashboard = json.loads(text)
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = set(re.findall(r"\b(?:ray_)?kit19_\w+", " ".join(queries) + str(dashboard["templating"])))
    assert asked and asked <= serving_names(), asked - serving_names()
    measured = {name.removeprefix("ray_").rsplit("_total")[0].removesuffix("_bucket") for name in asked}
    assert set(serve_metrics.METRICS) <= measured  # nothing is measured that nobody is shown
    for query in queries:
        for label in re.findall(r"by \(([\w, ]+)\)", query):
            assert set(label.split(", ")) <= {"le", "model", "status"}, query


def test_alerts_ask_for_metrics_the_operator_has(helm: Helm) -> None:
    values = {"metrics": {"prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}}}}
    rule = only(helm.render(CHART, values), "PrometheusRule")
    (group,) = rule["spec"]["groups"]
    assert rule["metadata"]["labels"]["release"] == "prometheus" and len(group["rules"]) == 13
    asked = set(re.findall(r"\b(?:ray_)?kit19_\w+", " ".join(one["expr"] for one in group["rules"])))
    declared = {
        line.split()[2] for line in ControllerMetrics().text().decode().splitlines() if line.startswith("# TYPE")
    }
    assert asked <= declared | serving_names(), asked - declared
    assert {one["alert"] for one in group["rules"]} >= {
        "Kit19TrainingStalled", "Kit19CheckpointFailing", "Kit19QueueGrowing", "Kit19ServeQueueGrowing",
        "Kit19StandbyWithoutLeader", "Kit19TwoOperators",
    }  # fmt: skip
    assert 'absent(kit19_operator_leader{job="rel"} == 1)' in [one["expr"] for one in group["rules"]]


def test_ray_s_own_metrics_are_scraped_where_runs_are(helm: Helm) -> None:
    """D8: the port is named in every Ray pod."""
    values = {"metrics": {"podMonitor": {"enabled": True}}, "watchNamespaces": ["a", "b"]}
    monitor = only(helm.render(CHART, values), "PodMonitor")["spec"]
    assert monitor["namespaceSelector"] == {"matchNames": ["a", "b"]}
    assert monitor["selector"]["matchExpressions"] == [{"key": "kit19.dev/run", "operator": "Exists"}]
    assert monitor["podMetricsEndpoints"][0]["port"] == "metrics"
    wide = {"metrics": {"podMonitor": {"enabled": True}}, "clusterWide": True}
    assert only(helm.render(CHART, wide), "PodMonitor")["spec"]["namespaceSelector"] == {"any": True}


def test_a_service_monitor_lets_prometheus_in(helm: Helm) -> None:
    """D8."""

    def peers(values: Json) -> list[Json]:
        policy = only(helm.render(CHART, values), "NetworkPolicy")["spec"]
        return list(policy["ingress"][0]["from"])

    monitored = {"metrics": {"serviceMonitor": {"enabled": True}}}
    assert peers({}) == [{"podSelector": {}}]
    assert peers(monitored) == [{"podSelector": {}}, {"namespaceSelector": {}}]
    own = {"namespaceSelector": {"matchLabels": {"a": "b"}}}
    assert peers(monitored | {"networkPolicy": {"metricsFrom": [own]}}) == [{"podSelector": {}}, own]


def test_role_credentials_can_be_fetched(helm: Helm) -> None:
    """A7."""
    egress = only(helm.render(CHART, {}), "NetworkPolicy")["spec"]["egress"]
    assert [peer["ipBlock"]["cidr"] for peer in egress[1]["to"]] == ["169.254.170.23/32", "169.254.169.254/32"]
    assert egress[1]["ports"] == [{"port": 80, "protocol": "TCP"}]


def test_releases_side_by_side_share_nothing(helm: Helm) -> None:
    """B4: neither the lease nor a cluster-wide name."""
    made = [helm.render(CHART, {"watchNamespaces": [f"team-{name}"]}, release=name) for name in ("a", "b")]
    names = [{(one["kind"], one["metadata"]["name"]) for one in objects} for objects in made]
    assert names[0] & names[1] == {("CustomResourceDefinition", "kitruns.kit19.dev")}
    words = [only(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"] for objects in made]
    assert [one[one.index("--lease-name") + 1] for one in words] == ["a", "b"]


def test_people_get_kitruns_with_edit_and_view_and_the_operator_no_config_maps(helm: Helm) -> None:
    """C3."""
    objects = helm.render(CHART, {})
    roles = {one["metadata"]["name"]: one for one in objects if one["kind"] == "ClusterRole"}
    assert set(roles) == {"place-rel-edit", "place-rel-view"}
    aggregate = "rbac.authorization.k8s.io/aggregate-to-"
    assert roles["place-rel-edit"]["metadata"]["labels"][f"{aggregate}edit"] == "true"
    assert roles["place-rel-view"]["rules"][0]["verbs"] == ["get", "list", "watch"]
    assert "ClusterRole" not in kinds(helm.render(CHART, {"rbac": {"aggregate": False}}))
    assert "configmaps" not in str([one["rules"] for one in objects if one["kind"] == "Role"])


@pytest.mark.parametrize(("security", "user"), [("restricted", 1000), ("assigned", None), ("none", None)])
def test_ids_are_left_to_openshift(helm: Helm, security: str, user: int | None) -> None:
    """A4."""
    pod = only(helm.render(CHART, {"security": security}), "Deployment")["spec"]["template"]["spec"]
    assert pod.get("securityContext", {}).get("runAsUser") == user
    assert ("securityContext" in pod["containers"][0]) == ("securityContext" in pod) == (security != "none")


def test_test_pod_reaches_both_ports_of_the_service(helm: Helm) -> None:
    objects = helm.render(CHART, {"image": {"pullSecrets": ["r"]}})
    pod = only(objects, "Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test" and pod["spec"]["restartPolicy"] == "Never"
    assert pod["spec"]["imagePullSecrets"] == [{"name": "r"}]
    code = pod["spec"]["containers"][0]["args"][0]
    compile(code, "test", "exec")
    assert f"http://{only(objects, 'Service')['metadata']['name']}" in code and "8081/healthz" in code
    selector = only(objects, "Deployment")["spec"]["selector"]["matchLabels"]
    assert not selector.items() <= pod["metadata"]["labels"].items()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"replica": 2}, "'replica'"),
        ({"image": {"tag": "1"}}, "'tag'"),
        ({"image": {"name": "kit19-ray/operate:latest"}}, "/image/name"),
        ({"image": {"name": "kit19-ray/operate"}}, "/image/name"),
        ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
        ({"replicas": "two"}, "/replicas"),
        ({"replicas": 0}, "/replicas"),
        ({"env": [{"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}]}, "/env/0"),
        ({"watchNamespaces": "a"}, "/watchNamespaces"),
        ({"resources": {"limits": {"memory": "a lot"}}}, "/resources/limits/memory"),
        ({"networkPolicy": {"egressPorts": ["https"]}}, "/networkPolicy/egressPorts/0"),
        ({"metrics": {"serviceMonitor": {"enable": True}}}, "'enable'"),
        ({"clusterWide": True, "watchNamespaces": ["a"]}, "clusterWide and watchNamespaces exclude one another"),
    ],
)
def test_bad_values_are_refused_by_name(helm: Helm, values: dict[str, Any], said: str) -> None:
    assert said in helm.refuse(CHART, values)


def test_a_release_name_that_is_too_long_is_refused(helm: Helm) -> None:
    assert "set nameOverride" in helm.refuse(CHART, {}, release="r" * 53)


def test_as_a_subchart_it_takes_global_values(helm: Helm) -> None:
    assert helm.render(CHART, {"global": {"registry": "x"}})


def test_chart_version_is_the_packages() -> None:
    from kit19_ray import __version__

    for chart in (REPO / "helm").glob("*/Chart.yaml"):
        made = yaml.safe_load(chart.read_text())
        assert made["version"] == made["appVersion"] == __version__


def test_notes_say_what_to_do_next(helm: Helm) -> None:
    def notes(values: Json) -> str:
        words = ("--dry-run=client", "--namespace", "place", "--values", helm.values(values))
        return helm("install", "rel", f"helm/{CHART}", *words).stdout.split("NOTES:")[1]

    assert "works in place." in notes({}) and "rollout status deployment/rel" in notes({})
    teams = notes({"watchNamespaces": ["a", "b"]})
    assert "works in a, b." in teams and "--namespace a apply" in teams
    wide = notes({"clusterWide": True, "networkPolicy": {"enabled": False}, "crds": {"enabled": False}})
    assert "works in every namespace." in wide and "--namespace default apply" in wide
    assert "every pod of the cluster can reach" in wide and "must come from elsewhere" in wide
    assert "the CRD goes" in notes({"crds": {"keep": False}})
