"""`kubectl apply` of a debug KitRun to a served model: real stages, real scores, a real answer over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from kit19_ray.artifacts import manifest
from kit19_ray.io import s3, storage
from kit19_ray.operate.kube_client import Cluster
from tests.operate.control_plane import ControlPlane
from tests.operate.harness import OperatorProcess, create, free_port, kitrun, phase, until
from tests.operate.realray import Running

pytestmark = [pytest.mark.kube, pytest.mark.ray]
DEMO = Path(__file__).parents[2] / "configs" / "demo.yaml"


@pytest.fixture
def kuberay(admin: Cluster, place: str, tmp_path: Path) -> Iterator[Running]:
    with Running(admin, place, tmp_path, {}) as running:
        yield running


def small(root: str, **more: Any) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(DEMO.read_text())
    config["root"] = root
    config["data"] |= {"tasks": ["nsmc", "apeach"], "quota": 30, "validation": 4}
    config["train"]["model"]["hidden_size"] = 32
    config["train"] |= {"workers": 1, "batch_size": 8, "log_every": 1}
    config["evaluate"]["tasks"] = ["kobest_copa"]
    return config | more


@pytest.mark.timeout(1200)
def test_a_debug_run_is_built_trained_scored_and_served(
    operated_plane: ControlPlane,
    admin: Cluster,
    place: str,
    operator: OperatorProcess,
    tmp_path: Path,
    kuberay: Running,
) -> None:
    port = free_port()
    config = small(f"file://{tmp_path}/root", serve={"port": port})
    config["evaluate"]["gate"] = [{"task": "kobest_copa", "metric": "acc", "min": 0.1}]
    create(operated_plane, kitrun("debug", place, config=config))

    def said() -> str:
        logs = {file.name: file.read_text()[-1500:] for file in tmp_path.glob("*.log")}
        return json.dumps([(admin.run(place, "debug") or {}).get("status"), logs], ensure_ascii=False, indent=1)

    until(lambda: phase(admin, place, "debug") in ("Serving", "Failed", "GateFailed"), 900, said)
    status = (admin.run(place, "debug") or {})["status"]
    assert status["phase"] == "Serving", said()
    uris = {stage: status["stages"][stage]["uri"] for stage in ("data", "train", "evaluate")}
    written = json.loads(storage.read_text(f"{uris['evaluate']}/scores.json"))
    assert status["scores"]["kobest_copa"]["acc"] == written["tasks"]["kobest_copa"]["acc"]
    assert set(status["scores"]) == {"kobest_copa", "nsmc", "apeach"}
    trained = manifest.require(uris["train"], "train")
    assert status["stages"]["train"]["step"] == trained["steps"] and status["stages"]["train"]["loss"] > 0
    assert manifest.require(uris["train"], "train")["data"] == uris["data"]
    body = {
        "model": "kit19",
        "prompt": "영화가 재미있다.",
        "max_tokens": 4,
        "temperature": 0,
        "echo": True,
        "logprobs": 1,
    }
    url = f"http://127.0.0.1:{port}/v1/completions"
    assert httpx.post(url, json=body, timeout=60).status_code == 401  # the operator made keys, and the server has them
    key = (admin.secret(place, status["keysSecret"]) or {})["key"]
    answer = httpx.post(url, json=body, timeout=60, headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code == 200, answer.text
    seen = [file.read_text() for file in tmp_path.glob("*.log")] + [json.dumps(admin.run(place, "debug"))]
    assert not any(key in text for text in seen)
    scored = answer.json()["choices"][0]["logprobs"]["token_logprobs"]
    assert len(scored) > 3 and scored[0] is None and all(value < 0 for value in scored[1:])
    assert len(kuberay.seen) == 3 and "Traceback" not in operator.log.read_text()


@pytest.mark.usefixtures("operator", "kuberay")
def test_a_root_without_permission_ends_in_a_message(
    operated_plane: ControlPlane, admin: Cluster, place: str, s3_root: str
) -> None:
    endpoint = s3.endpoint()
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "aws", "namespace": place},
        "stringData": {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"},
    }
    run = kitrun(
        "denied",
        place,
        config=small("s3://not-our-bucket/runs"),
        storage={"credentialsSecret": "aws", "endpoint": endpoint},
        retries={"sameCluster": 0, "rebuilds": 3, "backoffSeconds": 1},
    )
    create(operated_plane, secret, run)
    until(
        lambda: phase(admin, place, "denied") == "Failed",
        120,
        lambda: str((admin.run(place, "denied") or {})["status"]),
    )
    failed = next(c for c in (admin.run(place, "denied") or {})["status"]["conditions"] if c["type"] == "Failed")
    assert failed["reason"] == "UserError" and "s3://not-our-bucket/runs" in failed["message"]
    assert "check AWS_ENDPOINT_URL, the bucket's name and the credentials" in failed["message"]
