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


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_replicas_are_fixed_or_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    from kit19_ray.lm import pretrained

    monkeypatch.setattr(pretrained, "resolve", lambda name: name)
    fixed: Any = deployment.build({"serve": {"model": "s3://b/train-1", "replicas": 3}})
    assert fixed._bound_deployment.num_replicas == 3
    scaled: Any = deployment.build({"serve": {"model": "s3://b/train-1"}, "autoscaling": {"max_replicas": 5}})
    assert scaled._bound_deployment._deployment_config.autoscaling_config.max_replicas == 5
