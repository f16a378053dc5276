"""Pods of a stage: what a cluster's owner may change, what goes where, what is safe before anybody says so."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from kit19_ray.errors import OperateError
from kit19_ray.operate.api.spec import KitRunSpec, parse
from kit19_ray.operate.manifests import children
from kit19_ray.operate.manifests.naming import RunRef

RUN = RunRef("demo", "default", "6f1c9b1e-0000-4000-8000-000000000001")
EFA = {"vpc.amazonaws.com/efa": "32", "hugepages-2Mi": "5128Mi", "ephemeral-storage": "200Gi"}


def spec(**more: Any) -> KitRunSpec:
    tree: dict[str, Any] = {"config": {"root": "s3://bucket/runs"}, "images": {"train": "kit19:1"}}
    return parse(tree | more, "demo")


def many(**pods: Any) -> KitRunSpec:
    """Sixteen GPUs on two worker pods."""
    config = {"root": "s3://bucket/r", "train": {"workers": 16, "micro_batch_size": 4}}
    return spec(config=config, stages={"train": {"gpus": 8, **pods}})


def pods_of(wanted: KitRunSpec, stage: Any = "train") -> tuple[dict[str, Any], dict[str, Any]]:
    """Pod specs of head and workers; the head's twice where it is alone."""
    if stage == "serve":
        cluster = children.ray_service(RUN, wanted, {"train": "s3://bucket/m"})["spec"]["rayClusterConfig"]
    else:
        cluster = children.ray_job(RUN, wanted, stage, 0, {})["spec"]["rayClusterSpec"]
    head = cluster["headGroupSpec"]["template"]
    groups = cluster.get("workerGroupSpecs")
    return head["spec"], (groups[0]["template"] if groups else head)["spec"]


def served(wanted: KitRunSpec, uri: str = "s3://bucket/m") -> dict[str, Any]:
    body: dict[str, Any] = children.ray_service(RUN, wanted, {"train": uri})["spec"]
    return body


def test_a_served_model_s_gpus_come_from_the_spec_and_not_from_the_cluster_s_moment() -> None:
    """A1: KubeRay sends the serve config as soon as the head is ready, before any GPU node has joined."""
    for gpus, use in ((1, True), (0, False)):
        body = served(spec(stages={"serve": {"gpus": gpus}}))
        (application,) = yaml.safe_load(body["serveConfigV2"])["applications"]
        assert application["args"]["serve"]["use_gpu"] is use


def test_a_serve_port_of_one_s_own_is_named_on_workers_too() -> None:
    """A3: KubeRay's readiness probe takes it from there, else asks port 8000 for ever."""
    config = {"root": "s3://bucket/r", "serve": {"port": 9000, "replicas": 2}}
    for pod in pods_of(spec(config=config, stages={"serve": {"gpus": 1}}), "serve"):
        assert {"name": "serve", "containerPort": 9000} in pod["containers"][0]["ports"]


def test_a_template_is_merged_over_the_defaults_and_may_take_them_away() -> None:
    """A4."""
    template = {
        "metadata": {"annotations": {"k8s.v1.cni.cncf.io/networks": "rdma"}},
        "spec": {
            "runtimeClassName": "nvidia",
            "securityContext": None,
            "initContainers": [{"name": "warm", "image": "a:1"}],
            "containers": [{"name": "ray", "securityContext": None, "env": [{"name": "X", "value": "1"}]}],
            "volumes": [{"name": "cache", "$patch": "delete"}, {"name": "cache", "hostPath": {"path": "/nvme"}}],
        },
    }
    _, pod = pods_of(many(podTemplate=template, resources=EFA))
    (container,) = pod["containers"]
    assert pod["runtimeClassName"] == "nvidia" and "securityContext" not in pod
    assert container["name"] == "ray-worker" and "securityContext" not in container
    assert {"name": "X", "value": "1"} in container["env"] and container["env"][0]["name"] == "KIT19_CACHE"
    assert EFA.items() <= container["resources"]["limits"].items() == container["resources"]["requests"].items()
    assert pod["volumes"] == [{"name": "cache", "hostPath": {"path": "/nvme"}}]
    cluster = children.ray_job(RUN, many(podTemplate=template), "train", 0, {})["spec"]["rayClusterSpec"]
    annotations = cluster["workerGroupSpecs"][0]["template"]["metadata"]["annotations"]
    assert annotations["k8s.v1.cni.cncf.io/networks"] == "rdma"
    head, _ = pods_of(many(podTemplate=template))
    assert head["securityContext"]["runAsUser"] == 1000 and "runtimeClassName" not in head


@pytest.mark.parametrize(
    ("security", "pod", "container"),
    [("restricted", 1000, True), ("assigned", None, True), ("none", None, False)],
)
def test_ids_are_left_to_openshift_and_all_of_it_to_whoever_asks(security: str, pod: Any, container: bool) -> None:
    """A4."""
    found, _ = pods_of(spec(security=security))
    assert found.get("securityContext", {}).get("runAsUser") == pod
    assert ("securityContext" in found) == (security != "none")
    assert all(("securityContext" in one) is container for one in found["containers"])


