"""What a KitRun asks for: `spec` as typed, frozen models.

`config` is the config tree of every YAML config, its keys as they are there. All else describes Kubernetes and has
Kubernetes' camelCase; embedded Kubernetes objects are checked by the API server that gets them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from kit19_ray.config import loading
from kit19_ray.config.schema import Config
from kit19_ray.errors import OperateError, UserError
from kit19_ray.io import storage
from kit19_ray.operate.api.kubernetes_types import Embedded, EnvVar, Name, Named, Object, Quantity, VolumeMount

STAGES: tuple[Stage, ...] = ("data", "train", "evaluate")
RAY_VERSION = "2.60.0"  # of the images built from docker/

Stage = Literal["data", "train", "evaluate"]


class Images(Object):
    """Container images with kit19-ray and everything it needs inside."""

    train: str = Field(min_length=1)
    """Image of the data, train and evaluate stages."""
    serve: str | None = None
    """Image of the server. None means `train`."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When nodes pull the images."""
    pull_secrets: list[Name] = []
    """Secrets for a registry that asks who pulls."""


class Resources(Object):
    """What one container asks for; requests equal limits, so that no node is oversold."""

    cpu: Quantity = "2"
    """CPUs, such as 4 or 500m."""
    memory: Quantity = "8Gi"
    """Bytes, such as 16Gi."""


class StagePods(Object):
    """The Ray cluster one stage runs on. It lives as long as the stage."""

    workers: int | None = Field(None, ge=0, le=1000)
    """Worker pods. 0: the head does the work, in one pod with a worker's resources. None: as many as the config's
    section has workers, `gpus` of them in a pod; 0 when that section has one and the stage has no GPU."""
    gpus: int = Field(0, ge=0, le=16)
    """GPUs of each worker pod."""
    gpu_resource: str = Field("nvidia.com/gpu", min_length=1)
    """The device plugin's name of a GPU."""
    cpu: Quantity = "2"
    """CPUs of each worker pod."""
    memory: Quantity = "8Gi"
    """Memory of each worker pod."""
    head: Resources = Resources(cpu="2", memory="8Gi")
    """The head's own resources, when there are workers beside it."""
    node_selector: dict[str, str] = {}
    """Labels a node must have."""
    tolerations: list[Embedded] = []
    """Taints the pods put up with."""
    affinity: Embedded | None = None
    """Affinity of the pods."""
    volumes: list[Named] = []
    """Volumes, mounted by `volumeMounts`."""
    volume_mounts: list[VolumeMount] = []
    """Where the volumes go."""
    env: list[EnvVar] = []
    """Variables. A secret one has `valueFrom`, never `value`."""
    env_from: list[Embedded] = []
    """Secrets and ConfigMaps whose keys become variables."""
    service_account: Name | None = None
    """ServiceAccount of the pods, for workload identity. None means `storage.serviceAccount`, or the namespace's
    default."""
    labels: dict[str, str] = {}
    """Labels of the pods."""
    annotations: dict[str, str] = {}
    """Annotations of the pods."""


class Stages(Object):
    """Pods by stage."""

    data: StagePods = StagePods()
    """Builds examples, tokens and packed shards."""
    train: StagePods = StagePods()
    """Fine-tunes."""
    evaluate: StagePods = StagePods()
    """Scores."""
    serve: StagePods = StagePods()
    """Answers; one worker pod holds `gpus` or `cpu` worth of replicas."""


class Storage(Object):
    """How pods and the operator reach the root."""

    credentials_secret: Name | None = None
    """Secret of the KitRun's namespace whose keys are the usual AWS variables: AWS_ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY, optionally AWS_SESSION_TOKEN, AWS_REGION. None means workload identity, or no credentials."""
    service_account: Name | None = None
    """ServiceAccount with a role at the object store, for every stage that names none."""
    endpoint: str | None = Field(None, pattern=r"^https?://")
    """S3 endpoint, for a store that is not AWS. Becomes AWS_ENDPOINT_URL."""
    region: str | None = Field(None, min_length=1)
    """Becomes AWS_REGION."""


