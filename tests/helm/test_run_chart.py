"""Every template of helm/kit19-run, and values it refuses. What a KitRun would make, the chart makes too."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kit19_ray import __version__
from kit19_ray.config import loading
from kit19_ray.config.schema import Config
from kit19_ray.operate.api import spec
from kit19_ray.operate.manifests import children, naming
from kit19_ray.operate.manifests.naming import RunRef
from kit19_ray.operate.manifests.ray_cluster import CONFIG_ANNOTATION
from kit19_ray.serve import keys
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
def test_what_the_chart_makes_is_what_the_operator_makes(helm: Helm, stage: str, case: str) -> None:
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
        "ingress": {"host": "k.example.com", "className": "nginx", "tlsSecret": "tls", "annotations": {"a": "b"}},
    }
    both: Json = {"config": config, "images": images, "storage": storage, "queue": queue, "security": security}
    asked = spec.parse(both | {"stages": {stage: pods}, "serve": serve}, "run")
    run = RunRef("rel", "place", "u")
    if stage == "serve":
        objects = helm.render(CHART, both | {"mode": "none", "serve": {"enabled": True, "pods": pods, **serve}})
        made = [children.ray_service(run, asked, {}), children.ingress(run, asked)]
    else:
        objects = helm.render(CHART, both | {"job": {"stages": [stage]}, "stagePods": {stage: pods}})
        made = [children.ray_job(run, asked, stage, 0, {})]  # type: ignore[arg-type]
        written = only(objects, "ConfigMap")["data"]["config.yaml"]
        notes = made[0]["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["metadata"]["annotations"]  # type: ignore[index]
        given = yaml.safe_load(notes[CONFIG_ANNOTATION])
        assert Config.model_validate(yaml.safe_load(written)) == Config.model_validate(given)
    for theirs in made:
        assert theirs is not None
        own = only(objects, theirs["kind"])
        wanted = _as_the_chart_has_it(theirs, own["metadata"]["name"], run, asked, stage)
        assert _parsed(own) == _parsed(wanted)


SELECTOR = {"app.kubernetes.io/instance": "rel", "app.kubernetes.io/part-of": "kit19-ray"}
POD_LABELS = SELECTOR | {"app.kubernetes.io/version": __version__}
RELEASE_LABELS = POD_LABELS | {
    "app.kubernetes.io/name": "kit19-run",
    "app.kubernetes.io/managed-by": "Helm",
    "helm.sh/chart": f"kit19-run-{__version__}",
}


def _as_the_chart_has_it(theirs: Json, name: str, run: RunRef, asked: spec.KitRunSpec, stage: str) -> Json:
    """The operator's object with what must differ put as the chart has it, each held to the operator's way first.

    Names and labels, for Helm's objects are a release's; the owner, which is the KitRun; annotations that are the
    operator's memory; where the config file comes from; the pointer, which only the operator reads; where the log is
    kept; the names of the Secrets with Ray's token, which KubeRay makes where none is named, and with the API keys.
    """
    out = copy.deepcopy(theirs)
    mine = naming.pod_labels(run, stage)
    own = {key: value for key, value in mine.items() if key != "app.kubernetes.io/component"}

    def relabel(labels: Json, more: Json) -> Json:
        assert own.items() <= labels.items()
        return {key: value for key, value in labels.items() if key not in own} | more

    metadata = out["metadata"]
    assert metadata.pop("ownerReferences")[0]["uid"] == "u" and metadata["namespace"] == "place"
    kept = {k: v for k, v in metadata.pop("annotations").items() if not k.startswith("kit19.dev/")}
    metadata |= {"annotations": kept} if kept else {}
    metadata["labels"] = relabel(metadata["labels"], RELEASE_LABELS)
    if out["kind"] == "Ingress":
        del metadata["labels"]["app.kubernetes.io/component"]
        backend = out["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
        assert backend["name"] == f"{metadata['name']}-serve-svc"
        backend["name"], metadata["name"] = f"{name}-serve-svc", name
        return out
    cluster = out["spec"].get("rayClusterSpec") or out["spec"]["rayClusterConfig"]
    assert cluster["authOptions"] == {"mode": "token"}
    cluster["authOptions"]["secretName"] = "rel-token"
    groups = [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])]
    for template in (group["template"] for group in groups):
        template["metadata"]["labels"] = relabel(template["metadata"]["labels"], POD_LABELS)
        for volume in template["spec"]["volumes"]:
            if volume["name"] == "kit19-keys":
                assert volume["secret"]["secretName"] == naming.keys_name(run)
                volume["secret"]["secretName"] = "rel-keys"
    if stage != "serve":
        head = cluster["headGroupSpec"]["template"]
        assert head["metadata"]["labels"][naming.JOB_LABEL] == metadata["name"]
        head["metadata"]["labels"][naming.JOB_LABEL] = name
        head["metadata"]["annotations"].pop(CONFIG_ANNOTATION)
        (volume,) = [one for one in head["spec"]["volumes"] if one["name"] == "kit19-config"]
        assert volume.pop("downwardAPI")["items"][0]["path"] == "config.yaml"
        volume["configMap"] = {"name": "rel-config"}
        env = head["spec"]["containers"][0]["env"]
        values = {one["name"]: one.get("value") for one in env}
        assert values["KIT19_POINTER"] == naming.pointer_uri(run, asked, stage)  # type: ignore[arg-type]
        assert values["KIT19_DRIVER_LOG_URI"] == naming.log_uri(run, asked, stage, 0)  # type: ignore[arg-type]
        head["spec"]["containers"][0]["env"] = [
            one | {"value": f"s3://bucket/k/logs/place/{name}.log"} if one["name"] == "KIT19_DRIVER_LOG_URI" else one
            for one in env
            if one["name"] != "KIT19_POINTER"
        ]
    metadata["name"] = name
    return out


def _parsed(one: Json) -> Json:
    """With the serve config, which is text, as what it says; the maps' order says nothing."""
    out = copy.deepcopy(one)
    if "serveConfigV2" in out["spec"]:
        out["spec"]["serveConfigV2"] = yaml.safe_load(out["spec"]["serveConfigV2"])
    return out


