"""The NetworkPolicy of a run: who may reach its pods, and where they may go. Pure.

A NetworkPolicy knows addresses, namespaces and ports, not names: what the spec names by a host is opened as narrowly
as that host tells, see `_way_to`. `kit19-run.egress` of the chart says the same in Helm's words, and a test holds them
equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from kit19_ray.operate.api.spec import STAGES, KitRunSpec
from kit19_ray.operate.manifests import naming
from kit19_ray.operate.manifests.naming import RunRef
from kit19_ray.utils.json_types import Json

# EKS Pod Identity's agent, and the instance's own metadata: role credentials come from there, by plain HTTP.
IDENTITY_SERVICES: list[Json] = [
    {"ipBlock": {"cidr": f"{address}/32"}} for address in ("169.254.170.23", "169.254.169.254")
]
DNS_PORTS = (53, 5353)
"""5353 is what OpenShift's name servers listen on behind port 53; a policy sees the pod's port."""
_WEB_PORTS = {"http": 80, "https": 443, "redis": 6379, "rediss": 6379}
_ADDRESS = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def rules(run: RunRef, spec: KitRunSpec) -> Json | None:
    """`spec` of the NetworkPolicy; None when none is asked for."""
    asked = spec.network_policy
    if not asked.enabled:
        return None
    own = {"podSelector": {"matchLabels": {naming.RUN_LABEL: run.label}}}
    serve_from = asked.serve_from
    everyone: Json = {"namespaceSelector": {}} if spec.serve.ingress else {"podSelector": {}}
    may_serve = [everyone] if serve_from is None else [peer.manifest() for peer in serve_from]
    dashboard = [peer.manifest() for peer in asked.dashboard_from]
    ways = [
        (dashboard, 8265),
        ([*may_serve, *dashboard] if spec.serve.enabled else [], spec.config.serve.port),
        ([peer.manifest() for peer in asked.metrics_from], 8080),
    ]
    body: Json = {
        "podSelector": own["podSelector"],
        "policyTypes": ["Ingress"] if asked.egress_open else ["Ingress", "Egress"],
        "ingress": [
            {"from": [own]},
            *({"from": peers, "ports": [{"port": port, "protocol": "TCP"}]} for peers, port in ways if peers),
        ],
    }
    if not asked.egress_open:
        body["egress"] = [{"to": [own]}, *_egress(spec)]
    return body


def _egress(spec: KitRunSpec) -> list[Json]:
    elastic = any(spec.min_workers(stage) < spec.workers(stage) for stage in (*STAGES, "serve"))
    ways: list[Json] = [
        {"ports": [{"port": port, "protocol": protocol} for port in DNS_PORTS for protocol in ("UDP", "TCP")]},
        {"to": IDENTITY_SERVICES, "ports": _tcp(80)},
    ]
    if elastic:  # the autoscaler asks the API server for pods
        ways.append({"ports": _tcp(443, 6443)})
    for url in _urls(spec):
        ways += (way for way in _way_to(url) if way not in ways)
    if _wants_the_web(spec) and {"ports": _tcp(443)} not in ways:
        ways.append({"ports": _tcp(443)})
    return ways + [rule.manifest() for rule in spec.network_policy.egress]


def _urls(spec: KitRunSpec) -> Iterator[str]:
    """What the spec says will be asked: the store, models that answer or judge, and every URL in the pods' variables,
    such as a proxy's or a tracking server's.
    """
    evaluate = spec.config.evaluate
    redis = (spec.serve.gcs_fault_tolerance.manifest() if spec.serve.gcs_fault_tolerance else {}).get("redisAddress")
    yield from (url for url in (spec.storage.endpoint, evaluate.endpoint, evaluate.judge.endpoint) if url)
    if redis:
        yield redis if "://" in redis else f"redis://{redis}"
    for stage in (*STAGES, "serve"):
        yield from (variable.value for variable in spec.pods(stage).env if variable.value and "://" in variable.value)


def _way_to(url: str) -> list[Json]:
    """Rules by which a URL's host can be reached: an address at its port; a Service of the cluster (`name`,
    `name.namespace`, `name.namespace.svc...`) by its namespace, for its pods' port is not the Service's; another host
    at its port, wherever it is. A host of two words may be either.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _WEB_PORTS.get(parts.scheme)
    if not host or port is None:
        return []
    if _ADDRESS.fullmatch(host):
        return [{"to": [{"ipBlock": {"cidr": f"{host}/32"}}], "ports": _tcp(port)}]
    words = host.split(".")
    if len(words) == 1:
        return [{"to": [{"podSelector": {}}]}]
    namespace = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": words[1]}}}
    if len(words) > 2 and words[2] == "svc":
        return [{"to": [namespace]}]
    outside: Json = {"ports": _tcp(port)}
    return [{"to": [namespace]}, outside] if len(words) == 2 else [outside]


def _wants_the_web(spec: KitRunSpec) -> bool:
    """Whether a pod asks a host that the spec does not name: AWS' own S3 or role service, the hub, a tracker."""
    config, storage = spec.config, spec.storage
    aws = config.root.startswith("s3://") and (storage.endpoint is None or storage.credentials_secret is None)
    hub = spec.network_policy.hub
    if hub is None:
        named = [config.data.tokenizer.name, config.train.model.name, config.evaluate.model, config.serve.model]
        named += config.serve.models.values()
        hub = config.evaluate.source == "hub" or any(name and _HUB_ID.fullmatch(name) for name in named)
    return aws or hub or "wandb" in config.train.trackers


def _tcp(*ports: int) -> list[Json]:
    return [{"port": port, "protocol": "TCP"} for port in ports]