def test_scratch_disks_are_sized_and_can_be_replaced() -> None:
    """D6."""
    claim = {"ephemeral": {"volumeClaimTemplate": {"spec": {"resources": {"requests": {"storage": "1Ti"}}}}}}
    scratch = {"cache": {"emptyDir": {"sizeLimit": "200Gi"}}, "tmp": claim}
    _, pod = pods_of(many(scratch=scratch))
    assert pod["volumes"] == [{"name": "cache", "emptyDir": {"sizeLimit": "200Gi"}}, {"name": "tmp", **claim}]
    mounts = {one["name"]: one["mountPath"] for one in pod["containers"][0]["volumeMounts"]}
    assert mounts == {"cache": "/cache", "tmp": "/tmp"}


def test_a_head_does_not_follow_its_workers_onto_gpu_nodes_unless_told() -> None:
    """B6."""
    place = {"nodeSelector": {"type": "p5"}, "tolerations": [{"key": "gpu"}], "affinity": {"nodeAffinity": {}}}
    head, worker = pods_of(many(**place, runtimeClass="nvidia"))
    assert worker["nodeSelector"] == {"type": "p5"} and worker["runtimeClassName"] == "nvidia"
    assert not {"nodeSelector", "tolerations", "affinity", "runtimeClassName"} & head.keys()
    head, _ = pods_of(many(**place, head={"nodeSelector": {"type": "m7"}, "tolerations": [{"key": "cpu"}]}))
    assert head["nodeSelector"] == {"type": "m7"} and head["tolerations"] == [{"key": "cpu"}]
    head, _ = pods_of(spec(stages={"train": {"workers": 2, **place}}))  # no GPUs: the same kind of node
    assert head["nodeSelector"] == {"type": "p5"}