STORE = {"credentialsSecret": "s3", "endpoint": "http://minio.store.svc:9000"}
POLICIES: dict[str, Json] = {
    "plain": {},
    "file": {"config": {"root": "file:///data"}},
    "store": {"storage": STORE},
    "address": {"storage": STORE | {"endpoint": "http://10.1.2.3:9000"}},
    "one-word": {"storage": STORE | {"endpoint": "http://minio"}},
    "two-words": {"storage": STORE | {"endpoint": "https://minio.store"}},
    "outside": {"storage": STORE | {"endpoint": "https://s3.example.org:8443"}},
    "role": {"storage": {"endpoint": "https://s3.example.org:8443"}},
    "hub": {"storage": STORE, "config": {"train": {"model": {"name": "EleutherAI/polyglot-ko-1.3b"}}}},
    "no-hub": {
        "storage": STORE,
        "config": {"serve": {"models": {"base": "a/b"}}},
        "networkPolicy": {"hub": False},
    },
    "hub-documents": {"storage": STORE, "config": {"evaluate": {"source": "hub"}}},
    "tracker": {"storage": STORE, "config": {"train": {"trackers": ["wandb"]}}},
    "judge": {
        "storage": STORE,
        "config": {"evaluate": {"judge": {"questions": ["q"], "endpoint": "http://judge.llm.svc/v1"}}},
    },
    "redis": {"storage": STORE, "serve": {"gcsFaultTolerance": {"redisAddress": "redis.data.svc:6379"}}},
    "elastic": {"storage": STORE, "serve": {"autoscaling": {"minReplicas": 0, "maxReplicas": 3}}},
    "open": {"networkPolicy": {"egressOpen": True, "metricsFrom": [{"podSelector": {}}], "dashboardFrom": []}},
    "listed": {"networkPolicy": {"egress": [{"ports": [{"port": 5000}]}], "serveFrom": [{"namespaceSelector": {}}]}},
    "ingress": {"serve": {"ingress": {"host": "a.example"}}},
    "proxy": {"storage": STORE, "pods": {"env": [{"name": "HTTPS_PROXY", "value": "http://proxy.corp.example:3128"}]}},
}


