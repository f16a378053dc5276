"""The Ray cluster of a stage: hardened pod templates and KubeRay's RayClusterSpec. Pure."""

from __future__ import annotations

from typing import Any

from kit19_ray.operate.api.spec import KitRunSpec, Resources, StagePods
from kit19_ray.operate.manifests import naming
from kit19_ray.operate.manifests.naming import Run

Json = dict[str, Any]

CONFIG_FOLDER, CONFIG_FILE = "/etc/kit19", "config.yaml"
CACHE = "/cache"
SUBMITTER = "ray-job-submitter"  # KubeRay's name for the container that follows the job's log
_USER, _GROUP = 1000, 100  # `ray` and `users` of the rayproject images
_RESTRICTED: Json = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
_POD: Json = {
    "runAsNonRoot": True,
    "runAsUser": _USER,
    "runAsGroup": _GROUP,
    "fsGroup": _GROUP,
    "seccompProfile": {"type": "RuntimeDefault"},
}
_PORTS = [{"name": "gcs", "containerPort": 6379}, {"name": "dashboard", "containerPort": 8265}]


def ray_cluster(run: Run, spec: KitRunSpec, stage: str, config_map: str | None, env: dict[str, str]) -> Json:
    """KubeRay's RayClusterSpec for a stage or for `serve`.

    Args:
        config_map: mounted in the head, where the driver runs; None mounts none.
        env: further variables of the head.
    """
    pods = spec.pods(stage)
    workers = spec.workers(stage)
    alone = workers == 0
    head = Resources(cpu=pods.cpu, memory=pods.memory) if alone else pods.head
    params = {"dashboard-host": "0.0.0.0"}
    if not alone:
        params["num-cpus"] = "0"  # the driver's own place: no task or actor goes there
    ports = [*_PORTS, {"name": "serve", "containerPort": spec.config.serve.port}] if stage == "serve" else _PORTS
    container = _container("ray-head", spec, stage, head, pods.gpus if alone else 0, env) | {"ports": ports}
    cluster: Json = {
        "rayVersion": spec.ray_version,
        "headGroupSpec": {
            "rayStartParams": params,
            "template": _template(run, spec, stage, container, config_map),
        },
    }
    if spec.auth == "token":
        cluster["authOptions"] = {"mode": "token"}
    if workers:
        worker = _container("ray-worker", spec, stage, Resources(cpu=pods.cpu, memory=pods.memory), pods.gpus, {})
        cluster["workerGroupSpecs"] = [
            {
                "groupName": "workers",
                "replicas": workers,
                "minReplicas": workers,
                "maxReplicas": workers,
                "rayStartParams": {},
                "template": _template(run, spec, stage, worker, None),
            }
        ]
    return cluster


def submitter(run: Run, spec: KitRunSpec, stage: str) -> Json:
    """Pod template of KubeRay's submitter, which hands the entrypoint to the cluster and follows its log."""
    container = _container(SUBMITTER, spec, stage, Resources(cpu="500m", memory="512Mi"), 0, {})
    template = _template(run, spec, stage, container, None, scheduled=False)
    template["spec"]["restartPolicy"] = "Never"
    return template


def _container(name: str, spec: KitRunSpec, stage: str, resources: Resources, gpus: int, env: dict[str, str]) -> Json:
    pods = spec.pods(stage)
    asked = {"cpu": resources.cpu, "memory": resources.memory} | ({pods.gpu_resource: str(gpus)} if gpus else {})
    container: Json = {
        "name": name,
        "image": spec.image(stage),
        "imagePullPolicy": spec.images.pull_policy,
        "resources": {"requests": asked, "limits": dict(asked)},
        "securityContext": _RESTRICTED,
        "env": _environment(spec, pods, env),
        "volumeMounts": [{"name": "cache", "mountPath": CACHE}, *(m.manifest() for m in pods.volume_mounts)],
    }
    secret = spec.storage.credentials_secret
    sources = [{"secretRef": {"name": secret}}] if secret else []
    sources += [source.manifest() for source in pods.env_from]
    if sources:
        container["envFrom"] = sources
    return container


def _environment(spec: KitRunSpec, pods: StagePods, env: dict[str, str]) -> list[Json]:
    plain = {"KIT19_CACHE": f"{CACHE}/kit19", "HF_HOME": f"{CACHE}/huggingface", "RAY_USAGE_STATS_ENABLED": "0"}
    if spec.storage.endpoint:
        plain["AWS_ENDPOINT_URL"] = spec.storage.endpoint
    if spec.storage.region:
        plain["AWS_REGION"] = spec.storage.region
    own = {variable.name for variable in pods.env}
    return [
        *({"name": name, "value": value} for name, value in (plain | env).items() if name not in own),
        *(variable.manifest() for variable in pods.env),
    ]


def _template(
    run: Run, spec: KitRunSpec, stage: str, container: Json, config_map: str | None, scheduled: bool = True
) -> Json:
    pods = spec.pods(stage)
    volumes: list[Json] = [{"name": "cache", "emptyDir": {}}, *(volume.manifest() for volume in pods.volumes)]
    if config_map:
        volumes.append({"name": "kit19-config", "configMap": {"name": config_map}})
        mount = {"name": "kit19-config", "mountPath": CONFIG_FOLDER, "readOnly": True}
        container = container | {"volumeMounts": [*container["volumeMounts"], mount]}
    pod: Json = {
        "automountServiceAccountToken": False,
        "securityContext": _POD,
        "containers": [container],
        "volumes": volumes,
    }
    optional: Json = {
        "serviceAccountName": pods.service_account or spec.storage.service_account,
        "imagePullSecrets": [{"name": name} for name in spec.images.pull_secrets],
        "tolerations": [toleration.manifest() for toleration in pods.tolerations],
        "affinity": pods.affinity.manifest() if pods.affinity else None,
        "priorityClassName": spec.queue.priority_class,
        "nodeSelector": pods.node_selector,
    }
    if not scheduled:
        optional = {key: optional[key] for key in ("serviceAccountName", "imagePullSecrets")}
    metadata: Json = {"labels": {**pods.labels, **naming.pod_labels(run, stage)}}
    if pods.annotations:
        metadata["annotations"] = dict(pods.annotations)
    return {"metadata": metadata, "spec": pod | {key: value for key, value in optional.items() if value}}
