"""KitRuns that cannot work: each ends in a condition with a message a person can act on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kit19_ray.operate.kube_client import Cluster
from tests.operate.control_plane import ControlPlane
from tests.operate.harness import OperatorProcess, create, gated, grant, kitrun, namespace, phase, until, write_scores
from tests.operate.kuberay import Script, Scripted

pytestmark = pytest.mark.kube


@pytest.fixture(scope="module")
def here(
    operated_plane: ControlPlane, admin: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Scripted, Path]]:
    """A namespace with an operator and KubeRay's stand-in, for all tests here."""
    folder = tmp_path_factory.mktemp("bad-input")
    with namespace(operated_plane) as place:
        grant(operated_plane, place)
        operator = OperatorProcess(operated_plane, place, folder).start()
        try:
            with Scripted(admin, place, Script(done=write_scores(folder, 0.75))) as kuberay:
                yield place, kuberay, folder
        finally:
            operator.kill()


def failed(admin: Cluster, place: str, name: str) -> tuple[str, str]:
    """Reason and message of the Failed condition, once it holds."""
    until(lambda: phase(admin, place, name) == "Failed", 40, lambda: str(admin.run(place, name)))
    conditions = (admin.run(place, name) or {})["status"]["conditions"]
    return next((c["reason"], c["message"]) for c in conditions if c["type"] == "Failed" and c["status"] == "True")


def test_an_unknown_field_that_the_server_dropped(
    operated_plane: ControlPlane, admin: Cluster, here: tuple[str, Scripted, Path]
) -> None:
    """It is told, and does not rule: the live spec may have been mended since (finding D5)."""
    place, _, folder = here
    config = gated(folder)["config"] | {"train": {"learnin_rate": 1.0e-4}}
    text = yaml.safe_dump(kitrun("unknown", place, config=config))
    operated_plane.kubectl("apply", "--validate=false", "-f", "-", stdin=text)
    until(lambda: phase(admin, place, "unknown") == "Serving", 40, lambda: str(admin.run(place, "unknown")))

    def warning() -> str:
        return str((admin.run(place, "unknown") or {})["status"].get("warning"))

    assert "config.train.learnin_rate: unknown key (did you mean 'learning_rate'?)" in warning()
    create(operated_plane, kitrun("unknown", place, **gated(folder)))
    until(lambda: warning() == "None", 20, warning)


def test_more_workers_than_gpus(operated_plane: ControlPlane, admin: Cluster, here: tuple[str, Scripted, Path]) -> None:
    place, kuberay, folder = here
    config = gated(folder)["config"] | {"train": {"workers": 4}}
    create(operated_plane, kitrun("gpus", place, config=config, stages={"train": {"gpus": 1, "workers": 2}}))
    reason, message = failed(admin, place, "gpus")
    assert reason == "InvalidSpec" and "stages.train: 2 x 1 GPUs cannot hold config.train.workers=4" in message
    assert not any(name.startswith("gpus-") for _, name in kuberay.seen.values())


def test_a_missing_secret_is_waited_for(
    operated_plane: ControlPlane, admin: Cluster, here: tuple[str, Scripted, Path]
) -> None:
    place, kuberay, folder = here
    create(operated_plane, kitrun("secret", place, storage={"credentialsSecret": "aws"}, **gated(folder)))

    def built() -> dict[str, Any]:
        conditions = ((admin.run(place, "secret") or {}).get("status") or {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == "DataBuilt"), {})

    until(lambda: built().get("reason") == "Missing", 30, lambda: str(built()))
    assert built()["message"] == f"Secret aws is not in namespace {place}: create it, or mend the name in the spec"
    assert not any(name.startswith("secret-") for _, name in kuberay.seen.values())
    create(operated_plane, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "aws", "namespace": place}})
    until(lambda: phase(admin, place, "secret") == "Serving", 40, lambda: str(admin.run(place, "secret")))


def test_a_missing_secret_is_given_up_after_the_deadline(
    operated_plane: ControlPlane, admin: Cluster, here: tuple[str, Scripted, Path]
) -> None:
    place, _, folder = here
    stages = {"data": {"env": [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf", "key": "token"}}}]}}
    create(operated_plane, kitrun("late", place, stages=stages, deadlines={"start": 1}, **gated(folder)))
    reason, message = failed(admin, place, "late")
    assert reason == "Missing" and "Secret hf is not in namespace" in message


def test_an_image_without_the_package(
    operated_plane: ControlPlane, admin: Cluster, here: tuple[str, Scripted, Path]
) -> None:
    place, kuberay, folder = here
    kuberay.script.broken["data"] = 1
    kuberay.script.message = "Job entrypoint command failed with exit code 1: python: No module named kit19_ray"
    create(operated_plane, kitrun("image", place, images={"train": "python:3.11"}, **gated(folder)))
    reason, message = failed(admin, place, "image")
    assert reason == "ImageWithoutPackage" and "build it from docker/, or name another in spec.images" in message
    assert sum(name.startswith("image-") for _, name in kuberay.seen.values()) == 1


def test_what_kuberay_s_schema_refuses(
    operated_plane: ControlPlane, admin: Cluster, here: tuple[str, Scripted, Path]
) -> None:
    place, _, folder = here
    stages = {"data": {"tolerations": [{"key": "gpu", "tolerationSeconds": "soon"}]}}
    create(operated_plane, kitrun("refused", place, stages=stages, **gated(folder)))
    reason, message = failed(admin, place, "refused")
    assert reason == "Refused" and "the API server refuses the RayJob" in message and "tolerationSeconds" in message


def test_a_root_the_operator_cannot_read(
    operated_plane: ControlPlane, admin: Cluster, here: tuple[str, Scripted, Path]
) -> None:
    place, kuberay, _ = here
    kuberay.script.done = None
    config = {"root": "s3://bucket/runs", "evaluate": {"gate": [{"task": "kobest_copa", "min": 0.5}]}}
    storage = {"endpoint": "http://127.0.0.1:1", "credentialsSecret": "store"}
    text = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "store", "namespace": place},
        "stringData": text,
    }
    create(operated_plane, secret, kitrun("unread", place, config=config, storage=storage))

    def message() -> str:
        return str(((admin.run(place, "unread") or {}).get("status") or {}).get("message"))

    until(lambda: "waiting for the scores" in message(), 90, message)
    assert "s3://bucket/runs" in message() and "http://127.0.0.1:1" in message()
