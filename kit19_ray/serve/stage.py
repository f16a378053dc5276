"""The serve stage: an OpenAI-compatible server on Ray Serve, in front of a train prefix or any Hugging Face model."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from contextlib import ExitStack, suppress
from typing import Any

from kit19_ray.config.schema import Config, ServeConfig
from kit19_ray.errors import ServeError
from kit19_ray.lm import pretrained
from kit19_ray.lm.prompts import prompt_format
from kit19_ray.serve import model_apps
from kit19_ray.serve.keys import ENVIRONMENT
from kit19_ray.serve.model_registry import wanted
from kit19_ray.utils import ray_session
from kit19_ray.utils.console import say, write
from kit19_ray.utils.json_types import Json

APP = "kit19"
_POLL_SECONDS = 0.2
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Server:
    """A running server.

    Attributes:
        url: where it answers, such as http://127.0.0.1:8000.
    """

    def __init__(self, url: str, held: ExitStack) -> None:
        self.url = url
        self._held = held

    def close(self) -> None:
        """Stops the server, and the Ray cluster if it was started for it."""
        self._held.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def start(config: Config, train_uri: str) -> Server:
    """Starts the server and returns when it answers.

    Args:
        train_uri: a train prefix, hub id, local path or s3:// prefix of a causal LM.

    Raises:
        UserError: there is no such model.
        ServeError: the port is taken, the cluster runs Serve already, a GPU is asked for where there is none, or no
            replica is ready in time.
    """
    section = config.serve
    check_port(section)
    check_access(section, section.host in _LOOPBACK)
    if section.auth == "none" and section.host not in _LOOPBACK:
        say("serve.auth: none: everybody who can reach this server may ask the model")
    if section.prompt is not None:
        prompt_format(section.prompt, "serve.prompt")
    pretrained.resolve(train_uri)
    for adapter in section.adapters.values():
        pretrained.find_adapter(adapter.path)
    # Ray starts its workers at nice 15. A replica that computes on all cores then stops for every client and daemon
    # beside it.
    os.environ.setdefault("RAY_worker_niceness", "0")
    with ExitStack() as stack:
        stack.enter_context(ray_session.connected(config.data.cpus))
        from ray import serve

        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        quiet = {"log_level": "WARNING", "enable_access_log": False}
        if _controller() is not None:
            raise ServeError(
                "this Ray cluster runs a Ray Serve application already, and its address is not this config's to choose",
                hint="stop it with `serve shutdown`, or give this server a cluster of its own",
            )
        section = with_gpu(section)
        target = serve.api.RunTarget(application(section, train_uri), APP, "/", quiet)
        # The gateway would start the models itself, but only once it is there: so both start at the same time.
        apps = model_apps.ServeApps(section)
        models = [apps.target(spec) for spec in wanted(section, train_uri) if spec.base is None]
        serve.start(http_options={"host": section.host, "port": section.port}, logging_config=quiet)
        stack.callback(_shutdown)
        serve.run_many([target, *models], wait_for_applications_running=False)
        stack.callback(_drain)
        _await_running(section)
        host = "127.0.0.1" if section.host in ("0.0.0.0", "::") else section.host
        return Server(f"http://{f'[{host}]' if ':' in host else host}:{section.port}", stack.pop_all())


def run(config: Config, train_uri: str) -> str:
    """Serves until Ctrl-C or SIGTERM; prints the URL as soon as it answers, and returns it.

    Raises:
        UserError: as `start`.
    """
    with start(config, train_uri) as server:
        say(f"serving {config.serve.served_name} at {server.url}/v1/completions; Ctrl-C stops it")
        write(server.url)
        stop = threading.Event()
        # Kubernetes ends a pod with SIGTERM; Ray's own handler, set when it started, would skip the clean end.
        before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
        try:
            stop.wait()
        except KeyboardInterrupt:
            say("stopping")
        finally:
            signal.signal(signal.SIGTERM, before)
        return server.url


def _drain() -> None:
    """Takes the route away and lets the requests that run end, within `serve.drain_seconds`."""
    from ray import serve

    if APP in serve.status().applications:
        serve.delete(APP)


def _shutdown() -> None:
    """Ends Serve.

    `serve.shutdown` alone asks the controller to end itself with endless retries, and Ray prints on stdout that the
    call failed because the controller is gone (Ray 2.60). So it is asked once first.
    """
    import ray
    from ray import serve
    from ray.serve.context import _get_global_client

    client = _get_global_client(raise_if_no_controller_running=False)
    if client is not None:
        client.shutdown_cached_handles()  # type: ignore[no-untyped-call]
        with suppress(ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
            ray.get(client._controller.graceful_shutdown.options(max_task_retries=0).remote(), timeout=30)
    serve.shutdown()  # type: ignore[no-untyped-call]


def application(section: ServeConfig, model: str, autoscaling: Json | None = None) -> Any:
    """The Ray Serve application that answers with `model`: a gateway, which runs each model as an application.

    Args:
        autoscaling: Ray Serve's autoscaling_config of each model; None keeps `section.replicas` copies.
    """
    from ray import serve

    from kit19_ray.serve.gateway import Gateway

    gateway: Any = serve.deployment(
        serve.ingress()(Gateway),
        name="Gateway",
        # Half-sent bodies and waiting requests are bounded by the gateway itself, with answers in OpenAI's shape.
        max_ongoing_requests=1_000_000,
        # A changed config: the new gateway has its models before the old one goes.
        max_surge_percent=100,
        max_constructor_retry_count=1,
        graceful_shutdown_timeout_s=section.drain_seconds,
        ray_actor_options={"num_cpus": 0},
    )
    return gateway.bind(section, model, autoscaling)


def check_access(section: ServeConfig, is_local: bool) -> None:
    """Refuses to open a model to other machines without saying who may ask it.

    Args:
        is_local: only this machine can reach the server.

    Raises:
        ServeError: there are no keys, and `serve.auth` is not `none`.
    """
    if section.auth == "none" or section.api_keys_file or os.environ.get(ENVIRONMENT, "").strip():
        return
    if section.auth is None and is_local:
        return
    what = "serve.auth: keys" if section.auth else "the server can be reached from other machines"
    raise ServeError(
        f"{what}, but there is no API key",
        hint=f"set serve.api_keys_file or {ENVIRONMENT}, or serve.auth=none to let everybody in",
    )


def with_gpu(section: ServeConfig) -> ServeConfig:
    """The section with `use_gpu` decided by what this cluster has.

    Raises:
        ServeError: a GPU is asked for where there is none.
    """
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray does not type it
    gpus = resources.get("GPU", 0)
    if section.use_gpu and not gpus:
        raise ServeError("serve.use_gpu: true, but the Ray cluster has no GPU", hint="set serve.use_gpu=false")
    return section.model_copy(update={"use_gpu": gpus > 0 if section.use_gpu is None else section.use_gpu})


def _controller() -> Any:
    """The actor that runs Serve in this cluster, or None."""
    import ray
    from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

    try:
        return ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    except ValueError:
        return None


def check_port(section: ServeConfig) -> None:
    """Refuses an address that nothing can listen on.

    Raises:
        ServeError: the port is taken, or the host is not this machine's.
    """
    family = socket.AF_INET6 if ":" in section.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((section.host, section.port))
        except (OSError, TypeError, UnicodeError) as error:  # the last two: no name of a host
            said = getattr(error, "strerror", None) or error
            raise ServeError(
                f"serve.port: cannot listen on {section.host}:{section.port}: {said}",
                hint="choose another with serve.port=..., or stop what listens there",
            ) from None


def _await_running(section: ServeConfig) -> None:
    from ray import serve

    limit = time.monotonic() + section.start_timeout_seconds
    while True:
        application = serve.status().applications.get(APP)
        state = application.status if application else "NOT_STARTED"
        if state == "RUNNING":
            return
        failed = model_apps.failures()
        if failed:
            raise ServeError(f"the model could not be loaded: {failed[0]}")
        said = "; ".join(d.message for d in application.deployments.values() if d.message) if application else ""
        if state == "DEPLOY_FAILED":
            raise ServeError(f"the model could not be loaded: {model_apps.reason(said)}")
        if time.monotonic() > limit:
            raise ServeError(
                f"no replica was ready within {section.start_timeout_seconds:g} seconds ({state}) {said}".rstrip(),
                hint="raise serve.start_timeout_seconds, or see whether the cluster has the CPUs and GPUs asked for",
            )
        time.sleep(_POLL_SECONDS)