class Queue(Object):
    """Who decides when the pods may start."""

    kueue: str | None = Field(None, min_length=1)
    """Kueue LocalQueue. Kueue then suspends and resumes the RayJobs."""
    kueue_priority: str | None = Field(None, min_length=1)
    """Kueue WorkloadPriorityClass."""
    scheduler: Literal["volcano", "yunikorn", "kai-scheduler", "scheduler-plugins"] | None = None
    """Batch scheduler that starts a stage's pods together, as KubeRay was told to use it."""
    scheduler_queue: str | None = Field(None, min_length=1)
    """That scheduler's queue."""
    priority_class: Name | None = None
    """PriorityClass of the pods."""


class Retries(Object):
    """What happens when a stage fails for another reason than a mistake in the KitRun (which is never tried again)."""

    same_cluster: int = Field(1, ge=0, le=20)
    """Times the command is started again on the same Ray cluster, where it goes on from its checkpoint."""
    rebuilds: int = Field(2, ge=0, le=20)
    """After those, times the stage gets a new RayJob and so a new cluster."""
    backoff_seconds: float = Field(10, ge=0, le=3600)
    """Wait before the first new RayJob; it doubles each time."""
    max_backoff_seconds: float = Field(600, ge=0, le=86_400)
    """The longest wait."""


class Deadlines(Object):
    """After how many seconds a stage counts as stuck. None never does."""

    start: int | None = Field(3600, ge=1)
    """From a child's creation until it runs: images, nodes, a RayJob that stays Initializing. Time in a queue counts
    only without Kueue."""
    data: int | None = Field(86_400, ge=1)
    """The data stage's RayJob, from its start."""
    train: int | None = Field(604_800, ge=1)
    """The train stage's RayJob, from its start."""
    evaluate: int | None = Field(86_400, ge=1)
    """The evaluate stage's RayJob, from its start."""
    serve: int | None = Field(3600, ge=1)
    """From the RayService's creation or change until it answers."""


class Autoscaling(Object):
    """Ray Serve's autoscaling of replicas."""

    min_replicas: int = Field(1, ge=0)
    """Fewest replicas; 0 lets the model go when nobody asks."""
    max_replicas: int = Field(2, ge=1)
    """Most replicas."""
    target_ongoing_requests: float = Field(8, gt=0)
    """Requests each replica should be working on."""

    @model_validator(mode="after")
    def _ordered(self) -> Autoscaling:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"minReplicas={self.min_replicas} is more than maxReplicas={self.max_replicas}")
        return self


class Ingress(Object):
    """A way in from outside the cluster."""

    host: str = Field(min_length=1)
    """Host name."""
    path: str = Field("/", pattern="^/")
    """Path prefix."""
    class_name: str | None = Field(None, min_length=1)
    """IngressClass. None means the cluster's default."""
    tls_secret: Name | None = None
    """Secret with the certificate."""
    annotations: dict[str, str] = {}
    """Annotations, which are the ingress controller's business."""


class Serve(Object):
    """Whether and how the model is served; `config.serve` has what the server itself needs, replicas included."""

    enabled: bool = True
    """Serve when the gate is passed. False ends in Succeeded."""
    autoscaling: Autoscaling | None = None
    """None keeps `config.serve.replicas` copies."""
    ingress: Ingress | None = None
    """None: reachable inside the cluster only."""


