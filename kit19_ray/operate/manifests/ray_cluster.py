"""The Ray cluster of a stage: hardened pod templates and KubeRay's RayClusterSpec. Pure."""

from __future__ import annotations

from kit19_ray.operate.api.pods import Head, PodTemplate, StagePods
from kit19_ray.operate.api.spec import KitRunSpec
from kit19_ray.operate.manifests import naming, serving_keys
from kit19_ray.operate.manifests.naming import RunRef
from kit19_ray.operate.manifests.strategic_merge import merge
from kit19_ray.utils.json_types import Json

CONFIG_FOLDER, CONFIG_FILE = "/etc/kit19", "config.yaml"
CONFIG_ANNOTATION = "kit19.dev/config"
CACHE = "/cache"
LOG_CONTAINER, LOG_FOLDER = "driver-log", "/var/log/kit19"
LOG_FILE = f"{LOG_FOLDER}/driver.log"
SAFE_TO_EVICT = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}
GRACE_SECONDS = 180
"""From SIGTERM to SIGKILL: a checkpoint is written meanwhile."""
_USER, _GROUP = 1000, 100  # `ray` and `users` of the rayproject images
_RESTRICTED: Json = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
_POD: Json = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
_IDS: Json = {"runAsUser": _USER, "runAsGroup": _GROUP, "fsGroup": _GROUP}
_METRICS = {"name": "metrics", "containerPort": 8080}
_PORTS = [{"name": "gcs", "containerPort": 6379}, {"name": "dashboard", "containerPort": 8265}, _METRICS]
_AUTOSCALER = {"cpu": "500m", "memory": "512Mi"}
_LOG_RESOURCES = {"cpu": "50m", "memory": "64Mi"}
# PID 1 has no default handler of SIGTERM: without the trap the pod would stay for its whole grace period.
_FOLLOW = f"touch {LOG_FILE}; trap 'exit 0' TERM; tail -n +1 -F {LOG_FILE} & wait"


def ray_cluster(
    run: RunRef,
    spec: KitRunSpec,
    stage: str,
    env: dict[str, str],
    config: str | None = None,
    job: str | None = None,
    head_annotations: dict[str, str] | None = None,
) -> Json:
    """KubeRay's RayClusterSpec for a stage or for `serve`.

    Args:
        env: further variables of the head.
        config: the config file of the driver, which runs in the head; None mounts none.
        job: name of the RayJob, by which the pod with the driver's log is found.
        head_annotations: further annotations of the head's pod.
    """
    pods, workers = spec.pods(stage), spec.workers(stage)
    alone = workers == 0
    least = spec.min_workers(stage)
    elastic = least < workers
    params = {"dashboard-host": "0.0.0.0"}
    if not alone:
        params["num-cpus"] = "0"  # the driver's own place: no task or actor goes there
    # KubeRay's readiness probe takes the port of the container called `serve`, of workers too.
    serve = [{"name": "serve", "containerPort": spec.config.serve.port}] if stage == "serve" else []
    image = spec.image(stage) if alone else spec.images.head or spec.image(stage)
    resources = _amounts(pods) if alone else {"cpu": pods.head.cpu, "memory": pods.head.memory}
    head = _container("ray-head", spec, stage, image, resources, env, [*_PORTS, *serve])
    cluster: Json = {
        "rayVersion": spec.ray_version,
        "headGroupSpec": {
            "rayStartParams": params,
            "template": _template(
                run,
                spec,
                stage,
                head,
                pods if alone else _head_pods(pods),
                config,
                elastic,
                head_annotations or {},
                job,
            ),
        },
    }
    if spec.auth == "token":
        cluster["authOptions"] = {"mode": "token"}
    if stage == "serve" and spec.serve.gcs_fault_tolerance:
        cluster["gcsFaultToleranceOptions"] = spec.serve.gcs_fault_tolerance.manifest()
    if elastic:
        cluster["enableInTreeAutoscaling"] = True
        cluster["autoscalerOptions"] = {
            "version": "v2",
            "resources": {"requests": _AUTOSCALER, "limits": dict(_AUTOSCALER)},
        } | ({"securityContext": _RESTRICTED} if spec.security != "none" else {})
    if workers:
        worker = _container("ray-worker", spec, stage, spec.image(stage), _amounts(pods), {}, [_METRICS, *serve])
        cluster["workerGroupSpecs"] = [
            {
                "groupName": "workers",
                "replicas": least,
                "minReplicas": least,
                "maxReplicas": workers,
                "rayStartParams": {},
                "template": _template(run, spec, stage, worker, pods, None, False, {}),
            }
        ]
    return cluster


def _head_pods(pods: StagePods) -> StagePods:
    """The stage's pods as they are for a head beside workers: it does not follow them onto GPU nodes."""
    head: Head = pods.head
    follow = not pods.gpus
    return pods.model_copy(
        update={
            "node_selector": head.node_selector
            if head.node_selector is not None
            else pods.node_selector
            if follow
            else {},
            "tolerations": head.tolerations if head.tolerations is not None else pods.tolerations if follow else [],
            "affinity": head.affinity or (pods.affinity if follow else None),
            "runtime_class": pods.runtime_class if follow else None,
            "pod_template": head.pod_template,
        }
    )


def _amounts(pods: StagePods) -> dict[str, str]:
    asked = {"cpu": pods.cpu, "memory": pods.memory, **pods.resources}
    return asked | ({pods.gpu_resource: str(pods.gpus)} if pods.gpus else {})


