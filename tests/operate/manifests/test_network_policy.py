"""Where a run's pods may go: closed, but for what the spec itself says they will ask."""

from __future__ import annotations

from typing import Any

import pytest

from kit19_ray.errors import OperateError
from kit19_ray.operate.api.spec import KitRunSpec, parse
from kit19_ray.operate.manifests import children
from kit19_ray.operate.manifests.naming import RunRef

RUN = RunRef("demo", "default", "6f1c9b1e-0000-4000-8000-000000000001")
STORE = {"credentialsSecret": "s3", "endpoint": "http://minio.store.svc.cluster.local:9000"}
WEB = {"ports": [{"port": 443, "protocol": "TCP"}]}


def spec(config: dict[str, Any] | None = None, **more: Any) -> KitRunSpec:
    tree: dict[str, Any] = {"config": {"root": "s3://bucket/runs"} | (config or {}), "images": {"train": "kit19:1"}}
    return parse(tree | more, "demo")


def egress(wanted: KitRunSpec) -> list[dict[str, Any]]:
    policy = children.network_policy(RUN, wanted)
    assert policy is not None
    found: list[dict[str, Any]] = policy["spec"].get("egress", [])
    return found


def tcp(*ports: int) -> list[dict[str, Any]]:
    return [{"port": port, "protocol": "TCP"} for port in ports]


def namespace(name: str) -> dict[str, Any]:
    return {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}]}


def test_egress_is_closed_but_for_what_every_run_needs() -> None:
    own, dns, identity, *more = egress(spec(config={"root": "file:///data"}))
    assert own == {"to": [{"podSelector": {"matchLabels": {"kit19.dev/run": "demo"}}}]}
    assert {(one["port"], one["protocol"]) for one in dns["ports"]} == {
        (53, "UDP"), (53, "TCP"), (5353, "UDP"), (5353, "TCP"),
    }  # fmt: skip
    assert [one["ipBlock"]["cidr"] for one in identity["to"]] == ["169.254.170.23/32", "169.254.169.254/32"]
    assert identity["ports"] == tcp(80) and more == []


@pytest.mark.parametrize(
    ("endpoint", "rules"),
    [
        ("http://minio.store.svc.cluster.local:9000", [namespace("store")]),
        ("http://minio.store.svc:80", [namespace("store")]),
        ("http://minio:9000", [{"to": [{"podSelector": {}}]}]),
        ("http://minio.store:9000", [namespace("store"), {"ports": tcp(9000)}]),
        ("http://10.1.2.3:9000", [{"to": [{"ipBlock": {"cidr": "10.1.2.3/32"}}], "ports": tcp(9000)}]),
        ("https://s3.eu.example.com", [WEB]),
        ("https://s3.eu.example.com:8443", [{"ports": tcp(8443)}]),
    ],
)
def test_the_store_is_opened_as_narrowly_as_its_name_tells(endpoint: str, rules: list[dict[str, Any]]) -> None:
    assert egress(spec(storage=STORE | {"endpoint": endpoint}))[3:] == rules


@pytest.mark.parametrize(
    ("more", "open_web"),
    [
        ({"storage": {"credentialsSecret": "s3"}}, True),  # AWS' own S3
        ({"storage": STORE | {"credentialsSecret": None}}, True),  # a role is asked of AWS' own service
        ({"storage": STORE}, False),
        ({"storage": STORE, "config": {"train": {"model": {"name": "EleutherAI/polyglot-ko-1.3b"}}}}, True),
        ({"storage": STORE, "config": {"train": {"model": {"name": "s3://bucket/base"}}}}, False),
        ({"storage": STORE, "config": {"serve": {"models": {"base": "EleutherAI/polyglot-ko-1.3b"}}}}, True),
        ({"storage": STORE, "config": {"evaluate": {"source": "hub"}}}, True),
        ({"storage": STORE, "config": {"train": {"trackers": ["wandb"]}}}, True),
        ({"storage": STORE, "networkPolicy": {"hub": True}}, True),
        (
            {
                "storage": STORE,
                "networkPolicy": {"hub": False},
                "config": {"train": {"model": {"name": "EleutherAI/polyglot-ko-1.3b"}}},
            },
            False,
        ),
    ],
)
def test_the_web_is_open_only_where_something_on_it_is_asked(more: dict[str, Any], open_web: bool) -> None:
    assert (WEB in egress(spec(**more))) is open_web


def test_what_else_the_spec_names_by_a_url_can_be_reached() -> None:
    config = {"evaluate": {"judge": {"questions": ["q"], "endpoint": "http://judge.llm.svc:8000/v1"}}}
    env = [{"name": "HTTPS_PROXY", "value": "http://10.0.0.9:3128"}, {"name": "MODE", "value": "a:b"}]
    serve = {"gcsFaultTolerance": {"redisAddress": "redis.data.svc:6379"}, "autoscaling": {"minReplicas": 0}}
    found = egress(spec(config=config, storage=STORE, stages={"train": {"env": env}}, serve=serve))
    assert found[3] == {"ports": tcp(443, 6443)}  # the autoscaler's
    proxy = {"to": [{"ipBlock": {"cidr": "10.0.0.9/32"}}], "ports": tcp(3128)}
    assert found[4:] == [namespace("store"), namespace("llm"), namespace("data"), proxy]


def test_more_is_listed_or_all_is_open_and_not_both() -> None:
    more = [{"ports": tcp(5000)}]
    assert egress(spec(storage=STORE, networkPolicy={"egress": more}))[-1:] == more
    policy = children.network_policy(RUN, spec(networkPolicy={"egressOpen": True}))
    assert policy is not None and policy["spec"]["policyTypes"] == ["Ingress"] and "egress" not in policy["spec"]
    with pytest.raises(OperateError, match="egressOpen=true and a list of egress rules exclude each other"):
        spec(networkPolicy={"egressOpen": True, "egress": more})
