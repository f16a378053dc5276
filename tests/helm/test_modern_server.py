"""Everything that is rendered, against a modern API server with KubeRay's unmodified CRDs: strictly, CEL and all."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from kit19_ray.errors import OperateError
from kit19_ray.operate.api import crd
from kit19_ray.operate.api.spec import STAGES, parse
from kit19_ray.operate.kube_client import Cluster, KubeError
from kit19_ray.operate.manifests import children
from kit19_ray.operate.manifests.naming import RunRef
from tests.helm.rendering import CI_VALUES, Helm, Loader
from tests.helm.test_run_chart import CASES
from tests.operate import harness
from tests.operate.control_plane import REPO, ControlPlane, wait_until_established

pytestmark = pytest.mark.kube
Json = dict[str, Any]
SAMPLES = sorted((REPO / "k8s/samples").glob("kitrun.*.yaml"))
SERVED_GROUPS = ("ray.io/", "kit19.dev/")
RUN = RunRef("demo", "default", "6f1c9b1e-0000-4000-8000-000000000001")


@pytest.fixture(scope="module")
def server(crd_server: ControlPlane) -> Cluster:
    return harness.admin(crd_server)


def strictly(plane: ControlPlane, objects: list[Json]) -> None:
    """Every custom resource of `objects` is taken as it is, without a warning or a dropped field."""
    custom = [copy.deepcopy(one) for one in objects if str(one["apiVersion"]).startswith(SERVED_GROUPS)]
    assert custom
    for one in custom:
        one["metadata"]["namespace"] = "default"
    words = ("create", "--dry-run=server", "--validate=strict", "-f", "-")
    # JSON: a hash such as 12e45 is text in PyYAML's eyes and a number in Kubernetes'. Documents one after another: some
    # kubectl take no "---" between those in JSON, and this server knows no List.
    made = "\n".join(json.dumps(one) for one in custom)
    done = plane.kubectl(*words, stdin=made, check=False)
    assert done.returncode == 0, done.stderr


def every_child(tree: Json) -> list[Json]:
    wanted = parse(tree, "demo")
    uris = {"data": "s3://bucket/data", "train": "s3://bucket/train"}
    found = [children.ray_job(RUN, wanted, stage, 0, uris) for stage in STAGES]
    return [*found, children.ray_service(RUN, wanted, uris)]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_samples_and_what_the_operator_makes_of_them(crd_server: ControlPlane, path: Path) -> None:
    (run,) = [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one]
    strictly(crd_server, [run, *every_child(run["spec"])])


@pytest.mark.parametrize("case", CASES)
def test_every_pod_that_can_be_asked_for(crd_server: ControlPlane, case: str) -> None:
    pods, security = CASES[case]["pods"], CASES[case].get("security", "restricted")
    tree: Json = {"config": {"root": "s3://bucket/r"}, "images": {"train": "kit19:1"}, "security": security}
    tree["stages"] = dict.fromkeys((*STAGES, "serve"), pods)
    tree["serve"] = {"autoscaling": {"minReplicas": 0, "maxReplicas": 5}}
    run = {"apiVersion": crd.API_VERSION, "kind": "KitRun", "metadata": {"name": "demo"}, "spec": tree}
    strictly(crd_server, [run, *every_child(tree)])


@pytest.mark.parametrize("values", CI_VALUES, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_what_the_charts_render(crd_server: ControlPlane, helm: Helm, values: Path) -> None:
    chart = values.parts[-3]
    if chart != "kit19-run":
        pytest.skip("the operator's chart renders no custom resource")
    done = helm("template", "rel", f"helm/{chart}", "--namespace", "place", "--values", str(values))
    strictly(crd_server, [one for one in yaml.load_all(done.stdout, Loader) if one])


def test_two_managers_may_apply_the_same_definition(crd_server: ControlPlane) -> None:
    """The server drops a priority of 0 and empty properties; a file that spells them out fights with itself."""
    for manager in ("argocd", "helm"):
        words = ("apply", "--server-side", "--field-manager", manager, "-f", str(REPO / "k8s/crd.yaml"))
        done = crd_server.kubectl(*words, check=False)
        assert done.returncode == 0, done.stderr


def test_a_field_nobody_knows_is_refused_and_not_dropped(server: Cluster) -> None:
    """C2: both ways in which a RayJob is made."""
    job = every_child({"config": {"root": "s3://bucket/r"}, "images": {"train": "kit19:1"}})[0]
    job["spec"]["rayClusterSpec"]["authOption"] = {"mode": "token"}
    for make in (server.create, server.apply):
        with pytest.raises(KubeError) as caught:
            make(job)
        assert caught.value.unknown_field == ".spec.rayClusterSpec.authOption" or "authOption" in str(
            caught.value.unknown_field
        )


def test_an_older_kuberay_without_tokens_is_named_and_never_left_open(crd_server: ControlPlane) -> None:
    """C2, B1b: server-side apply answers 500 for a field the CRD lacks."""
    from kit19_ray.operate.controller.reconciler import _refusal

    found = json.loads(crd_server.kubectl("get", "crd", "rayjobs.ray.io", "-o", "json").stdout)
    older = copy.deepcopy(found)
    older["spec"]["names"] = {"kind": "OldJob", "listKind": "OldJobList", "plural": "oldjobs", "singular": "oldjob"}
    older["metadata"] = {"name": "oldjobs.old.io", "annotations": {"api-approved.kubernetes.io": "unapproved, test"}}
    older["spec"]["group"] = "old.io"
    older.pop("status")
    for version in older["spec"]["versions"]:
        cluster = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["rayClusterSpec"]
        cluster["properties"].pop("authOptions", None)
    crd_server.kubectl("create", "-f", "-", stdin=json.dumps(older))
    wait_until_established(crd_server, ["oldjobs.old.io"])
    job = every_child({"config": {"root": "s3://bucket/r"}, "images": {"train": "kit19:1"}})[0]
    job |= {"apiVersion": "old.io/v1", "kind": "OldJob"}
    path = f"/apis/old.io/v1/namespaces/default/oldjobs/{job['metadata']['name']}"
    query = {"fieldManager": "x", "force": "true"}
    cluster = harness.admin(crd_server)
    with pytest.raises(KubeError) as caught:
        cluster.request("PATCH", path, job, "application/apply-patch+yaml", query)
    assert caught.value.status == 500 and "authOptions" in str(caught.value.unknown_field)
    assert "KubeRay is too old; upgrade it (auth: token needs KubeRay 1.5.1)" in _refusal("RayJob", caught.value)


def test_a_kitrun_keeps_what_it_says_and_a_mistyped_key_is_refused(crd_server: ControlPlane, server: Cluster) -> None:
    run = harness.kitrun("typo", "default", stages={"train": {"podTemplate": {"spec": {"hostIPC": True}}}})
    run["spec"]["stages"]["train"]["gpuss"] = 1
    words = ("create", "--validate=strict", "-f", "-")
    done = crd_server.kubectl(*words, stdin=yaml.safe_dump(run), check=False)
    assert done.returncode != 0 and "gpuss" in done.stderr
    del run["spec"]["stages"]["train"]["gpuss"]
    crd_server.kubectl(*words, stdin=yaml.safe_dump(run))
    kept = server.run("default", "typo") or {}
    assert kept["spec"]["stages"]["train"]["podTemplate"] == {"spec": {"hostIPC": True}}
    assert kept["spec"]["auth"] == "token" and kept["spec"]["networkPolicy"]["enabled"] is True
    parse(kept["spec"], "typo")
    crd_server.kubectl("delete", "kitrun", "typo", "-n", "default", "--wait=false")


SERVED = {"root": "s3://bucket/r", "serve": {"model": "s3://bucket/m"}}
WRONG: dict[str, tuple[Json, str]] = {
    "autoscaling": ({"serve": {"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}}, "minReplicas"),
    "scheduler": ({"queue": {"scheduler": "scheduler-plugins"}}, "queue.scheduler=scheduler-plugins"),
    "no-data": ({"skip": ["data"]}, "without the data stage config.train.data is needed"),
    "no-data-held-out": (
        {"skip": ["data", "train"], "config": SERVED | {"evaluate": {"model": "s3://bucket/m"}}},
        "without the data stage config.train.data is needed",
    ),
    "no-model": (
        {"skip": ["data", "train"], "config": SERVED | {"train": {"data": "s3://bucket/d"}}},
        "without the train stage config.evaluate.model is needed",
    ),
    "no-served-model": (
        {"skip": ["data", "train", "evaluate"]},
        "without the train stage config.serve.model is needed",
    ),
    "no-scores": (
        {
            "skip": ["evaluate"],
            "config": {"root": "s3://bucket/r", "evaluate": {"gate": [{"task": "kobest_copa", "min": 0.5}]}},
        },
        "without the evaluate stage an empty config.evaluate.gate is needed",
    ),
    "train-gpu": (
        {"config": {"root": "s3://bucket/r", "train": {"use_gpu": True}}},
        "config.train.use_gpu=true, but stages.train.gpus=0",
    ),
    "serve-gpu": (
        {"config": {"root": "s3://bucket/r", "serve": {"use_gpu": True}}},
        "config.serve.use_gpu=true, but stages.serve.gpus=0",
    ),
    "keys-open": (
        {"config": {"root": "s3://bucket/r", "serve": {"auth": "none"}}, "serve": {"keysSecret": "mine"}},
        "serve.keysSecret",
    ),
    "keys-file": (
        {"config": {"root": "s3://bucket/r", "serve": {"api_keys_file": "/k"}}, "serve": {"keysSecret": "mine"}},
        "serve.keysSecret",
    ),
    "egress": (
        {"networkPolicy": {"egressOpen": True, "egress": [{"ports": [{"port": 1}]}]}},
        "egressOpen=true and a list of egress rules exclude each other",
    ),
}
RIGHT: dict[str, Json] = {
    "least": {},
    "nulls": {
        "serve": {"autoscaling": None, "keysSecret": None},
        "queue": {"scheduler": None},
        "config": {
            "root": "s3://bucket/r",
            "train": {"use_gpu": None},
            "serve": {"auth": "none", "api_keys_file": None},
        },
    },
    "keys-and-null": {
        "serve": {"keysSecret": "mine"},
        "config": {"root": "s3://bucket/r", "serve": {"auth": None, "api_keys_file": None}},
    },
    "autoscaling": {"serve": {"autoscaling": {"minReplicas": 2, "maxReplicas": 2}}},
    "served": {"skip": ["data", "train", "evaluate"], "config": SERVED},
    "no-held-out": {
        "skip": ["data", "train"],
        "config": SERVED | {"evaluate": {"model": "s3://bucket/m", "held_out": False}},
    },
    "gpus": {"config": {"root": "s3://bucket/r", "train": {"use_gpu": True}}, "stages": {"train": {"gpus": 1}}},
    "keys": {"serve": {"keysSecret": "mine"}},
    "open": {"networkPolicy": {"egressOpen": True}},
    "listed": {"networkPolicy": {"egress": [{"ports": [{"port": 1}]}]}},
}


def kitrun(**spec: Any) -> str:
    return yaml.safe_dump(harness.kitrun("rules", "default", **({"config": {"root": "s3://bucket/r"}} | spec)))


@pytest.mark.parametrize("case", WRONG)
def test_what_the_models_refuse_the_server_refuses_too(crd_server: ControlPlane, case: str) -> None:
    """Our CRD's own rules: told to whoever applies it, before anything is stored."""
    tree, said = WRONG[case]
    done = crd_server.kubectl("create", "--dry-run=server", "-f", "-", stdin=kitrun(**tree), check=False)
    assert done.returncode != 0 and said in done.stderr, done.stderr
    with pytest.raises(OperateError, match=said):
        parse(yaml.safe_load(kitrun(**tree))["spec"], "rules")


