"""The objects a KitRun is made of: RayJob, RayService, Ingress, NetworkPolicy. Pure; also what `kit19 submit` sends."""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from kit19_ray.artifacts import manifest, output_pointer
from kit19_ray.config.schema import Config
from kit19_ray.operate.api.spec import KitRunSpec, Stage
from kit19_ray.operate.api.status import Status
from kit19_ray.operate.manifests import naming, ray_cluster, serving_keys
from kit19_ray.operate.manifests import network_policy as network_policies
from kit19_ray.operate.manifests.naming import ATTEMPT_ANNOTATION, BUILD_ANNOTATION, HASH_ANNOTATION, RunRef
from kit19_ray.utils.json_types import Json

RAY_API = "ray.io/v1"
APPLICATION, IMPORT_PATH = "kit19", "kit19_ray.serve.deployment:build"
MODEL_ANNOTATION = "kit19.dev/model"


def stage_config(spec: KitRunSpec, stage: str, uris: Mapping[str, str]) -> Config:
    """The config a stage runs with: the spec's, with the prefixes that are known already filled in.

    Args:
        uris: output URI by finished stage; a stage works its own out where one is missing.
    """
    config = spec.config
    updates: Json = {}
    if stage != "data" and not config.train.data and "data" in uris:
        updates["train"] = config.train.model_copy(update={"data": uris["data"]})
    if stage == "evaluate" and not config.evaluate.model and "train" in uris:
        updates["evaluate"] = config.evaluate.model_copy(update={"model": uris["train"]})
    if stage == "serve":
        # Never what the cluster has at this moment: the application is built before the GPU nodes have joined.
        section: Json = {"host": "0.0.0.0", "use_gpu": spec.pods("serve").gpus > 0}
        if not config.serve.model and "train" in uris:
            section["model"] = uris["train"]
        if spec.mounts_keys:
            section |= {"auth": "keys", "api_keys_file": serving_keys.PATH}
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


def entrypoint(stage: str, same_cluster: int) -> str:
    """The command of a stage's job; it has no character a shell would change."""
    command = f"{stage} --config {ray_cluster.CONFIG_FOLDER}/{ray_cluster.CONFIG_FILE}"
    return f"python -m kit19_ray.cli.retry {same_cluster} {command}"


def ray_job(run: RunRef, spec: KitRunSpec, stage: Stage, attempt: int, uris: Mapping[str, str]) -> Json:
    """The RayJob of a stage: a cluster of its own, gone as soon as the job has ended.

    KubeRay sends the job by HTTP and asks the dashboard how it is: with a submitter pod the end of a log stream, or of
    the pod, would be the end of a run of days.
    """
    name = naming.job_name(run, spec, stage, attempt)
    deadline = getattr(spec.deadlines, stage)
    env = {
        output_pointer.VARIABLE: naming.pointer_uri(run, spec, stage),
        "KIT19_DRIVER_LOG_URI": naming.log_uri(run, spec, stage, attempt),
    }
    annotations = {HASH_ANNOTATION: naming.stage_id(run, spec, stage), ATTEMPT_ANNOTATION: str(attempt)}
    labels = naming.labels(run, stage) | queue_labels(run, spec, name)

    def cluster(config: str) -> Json:
        return ray_cluster.ray_cluster(run, spec, stage, env, config, name)

    body: Json = {
        "entrypoint": entrypoint(stage, spec.retries.same_cluster),
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 0,
        "backoffLimit": 0,  # a new cluster is the operator's decision: KubeRay would not wait before it
        "submissionMode": "HTTPMode",
        "metadata": {"kit19-run": f"{run.namespace}/{run.name}", "kit19-stage": stage},
        "rayClusterSpec": cluster(config_yaml(stage_config(spec, stage, uris))),
    }
    if deadline is not None and spec.deadlines.start is not None and not (spec.queue.kueue or spec.queue.scheduler):
        # For when no operator runs: KubeRay counts from the creation, queue and all; the operator while the job runs.
        body["activeDeadlineSeconds"] = spec.deadlines.start + deadline
    made = _object(run, RAY_API, "RayJob", name, labels, annotations, body)
    # A URI that comes to be known while the job starts does not make it another one.
    return _built(made, body | {"rayClusterSpec": cluster(config_yaml(stage_config(spec, stage, {})))})