@pytest.mark.parametrize("case", POLICIES)
def test_the_policy_is_the_one_the_operator_makes(helm: Helm, case: str) -> None:
    more = copy.deepcopy(POLICIES[case])
    config = {**SERVED, **more.pop("config", {})}
    config["serve"] = {**SERVED["serve"], **config["serve"]}
    both: Json = {"config": config, "images": {"train": "r/t:1"}, "networkPolicy": {}} | more
    pods, serve = both.pop("pods", {}), both.pop("serve", {})
    asked = spec.parse(both | {"serve": serve, "stages": dict.fromkeys(("data", "train", "evaluate"), pods)}, "run")
    run = RunRef("rel", "place")
    theirs = children.network_policy(run, asked)
    values = both | {"serve": {"enabled": True, **serve}, "pods": pods}
    own = only(helm.render(CHART, values), "NetworkPolicy")
    assert theirs is not None
    renamed = json.loads(json.dumps(theirs["spec"]).replace('{"kit19.dev/run": "rel"}', json.dumps(SELECTOR)))
    assert own["spec"] == renamed


def test_the_policy_is_left_out_or_refused_by_both(helm: Helm) -> None:
    wrong = {"networkPolicy": {"egressOpen": True, "egress": [{"ports": [{"port": 5000}]}]}}
    assert "exclude each other" in helm.refuse(CHART, {"config": CONFIG} | wrong)


def test_api_keys(helm: Helm) -> None:
    """A Secret is made with a key for clients and its hash for the server; or the one that is named is mounted."""
    objects = helm.render(CHART, {"config": SERVED, "serve": {"enabled": True}})
    held = {k: base64.b64decode(v).decode() for k, v in only(objects, "Secret", "rel-keys")["data"].items()}
    assert list(keys.parse(held["api-keys"], "file").values()) == [hashlib.sha256(held["key"].encode()).digest()]
    others = [one for one in objects if one["metadata"]["name"] != "rel-keys"]
    assert held["key"] not in str(others) and "sha256:" not in str(others)
    named = helm.render(CHART, {"config": SERVED, "serve": {"enabled": True, "keysSecret": "mine"}})
    assert not [one for one in named if one["kind"] == "Secret" and one["metadata"]["name"] != "rel-token"]
    assert "'secretName': 'mine'" in str(only(named, "RayService"))
    for section in ({"auth": "none"}, {"api_keys_file": "/mine"}):
        config = {**CONFIG, "serve": {"model": "s3://bucket/m", **section}}
        free = helm.render(CHART, {"config": config, "serve": {"enabled": True}})
        assert "kit19-keys" not in str(free) and "rel-keys" not in str(free)
        wrong = {"config": config, "serve": {"enabled": True, "keysSecret": "mine"}}
        assert "a Secret of keys exclude each other" in helm.refuse(CHART, wrong)
    assert "rel-keys" not in str(helm.render(CHART, {"config": SERVED}))  # nothing is served


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
    given |= {"auth": "keys", "api_keys_file": "/etc/kit19-keys/api-keys"}
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
    secret, cluster = only(objects, "Secret", "rel-token"), only(objects, "RayJob")["spec"]["rayClusterSpec"]
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
    assert policy["egress"][-1:] == egress and policy["policyTypes"] == ["Ingress", "Egress"]
    closed = only(helm.render(CHART, {"config": CONFIG}), "NetworkPolicy")["spec"]
    assert closed["policyTypes"] == ["Ingress", "Egress"] and len(closed["ingress"]) == 2
    assert "NetworkPolicy" not in kinds(helm.render(CHART, {"config": CONFIG, "networkPolicy": {"enabled": False}}))


def test_a_pod_monitor_finds_the_pods_and_is_let_in(helm: Helm) -> None:
    values = {"config": SERVED, "serve": {"enabled": True}, "metrics": {"podMonitor": {"enabled": True}}}
    objects = helm.render(CHART, values)
    monitor, policy = only(objects, "PodMonitor")["spec"], only(objects, "NetworkPolicy")["spec"]
    pod = only(objects, "RayService")["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]
    assert monitor["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert monitor["podMetricsEndpoints"][0]["port"] in [one["name"] for one in pod["spec"]["containers"][0]["ports"]]
    assert policy["ingress"][-1] == {
        "from": [{"namespaceSelector": {}}],
        "ports": [{"port": 8080, "protocol": "TCP"}],
    }


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
