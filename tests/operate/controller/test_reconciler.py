"""The reconciler against an API server in memory that refuses: nothing it is refused is silent."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from typing import Any

import pytest

from kit19_ray.operate.controller.conditions import Notice
from kit19_ray.operate.controller.metrics import ControllerMetrics
from kit19_ray.operate.controller.reconciler import FINALIZER, Reconciler, read_spec
from kit19_ray.operate.kube_client import KubeError
from kit19_ray.operate.manifests.naming import RunRef

Json = dict[str, Any]
TYPED = (
    "failed to create typed patch object (default/demo-data-1; ray.io/v1, Kind=RayJob): "
    ".spec.rayClusterSpec.authOptions: field not declared in schema"
)


class Server:
    """KitRun `demo` and its children."""

    def __init__(self, **spec: Any) -> None:
        tree = {"config": {"root": "file:///nowhere"}, "images": {"train": "kit19:1"}, **spec}
        metadata: Json = {"name": "demo", "namespace": "default", "uid": "u", "generation": 1, "resourceVersion": "1"}
        self.body: Json = {"metadata": metadata, "spec": tree}
        self.refusal: Callable[[Json], KubeError | None] = lambda _: None
        self.applied: list[str] = []
        self.others: dict[str, Json] = {}
        self.present: dict[str, Json] = {}
        self.secrets: dict[str, dict[str, str]] = {}

    def run(self, namespace: str, name: str) -> Json:
        return copy.deepcopy(self.body)

    def children(self, run: RunRef) -> list[Json]:
        return list(self.present.values())

    def write_status(self, namespace: str, name: str, version: str, status: Json) -> None:
        self.body["status"] = status

    def stranger(self, manifest: Json) -> str | None:
        return "RayJob x is of a KitRun that was deleted" if manifest["metadata"]["name"] in self.others else None

    def apply(self, manifest: Json) -> Json:
        if error := self.refusal(manifest):
            raise error
        self.applied.append(manifest["kind"])
        made = manifest | {"metadata": manifest["metadata"] | {"creationTimestamp": "2026-01-01T00:00:00Z"}}
        self.present[manifest["metadata"]["name"]] = made
        return made

    def secret(self, namespace: str, name: str) -> dict[str, str] | None:
        return self.secrets.get(name)

    def create_once(self, manifest: Json) -> None:
        if error := self.refusal(manifest):
            raise error
        self.applied.append(manifest["kind"])
        self.secrets.setdefault(manifest["metadata"]["name"], dict(manifest["stringData"]))

    def delete(self, kind: str, namespace: str, name: str) -> None:
        if error := self.refusal({"kind": f"delete {kind}"}):
            raise error
        self.present.pop(name, None)

    def release(self, namespace: str, name: str, finalizers: list[str]) -> None:
        self.body["metadata"]["finalizers"] = finalizers


class Everywhere:
    """Another release that claims every namespace."""

    async def other(self, namespace: str) -> str | None:
        return "ops/kit19"


def looks(server: Server, number: int = 3, claims: Any = None) -> tuple[Json, list[float | None], list[Notice]]:
    """The status after some reconciliations, what each asked for, and the Events."""
    told: list[Notice] = []
    reconciler = Reconciler(server, ControllerMetrics(), lambda _, notice: told.append(notice), claims)  # type: ignore[arg-type]

    async def story() -> list[float | None]:
        return [await reconciler.reconcile("default", "demo") for _ in range(number)]

    return server.body.get("status", {}), asyncio.run(story()), told


def jobs_only(error: KubeError) -> Callable[[Json], KubeError | None]:
    return lambda manifest: error if manifest["kind"] == "RayJob" else None


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (403, 'rayjobs.ray.io "x" is forbidden: exceeded quota: gpus'),
        (403, 'admission webhook "validate.kyverno.svc" denied the request: no owner label'),
        (404, "the server could not find the requested resource"),
        (500, 'Internal error occurred: failed calling webhook "vrayjob.kueue.x-k8s.io"'),
        (429, "too many requests"),
    ],
)
def test_a_refusal_that_may_pass_is_in_the_status_at_once_and_asked_again_in_its_time(
    status: int, message: str
) -> None:
    """B1b."""
    server = Server()
    server.refusal = jobs_only(KubeError(status, message))
    looks(server, 1)
    created = server.body["status"]["stages"]["data"].get("startedAt")
    server = Server()
    server.refusal = jobs_only(KubeError(status, message))
    _, asked, told = looks(server)
    data = server.body["status"]["stages"]["data"]
    assert (data["state"], data["reason"]) == ("Waiting", "Rejected") and message in data["message"]
    assert message in server.body["status"]["message"] and asked == [0.0, 10.0, 10.0] and created
    assert any(message in notice.message for notice in told)


def test_a_field_that_an_older_kuberay_lacks_ends_the_run_with_what_to_upgrade() -> None:
    """B1b, C2."""
    server = Server()
    server.refusal = jobs_only(KubeError(500, TYPED))
    looks(server)
    status = server.body["status"]
    assert (
        status["phase"] == "Failed"
        and "KubeRay is too old; upgrade it (auth: token needs KubeRay 1.5.1)" in (status["message"])
    )


def test_without_its_policy_no_pod_is_made() -> None:
    """C1."""
    server = Server()
    server.refusal = lambda m: KubeError(403, "networkpolicies is forbidden") if m["kind"] == "NetworkPolicy" else None
    looks(server)
    assert server.applied == [] and "networkpolicies is forbidden" in server.body["status"]["message"]
    fine = Server()
    looks(fine, 1)
    assert fine.applied == ["NetworkPolicy", "RayJob"]


def test_a_child_of_a_kitrun_that_is_gone_is_waited_for_and_not_taken_over() -> None:
    """B3: without a finalizer one of the same name may come before the old one's children are gone."""
    fine = Server()
    looks(fine, 1)
    server = Server()
    server.others = {name: {} for name in _names(fine)}
    looks(server)
    assert server.applied == [] and "is of a KitRun that was deleted" in server.body["status"]["message"]