@pytest.mark.parametrize("case", RIGHT)
def test_what_the_models_take_the_server_takes_too(crd_server: ControlPlane, case: str) -> None:
    parse(yaml.safe_load(kitrun(**RIGHT[case]))["spec"], "rules")
    crd_server.kubectl("create", "--dry-run=server", "-f", "-", stdin=kitrun(**RIGHT[case]))


def test_the_root_may_be_mended_until_something_is_written_there(crd_server: ControlPlane, server: Cluster) -> None:
    """A transition rule: afterwards another root would leave scores, log and checkpoints behind without a word."""

    def moved(to: str) -> Any:
        return crd_server.kubectl("apply", "-f", "-", stdin=kitrun(config={"root": to}), check=False)

    def written(status: Json) -> None:
        path = "/apis/kit19.dev/v1alpha1/namespaces/default/kitruns/rules/status"
        server.request("PATCH", path, {"status": status}, "application/merge-patch+json")

    try:
        assert moved("s3://bucket/a").returncode == 0 and moved("s3://bucket/b").returncode == 0
        written({"phase": "Data", "stages": {"data": {"state": "Running"}}})
        assert moved("s3://bucket/c").returncode == 0
        written({"stages": {"data": {"state": "Succeeded", "uri": "s3://bucket/c/data-1"}}})
        done = moved("s3://bucket/d")
        assert done.returncode != 0 and "config.root may not change once a stage has written there" in done.stderr
        same = kitrun(config={"root": "s3://bucket/c", "train": {"epochs": 3}})
        crd_server.kubectl("apply", "-f", "-", stdin=same)
        written({"stages": {"train": {"state": "Running"}}})  # our own writes are no change of the root
    finally:
        crd_server.kubectl("delete", "kitrun", "rules", "-n", "default", "--wait=false")


