"""The objects a KitRun is made of: ConfigMap, RayJob, RayService, Ingress. Pure; also what `kit19 submit` sends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from kit19_ray.artifacts import manifest, output_pointer
from kit19_ray.config.schema import Config
from kit19_ray.operate.api.spec import KitRunSpec, Stage
from kit19_ray.operate.api.status import Status
from kit19_ray.operate.manifests import naming, ray_cluster
from kit19_ray.operate.manifests.naming import ATTEMPT_ANNOTATION, BUILD_ANNOTATION, HASH_ANNOTATION, Run

Json = dict[str, Any]

RAY_API = "ray.io/v1"
APPLICATION, IMPORT_PATH = "kit19", "kit19_ray.serve.deployment:build"


def stage_config(spec: KitRunSpec, stage: str, uris: Mapping[str, str]) -> Config:
    """The config a stage runs with: the spec's, with the prefixes that are known already filled in.

    Args:
        uris: output URI by finished stage; a stage works its own out where one is missing.
    """
    config = spec.config
    updates: dict[str, Any] = {}
    if stage != "data" and not config.train.data and "data" in uris:
        updates["train"] = config.train.model_copy(update={"data": uris["data"]})
    if stage == "evaluate" and not config.evaluate.model and "train" in uris:
        updates["evaluate"] = config.evaluate.model_copy(update={"model": uris["train"]})
    if stage == "serve":
        section: dict[str, Any] = {"host": "0.0.0.0"}
        if not config.serve.model and "train" in uris:
            section["model"] = uris["train"]
        updates["serve"] = config.serve.model_copy(update=section)
    return config.model_copy(update=updates)


def known_uris(status: Status) -> dict[str, str]:
    """Output URI by stage, of the stages that left one."""
    found = {stage: getattr(status.stages, stage) for stage in ("data", "train", "evaluate")}
    return {stage: one.uri for stage, one in found.items() if one.state == "Succeeded" and one.uri}


def config_yaml(config: Config) -> str:
    """The config as a file that `kit19 --config` reads, differences from the defaults only."""
    tree = config.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump(tree, sort_keys=True, allow_unicode=True)


def config_map(run: Run, spec: KitRunSpec, stage: Stage, attempt: int, uris: Mapping[str, str]) -> Json:
    """The ConfigMap with the stage's config file; it has the RayJob's name."""
    text = config_yaml(stage_config(spec, stage, uris))
    name = naming.job_name(run, spec, stage, attempt)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(run, spec, stage, name, attempt),
        "data": {ray_cluster.CONFIG_FILE: text},
    }


def entrypoint(stage: str, same_cluster: int) -> str:
    """The command of a stage's job; it has no character a shell would change."""
    command = f"{stage} --config {ray_cluster.CONFIG_FOLDER}/{ray_cluster.CONFIG_FILE}"
    if same_cluster:
        return f"python -m kit19_ray.cli.retry {same_cluster} {command}"
    return f"python -m kit19_ray {command}"


def ray_job(run: Run, spec: KitRunSpec, stage: Stage, attempt: int) -> Json:
    """The RayJob of a stage: a cluster of its own, gone as soon as the job has ended."""
    name = naming.job_name(run, spec, stage, attempt)
    deadline = getattr(spec.deadlines, stage)
    env = {output_pointer.VARIABLE: naming.pointer_uri(run, spec, stage)}
    metadata = _metadata(run, spec, stage, name, attempt)
    metadata["labels"] = {**metadata["labels"], **_queue_labels(run, spec)}
    body: Json = {
        "entrypoint": entrypoint(stage, spec.retries.same_cluster),
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 0,
        "backoffLimit": 0,  # a new cluster is the operator's decision: KubeRay would not wait before it
        "submissionMode": "K8sJobMode",
        "submitterConfig": {"backoffLimit": 2},
        "submitterPodTemplate": ray_cluster.submitter(run, spec, stage),
        "metadata": {"kit19-run": f"{run.namespace}/{run.name}", "kit19-stage": stage},
        "rayClusterSpec": ray_cluster.ray_cluster(run, spec, stage, name, env),
    }
    if deadline is not None and spec.deadlines.start is not None:
        # For when no operator runs: KubeRay counts from the creation, the operator from when the job runs.
        body["activeDeadlineSeconds"] = spec.deadlines.start + deadline
    return _built({"apiVersion": RAY_API, "kind": "RayJob", "metadata": metadata, "spec": body})