def _names(server: Server) -> list[str]:
    from kit19_ray.operate.manifests import children, naming

    spec, _ = read_spec(server.body)
    run = RunRef("demo", "default", "u")
    return [naming.job_name(run, spec, "data", 0), children.network_policy(run, spec)["metadata"]["name"]]  # type: ignore[index]


def test_a_finalizer_of_an_earlier_version_is_taken_off() -> None:
    """B3."""
    server = Server()
    server.body["metadata"]["finalizers"] = ["another/one", FINALIZER]
    looks(server, 1)
    assert server.body["metadata"]["finalizers"] == ["another/one"]


def test_an_api_server_that_is_away_is_no_refusal() -> None:
    server = Server()
    server.refusal = jobs_only(KubeError(0, "the API server cannot be reached"))
    with pytest.raises(KubeError, match="cannot be reached"):
        looks(server, 1)


def test_a_root_that_cannot_be_read_is_known_at_the_first_look(tmp_path: Any) -> None:
    """D10."""
    server = Server(config={"root": "s3://bucket/runs"}, storage={"endpoint": "http://127.0.0.1:1"})
    looks(server, 1)
    condition = next(c for c in server.body["status"]["conditions"] if c["type"] == "StorageReadable")
    assert condition["status"] == "False" and "s3://bucket/runs" in condition["message"]
    fine = Server(config={"root": f"file://{tmp_path}"})
    looks(fine, 1)
    condition = next(c for c in fine.body["status"]["conditions"] if c["type"] == "StorageReadable")
    assert condition["status"] == "True"


