"""The children against the real API server with KubeRay's own schemas, and what must be in them."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.config import loading
from kit19_ray.config.schema import Config
from kit19_ray.operate.api.spec import STAGES, KitRunSpec, parse
from kit19_ray.operate.manifests import children, naming, ray_cluster
from kit19_ray.operate.manifests.naming import RunRef
from tests.operate.control_plane import ControlPlane

RUN = RunRef("demo", "default", "6f1c9b1e-0000-4000-8000-000000000001")


def spec(**more: Any) -> KitRunSpec:
    tree: dict[str, Any] = {"config": {"root": "s3://bucket/runs"}, "images": {"train": "kit19:1"}}
    return parse(tree | more, "demo")


FULL: dict[str, Any] = {
    "auth": "token",
    "storage": {"credentialsSecret": "aws", "endpoint": "http://minio.default:9000", "region": "us-east-1"},
    "queue": {"scheduler": "volcano", "schedulerQueue": "q", "priorityClass": "high", "kueue": "team"},
    "stages": {
        "train": {
            "workers": 2,
            "gpus": 4,
            "nodeSelector": {"gpu": "h100"},
            "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "affinity": {"nodeAffinity": {}},
            "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}],
            "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
            "env": [
                {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf", "key": "token"}}},
                {"name": "NCCL_DEBUG", "value": "WARN"},
            ],
            "envFrom": [{"secretRef": {"name": "more"}}],
            "serviceAccount": "trainer",
            "labels": {"team": "nlp"},
            "annotations": {"note": "x"},
        }
    },
    "serve": {
        "autoscaling": {"minReplicas": 1, "maxReplicas": 3},
        "ingress": {"host": "kit19.example", "tlsSecret": "t"},
    },
}


def every_child(wanted: KitRunSpec) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for stage in STAGES:
        found.append(children.ray_job(RUN, wanted, stage, 0, {}))
    found.append(children.ray_service(RUN, wanted, {}))
    return found + [one for one in (children.ingress(RUN, wanted), children.network_policy(RUN, wanted)) if one]


def pod_templates(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for one in made:
        cluster = one["spec"].get("rayClusterSpec") or one["spec"].get("rayClusterConfig") if "spec" in one else None
        if cluster:
            found += [
                cluster["headGroupSpec"]["template"],
                *(g["template"] for g in cluster.get("workerGroupSpecs", [])),
            ]
    return found


@pytest.mark.kube
@pytest.mark.parametrize("more", [{}, FULL], ids=["defaults", "everything"])
def test_the_api_server_takes_every_child(control_plane: ControlPlane, more: dict[str, Any]) -> None:
    text = yaml.safe_dump_all(every_child(spec(**more)))
    # Server-side apply refuses a field that KubeRay's schema does not have.
    done = control_plane.kubectl("apply", "--server-side", "--dry-run=server", "-f", "-", stdin=text)
    assert len(done.stdout.splitlines()) == len(every_child(spec(**more)))


def test_every_pod_is_hardened() -> None:
    found = pod_templates(every_child(spec(**FULL)))
    assert len(found) == 6  # a head each, train's workers, the server's head and workers
    for template in found:
        pod = template["spec"]
        assert pod["automountServiceAccountToken"] is False and pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False and context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"] == container["resources"]["requests"]
            if container["name"] != ray_cluster.LOG_CONTAINER:
                assert {"secretRef": {"name": "aws"}} in container["envFrom"]


def test_nothing_is_installed_when_a_job_starts() -> None:
    for one in every_child(spec(**FULL)):
        assert "runtimeEnvYAML" not in one.get("spec", {}) and "pip" not in str(one)


def test_the_entrypoint_retries_on_the_same_cluster_before_the_operator_builds_another() -> None:
    job = children.ray_job(RUN, spec(retries={"sameCluster": 3}), "train", 0, {})["spec"]
    assert job["entrypoint"] == "python -m kit19_ray.cli.retry 3 train --config /etc/kit19/config.yaml"
    assert job["backoffLimit"] == 0 and job["shutdownAfterJobFinishes"] is True
    once = children.ray_job(RUN, spec(retries={"sameCluster": 0}), "train", 0, {})["spec"]
    assert once["entrypoint"] == "python -m kit19_ray.cli.retry 0 train --config /etc/kit19/config.yaml"


def test_the_head_s_annotation_holds_a_file_the_command_line_reads() -> None:
    wanted = spec(config={"root": "s3://bucket/runs", "train": {"epochs": 1.5}, "data": {"tasks": ["nsmc"]}})
    job = children.ray_job(RUN, wanted, "evaluate", 0, {"data": "s3://bucket/data-1", "train": "s3://bucket/train-1"})
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    text = head["metadata"]["annotations"][ray_cluster.CONFIG_ANNOTATION]
    (volume,) = [one for one in head["spec"]["volumes"] if one["name"] == "kit19-config"]
    assert volume["downwardAPI"]["items"][0]["fieldRef"]["fieldPath"] == "metadata.annotations['kit19.dev/config']"
    loaded = loading.validate(Config, yaml.safe_load(text), "config.yaml")
    assert loaded.train.data == "s3://bucket/data-1" and loaded.evaluate.model == "s3://bucket/train-1"
    assert loaded.train.epochs == 1.5 and loaded.data.tasks == ["nsmc"]
    unknown = children.stage_config(wanted, "evaluate", {})
    assert unknown == wanted.config  # the stage works out what the operator does not know


def test_a_stage_alone_runs_on_the_head_and_gpus_are_packed_into_pods() -> None:
    alone = children.ray_job(RUN, spec(), "train", 0, {})["spec"]["rayClusterSpec"]
    assert "workerGroupSpecs" not in alone and "num-cpus" not in alone["headGroupSpec"]["rayStartParams"]
    many = spec(
        config={"root": "s3://bucket/r", "train": {"workers": 16, "micro_batch_size": 4}}, stages={"train": {"gpus": 8}}
    )
    cluster = children.ray_job(RUN, many, "train", 0, {})["spec"]["rayClusterSpec"]
    group = cluster["workerGroupSpecs"][0]
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"] == 2
    assert group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_pods_keep_kuberay_s_own_name_label_by_which_its_services_select() -> None:
    spec_ = spec(**FULL)
    jobs = [children.ray_job(RUN, spec_, stage, 0, {})["spec"]["rayClusterSpec"] for stage in STAGES]
    service = children.ray_service(RUN, spec_, {"train": "s3://bucket/train"})["spec"]["rayClusterConfig"]
    for cluster in [*jobs, service]:
        for group in [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])]:
            labels = group["template"]["metadata"]["labels"]
            assert "app.kubernetes.io/name" not in labels and labels["kit19.dev/run"] == "demo"


def test_queue_labels_are_those_kuberay_and_kueue_read() -> None:
    labels = children.ray_job(RUN, spec(**FULL), "train", 0, {})["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == "team"
    assert labels["volcano.sh/queue-name"] == "q"
    assert labels["ray.io/priority-class-name"] == "high"
    yunikorn = spec(queue={"scheduler": "yunikorn", "schedulerQueue": "root.q"})
    labels = children.ray_job(RUN, yunikorn, "data", 0, {})["metadata"]["labels"]
    assert labels["ray.io/gang-scheduling-enabled"] == "true" and labels["yunikorn.apache.org/queue"] == "root.q"
    assert not any("kueue" in key or "volcano" in key for key in labels)


def test_the_service_gets_the_model_of_the_train_stage() -> None:
    known = yaml.safe_load(children.ray_service(RUN, spec(), {"train": "s3://bucket/train-1"})["spec"]["serveConfigV2"])
    arguments = known["applications"][0]["args"]
    keys = {"auth": "keys", "api_keys_file": "/etc/kit19-keys/api-keys"}
    assert arguments == {"serve": {"host": "0.0.0.0", "model": "s3://bucket/train-1", "use_gpu": False} | keys}
    assert known["applications"][0]["import_path"] == "kit19_ray.serve.deployment:build"


dns_names = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,80}[a-z0-9])?", fullmatch=True)


@given(first=dns_names, second=dns_names, attempt=st.integers(0, 40))
def test_names_are_dns_1035_short_and_one_to_one(first: str, second: str, attempt: int) -> None:
    wanted = spec()
    made = {}
    for name in {first, second}:
        run = RunRef(name, "default")
        names = [naming.service_name(run), *(naming.job_name(run, wanted, stage, attempt) for stage in STAGES)]
        for one in names:
            assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", one) and len(one) <= 40
        assert re.fullmatch(r"[a-zA-Z0-9]([-A-Za-z0-9_.]*[a-zA-Z0-9])?", run.label) and len(run.label) <= 63
        made[name] = names
    assert len({one for names in made.values() for one in names}) == 4 * len(made)


def test_a_hash_changes_with_the_stage_s_own_config_and_those_before_it() -> None:
    def hashes(**config: Any) -> list[str]:
        wanted = spec(config={"root": "s3://bucket/runs"} | config)
        return [naming.stage_hash(wanted, stage) for stage in STAGES]

    base = hashes()
    changed = {
        "evaluate": hashes(evaluate={"num_fewshot": 5}),
        "train": hashes(train={"epochs": 1}),
        "data": hashes(data={"quota": 10}),
        "none": hashes(
            train={"workers": 4, "micro_batch_size": 2}, evaluate={"gate": [{"task": "kobest_wic", "min": 0.5}]}
        ),
    }
    differ = {name: [a != b for a, b in zip(base, other)] for name, other in changed.items()}
    assert differ == {
        "evaluate": [False, False, True],
        "train": [False, True, True],
        "data": [True, True, True],
        "none": [False, False, False],
    }
