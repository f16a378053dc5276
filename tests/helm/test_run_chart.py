"""Every template of helm/kit19-run, and values it refuses. What a KitRun would make, the chart makes too."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kit19_ray.config import loading
from kit19_ray.config.schema import Config
from kit19_ray.operate.api import spec
from kit19_ray.operate.manifests import children
from kit19_ray.operate.manifests.naming import RunRef
from tests.helm.rendering import Helm, Json, assert_hardened, kinds, only

CHART = "kit19-run"
CONFIG: Json = {"root": "s3://bucket/kit19"}
SERVED: Json = {**CONFIG, "serve": {"model": "s3://bucket/kit19/train-0123456789ab"}}


def test_default_is_one_job_of_all_stages(helm: Helm) -> None:
    objects = helm.render(CHART, {"config": CONFIG})
    assert kinds(objects) == {"RayJob", "ConfigMap", "Secret", "ServiceAccount", "NetworkPolicy"}
    assert assert_hardened(objects) == 2  # head, test
    job = only(objects, "RayJob")
    assert job["spec"]["entrypoint"] == (
        "python -m kit19_ray.cli.retry 1 run --no-serve --config /etc/kit19/config.yaml"
    )
    assert job["spec"]["shutdownAfterJobFinishes"] is True and job["spec"]["backoffLimit"] == 0
    assert job["spec"]["submissionMode"] == "HTTPMode" and "submitterPodTemplate" not in job["spec"]
    assert "runtimeEnvYAML" not in job["spec"] and "suspend" not in job["spec"]
    assert len(job["metadata"]["name"]) <= 47
    for one in objects:
        assert one["metadata"]["namespace"] == "place"
        assert one["metadata"]["labels"]["app.kubernetes.io/instance"] == "rel"


def test_the_job_is_called_after_what_it_runs(helm: Helm) -> None:
    def name(values: Json) -> str:
        found: str = only(helm.render(CHART, {"config": CONFIG} | values), "RayJob")["metadata"]["name"]
        return found

    first = name({})
    assert name({}) == first and name({"job": {"suspend": True}}) == first
    others = [
        name({"config": CONFIG | {"seed": 20}}),
        name({"images": {"train": "kit19-ray/train:0.2.0"}}),
        name({"pods": {"cpu": "3"}}),
        # Whatever changes a RayJob's own spec: KubeRay ignores a change under way, and Kueue refuses it (finding D7).
        name({"job": {"backoffLimit": 5}}),
        name({"job": {"deadlineSeconds": 60}}),
        name({"queue": {"kueue": "q"}}),
        name({"auth": {"existingSecret": "mine"}}),
    ]
    assert len({first, *others}) == 8


def test_stages_are_jobs_of_their_own(helm: Helm) -> None:
    values = {
        "config": CONFIG | {"train": {"workers": 16}},
        "job": {"stages": ["data", "train"], "sameClusterRetries": 0, "deadlineSeconds": None, "ttlSeconds": 1_000_000},
        "pods": {"cpu": "4"},
        "stagePods": {"train": {"gpus": 8, "cpu": "64"}},
    }
    jobs = {
        o["spec"]["metadata"]["kit19-stage"]: o["spec"] for o in helm.render(CHART, values) if o["kind"] == "RayJob"
    }
    assert {stage: job["entrypoint"] for stage, job in jobs.items()} == {
        "data": "python -m kit19_ray.cli.retry 0 data --config /etc/kit19/config.yaml",
        "train": "python -m kit19_ray.cli.retry 0 train --config /etc/kit19/config.yaml",
    }
    assert "activeDeadlineSeconds" not in jobs["data"] and jobs["data"]["ttlSecondsAfterFinished"] == 1_000_000
    assert "workerGroupSpecs" not in jobs["data"]["rayClusterSpec"]
    (group,) = jobs["train"]["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"] == 2
    assert container["resources"]["limits"] == {"cpu": "64", "memory": "8Gi", "nvidia.com/gpu": "8"}
    assert jobs["train"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


PODS: Json = {
    "gpus": 2,
    "cpu": "7",
    "memory": "9Gi",
    "resources": {"vpc.amazonaws.com/efa": "4", "ephemeral-storage": "100Gi"},
    "head": {"cpu": "1", "memory": "3Gi"},
    "nodeSelector": {"a": "b"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {}},
    "runtimeClass": "nvidia",
    "scratch": {"cache": {"emptyDir": {"sizeLimit": "200Gi"}}, "tmp": {"hostPath": {"path": "/nvme"}}},
    "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}],
    "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
    "env": [{"name": "HF_HOME", "value": "/models"}, {"name": "NCCL_DEBUG", "value": "INFO"}],
    "envFrom": [{"configMapRef": {"name": "more"}}],
    "annotations": {"note": "x"},
    "labels": {"team": "nlp"},
    "podTemplate": {
        "metadata": {"annotations": {"own": "yes", "note": None}},
        "spec": {
            "hostIPC": True,
            "terminationGracePeriodSeconds": 600,
            "topologySpreadConstraints": [
                {"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
            ],
            "initContainers": [{"name": "warm", "image": "r/t:1", "command": ["true"]}],
            "containers": [
                {
                    "name": "ray",
                    "lifecycle": None,
                    "ports": [{"containerPort": 8080, "$patch": "delete"}],
                    "env": [{"name": "NCCL_DEBUG", "value": "WARN"}, {"name": "FI_PROVIDER", "value": "efa"}],
                },
                {"name": "sidecar", "image": "r/s:1"},
            ],
            "volumes": [{"name": "shm", "$patch": "delete"}],
        },
    },
}
CASES: dict[str, Json] = {
    "plain": {"pods": {}},
    "everything": {"pods": PODS},
    "alone": {"pods": PODS | {"workers": 0, "gpus": 8}},
    "head": {
        "pods": {
            "gpus": 1,
            "workers": 8,
            "tolerations": [{"key": "gpu"}],
            "head": {
                "nodeSelector": {"cpu": "yes"},
                "tolerations": [{"key": "cpu"}],
                "affinity": {"nodeAffinity": {}},
                "podTemplate": {"spec": {"priorityClassName": "low", "securityContext": None}},
            },
        }
    },
    "cpu-workers": {"pods": {"workers": 3, "minWorkers": 1, "nodeSelector": {"a": "b"}, "runtimeClass": "kata"}},
    "openshift": {"pods": {"gpus": 1, "workers": 8}, "security": "assigned"},
    "bare": {"pods": {"gpus": 1, "workers": 8}, "security": "none"},
}


@pytest.mark.parametrize("stage", ["data", "train", "evaluate", "serve"])
@pytest.mark.parametrize("case", CASES)
def test_pods_are_those_the_operator_makes(helm: Helm, stage: str, case: str) -> None:
    """Every field of both, under every value that changes one: a pod is written twice and is the same."""
    # The chart's own ServiceAccount is the release's, which a KitRun does not have.
    pods, security = {"serviceAccount": "trainer"} | CASES[case]["pods"], CASES[case].get("security", "restricted")
    config = {"root": "s3://bucket/k", "train": {"workers": 4}, "evaluate": {"workers": 3}}
    config["serve"] = {"model": "s3://bucket/m", "replicas": 5, "port": 8100}
    images = {"train": "r/t:1", "serve": "r/s:1", "pullPolicy": "Always", "pullSecrets": ["pull"]}
    images |= {"data": "r/d:1", "evaluate": "r/e:1", "head": "r/h:1"}
    storage = {"credentialsSecret": "s3", "endpoint": "http://minio:9000", "region": "us-east-1"}
    queue = {"kueue": "q", "kueuePriority": "p", "scheduler": "volcano", "schedulerQueue": "v", "priorityClass": "high"}
    if stage == "serve":
        queue.pop("kueue")
    serve = {
        "autoscaling": {"minReplicas": 0, "maxReplicas": 5},
        "gcsFaultTolerance": {"redisAddress": "redis:6379"},
        "upgradeStrategy": {"type": "None"},
    }
    asked = spec.parse(
        {
            "config": config,
            "images": images,
            "storage": storage,
            "queue": queue,
            "stages": {stage: pods},
            "serve": serve,
            "security": security,
            "auth": "none",
        },
        "run",
    )
    values: Json = {"config": config, "images": images, "storage": storage, "queue": queue, "auth": {"mode": "none"}}
    values["security"] = security
    run = RunRef("rel", "place")
    if stage == "serve":
        values |= {"mode": "none", "serve": {"enabled": True, "pods": pods, **serve}}
        theirs = children.ray_service(run, asked, {})
        own = only(helm.render(CHART, values), "RayService")
        made, mine = (one["spec"]["rayClusterConfig"] for one in (theirs, own))
        assert own["spec"]["upgradeStrategy"] == theirs["spec"]["upgradeStrategy"] == {"type": "None"}
        served, serves = (yaml.safe_load(one["spec"]["serveConfigV2"]) for one in (theirs, own))
        assert serves == served
    else:
        values |= {"job": {"stages": [stage]}, "stagePods": {stage: pods}}
        theirs = children.ray_job(run, asked, stage, 0, {})  # type: ignore[arg-type]
        own = only(helm.render(CHART, values), "RayJob")
        made, mine = theirs["spec"]["rayClusterSpec"], own["spec"]["rayClusterSpec"]
        assert own["spec"]["entrypoint"] == theirs["spec"]["entrypoint"]
        assert own["spec"]["submissionMode"] == theirs["spec"]["submissionMode"] == "HTTPMode"
    ours = {
        key: value for key, value in theirs["metadata"]["labels"].items() if "kit19" not in key and "app." not in key
    }
    assert ours.items() <= own["metadata"]["labels"].items()
    assert yaml.safe_dump(_comparable(mine)) == yaml.safe_dump(_comparable(made))


OWN = {"kit19-config", "KIT19_POINTER", "KIT19_DRIVER_LOG_URI"}  # each maker keeps them in a place of its own


def _comparable(node: Any) -> Any:
    """Without labels and hashes, which are the maker's own, and without where config, pointer and log are."""
    if isinstance(node, list):
        return [_comparable(one) for one in node if not (isinstance(one, dict) and one.get("name") in OWN)]
    if isinstance(node, dict):
        own = ("labels", "kit19.dev/config", "kit19.dev/model")
        return {key: _comparable(value) for key, value in node.items() if key not in own}
    return node


