"""The server as an application of a Ray Serve config file: `import_path: kit19_ray.serve.deployment:build`.

KubeRay's RayService and `serve deploy` start it so, on a cluster that runs already, with the args below.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from kit19_ray.config.schema import Section, ServeConfig
from kit19_ray.errors import ServeError
from kit19_ray.utils.json_types import Json


class Autoscaling(Section):
    """Ray Serve's autoscaling."""

    min_replicas: int = Field(1, ge=0)
    """Fewest replicas."""
    max_replicas: int = Field(2, ge=1)
    """Most replicas."""
    target_ongoing_requests: float = Field(8, gt=0)
    """Requests each replica should be working on."""


class Arguments(Section):
    """The application's `args`."""

    serve: ServeConfig = ServeConfig()
    """The config's serve section; host and port are the proxy's and have no effect here."""
    autoscaling: Autoscaling | None = None
    """None keeps `serve.replicas` copies."""


def build(args: Json) -> Any:
    """The application, to be run by Ray Serve.

    Raises:
        ConfigError: an argument is wrong.
        ServeError: no model is given, or there are no API keys and `serve.auth` is not `none`.
        UserError: there is no such model.
    """
    from kit19_ray.config import loading
    from kit19_ray.lm import pretrained
    from kit19_ray.serve import stage

    arguments = loading.validate(Arguments, dict(args), "args")
    model = arguments.serve.model
    if model is None:
        raise ServeError("args: serve.model is not set, so there is nothing to serve")
    stage.check_access(arguments.serve, is_local=False)  # a cluster's proxies listen to everybody
    pretrained.resolve(model)
    for adapter in arguments.serve.adapters.values():
        pretrained.find_adapter(adapter.path)
    scaling = arguments.autoscaling
    return stage.application(arguments.serve, model, scaling.model_dump() if scaling else None)