def test_what_kubectl_was_given_is_told_and_does_not_rule() -> None:
    """D5: the live spec may have been mended by `kubectl edit`, Argo CD or Helm since."""
    server = Server()
    applied = '{"spec": {"config": {"train": {"epohcs": 1}}}}'
    server.body["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": applied}
    _, _, told = looks(server, 1)
    assert "epohcs" in server.body["status"]["warning"] and server.body["status"]["phase"] == "Data"
    assert "NotFollowed" in {notice.reason for notice in told}


SERVE = {"config": {"root": "file:///nowhere", "serve": {"model": "m"}}, "skip": ["data", "train", "evaluate"]}


def test_keys_are_made_before_the_server_once_and_never_again() -> None:
    server = Server(**SERVE)
    looks(server, 1)
    assert server.applied == ["NetworkPolicy", "Secret", "RayService"]
    (name,) = server.secrets
    made = dict(server.secrets[name])
    assert server.body["status"]["keysSecret"] == name and made["key"] not in str(server.body)
    server.body["spec"]["images"] = {"train": "kit19:2"}
    server.body["metadata"]["generation"] = 2
    looks(server)
    assert server.applied.count("RayService") == 2 and server.secrets == {name: made}


def test_keys_that_somebody_deleted_are_made_anew() -> None:
    server = Server(**SERVE)
    looks(server, 1)
    (name,) = server.secrets
    first = server.secrets.pop(name)
    looks(server, 1)
    assert server.secrets[name] != first and server.applied[-1] == "Secret"


def test_without_its_keys_no_server_is_made_and_the_status_says_why() -> None:
    server = Server(**SERVE)
    server.refusal = lambda m: KubeError(403, "secrets is forbidden") if m["kind"] == "Secret" else None
    looks(server)
    assert "RayService" not in server.applied
    assert "the API server does not take the Secret: secrets is forbidden" in server.body["status"]["message"]


@pytest.mark.parametrize(
    ("held", "said"), [(None, "Secret mine is not in namespace"), ({"x": "y"}, "has no key api-keys")]
)
def test_a_named_secret_that_is_not_there_or_holds_no_keys_is_waited_for(held: Any, said: str) -> None:
    server = Server(**SERVE, serve={"keysSecret": "mine"})
    if held:
        server.secrets["mine"] = held
    looks(server)
    assert said in server.body["status"]["message"] and "RayService" not in server.applied
    server.secrets["mine"] = {"api-keys": "kit19 sha256:0"}
    looks(server)
    assert server.applied == ["NetworkPolicy", "RayService"]


@pytest.mark.parametrize("kind", ["RayService", "NetworkPolicy", "Ingress", "Secret"])
@pytest.mark.parametrize("status", [403, 404, 409, 413, 429, 500, 503])
def test_whatever_kind_is_refused_in_whatever_way_is_in_a_condition(kind: str, status: int) -> None:
    server = Server(**SERVE, serve={"ingress": {"host": "a.example"}})
    server.refusal = lambda m: KubeError(status, "no, for a reason") if m["kind"] == kind else None
    looks(server)
    conditions = {one["type"]: one for one in server.body["status"]["conditions"]}
    assert conditions["Ready"]["status"] == "False" and "no, for a reason" in conditions["Ready"]["message"]


def test_a_child_that_is_not_let_go_is_said() -> None:
    """An admission policy may refuse a deletion: the run waits, and not in silence."""
    server = Server()
    looks(server, 1)
    server.body["spec"]["suspend"], server.body["metadata"]["generation"] = True, 2
    server.refusal = lambda m: KubeError(403, "denied by policy") if m["kind"].startswith("delete") else None
    _, asked, _ = looks(server)
    assert "does not let the RayJob" in server.body["status"]["message"]
    assert "denied by policy" in server.body["status"]["message"] and asked[-1] == 10.0


def test_a_run_of_another_release_is_left_alone_and_an_event_says_so() -> None:
    server = Server()
    _, asked, told = looks(server, 2, Everywhere())
    assert server.applied == [] and "status" not in server.body and asked == [20.0, 20.0]
    assert [notice.reason for notice in told] == ["TwoOperators"] and "ops/kit19" in told[0].message
