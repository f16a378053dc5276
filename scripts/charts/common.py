"""What the values of both charts share, and how a values model becomes files."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from kit19_ray import __version__
from kit19_ray.operate.api.kubernetes_types import Name, SpecModel

GLOBAL = Field({}, alias="global", json_schema_extra={"hidden": True})
IMAGE_RULE: dict[str, Any] = {"not": {"type": "string", "pattern": ":latest$"}}
IMAGE_PATTERN = r"^[^:@\s]+(:[0-9]+/[^:@\s]+)?(:[\w.-]+|@sha256:[0-9a-f]{64}|:[\w.-]+@sha256:[0-9a-f]{64})$"


def image(name: str) -> Any:
    """An image's default, `kit19-ray/<name>:<version>`, and the rule that it is pinned."""
    return Field(f"kit19-ray/{name}:{__version__}", pattern=IMAGE_PATTERN, json_schema_extra=IMAGE_RULE)


class ServiceAccount(SpecModel):
    """The pods' ServiceAccount."""

    create: bool = True
    """Make one. False uses `name`, or the namespace's default."""
    name: str = ""
    """Its name. Empty means the release's."""
    annotations: dict[str, str] = {}
    """Its annotations: workload identity, such as `eks.amazonaws.com/role-arn`."""


class PullImage(SpecModel):
    """How images are pulled."""

    pull_policy: str = Field("IfNotPresent", pattern="^(Always|IfNotPresent|Never)$")
    """When nodes pull the image: Always, IfNotPresent or Never."""
    pull_secrets: list[Name] = []
    """Secrets for a registry that asks who pulls."""


class PodMonitor(SpecModel):
    """Of Ray pods: Ray's own metrics and the servers', port 8080."""

    enabled: bool = False
    """Make it. Needs the monitoring.coreos.com CRDs, and Prometheus let in by `networkPolicy.metricsFrom`."""
    interval: str = Field("30s", pattern="^[0-9]+(ms|s|m)$")
    """Time between scrapes."""
    labels: dict[str, str] = {}
    """Labels by which Prometheus finds it."""


class Dashboards(SpecModel):
    """Grafana dashboards as a ConfigMap for Grafana's sidecar."""

    enabled: bool = False
    """Make it."""
    labels: dict[str, str] = {"grafana_dashboard": "1"}
    """Labels by which the sidecar finds it."""
    annotations: dict[str, str] = {}
    """Its annotations, such as the folder's."""
