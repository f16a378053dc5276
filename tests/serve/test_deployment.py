"""The application as Ray Serve's config file names it: what its args may be. tests/operate shows that it answers."""

from __future__ import annotations

from typing import Any

import pytest

from kit19_ray.errors import ServeError, UserError
from kit19_ray.serve import deployment, model_apps
from kit19_ray.serve.model_registry import wanted


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({}, "args: serve.model is not set, so there is nothing to serve"),
        (
            {"serve": {"adapters": {"a": {"path": "p", "base": "kit"}}}},
            "is no model that is served (did you mean",
        ),
        (
            {"serve": {"model": "x/y", "auth": "none", "adapters": {"a": {"path": "/no/such"}}}},
            "adapter '/no/such': there is no such",
        ),
        ({"serve": {"modl": "x"}}, "serve.modl: unknown key (did you mean 'model'?)"),
        ({"serve": {"model": "/no/such/model", "auth": "none"}}, "/no/such/model"),
        ({"serve": {"model": "x/y", "auth": "keys"}}, "serve.auth: keys, but there is no API key"),
        ({"autoscaling": {"max_replicas": 0}}, "autoscaling.max_replicas: Input should be greater than or equal to 1"),
    ],
)
def test_a_mistake_in_the_args_is_named(args: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        deployment.build(args)
    assert said in str(caught.value)


def models(application: Any) -> dict[str, Any]:
    """The deployments of the models that the gateway starts."""
    section, model, autoscaling = application._bound_deployment.init_args
    apps = model_apps.ServeApps(section, autoscaling)
    return {spec.name: apps.target(spec).target._bound_deployment for spec in wanted(section, model)}


def test_replicas_are_fixed_or_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    from kit19_ray.lm import pretrained

    monkeypatch.setattr(pretrained, "resolve", lambda name: name)
    section = {"model": "s3://b/train-1", "auth": "none"}
    fixed = models(deployment.build({"serve": {**section, "replicas": 3, "models": {"base/1": "s3://b/train-0"}}}))
    assert list(fixed) == ["kit19", "base/1"] and fixed["base/1"].name == "Model-base-1"
    assert fixed["base/1"].init_args[:2] == ("s3://b/train-0", "base/1")
    assert {one.num_replicas for one in fixed.values()} == {3}
    config = fixed["kit19"]._deployment_config
    assert (config.graceful_shutdown_timeout_s, config.max_surge_percent) == (30, 100)
    scaled = models(deployment.build({"serve": section, "autoscaling": {"max_replicas": 5}}))
    assert scaled["kit19"]._deployment_config.autoscaling_config.max_replicas == 5
    gateway = deployment.build({"serve": section})._bound_deployment._deployment_config
    assert (gateway.graceful_shutdown_timeout_s, gateway.max_surge_percent) == (30, 100)


@pytest.mark.parametrize(("use_gpu", "gpus"), [(True, 2), (False, 0), (None, 0)])
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
    section = {"model": "s3://b/train-1", "auth": "none", "use_gpu": use_gpu, "gpus_per_replica": 2}
    assert models(deployment.build({"serve": section}))["kit19"].ray_actor_options["num_gpus"] == gpus


def test_a_server_on_a_cluster_has_keys_or_says_that_everybody_may_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    from kit19_ray.lm import pretrained

    monkeypatch.setattr(pretrained, "resolve", lambda name: name)
    monkeypatch.delenv("KIT19_API_KEYS", raising=False)
    section = {"model": "s3://b/train-1"}
    with pytest.raises(ServeError, match="can be reached from other machines, but there is no API key"):
        deployment.build({"serve": section})
    deployment.build({"serve": section | {"auth": "none"}})
    deployment.build({"serve": section | {"auth": "keys", "api_keys_file": "/etc/kit19-keys/api-keys"}})
    monkeypatch.setenv("KIT19_API_KEYS", "a-long-enough-key-for-all")
    deployment.build({"serve": section})