def ray_service(run: RunRef, spec: KitRunSpec, uris: Mapping[str, str]) -> Json:
    """The RayService; what happens when its model changes is `spec.serve.new_model`'s to say."""
    name = naming.service_name(run)
    section = stage_config(spec, "serve", uris).serve
    arguments: Json = {"serve": section.model_dump(mode="json", exclude_defaults=True) | {"use_gpu": section.use_gpu}}
    if spec.serve.autoscaling:
        arguments["autoscaling"] = spec.serve.autoscaling.model_dump()
    serve_config = {
        "http_options": {"host": "0.0.0.0", "port": section.port},
        "applications": [
            {"name": APPLICATION, "route_prefix": "/", "import_path": IMPORT_PATH, "args": arguments},
        ],
    }
    # KubeRay makes a second cluster, and moves to it when it answers, only when the cluster's own spec changes.
    new_cluster = (
        {MODEL_ANNOTATION: manifest.digest([section.model])[:12]} if spec.serve.new_model == "NewCluster" else {}
    )
    body: Json = {
        "serveConfigV2": yaml.safe_dump(serve_config, sort_keys=True, allow_unicode=True),
        "rayClusterConfig": ray_cluster.ray_cluster(run, spec, "serve", {}, head_annotations=new_cluster),
    }
    if spec.serve.upgrade_strategy:
        body["upgradeStrategy"] = spec.serve.upgrade_strategy.manifest()
    # The evaluation whose scores let this model through the gate.
    annotations = {HASH_ANNOTATION: naming.stage_id(run, spec, "evaluate")}
    labels = naming.labels(run, "serve") | queue_labels(run, spec, name)
    return _built(_object(run, RAY_API, "RayService", name, labels, annotations, body))


def endpoint(run: RunRef, spec: KitRunSpec) -> str:
    """URL of the model inside the cluster: the Service KubeRay makes for a RayService."""
    return f"http://{naming.service_name(run)}-serve-svc.{run.namespace}:{spec.config.serve.port}"


def ingress(run: RunRef, spec: KitRunSpec) -> Json | None:
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
    labels, annotations = naming.labels(run, "serve"), dict(asked.annotations)
    return _built(_object(run, "networking.k8s.io/v1", "Ingress", name, labels, annotations, body))


def network_policy(run: RunRef, spec: KitRunSpec) -> Json | None:
    """Who may reach the pods of a run, and where they may go; None when none is asked for."""
    body = network_policies.rules(run, spec)
    if body is None:
        return None
    name = naming.policy_name(run)
    return _built(_object(run, "networking.k8s.io/v1", "NetworkPolicy", name, naming.labels(run, "network"), {}, body))


def _object(
    run: RunRef, api: str, kind: str, name: str, labels: Mapping[str, str], annotations: Mapping[str, str], spec: Json
) -> Json:
    metadata: Json = {"name": name, "namespace": run.namespace, "labels": dict(labels)} | naming.owner(run)
    return {
        "apiVersion": api,
        "kind": kind,
        "metadata": metadata | ({"annotations": dict(annotations)} if annotations else {}),
        "spec": spec,
    }


def _built(made: Json, identity: Json | None = None) -> Json:
    """The object with a hash of its spec (or `identity`), by which it is known whether it is what is asked for."""
    metadata = made["metadata"]
    build = manifest.digest(made["spec"] if identity is None else identity)[:12]
    annotations = metadata.get("annotations", {}) | {BUILD_ANNOTATION: build}
    return made | {"metadata": metadata | {"annotations": annotations}}


def queue_labels(run: RunRef, spec: KitRunSpec, name: str) -> dict[str, str]:
    """What Kueue and KubeRay's batch schedulers read from the RayJob or RayService `name`."""
    queue = spec.queue
    found: dict[str, str | None] = {
        "kueue.x-k8s.io/queue-name": queue.kueue,
        "kueue.x-k8s.io/priority-class": queue.kueue_priority,
    }
    if queue.scheduler:
        found["ray.io/priority-class-name"] = queue.priority_class
    if queue.scheduler == "volcano":
        found["volcano.sh/queue-name"] = queue.scheduler_queue
    if queue.scheduler == "yunikorn":
        found |= {
            "ray.io/gang-scheduling-enabled": "true",
            # One application each: YuniKorn makes the gang's placeholders for a new application only.
            "yunikorn.apache.org/app-id": name,
            "yunikorn.apache.org/queue": queue.scheduler_queue,
        }
    if queue.scheduler == "kai-scheduler":
        found["kai.scheduler/queue"] = queue.scheduler_queue
    return {key: value for key, value in found.items() if value}
