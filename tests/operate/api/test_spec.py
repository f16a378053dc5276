"""What a KitRun may ask for, and the message for each thing it may not."""

from __future__ import annotations

from typing import Any

import pytest

from kit19_ray.errors import OperateError
from kit19_ray.operate.api.spec import KitRunSpec, parse


def spec(**more: Any) -> KitRunSpec:
    tree: dict[str, Any] = {"config": {"root": "s3://bucket/runs"}, "images": {"train": "kit19:1"}}
    return parse(tree | more, "demo")


def config(**more: Any) -> dict[str, Any]:
    return {"root": "s3://bucket/runs"} | more


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"config": {}}, "config: root is not set"),
        ({"config": {"root": "runs/demo"}}, "root='runs/demo' must be a file:/// or s3:// URI"),
        ({"config": {"root": "gs://bucket"}}, "scheme 'gs' is not one of file, s3"),
        ({"confg": 1}, "confg: unknown key (did you mean 'config'?)"),
        (
            {"images": {"train": "a", "pulPolicy": "Always"}},
            "images.pulPolicy: unknown key (did you mean 'pullPolicy'?)",
        ),
        (
            {"config": config(train={"workers": 16}), "stages": {"train": {"workers": 2, "gpus": 4}}},
            "stages.train: 2 x 4 GPUs cannot hold config.train.workers=16",
        ),
        ({"config": config(serve={"use_gpu": True})}, "config.serve.use_gpu=true, but stages.serve.gpus=0"),
        (
            {"config": config(evaluate={"held_out": False, "gate": [{"task": "kobest_bolq", "min": 0.5}]})},
            "config.evaluate.gate: 'kobest_bolq' is not scored; scored: kobest_boolq, kobest_copa",
        ),
        (
            {"config": config(data={"tasks": ["nsmc"]}, evaluate={"gate": [{"task": "kornli", "min": 0.5}]})},
            "'kornli' is not scored",
        ),
        (
            {"stages": {"train": {"env": [{"name": "HF_TOKEN", "value": "x"}]}}},
            "HF_TOKEN looks like a secret: give it by valueFrom.secretKeyRef, not by value",
        ),
        ({"serve": {"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}}, "minReplicas=3 is more than maxReplicas=2"),
        ({"stages": {"data": {"memory": "lots"}}}, "stages.data.memory: String should match pattern"),
    ],
)
def test_a_mistake_is_named(more: dict[str, Any], said: str) -> None:
    with pytest.raises(OperateError) as caught:
        spec(**more)
    assert said in str(caught.value) and caught.value.message.startswith("demo: 1 mistake")


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(OperateError, match="demo: 3 mistakes"):
        spec(config={"root": "s3://b", "trains": {}}, images={}, suspend="maybe")


def test_worker_pods_follow_the_config_where_the_spec_leaves_them_open() -> None:
    open_ = spec(config=config(train={"workers": 4, "micro_batch_size": 4}, serve={"replicas": 3}))
    assert [open_.workers(s) for s in ("data", "train", "evaluate", "serve")] == [0, 4, 0, 3]
    gpus = {"train": {"gpus": 8}, "serve": {"gpus": 1}, "data": {"workers": 5}}
    packed = spec(config=config(train={"workers": 12, "micro_batch_size": 1, "batch_size": 24}), stages=gpus)
    assert [packed.workers(s) for s in ("data", "train", "serve")] == [5, 2, 1]
    scaled = spec(serve={"autoscaling": {"maxReplicas": 6}}, stages={"serve": {"gpus": 2}})
    assert scaled.workers("serve") == 3


def test_the_server_s_image_is_the_trainer_s_unless_it_has_its_own() -> None:
    assert spec().image("serve") == "kit19:1"
    assert spec(images={"train": "a", "serve": "b"}).image("serve") == "b"


def test_a_root_loses_its_trailing_slash() -> None:
    assert spec(config={"root": "s3://bucket/runs/"}).config.root == "s3://bucket/runs"


def test_embedded_objects_keep_every_key() -> None:
    volume = {"name": "x", "persistentVolumeClaim": {"claimName": "y", "readOnly": True}}
    assert spec(stages={"data": {"volumes": [volume]}}).stages.data.volumes[0].manifest() == volume
