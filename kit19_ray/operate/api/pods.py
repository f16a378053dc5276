"""What a KitRun says of its pods: images, and each stage's Ray cluster."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kit19_ray.operate.api.kubernetes_types import Embedded, EnvVar, Name, Named, Quantity, SpecModel, VolumeMount


class Images(SpecModel):
    """Container images with kit19-ray and everything it needs inside."""

    train: str = Field(min_length=1)
    """Image of every stage that has none of its own."""
    data: str | None = Field(None, min_length=1)
    """Image of the data stage, which needs no GPU. None means `train`."""
    evaluate: str | None = Field(None, min_length=1)
    """Image of the evaluate stage. None means `train`."""
    serve: str | None = Field(None, min_length=1)
    """Image of the server. None means `train`."""
    head: str | None = Field(None, min_length=1)
    """Image of heads that have workers beside them, where only the driver runs. None means the stage's."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When nodes pull the images."""
    pull_secrets: list[Name] = []
    """Secrets for a registry that asks who pulls."""


class Resources(SpecModel):
    """What one container asks for; requests equal limits, so that no node is oversold."""

    cpu: Quantity = "2"
    """CPUs, such as 4 or 500m."""
    memory: Quantity = "8Gi"
    """Bytes, such as 16Gi."""


class PodTemplate(SpecModel):
    """What a pod has other than the defaults: a strategic merge patch, as kubectl's.

    A null takes a default away, lists with names merge by name, and a container called `ray` is Ray's own.
    """

    metadata: Embedded | None = None
    """Labels and annotations."""
    spec: Embedded | None = None
    """A PodSpec: runtimeClassName, topologySpreadConstraints, initContainers, sidecars, schedulerName, ..."""


class Scratch(SpecModel):
    """Disk of each pod, as volume sources: emptyDir with a sizeLimit, ephemeral with a claim, hostPath of an NVMe."""

    cache: Embedded | None = None
    """Of /cache: models, data, Hugging Face's cache. None means an emptyDir without a limit."""
    tmp: Embedded | None = None
    """Of /tmp: Ray's spilled objects, checkpoints on their way. None means the container's own disk."""


class Head(Resources):
    """The head where there are workers beside it: only the driver runs there."""

    cpu: Quantity = "2"
    """CPUs, such as 4 or 500m."""
    memory: Quantity = "8Gi"
    """Bytes, such as 16Gi."""
    node_selector: dict[str, str] | None = None
    """Labels its node must have. None means the workers' where those have no GPUs, and none where they have: a GPU
    node is not for a head."""
    tolerations: list[Embedded] | None = None
    """Taints it puts up with. None means as for `nodeSelector`."""
    affinity: Embedded | None = None
    """Its affinity. None means as for `nodeSelector`."""
    pod_template: PodTemplate | None = None
    """What the head's pod has other than the defaults."""


class StagePods(SpecModel):
    """The Ray cluster one stage runs on. It lives as long as the stage."""

    workers: int | None = Field(None, ge=0, le=1000)
    """Worker pods. 0: the head does the work, in one pod with a worker's resources. None: as many as the config's
    section has workers, `gpus` of them in a pod; 0 when that section has one and the stage has no GPU."""
    min_workers: int | None = Field(None, ge=0, le=1000)
    """With fewer than there are `workers`: KubeRay's autoscaler adds and removes worker pods between the two. None
    keeps all of them."""
    gpus: int = Field(0, ge=0, le=16)
    """GPUs of each worker pod."""
    gpu_resource: str = Field("nvidia.com/gpu", min_length=1)
    """The device plugin's name of a GPU."""
    cpu: Quantity = "2"
    """CPUs of each worker pod."""
    memory: Quantity = "8Gi"
    """Memory of each worker pod."""
    resources: dict[str, Quantity] = {}
    """Further resources of each worker pod: vpc.amazonaws.com/efa, rdma/ib, hugepages-2Mi, ephemeral-storage, ..."""
    head: Head = Head()
    """The head, when there are workers beside it."""
    node_selector: dict[str, str] = {}
    """Labels a worker's node must have."""
    tolerations: list[Embedded] = []
    """Taints the workers put up with."""
    affinity: Embedded | None = None
    """Affinity of the workers."""
    runtime_class: Name | None = None
    """RuntimeClass of the workers; k3s, RKE2 and Talos show GPUs to `nvidia` only."""
    scratch: Scratch = Scratch()
    """Disk at /cache and /tmp."""
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
    pod_template: PodTemplate | None = None
    """What the workers' pods have other than the defaults, or the head's where it does the work alone."""


class Stages(SpecModel):
    """Pods by stage."""

    data: StagePods = StagePods()
    """Builds examples, tokens and packed shards."""
    train: StagePods = StagePods()
    """Fine-tunes."""
    evaluate: StagePods = StagePods()
    """Scores."""
    serve: StagePods = StagePods()
    """Answers; one worker pod holds `gpus` or `cpu` worth of replicas."""