def ray_service(run: Run, spec: KitRunSpec, uris: Mapping[str, str]) -> Json:
    """The RayService; KubeRay changes it without a gap when its spec changes."""
    name = naming.service_name(run)
    section = stage_config(spec, "serve", uris).serve
    arguments: Json = {"serve": section.model_dump(mode="json", exclude_defaults=True)}
    if spec.serve.autoscaling:
        arguments["autoscaling"] = spec.serve.autoscaling.model_dump()
    serve_config = {
        "http_options": {"host": "0.0.0.0", "port": section.port},
        "applications": [
            {"name": APPLICATION, "route_prefix": "/", "import_path": IMPORT_PATH, "args": arguments},
        ],
    }
    return _built(
        {
            "apiVersion": RAY_API,
            "kind": "RayService",
            "metadata": {
                "name": name,
                "namespace": run.namespace,
                "labels": naming.labels(run, "serve"),
                # The evaluation whose scores let this model through the gate.
                "annotations": {HASH_ANNOTATION: naming.stage_hash(spec, "evaluate")},
            }
            | _owner(run),
            "spec": {
                "serveConfigV2": yaml.safe_dump(serve_config, sort_keys=True, allow_unicode=True),
                "rayClusterConfig": ray_cluster.ray_cluster(run, spec, "serve", None, {}),
            },
        }
    )


def endpoint(run: Run, spec: KitRunSpec) -> str:
    """URL of the model inside the cluster: the Service KubeRay makes for a RayService."""
    return f"http://{naming.service_name(run)}-serve-svc.{run.namespace}:{spec.config.serve.port}"


def ingress(run: Run, spec: KitRunSpec) -> Json | None:
    """The Ingress in front of the RayService, or None when none is asked for."""
    asked = spec.serve.ingress
    if asked is None:
        return None
    name = naming.service_name(run)
    backend = {"service": {"name": f"{name}-serve-svc", "port": {"number": spec.config.serve.port}}}
    body: Json = {
        "rules": [
            {"host": asked.host, "http": {"paths": [{"path": asked.path, "pathType": "Prefix", "backend": backend}]}}
        ]
    }
    if asked.class_name:
        body["ingressClassName"] = asked.class_name
    if asked.tls_secret:
        body["tls"] = [{"hosts": [asked.host], "secretName": asked.tls_secret}]
    metadata: Json = {"name": name, "namespace": run.namespace, "labels": naming.labels(run, "serve")} | _owner(run)
    if asked.annotations:
        metadata["annotations"] = dict(asked.annotations)
    return _built({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": body})


def _metadata(run: Run, spec: KitRunSpec, stage: Stage, name: str, attempt: int) -> Json:
    return {
        "name": name,
        "namespace": run.namespace,
        "labels": naming.labels(run, stage),
        "annotations": {HASH_ANNOTATION: naming.stage_hash(spec, stage), ATTEMPT_ANNOTATION: str(attempt)},
    } | _owner(run)


def _built(made: Json) -> Json:
    """The object with a hash of its spec, by which it is known whether it is still what the KitRun asks for."""
    metadata = made["metadata"]
    annotations = metadata.get("annotations", {}) | {BUILD_ANNOTATION: manifest.digest(made["spec"])[:12]}
    return made | {"metadata": metadata | {"annotations": annotations}}


def _owner(run: Run) -> Json:
    if run.uid is None:
        return {}
    reference = {
        "apiVersion": "kit19.dev/v1alpha1",
        "kind": "KitRun",
        "name": run.name,
        "uid": run.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {"ownerReferences": [reference]}


def _queue_labels(run: Run, spec: KitRunSpec) -> dict[str, str]:
    """What Kueue and KubeRay's batch schedulers read from a RayJob."""
    queue = spec.queue
    found: dict[str, str | None] = {
        "kueue.x-k8s.io/queue-name": queue.kueue,
        "kueue.x-k8s.io/priority-class": queue.kueue_priority,
        "ray.io/scheduler-name": queue.scheduler,
    }
    if queue.scheduler:
        found["ray.io/priority-class-name"] = queue.priority_class
    if queue.scheduler == "volcano":
        found["volcano.sh/queue-name"] = queue.scheduler_queue
    if queue.scheduler == "yunikorn":
        found |= {
            "ray.io/gang-scheduling-enabled": "true",
            "yunikorn.apache.org/app-id": f"{run.namespace}-{run.label}"[:63],
            "yunikorn.apache.org/queue": queue.scheduler_queue,
        }
    if queue.scheduler == "kai-scheduler":
        found["kai.scheduler/queue"] = queue.scheduler_queue
    return {key: value for key, value in found.items() if value}
