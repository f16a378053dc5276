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
from kit19_ray.errors import OperateError, UserError, quote
from kit19_ray.io import storage
from kit19_ray.operate.api.kubernetes_types import Name, SpecModel
from kit19_ray.operate.api.pods import Images, StagePods, Stages
from kit19_ray.operate.api.serving import NetworkPolicy, Serve

STAGES: tuple[Stage, ...] = ("data", "train", "evaluate")
RAY_VERSION = "2.60.0"  # of the images built from docker/

Stage = Literal["data", "train", "evaluate"]


class Storage(SpecModel):
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


class Queue(SpecModel):
    """Who decides when the pods may start."""

    kueue: str | None = Field(None, min_length=1)
    """Kueue LocalQueue. Kueue then suspends and resumes the RayJobs."""
    kueue_priority: str | None = Field(None, min_length=1)
    """Kueue WorkloadPriorityClass."""
    scheduler: Literal["volcano", "yunikorn", "kai-scheduler", "scheduler-plugins"] | None = None
    """Batch scheduler that starts a stage's pods together, as KubeRay was told to use it. scheduler-plugins is for a
    RayCluster only: KubeRay refuses every RayJob under it."""
    scheduler_queue: str | None = Field(None, min_length=1)
    """That scheduler's queue."""
    priority_class: Name | None = None
    """PriorityClass of the pods."""


class Retries(SpecModel):
    """What happens when a stage fails for another reason than a mistake in the KitRun (which is never tried again)."""

    same_cluster: int = Field(1, ge=0, le=20)
    """Times the command is started again on the same Ray cluster, where it goes on from its checkpoint."""
    rebuilds: int = Field(2, ge=0, le=20)
    """After those, times the stage gets a new RayJob and so a new cluster."""
    backoff_seconds: float = Field(10, ge=0, le=3600)
    """Wait before the first new RayJob; it doubles each time."""
    max_backoff_seconds: float = Field(600, ge=0, le=86_400)
    """The longest wait."""


class Deadlines(SpecModel):
    """After how many seconds a stage counts as stuck. None never does."""

    start: int | None = Field(3600, ge=1)
    """From a child's creation until its job runs: images, nodes, a RayJob that stays Initializing. Time in a queue, of
    Kueue or of a batch scheduler, does not count."""
    data: int | None = Field(86_400, ge=1)
    """The data stage, the time its job runs; not that in a queue, before or after a preemption."""
    train: int | None = Field(604_800, ge=1)
    """The train stage, counted in the same way."""
    evaluate: int | None = Field(86_400, ge=1)
    """The evaluate stage, counted in the same way."""
    serve: int | None = Field(3600, ge=1)
    """From the RayService's creation or change until it answers."""


class KitRunSpec(SpecModel):
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
    skip: list[Stage] = Field([], max_length=3)
    """Stages not to run, where the config names what they would have made: `train.data`, `evaluate.model`,
    `serve.model`."""
    ttl_seconds_after_finished: int | None = Field(None, ge=0)
    """Delete the KitRun this long after it ended without serving. None keeps it. What it wrote is never deleted."""
    suspend: bool = False
    """Free every pod; a stage goes on from its checkpoint when this is false again."""
    serve: Serve = Serve()
    """The server."""
    auth: Literal["none", "token"] = "token"
    """token: Ray's dashboard, jobs and client ask for the token KubeRay makes (KubeRay 1.5.1, Ray 2.52 or newer). none:
    whoever reaches port 8265 runs code in the pods."""
    network_policy: NetworkPolicy = NetworkPolicy()
    """Who may reach the pods."""
    security: Literal["restricted", "assigned", "none"] = "restricted"
    """restricted: uid 1000, gid 100, no privileges, as Pod Security's `restricted`. assigned: the same without uid and
    gid, which OpenShift's restricted-v2 picks itself. none: nothing is said, `podTemplate` may say all."""
    ray_version: str = Field(RAY_VERSION, pattern=r"^[0-9]+\.[0-9]+\.[0-9]+")
    """Ray's version in the images."""

    @field_validator("config")
    @classmethod
    def _usable_root(cls, config: Config, info: ValidationInfo) -> Config:
        if not config.root:
            raise ValueError("root is not set: file:///... on a shared volume, or s3://bucket/prefix")
        if "://" not in config.root:
            raise ValueError(
                f"root={quote(config.root)} must be a file:/// or s3:// URI: a pod has no working directory"
            )
        try:
            root = storage.normalise(config.root)
        except UserError as error:
            raise ValueError(error.message) from None
        return config.model_copy(update={"root": root})

    @model_validator(mode="after")
    def _sizes_agree(self) -> KitRunSpec:
        train, pods = self.config.train, self.stages.train
        wrong = []
        if pods.gpus and pods.workers is not None and max(1, pods.workers) * pods.gpus < train.workers:
            wrong.append(
                f"stages.train: {max(1, pods.workers)} x {pods.gpus} GPUs cannot hold "
                f"config.train.workers={train.workers}"
            )
        for stage in ("train", "evaluate", "serve"):
            if getattr(self.config, stage).use_gpu and not getattr(self.stages, stage).gpus:
                wrong.append(f"config.{stage}.use_gpu=true, but stages.{stage}.gpus=0")
        if self.queue.scheduler == "scheduler-plugins":
            wrong.append(
                "queue.scheduler=scheduler-plugins: KubeRay refuses every RayJob under it (it gangs RayClusters only); "
                "take queue.kueue, volcano, yunikorn or kai-scheduler"
            )
        if self.serve.keys_secret and not self.mounts_keys:
            wrong.append(
                "serve.keysSecret: config.serve.auth=none, or an api_keys_file of one's own, and a Secret of keys "
                "exclude each other"
            )
        if self.network_policy.egress_open and self.network_policy.egress:
            wrong.append("networkPolicy: egressOpen=true and a list of egress rules exclude each other")
        wrong += self._unmade()
        held_out = set(self.config.data.tasks) if self.config.data.tasks is not None else None
        for rule in self.config.evaluate.gate:
            scored = rule.task in self.config.evaluate.tasks
            if not scored and (
                not self.config.evaluate.held_out or (held_out is not None and rule.task not in held_out)
            ):
                wrong.append(
                    f"config.evaluate.gate: {quote(rule.task)} is not scored; scored: {', '.join(self._scored())}"
                )
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

    @property
    def mounts_keys(self) -> bool:
        """Whether the server's API keys are mounted from a Secret; else everybody may ask, or the config has a file."""
        return self.config.serve.auth != "none" and self.config.serve.api_keys_file is None

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

    def min_workers(self, stage: str) -> int:
        """Worker pods that stay when there is nothing to do; as many as `workers` without an autoscaler."""
        pods, most = self.pods(stage), self.workers(stage)
        least = pods.min_workers
        if least is None and stage == "serve" and self.serve.autoscaling and not self.queue.kueue:
            least = -(-self.serve.autoscaling.min_replicas // max(1, pods.gpus))
        return most if least is None else min(least, most)

    def image(self, stage: str) -> str:
        """The image of a stage or of `serve`."""
        own: str | None = getattr(self.images, stage)
        return own or self.images.train


def parse(tree: Mapping[str, Any], name: str) -> KitRunSpec:
    """The spec of KitRun `name`.

    Raises:
        OperateError: one message with a line for each wrong key.
    """
    return loading.validate(KitRunSpec, dict(tree), name, OperateError)