def test_a_run_is_closed_before_anybody_says_so() -> None:
    """C1: a token, and a policy that selects its pods."""
    wanted = spec()
    job = children.ray_job(RUN, wanted, "train", 0, {})["spec"]["rayClusterSpec"]
    policy = children.network_policy(RUN, wanted)
    assert job["authOptions"] == {"mode": "token"} and policy is not None
    labels = job["headGroupSpec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["metadata"]["ownerReferences"][0]["uid"] == RUN.uid
    ports = [rule.get("ports", [{}])[0].get("port") for rule in policy["spec"]["ingress"]]
    assert ports == [None, 8265, 8000] and policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    kuberay = policy["spec"]["ingress"][1]["from"][0]["podSelector"]["matchLabels"]
    assert kuberay == {"app.kubernetes.io/component": "kuberay-operator"}
    assert policy["spec"]["ingress"][2]["from"][0] == {"podSelector": {}}
    assert children.network_policy(RUN, spec(networkPolicy={"enabled": False})) is None


def test_an_ingress_controller_is_let_in_and_closed_egress_keeps_role_credentials() -> None:
    """D8, A7."""
    egress = [{"ports": [{"port": 443}]}]
    wanted = spec(serve={"ingress": {"host": "a.example"}}, networkPolicy={"egress": egress})
    policy = children.network_policy(RUN, wanted)
    assert policy is not None
    assert policy["spec"]["ingress"][2]["from"][0] == {"namespaceSelector": {}}
    cidrs = [peer["ipBlock"]["cidr"] for peer in policy["spec"]["egress"][2]["to"]]
    assert cidrs == ["169.254.170.23/32", "169.254.169.254/32"] and policy["spec"]["egress"][-1:] == egress


def test_jobs_are_sent_by_http_and_there_is_no_submitter_to_schedule() -> None:
    """B1, B2, C3: no pod whose end is the run's, that a quota keeps out, or that holds Secrets it does not use."""
    body = children.ray_job(RUN, spec(storage={"credentialsSecret": "s3"}), "train", 0, {})["spec"]
    assert body["submissionMode"] == "HTTPMode" and not {"submitterPodTemplate", "submitterConfig"} & body.keys()
    head, _ = pods_of(spec(storage={"credentialsSecret": "s3"}))
    ray, log = head["containers"]
    assert ray["envFrom"] == [{"secretRef": {"name": "s3"}}]
    assert "envFrom" not in log and [mount["name"] for mount in log["volumeMounts"]] == ["driver-log"]


def test_a_pod_has_the_time_to_save_what_it_trains_and_is_not_moved_about() -> None:
    """B2, training A14."""
    job = children.ray_job(RUN, many(), "train", 0, {})["spec"]["rayClusterSpec"]
    for group in (job["headGroupSpec"], *job["workerGroupSpecs"]):
        pod, annotations = group["template"]["spec"], group["template"]["metadata"]["annotations"]
        hook = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        assert hook == ["python", "-m", "kit19_ray.utils.drain_node"] and pod["terminationGracePeriodSeconds"] == 180
        assert annotations["karpenter.sh/do-not-disrupt"] == "true"
        assert annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"


def test_a_new_model_is_a_new_cluster_unless_it_shall_be_in_place() -> None:
    """D2: KubeRay keeps the old one until the new one answers only when rayClusterConfig changes."""
    first, second = served(spec(), "s3://bucket/one"), served(spec(), "s3://bucket/two")
    assert first["rayClusterConfig"] != second["rayClusterConfig"]
    wanted = spec(serve={"newModel": "InPlace", "upgradeStrategy": {"type": "None"}})
    first, second = served(wanted, "s3://bucket/one"), served(wanted, "s3://bucket/two")
    assert first["rayClusterConfig"] == second["rayClusterConfig"] and first["serveConfigV2"] != second["serveConfigV2"]
    assert first["upgradeStrategy"] == {"type": "None"}


def test_autoscaling_frees_gpu_pods() -> None:
    """D3."""
    wanted = spec(stages={"serve": {"gpus": 2}}, serve={"autoscaling": {"minReplicas": 0, "maxReplicas": 5}})
    cluster = served(wanted)["rayClusterConfig"]
    (group,) = cluster["workerGroupSpecs"]
    assert cluster["enableInTreeAutoscaling"] is True
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (0, 0, 3)
    # The autoscaler asks the API server, with the head's token.
    assert cluster["headGroupSpec"]["template"]["spec"]["automountServiceAccountToken"] is True
    assert group["template"]["spec"]["automountServiceAccountToken"] is False
    queued = spec(stages={"serve": {"gpus": 1}}, serve={"autoscaling": {"maxReplicas": 4}}, queue={"kueue": "team"})
    cluster = served(queued)["rayClusterConfig"]  # Kueue admits a cluster of one size
    assert "enableInTreeAutoscaling" not in cluster and cluster["workerGroupSpecs"][0]["minReplicas"] == 4


def test_a_lost_head_need_not_end_the_server() -> None:
    """D9."""
    options = {
        "redisAddress": "redis:6379",
        "redisPassword": {"valueFrom": {"secretKeyRef": {"name": "r", "key": "p"}}},
    }
    assert served(spec(serve={"gcsFaultTolerance": options}))["rayClusterConfig"]["gcsFaultToleranceOptions"] == options


def test_each_stage_may_have_an_image_and_so_may_the_heads() -> None:
    """D11."""
    images = {"train": "t:1", "data": "d:1", "evaluate": "e:1", "serve": "s:1", "head": "h:1"}
    stages = {"train": {"gpus": 1, "workers": 1}, "serve": {"gpus": 1}}
    wanted = spec(images=images, stages=stages)
    found = {
        stage: [pod["containers"][0]["image"] for pod in pods_of(wanted, stage)] for stage in images if stage != "head"
    }
    assert found == {
        "data": ["d:1", "d:1"],
        "evaluate": ["e:1", "e:1"],
        "train": ["h:1", "t:1"],
        "serve": ["h:1", "s:1"],
    }


@pytest.mark.parametrize("name", ["demo", "xxxxx-" * 20, "s.and.dots" * 9])
def test_queue_labels_are_labels_one_application_a_rayjob_and_the_server_s_too(name: str) -> None:
    """B5, D12."""
    import re

    wanted = spec(queue={"scheduler": "yunikorn", "schedulerQueue": "root.q"})
    run = RunRef(name.rstrip("-."), "default", RUN.uid)
    made = [children.ray_job(run, wanted, stage, attempt, {}) for stage in ("data", "train") for attempt in (0, 1)]
    made.append(children.ray_service(run, wanted, {"train": "s3://bucket/m"}))
    ids = [one["metadata"]["labels"]["yunikorn.apache.org/app-id"] for one in made]
    assert len(set(ids)) == 5
    assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9_.]{0,61}[a-z0-9])?", one) for one in ids)
    queued = children.ray_service(run, spec(queue={"kueue": "team"}), {"train": "s3://bucket/m"})
    assert queued["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"


def test_a_scheduler_kuberay_has_no_rayjobs_for_is_refused_with_the_reason() -> None:
    """A2: kai-scheduler takes RayJobs in HTTPMode, which all of ours are; scheduler-plugins takes none."""
    with pytest.raises(OperateError, match="scheduler-plugins: KubeRay refuses every RayJob under it"):
        spec(queue={"scheduler": "scheduler-plugins"})
    job = children.ray_job(RUN, spec(queue={"scheduler": "kai-scheduler", "schedulerQueue": "k"}), "data", 0, {})
    assert job["metadata"]["labels"]["kai.scheduler/queue"] == "k" and job["spec"]["submissionMode"] == "HTTPMode"


def test_kuberay_s_own_deadline_counts_no_queue() -> None:
    """B5, D4: KubeRay counts from the creation."""
    assert "activeDeadlineSeconds" in children.ray_job(RUN, spec(), "train", 0, {})["spec"]
    for queue in ({"kueue": "team"}, {"scheduler": "volcano"}):
        assert "activeDeadlineSeconds" not in children.ray_job(RUN, spec(queue=queue), "train", 0, {})["spec"]


def test_a_uri_that_comes_to_be_known_does_not_make_a_starting_job_another_one() -> None:
    first, second = (children.ray_job(RUN, spec(), "train", 0, uris) for uris in ({}, {"data": "s3://bucket/data"}))
    assert first["metadata"] == second["metadata"] and first["spec"] != second["spec"]
