"""The application as Ray Serve's config file names it: what its args may be. tests/operate shows that it answers."""

from __future__ import annotations

from typing import Any

import pytest

from kit19_ray.errors import UserError
from kit19_ray.serve import deployment


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({}, "args: serve.model is not set, so there is nothing to serve"),
        ({"serve": {"modl": "x"}}, "serve.modl: unknown key (did you mean 'model'?)"),
        ({"serve": {"model": "/no/such/model"}}, "/no/such/model"),
        ({"autoscaling": {"max_replicas": 0}}, "autoscaling.max_replicas: Input should be greater than or equal to 1"),
    ],
)
def test_a_mistake_in_the_args_is_named(args: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        deployment.build(args)
    assert said in str(caught.value)


def test_replicas_are_fixed_or_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    from kit19_ray.lm import pretrained

    monkeypatch.setattr(pretrained, "resolve", lambda name: name)
    fixed: Any = deployment.build({"serve": {"model": "s3://b/train-1", "replicas": 3}})
    assert fixed._bound_deployment.num_replicas == 3
    assert fixed._bound_deployment._deployment_config.graceful_shutdown_timeout_s == 30
    assert fixed._bound_deployment._deployment_config.max_surge_percent == 100
    scaled: Any = deployment.build({"serve": {"model": "s3://b/train-1"}, "autoscaling": {"max_replicas": 5}})
    assert scaled._bound_deployment._deployment_config.autoscaling_config.max_replicas == 5


@pytest.mark.parametrize(("use_gpu", "gpus"), [(True, 1), (False, 0), (None, 0)])
def test_gpus_are_what_the_config_says_without_a_look_at_the_cluster(
    monkeypatch: pytest.MonkeyPatch, use_gpu: bool | None, gpus: int
) -> None:
    """KubeRay has the application built as soon as the head is ready: the GPU nodes join later."""
    import ray

    from kit19_ray.lm import pretrained

    def look(*_: object, **__: object) -> Any:
        raise AssertionError("the builder looked at the cluster")

    monkeypatch.setattr(pretrained, "resolve", lambda name: name)
    for name in ("cluster_resources", "available_resources", "nodes"):
        monkeypatch.setattr(ray, name, look)
    built: Any = deployment.build({"serve": {"model": "s3://b/train-1", "use_gpu": use_gpu}})
    assert built._bound_deployment.ray_actor_options["num_gpus"] == gpus