class KitRunSpec(Object):
    """One run: data, train, evaluate, the gate (`config.evaluate.gate`), serve."""

    config: Config
    """The config tree, as in configs/*.yaml. `root` is required."""
    images: Images
    """Container images."""
    stages: Stages = Stages()
    """Pods by stage."""
    storage: Storage = Storage()
    """Credentials of the root."""
    queue: Queue = Queue()
    """Queueing and gang scheduling."""
    retries: Retries = Retries()
    """What is tried again, and how often."""
    deadlines: Deadlines = Deadlines()
    """When a stage is stuck."""
    skip: list[Stage] = []
    """Stages not to run, where the config names what they would have made: `train.data`, `evaluate.model`,
    `serve.model`."""
    ttl_seconds_after_finished: int | None = Field(None, ge=0)
    """Delete the KitRun this long after it ended without serving. None keeps it. What it wrote is never deleted."""
    suspend: bool = False
    """Free every pod; a stage goes on from its checkpoint when this is false again."""
    serve: Serve = Serve()
    """The server."""
    auth: Literal["none", "token"] = "none"
    """token: Ray's dashboard, jobs and client ask for the token KubeRay makes (KubeRay 1.5, Ray 2.52 or newer)."""
    ray_version: str = Field(RAY_VERSION, pattern=r"^[0-9]+\.[0-9]+\.[0-9]+")
    """Ray's version in the images."""

    @field_validator("config")
    @classmethod
    def _usable_root(cls, config: Config, info: ValidationInfo) -> Config:
        if not config.root:
            raise ValueError("root is not set: file:///... on a shared volume, or s3://bucket/prefix")
        if "://" not in config.root:
            raise ValueError(f"root={config.root!r} must be a file:/// or s3:// URI: a pod has no working directory")
        try:
            root = storage.normalise(config.root)
        except UserError as error:
            raise ValueError(error.message) from None
        return config.model_copy(update={"root": root})

    @model_validator(mode="after")
    def _sizes_agree(self) -> KitRunSpec:
        train, pods = self.config.train, self.stages.train
        each = train.workers * train.micro_batch_size
        wrong = []
        if train.batch_size % each:
            wrong.append(
                f"config.train.batch_size={train.batch_size} does not divide by workers x micro_batch_size = "
                f"{train.workers} x {train.micro_batch_size} = {each}"
            )
        if pods.gpus and pods.workers is not None and max(1, pods.workers) * pods.gpus < train.workers:
            wrong.append(
                f"stages.train: {max(1, pods.workers)} x {pods.gpus} GPUs cannot hold "
                f"config.train.workers={train.workers}"
            )
        for stage in ("train", "evaluate", "serve"):
            if getattr(self.config, stage).use_gpu and not getattr(self.stages, stage).gpus:
                wrong.append(f"config.{stage}.use_gpu=true, but stages.{stage}.gpus=0")
        wrong += self._unmade()
        held_out = set(self.config.data.tasks) if self.config.data.tasks is not None else None
        for rule in self.config.evaluate.gate:
            scored = rule.task in self.config.evaluate.tasks
            if not scored and (
                not self.config.evaluate.held_out or (held_out is not None and rule.task not in held_out)
            ):
                wrong.append(f"config.evaluate.gate: {rule.task!r} is not scored; scored: {', '.join(self._scored())}")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def _unmade(self) -> list[str]:
        """What a stage that runs would read, a skipped one would have made, and the config does not name."""
        config, runs = self.config, {stage for stage in STAGES if stage not in self.skip}
        needs = [
            ("data", not config.train.data and ("train" in runs or ("evaluate" in runs and config.evaluate.held_out))),
            ("train", not config.evaluate.model and "evaluate" in runs),
            ("train", not config.serve.model and self.serve.enabled),
            ("evaluate", bool(config.evaluate.gate)),
        ]
        keys = ("config.train.data", "config.evaluate.model", "config.serve.model", "an empty config.evaluate.gate")
        return [
            f"skip: without the {stage} stage {key} is needed"
            for (stage, needed), key in zip(needs, keys)
            if needed and stage in self.skip
        ]

    def _scored(self) -> list[str]:
        own = (self.config.data.tasks or ["every task"]) if self.config.evaluate.held_out else []
        return sorted({*self.config.evaluate.tasks, *own})

    def pods(self, stage: str) -> StagePods:
        """The pods of a stage or of `serve`."""
        found: StagePods = getattr(self.stages, stage)
        return found

    def workers(self, stage: str) -> int:
        """Worker pods of a stage or of `serve`, derived from the config where the spec leaves it open."""
        pods = self.pods(stage)
        if pods.workers is not None:
            return pods.workers
        section = getattr(self.config, stage)
        wanted = int(getattr(section, "workers", 1))
        if stage == "serve":
            wanted = self.serve.autoscaling.max_replicas if self.serve.autoscaling else section.replicas
        if wanted == 1 and not pods.gpus:
            return 0
        return -(-wanted // max(1, pods.gpus))

    def image(self, stage: str) -> str:
        """The image of a stage or of `serve`."""
        return (self.images.serve or self.images.train) if stage == "serve" else self.images.train


def parse(tree: Mapping[str, Any], name: str) -> KitRunSpec:
    """The spec of KitRun `name`.

    Raises:
        OperateError: one message with a line for each wrong key.
    """
    return loading.validate(KitRunSpec, dict(tree), name, OperateError)