def _container(
    name: str,
    spec: KitRunSpec,
    stage: str,
    image: str,
    resources: dict[str, str],
    env: dict[str, str],
    ports: list[Json],
) -> Json:
    pods = spec.pods(stage)
    container: Json = {
        "name": name,
        "image": image,
        "imagePullPolicy": spec.images.pull_policy,
        "resources": {"requests": resources, "limits": dict(resources)},
        "env": _environment(spec, pods, env),
        "ports": ports,
        "volumeMounts": [{"name": "cache", "mountPath": CACHE}, *(m.manifest() for m in pods.volume_mounts)],
        # The other nodes are told that this one goes, and what runs there is saved before it does.
        "lifecycle": {"preStop": {"exec": {"command": ["python", "-m", "kit19_ray.utils.drain_node"]}}},
    }
    if spec.security != "none":
        container["securityContext"] = _RESTRICTED
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
    run: RunRef,
    spec: KitRunSpec,
    stage: str,
    container: Json,
    pods: StagePods,
    config: str | None,
    token: bool,
    annotations: dict[str, str],
    job: str | None = None,
) -> Json:
    """A pod template.

    Args:
        pods: where the pod goes, and what is merged over it.
        config: the driver's config file, kept in an annotation of the pod.
        token: mount the ServiceAccount's token: an autoscaler asks the API server for pods.
    """
    containers = [container]
    volumes: list[Json] = [
        {"name": "cache", **(pods.scratch.cache.manifest() if pods.scratch.cache else {"emptyDir": {}})},
        *(volume.manifest() for volume in pods.volumes),
    ]
    keys = serving_keys.name(run, spec) if stage == "serve" else None
    if keys:
        volumes.append(serving_keys.volume(keys))
        container["volumeMounts"].append(serving_keys.mount())
    if pods.scratch.tmp:
        volumes.append({"name": "tmp", **pods.scratch.tmp.manifest()})
        container["volumeMounts"].append({"name": "tmp", "mountPath": "/tmp"})
    if stage != "serve":
        annotations = SAFE_TO_EVICT | annotations
    elif container["name"] == "ray-head":
        annotations = SAFE_TO_EVICT | annotations  # the server's GCS; its workers may be moved
    if config is not None:
        annotations = annotations | {CONFIG_ANNOTATION: config}
        source = {"path": CONFIG_FILE, "fieldRef": {"fieldPath": f"metadata.annotations['{CONFIG_ANNOTATION}']"}}
        volumes += [
            {"name": "kit19-config", "downwardAPI": {"items": [source]}},
            {"name": "driver-log", "emptyDir": {}},
        ]
        container["volumeMounts"] += [
            {"name": "kit19-config", "mountPath": CONFIG_FOLDER, "readOnly": True},
            {"name": "driver-log", "mountPath": LOG_FOLDER},
        ]
        container["env"].insert(0, {"name": "KIT19_DRIVER_LOG", "value": LOG_FILE})
        containers.append(_log_container(spec, container["image"]))
    pod: Json = {
        "automountServiceAccountToken": token,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "containers": containers,
        "volumes": volumes,
    }
    if spec.security != "none":
        pod["securityContext"] = _POD | (_IDS if spec.security == "restricted" else {})
    optional: Json = {
        "serviceAccountName": pods.service_account or spec.storage.service_account,
        "imagePullSecrets": [{"name": name} for name in spec.images.pull_secrets],
        "tolerations": [toleration.manifest() for toleration in pods.tolerations],
        "affinity": pods.affinity.manifest() if pods.affinity else None,
        "priorityClassName": spec.queue.priority_class,
        "nodeSelector": pods.node_selector,
        "runtimeClassName": pods.runtime_class,
    }
    own = naming.pod_labels(run, stage) | ({naming.JOB_LABEL: job} if job else {})
    metadata: Json = {"labels": {**pods.labels, **own}}
    if annotations or pods.annotations:
        metadata["annotations"] = annotations | pods.annotations
    template = {"metadata": metadata, "spec": pod | {key: value for key, value in optional.items() if value}}
    return _patched(template, pods.pod_template, container["name"])


def _log_container(spec: KitRunSpec, image: str) -> Json:
    """A sidecar of the head whose log is the driver's, for `kubectl logs` and `kit19 status --follow`."""
    container: Json = {
        "name": LOG_CONTAINER,
        "image": image,
        "imagePullPolicy": spec.images.pull_policy,
        "command": ["sh", "-c", _FOLLOW],
        "resources": {"requests": _LOG_RESOURCES, "limits": dict(_LOG_RESOURCES)},
        "volumeMounts": [{"name": "driver-log", "mountPath": LOG_FOLDER}],
    }
    return container | ({"securityContext": _RESTRICTED} if spec.security != "none" else {})


def _patched(template: Json, patch: PodTemplate | None, container: str) -> Json:
    """The template with the spec's own over it; a container called `ray` is Ray's, whatever KubeRay calls it."""
    if patch is None:
        return template
    tree = {key: part.manifest() for key, part in (("metadata", patch.metadata), ("spec", patch.spec)) if part}
    containers = tree.get("spec", {}).get("containers")
    if containers:
        named = [one | {"name": container} if one.get("name") == "ray" else one for one in containers]
        tree["spec"] = tree["spec"] | {"containers": named}
    return merge(template, tree)
