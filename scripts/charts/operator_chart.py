"""The values of helm/kit19-operator."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from kit19_ray.operate.api.kubernetes_types import Embedded, EnvVar, Name, Quantity, SpecModel
from scripts.charts.common import GLOBAL, Dashboards, PodMonitor, PullImage, ServiceAccount, image


class Image(PullImage):
    """The operator's image."""

    name: str = image("operate")
    """Image with the `operate` extra, by tag or digest; `latest` is refused."""


class Crds(SpecModel):
    """The KitRun CustomResourceDefinition."""

    enabled: bool = True
    """Install and upgrade it with this release. False where someone else does."""
    keep: bool = True
    """Leave it, and so every KitRun, in place on uninstall."""


class Rbac(SpecModel):
    """The operator's rights."""

    create: bool = True
    """Make the Roles and their bindings. False where an administrator does."""
    aggregate: bool = True
    """Make ClusterRoles that add KitRuns to admin, edit and view. Whoever may create KitRuns gets pods with any
    ServiceAccount, Secret and volume of the namespace."""
    secret_names: list[Name] = []
    """The Secrets the operator may read, by name: every `storage.credentialsSecret`, and what pods' `env` and
    `envFrom` name. Empty means any Secret of the namespaces it works in, by its name; one it may not read
    counts as there."""


class Amount(SpecModel):
    """CPU and memory."""

    cpu: Quantity
    """CPUs."""
    memory: Quantity
    """Bytes."""


class Resources(SpecModel):
    """The operator's resources."""

    requests: Amount = Amount(cpu="100m", memory="256Mi")
    """What the scheduler sets aside."""
    limits: Amount = Amount(cpu="1", memory="512Mi")
    """What it may not go beyond."""


class NetworkPolicy(SpecModel):
    """Who the operator talks to."""

    enabled: bool = True
    """Make it. It needs a network plugin that enforces policies."""
    metrics_from: list[Embedded] = []
    """NetworkPolicy peers that may scrape port 8080, beside the pods of this namespace. With `metrics.serviceMonitor`
    and none here every namespace's pods may: Prometheus is in one of them."""
    egress_ports: list[int] = [443, 6443]
    """TCP ports it may reach beside DNS and the nodes' identity services (169.254.170.23, 169.254.169.254): the API
    server's and the object store's (9000 for MinIO)."""


class DisruptionBudget(SpecModel):
    """Voluntary evictions."""

    enabled: bool = True
    """Make it."""
    max_unavailable: int = Field(1, ge=0)
    """Pods that may be away at once; 0 makes a drain wait for you."""


class ServiceMonitor(SpecModel):
    """For the Prometheus operator."""

    enabled: bool = False
    """Make it. Needs the monitoring.coreos.com CRDs."""
    interval: str = Field("30s", pattern="^[0-9]+(ms|s|m)$")
    """Time between scrapes."""
    labels: dict[str, str] = {}
    """Labels by which Prometheus finds it."""


class PrometheusRule(SpecModel):
    """Alerts: a run that stands still, waits, failed or is refused; no operator at work; an unreadable root."""

    enabled: bool = False
    """Make it. Needs the monitoring.coreos.com CRDs and `serviceMonitor`."""
    labels: dict[str, str] = {}
    """Labels by which Prometheus finds it."""


class Metrics(SpecModel):
    """Prometheus metrics, on port 8080."""

    service_monitor: ServiceMonitor = ServiceMonitor()
    """For the Prometheus operator."""
    pod_monitor: PodMonitor = PodMonitor()
    """Of the runs' Ray pods."""
    prometheus_rule: PrometheusRule = PrometheusRule()
    """Alerts."""


class Pod(SpecModel):
    """Where and how the pod runs."""

    labels: dict[str, str] = {}
    """Labels of the pod."""
    annotations: dict[str, str] = {}
    """Annotations of the pod."""
    node_selector: dict[str, str] = {}
    """Labels a node must have."""
    tolerations: list[Embedded] = []
    """Taints the pod puts up with."""
    affinity: dict[str, Any] = {}
    """Affinity of the pod."""
    priority_class: str = ""
    """PriorityClass of the pod."""
    termination_grace_seconds: int = Field(30, ge=1)
    """Time to give the lease back after SIGTERM."""


class OperatorValues(SpecModel):
    """Values of the kit19-operator chart."""

    name_override: str = Field("", pattern=r"^([a-z]([-a-z0-9]{0,50}[a-z0-9])?)?$")
    """Name of everything, instead of the release's."""
    image: Image = Image()
    """The operator's image."""
    replicas: int = Field(1, ge=1, le=5)
    """Operators; one works, the others wait for its lease."""
    watch_namespaces: list[Name] = []
    """Namespaces it works in. Empty means the release's own."""
    cluster_wide: bool = False
    """Work in every namespace, by a ClusterRole; excludes `watchNamespaces`."""
    crds: Crds = Crds()
    """The KitRun CustomResourceDefinition."""
    rbac: Rbac = Rbac()
    """The operator's rights."""
    service_account: ServiceAccount = ServiceAccount()
    """Whose rights these are."""
    resources: Resources = Resources()
    """The operator's resources."""
    env: list[EnvVar] = []
    """Variables. A secret one has `valueFrom`, never `value`."""
    env_from: list[Embedded] = []
    """Secrets and ConfigMaps whose keys become variables."""
    network_policy: NetworkPolicy = NetworkPolicy()
    """Who it talks to."""
    pod_disruption_budget: DisruptionBudget = DisruptionBudget()
    """Voluntary evictions."""
    metrics: Metrics = Metrics()
    """Prometheus metrics."""
    dashboards: Dashboards = Dashboards()
    """Grafana dashboards."""
    security: Literal["restricted", "assigned", "none"] = "restricted"
    """restricted: uid 1000, no privileges. assigned: the same without uid and gid, which OpenShift's restricted-v2
    picks itself. none: nothing is said."""
    pod: Pod = Pod()
    """Where and how the pod runs."""
    helm_global: dict[str, Any] = GLOBAL
    """What a parent chart hands down; not read."""
