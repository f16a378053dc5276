"""The values of helm/kit19-run: as far as they go the keys of a KitRun, so that a release can become one."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from kit19_ray.config.schema import Config
from kit19_ray.operate.api.kubernetes_types import Embedded, Name, SpecModel
from kit19_ray.operate.api.pods import StagePods
from kit19_ray.operate.api.serving import Ingress, NetworkPolicy, ReplicaAutoscaling
from kit19_ray.operate.api.spec import RAY_VERSION, Queue, Stage
from scripts.charts.common import (
    GLOBAL,
    IMAGE_PATTERN,
    IMAGE_RULE,
    Dashboards,
    PodMonitor,
    PullImage,
    ServiceAccount,
    image,
)

EMPTY: dict[str, Any] = {"empty": True}


class Pods(StagePods):
    """The Ray cluster of the jobs or of the server."""

    service_account: Name | None = None
    """ServiceAccount of the pods. null means the release's."""


class Images(PullImage):
    """Container images with kit19-ray and everything it needs inside."""

    train: str = image("train")
    """Image of every stage that has none of its own, by tag or digest; `latest` is refused."""
    data: str | None = Field(None, pattern=IMAGE_PATTERN, json_schema_extra=IMAGE_RULE)
    """Image of the data stage, where it is a job of its own; it needs no GPU. null means `train`."""
    evaluate: str | None = Field(None, pattern=IMAGE_PATTERN, json_schema_extra=IMAGE_RULE)
    """Image of the evaluate stage, where it is a job of its own. null means `train`."""
    serve: str = image("serve")
    """Image of the server."""
    head: str | None = Field(None, pattern=IMAGE_PATTERN, json_schema_extra=IMAGE_RULE)
    """Image of heads that have workers beside them, where only the driver runs. null means the stage's."""


class JobValues(SpecModel):
    """The RayJobs."""

    stages: list[Stage] = []
    """One RayJob for each of these stages. Empty means one RayJob that runs data, train and evaluate in order. Helm
    starts all at once, so list only stages whose inputs are there."""
    same_cluster_retries: int = Field(1, ge=0, le=20)
    """Times the command is started again on the same Ray cluster, where it goes on from its checkpoint."""
    backoff_limit: int = Field(0, ge=0, le=20)
    """After those, times KubeRay tries again on a new cluster. It cannot tell a mistake in the config from a node that
    was lost, and would build as many clusters for either; the operator can."""
    deadline_seconds: int | None = Field(604_800, ge=1)
    """Seconds from when Kueue lets it start, or from creation, after which KubeRay gives the job up. null never does;
    with `queue.scheduler` there is none, because KubeRay would count the wait."""
    ttl_seconds: int = Field(0, ge=0)
    """Seconds the Ray cluster outlives its job."""
    suspend: bool = False
    """Free every pod; when this is false again the job starts anew and goes on from its checkpoint."""


class StageOverrides(SpecModel):
    """What a stage's own RayJob has other than `pods`; for stages in `job.stages`."""

    data: Pods = Field(Pods(), json_schema_extra=EMPTY)
    """Keys of `pods` for the data stage."""
    train: Pods = Field(Pods(), json_schema_extra=EMPTY)
    """Keys of `pods` for the train stage."""
    evaluate: Pods = Field(Pods(), json_schema_extra=EMPTY)
    """Keys of `pods` for the evaluate stage."""


