"""What a KitRun says of the server and of who may reach the pods."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from kit19_ray.operate.api.kubernetes_types import Embedded, Name, SpecModel


class ReplicaAutoscaling(SpecModel):
    """Ray Serve's autoscaling of replicas, and KubeRay's of the worker pods that hold them (not with `queue.kueue`,
    which admits a cluster of one size)."""

    min_replicas: int = Field(1, ge=0)
    """Fewest replicas; 0 lets the model go when nobody asks."""
    max_replicas: int = Field(2, ge=1)
    """Most replicas."""
    target_ongoing_requests: float = Field(8, gt=0)
    """Requests each replica should be working on."""

    @model_validator(mode="after")
    def _ordered(self) -> ReplicaAutoscaling:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"minReplicas={self.min_replicas} is more than maxReplicas={self.max_replicas}")
        return self


class Ingress(SpecModel):
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


class Serve(SpecModel):
    """Whether and how the model is served; `config.serve` has what the server itself needs, replicas included."""

    enabled: bool = True
    """Serve when the gate is passed. False ends in Succeeded."""
    autoscaling: ReplicaAutoscaling | None = None
    """None keeps `config.serve.replicas` copies."""
    new_model: Literal["NewCluster", "InPlace"] = "NewCluster"
    """How a new model takes the place of the one that serves. NewCluster: on a second Ray cluster, while the old one
    serves until the new one answers; needs room for both. InPlace: on the same cluster, as Ray Serve does it with
    `config.serve.max_surge_percent`."""
    upgrade_strategy: Embedded | None = None
    """KubeRay's upgradeStrategy of the RayService, such as {type: NewClusterWithIncrementalUpgrade, ...}. None means
    KubeRay's own, NewCluster."""
    keys_secret: Name | None = None
    """Secret of the KitRun's namespace with the server's API keys: its `api-keys` is a file as
    `config.serve.api_keys_file` has it, read again when it changes. None: the operator makes one, in which `key` is
    what clients send. There is none with `config.serve.auth: none` or a `config.serve.api_keys_file` of one's own."""
    gcs_fault_tolerance: Embedded | None = None
    """KubeRay's gcsFaultToleranceOptions: with a Redis the replicas serve on while a lost head comes back. None: a lost
    head is a new cluster."""
    ingress: Ingress | None = None
    """None: reachable inside the cluster only."""


class NetworkPolicy(SpecModel):
    """Who may reach the pods. Those of one run reach one another on every port."""

    enabled: bool = True
    """Make it. It needs a network plugin that enforces policies."""
    dashboard_from: list[Embedded] = [
        Embedded.model_validate(
            {
                "namespaceSelector": {},
                "podSelector": {"matchLabels": {"app.kubernetes.io/component": "kuberay-operator"}},
            }
        )
    ]
    """NetworkPolicy peers that may reach the dashboard, port 8265, and a server's port. KubeRay's operator must, to
    send jobs and to see whether the server is well; the default is its pods."""
    serve_from: list[Embedded] | None = None
    """Peers that may reach the model. None means this namespace's pods, and with an Ingress every namespace's, because
    its controller is in one of them."""
    metrics_from: list[Embedded] = []
    """Peers that may scrape Ray's metrics, port 8080."""
    egress: list[Embedded] = []
    """Egress rules beside what every run needs: DNS, its own pods, the nodes' identity services (169.254.170.23,
    169.254.169.254), the API server for an autoscaler, the hosts the spec names by URL (the store, judges, Redis, a
    proxy or tracker in `env`), and TCP 443 for AWS' own S3, the hub and W&B where they are used."""
    egress_open: bool = False
    """Leave the way out open to everything."""
    hub: bool | None = None
    """Let the pods reach the hub, and so every host at TCP 443. None: where the config names a model or a tokenizer of
    the hub, or `evaluate.source` is the hub."""