def test_the_operator_s_fields_are_its_own_and_others_keep_theirs(server: Cluster) -> None:
    """Field managers: Kueue's suspend, somebody's annotation and KubeRay's status stay; an edit of ours does not."""
    job = every_child({"config": {"root": "s3://bucket/r"}, "images": {"train": "kit19:1"}})[0]
    job["metadata"]["name"] = "managers"
    made = server.apply(job)
    path = "/apis/ray.io/v1/namespaces/default/rayjobs/managers"
    others = {"metadata": {"annotations": {"team": "nlp"}}, "spec": {"suspend": True, "entrypoint": "sleep 1"}}
    query = {"fieldManager": "somebody"}
    server.request("PATCH", path, others, "application/merge-patch+json", query)
    status = {"status": {"jobDeploymentStatus": "Suspended"}}
    server.request("PATCH", f"{path}/status", status, "application/merge-patch+json", {"fieldManager": "kuberay"})
    again = server.apply(job)
    assert again["spec"]["entrypoint"] == made["spec"]["entrypoint"] != "sleep 1"
    assert again["spec"]["suspend"] is True and again["metadata"]["annotations"]["team"] == "nlp"
    assert again["status"]["jobDeploymentStatus"] == "Suspended"
    mine = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "managers", "namespace": "default"}}
    body = mine | {"spec": {"entrypoint": "sleep 2"}}
    with pytest.raises(KubeError) as caught:  # whoever does not insist is told whose the field is
        server.request("PATCH", path, body, "application/apply-patch+yaml", {"fieldManager": "argocd"})
    assert caught.value.status == 409 and "kit19-operator" in caught.value.message
    assert server.apply(job)["metadata"]["generation"] == again["metadata"]["generation"]  # the same is no change