def test_config_reaches_the_pod_whole(helm: Helm, tmp_path: Path) -> None:
    config = {"root": "s3://bucket/k", "data": {"quota": 1_000_000}, "train": {"learning_rate": 2e-5, "epochs": 1.5}}
    config["data"]["splits"] = {"nsmc": ["test"]}  # type: ignore[index]
    objects = helm.render(CHART, {"config": config})
    file = tmp_path / "config.yaml"
    file.write_text(only(objects, "ConfigMap")["data"]["config.yaml"], encoding="utf-8")
    assert loading.load(str(file), environ={}) == Config.model_validate(config)
    head = only(objects, "RayJob")["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (volume,) = [volume for volume in head["volumes"] if volume["name"] == "kit19-config"]
    assert volume["configMap"]["name"] == only(objects, "ConfigMap")["metadata"]["name"]
    # What `helm test` runs in the image, run here.
    command = only(objects, "Pod", "rel-test-config")["spec"]["containers"][0]["command"]
    here = [sys.executable, *command[1:-1], str(file)]
    done = subprocess.run(here, capture_output=True, text=True, timeout=60, env=dict(os.environ))
    assert done.returncode == 0, done.stderr


def test_cluster_for_jobs_from_outside(helm: Helm) -> None:
    objects = helm.render(CHART, {"mode": "cluster", "config": CONFIG, "pods": {"workers": 3}})
    assert kinds(objects) == {"RayCluster", "ConfigMap", "Secret", "ServiceAccount", "NetworkPolicy"}
    cluster = only(objects, "RayCluster", "rel")["spec"]
    assert cluster["workerGroupSpecs"][0]["replicas"] == 3
    assert cluster["headGroupSpec"]["rayStartParams"]["dashboard-host"] == "0.0.0.0"


def test_service(helm: Helm) -> None:
    ingress = {"host": "k.example.com", "className": "nginx", "tlsSecret": "tls", "annotations": {"a": "b"}}
    config = {
        "root": "s3://bucket/k",
        "serve": {"model": "s3://bucket/m", "served_name": "m", "port": 8100, "max_body_bytes": 5_000_000},
    }
    values = {
        "mode": "none",
        "config": config,
        "serve": {"enabled": True, "autoscaling": {"maxReplicas": 3}, "ingress": ingress},
    }
    objects = helm.render(CHART, values)
    assert kinds(objects) == {"RayService", "Secret", "ServiceAccount", "NetworkPolicy", "Ingress"}
    serving = yaml.safe_load(only(objects, "RayService", "rel")["spec"]["serveConfigV2"])
    assert serving["http_options"] == {"host": "0.0.0.0", "port": 8100}
    (application,) = serving["applications"]
    assert application["import_path"] == children.IMPORT_PATH and application["name"] == children.APPLICATION
    given = {"host": "0.0.0.0", "use_gpu": False} | config["serve"]  # type: ignore[operator]
    assert application["args"]["serve"] == given
    assert application["args"]["autoscaling"] == {"min_replicas": 1, "max_replicas": 3, "target_ongoing_requests": 8}
    from kit19_ray.serve.deployment import Arguments

    Arguments.model_validate(application["args"])
    made = only(objects, "Ingress")["spec"]
    assert made["ingressClassName"] == "nginx" and made["tls"] == [{"hosts": ["k.example.com"], "secretName": "tls"}]
    backend = made["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": "rel-serve-svc", "port": {"number": 8100}}
    (test,) = [one for one in objects if one["kind"] == "Pod"]
    assert "http://rel-serve-svc:8100/healthz" in test["spec"]["containers"][0]["command"][2]
    assert "Ingress" not in kinds(helm.render(CHART, {"config": SERVED, "serve": {"enabled": True}}))


def test_token(helm: Helm) -> None:
    objects = helm.render(CHART, {"config": CONFIG})
    secret, cluster = only(objects, "Secret"), only(objects, "RayJob")["spec"]["rayClusterSpec"]
    assert len(base64.b64decode(secret["data"]["auth_token"])) == 48
    assert cluster["authOptions"] == {"mode": "token", "secretName": secret["metadata"]["name"]}
    given = helm.render(CHART, {"config": CONFIG, "auth": {"existingSecret": "mine"}})
    assert "Secret" not in kinds(given)
    assert only(given, "RayJob")["spec"]["rayClusterSpec"]["authOptions"]["secretName"] == "mine"
    bare = helm.render(CHART, {"config": CONFIG, "auth": {"mode": "none"}})
    assert "Secret" not in kinds(bare) and "authOptions" not in only(bare, "RayJob")["spec"]["rayClusterSpec"]


def test_service_account(helm: Helm) -> None:
    objects = helm.render(
        CHART, {"config": CONFIG, "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "r"}}}
    )
    account = only(objects, "ServiceAccount", "rel")
    assert account["metadata"]["annotations"] == {"eks.amazonaws.com/role-arn": "r"}
    assert account["automountServiceAccountToken"] is False
    mine = helm.render(CHART, {"config": CONFIG, "serviceAccount": {"create": False, "name": "mine"}})
    assert "ServiceAccount" not in kinds(mine)
    head = only(mine, "RayJob")["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert head["serviceAccountName"] == "mine" and head["automountServiceAccountToken"] is False


def test_network_policy(helm: Helm) -> None:
    peer = {"namespaceSelector": {"matchLabels": {"name": "x"}}}
    egress = [{"ports": [{"port": 443, "protocol": "TCP"}]}]
    values = {
        "config": SERVED,
        "serve": {"enabled": True},
        "networkPolicy": {"dashboardFrom": [peer], "metricsFrom": [peer], "egress": egress},
    }
    objects = helm.render(CHART, values)
    policy = only(objects, "NetworkPolicy")["spec"]
    selected = policy["podSelector"]["matchLabels"]
    for template in (only(objects, "RayJob")["spec"]["rayClusterSpec"]["headGroupSpec"]["template"],
                     only(objects, "RayService")["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]):  # fmt: skip
        assert selected.items() <= template["metadata"]["labels"].items()
        assert "app.kubernetes.io/name" not in template["metadata"]["labels"]  # KubeRay's Services select by its own
    assert [rule.get("ports", [{}])[0].get("port") for rule in policy["ingress"]] == [None, 8265, 8000, 8080]
    assert policy["ingress"][0]["from"] == [{"podSelector": {"matchLabels": selected}}]
    assert policy["ingress"][2]["from"] == [{"podSelector": {}}, peer]  # KubeRay asks the head's proxy how it is
    identity = {one["ipBlock"]["cidr"] for one in policy["egress"][2]["to"]}
    assert identity == {"169.254.170.23/32", "169.254.169.254/32"} and policy["egress"][2]["ports"][0]["port"] == 80
    assert policy["egress"][3:] == egress and policy["policyTypes"] == ["Ingress", "Egress"]
    closed = only(helm.render(CHART, {"config": CONFIG}), "NetworkPolicy")["spec"]
    assert closed["policyTypes"] == ["Ingress"] and len(closed["ingress"]) == 2
    assert "NetworkPolicy" not in kinds(helm.render(CHART, {"config": CONFIG, "networkPolicy": {"enabled": False}}))


@pytest.mark.parametrize(
    ("queue", "labels"),
    [
        ({"kueue": "q"}, {"kueue.x-k8s.io/queue-name": "q"}),
        (
            {"scheduler": "yunikorn", "schedulerQueue": "root.a"},
            {"ray.io/gang-scheduling-enabled": "true", "yunikorn.apache.org/queue": "root.a"},
        ),
        ({"scheduler": "kai-scheduler", "schedulerQueue": "k"}, {"kai.scheduler/queue": "k"}),
    ],
)
def test_queue_labels(helm: Helm, queue: Json, labels: Json) -> None:
    for mode, kind in (("job", "RayJob"), ("cluster", "RayCluster")):
        made = only(helm.render(CHART, {"config": CONFIG, "queue": queue, "mode": mode}), kind)
        assert labels.items() <= made["metadata"]["labels"].items()


def test_credentials_come_from_a_secret(helm: Helm) -> None:
    objects = helm.render(CHART, {"config": CONFIG, "storage": {"credentialsSecret": "s3"}})
    job = only(objects, "RayJob")["spec"]
    containers = job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    assert containers[0]["envFrom"] == [{"secretRef": {"name": "s3"}}] and "envFrom" not in containers[1]
    assert "AWS_SECRET" not in str(objects)


def test_notes_say_what_to_do_next(helm: Helm) -> None:
    def notes(values: Json) -> str:
        return helm(
            "install", "rel", f"helm/{CHART}", "--dry-run=client", "--values", helm.values({"config": CONFIG} | values)
        ).stdout.split("NOTES:")[1]

    assert "get rayjobs" in notes({}) and "No credentials" in notes({})
    assert "ray job submit" in notes({"mode": "cluster"}) and "RAY_AUTH_TOKEN" in notes({"mode": "cluster"})
    assert "starts nothing" in notes({"mode": "none"})
    assert "whoever reaches port 8265 runs code" in notes({"auth": {"mode": "none"}})
    assert "/v1" in notes({"config": SERVED, "serve": {"enabled": True}})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "config.root is not set"),
        ({"config": {"root": "runs/x"}}, "config.root=runs/x must be an s3:// or file:/// URI"),
        ({"config": CONFIG | {"trian": {}}}, "'trian'"),
        ({"config": CONFIG | {"train": {"epoch": 1}}}, "'epoch'"),
        ({"config": CONFIG | {"train": {"zero_stage": 4}}}, "/config/train/zero_stage"),
        ({"config": CONFIG | {"train": {"batch_size": 0}}}, "/config/train/batch_size"),
        ({"config": CONFIG, "mode": "jobs"}, "/mode"),
        ({"config": CONFIG, "pods": {"gpu": 1}}, "'gpu'"),
        ({"config": CONFIG, "pods": {"memory": "64 GB"}}, "/pods/memory"),
        ({"config": CONFIG, "stagePods": {"train": {"worker": 2}}}, "'worker'"),
        ({"config": CONFIG, "images": {"train": "kit19-ray/train:latest"}}, "/images/train"),
        ({"config": CONFIG, "job": {"stages": ["train", "test"]}}, "/job/stages/1"),
        ({"config": CONFIG, "storage": {"endpoint": "minio:9000"}}, "/storage/endpoint"),
        ({"config": CONFIG, "serve": {"ingress": {"hosts": []}}}, "'hosts'"),
        ({"config": CONFIG, "auth": {"mode": "basic"}}, "/auth/mode"),
        ({"config": CONFIG, "pods": {"env": [{"name": "hf_token", "value": "x"}]}}, "/pods/env/0"),
        ({"config": CONFIG, "serve": {"enabled": True}}, "needs config.serve.model"),
        (
            {"config": CONFIG | {"train": {"workers": 8}}, "pods": {"gpus": 4, "workers": 1}},
            "1 x 4 GPUs cannot hold config.train.workers=8",
        ),
    ],
)
def test_bad_values_are_refused_by_name(helm: Helm, values: dict[str, Any], said: str) -> None:
    assert said in helm.refuse(CHART, values)


@pytest.mark.parametrize("release", ["r" * 29, "1st"])
def test_release_names_kuberay_cannot_use_are_refused(helm: Helm, release: str) -> None:
    assert "set nameOverride" in helm.refuse(CHART, {"config": CONFIG}, release=release)
    assert helm.render(CHART, {"config": CONFIG, "nameOverride": "short"}, release=release)