class Serve(SpecModel):
    """The RayService; `config.serve` has what the server itself needs."""

    enabled: bool = False
    """Serve `config.serve.model`."""
    pods: Pods = Pods()
    """Its Ray cluster; one worker pod holds `gpus` or `cpu` worth of replicas."""
    autoscaling: ReplicaAutoscaling | None = None
    """`minReplicas`, `maxReplicas`, `targetOngoingRequests`. null keeps `config.serve.replicas` copies."""
    new_model: Literal["NewCluster", "InPlace"] = "NewCluster"
    """How a new model takes the place of the one that serves. NewCluster: on a second Ray cluster, while the old one
    serves until the new one answers; needs room for both. InPlace: on the same cluster, as Ray Serve does it with
    `config.serve.max_surge_percent`."""
    upgrade_strategy: Embedded | None = None
    """KubeRay's upgradeStrategy of the RayService. null means KubeRay's own, NewCluster."""
    keys_secret: str = ""
    """Secret with the server's API keys: its `api-keys` is a file as `config.serve.api_keys_file` has it, read again
    when it changes. Empty makes one, whose `key` is what clients send, and keeps it on upgrade; what renders without
    the cluster cannot, and needs this. None is there with `config.serve.auth: none` or an `api_keys_file` of
    one's own."""
    gcs_fault_tolerance: Embedded | None = None
    """KubeRay's gcsFaultToleranceOptions: with a Redis the replicas serve on while a lost head comes back."""
    ingress: Ingress | None = None
    """`host`, `path`, `className`, `tlsSecret`, `annotations`. null: reachable inside the cluster only."""


class Storage(SpecModel):
    """How pods reach the root."""

    credentials_secret: str = ""
    """Secret whose keys are the usual AWS variables: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY. Empty means workload
    identity (`serviceAccount.annotations`), or no credentials."""
    endpoint: str | None = Field(None, pattern=r"^https?://")
    """S3 endpoint, for a store that is not AWS. Becomes AWS_ENDPOINT_URL."""
    region: str = ""
    """Becomes AWS_REGION."""


class Auth(SpecModel):
    """Ray's own authentication: dashboard, jobs and client ask for a token."""

    mode: Literal["token", "none"] = "token"
    """token needs KubeRay 1.6 and Ray 2.52 or newer; an older KubeRay needs none."""
    existing_secret: str = ""
    """Secret with the key `auth_token`. Empty makes one and keeps its token on upgrade; what renders without the
    cluster (`helm template`, Argo CD) cannot, and needs this."""


class Metrics(SpecModel):
    """Prometheus metrics: Ray's own and the server's (`ray_kit19_*`), port 8080 of every pod."""

    pod_monitor: PodMonitor = PodMonitor()
    """Of this release's pods."""


class RunValues(SpecModel):
    """Values of the kit19-run chart."""

    name_override: str = Field("", pattern=r"^([a-z]([-a-z0-9]{0,26}[a-z0-9])?)?$")
    """Name of everything, instead of the release's; 28 characters at most."""
    mode: Literal["job", "cluster", "none"] = "job"
    """job: RayJobs. cluster: a RayCluster that stays, for `kit19 submit` and `ray job submit`. none: only what `serve`
    asks for."""
    config: Config = Config()
    """The config tree, as in configs/*.yaml: differences from the defaults only. `root` is required."""
    images: Images = Images()
    """Container images."""
    ray_version: str = Field(RAY_VERSION, pattern=r"^[0-9]+\.[0-9]+\.[0-9]+")
    """Ray's version in the images."""
    job: JobValues = JobValues()
    """The RayJobs."""
    pods: Pods = Pods()
    """The Ray cluster of the jobs, or the RayCluster."""
    stage_pods: StageOverrides = StageOverrides()
    """What single stages have other than `pods`."""
    serve: Serve = Serve()
    """The server."""
    storage: Storage = Storage()
    """How pods reach the root."""
    queue: Queue = Queue()
    """Queueing and gang scheduling."""
    auth: Auth = Auth()
    """Ray's own authentication."""
    service_account: ServiceAccount = ServiceAccount()
    """The pods' identity."""
    network_policy: NetworkPolicy = NetworkPolicy()
    """Who may reach the pods."""
    metrics: Metrics = Metrics()
    """Prometheus metrics."""
    dashboards: Dashboards = Dashboards()
    """Grafana dashboards."""
    security: Literal["restricted", "assigned", "none"] = "restricted"
    """restricted: uid 1000, gid 100, no privileges, as Pod Security's `restricted`. assigned: the same without uid and
    gid, which OpenShift's restricted-v2 picks itself. none: nothing is said, `podTemplate` may say all."""
    labels: dict[str, Name] = {}
    """Labels of everything."""
    helm_global: dict[str, Any] = GLOBAL
    """What a parent chart hands down; not read."""
