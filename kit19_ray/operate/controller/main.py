"""The operator as a process: the lease, kopf, the health and metrics endpoints, a clean end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import kopf
import kubernetes
from aiohttp import web

from kit19_ray.errors import OperateError
from kit19_ray.operate.api import crd, support
from kit19_ray.operate.controller import handlers, leader_election, metrics
from kit19_ray.operate.controller.claims import Claims
from kit19_ray.operate.controller.leader_election import LeaderLease
from kit19_ray.operate.controller.metrics import ControllerMetrics
from kit19_ray.operate.controller.reconciler import Reconciler
from kit19_ray.operate.kube_client import Cluster, KubeError
from kit19_ray.redaction import RedactingFilter

log = logging.getLogger(__name__)
Answer = Callable[[], tuple[int, bytes]]

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def own_namespace() -> str:
    """The namespace of this pod, else `default`."""
    return _NAMESPACE_FILE.read_text().strip() if _NAMESPACE_FILE.is_file() else "default"


def run(
    namespaces: Sequence[str],
    everywhere: bool,
    metrics_port: int | None,
    health_port: int | None,
    lease_namespace: str | None,
    identity: str | None,
    lease_name: str = leader_election.NAME,
) -> None:
    """Runs the operator until SIGTERM.

    Args:
        namespaces: where to work; ignored with `everywhere`.
        metrics_port: of /metrics; None opens none.
        health_port: of /healthz (alive) and /readyz (works, or stands by); None opens none.
        lease_namespace: of the Lease; None means this pod's.
        identity: of the Lease; None means the host's name, which in a pod is the pod's.
        lease_name: of the Lease; those who share it work one at a time.

    Raises:
        OperateError: the cluster cannot be reached, a right or a CustomResourceDefinition is missing, a port is taken,
            or the lease is lost.
    """
    log_without_secrets()
    try:
        cluster = Cluster.connect()
    except kubernetes.config.ConfigException as error:
        raise OperateError(f"no cluster: {error}", hint="run it in a pod, or set KUBECONFIG") from None
    home = lease_namespace or own_namespace()
    lease = LeaderLease(cluster, home, identity or socket.gethostname(), lease_name)
    claims = Claims(cluster, f"{home}/{lease_name}")
    watched = [] if everywhere else list(namespaces)
    asyncio.run(_main(cluster, lease, claims, watched, everywhere, metrics_port, health_port))


def log_without_secrets() -> None:
    """Sets up the process's log: one line a record on stderr, redacted."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(RedactingFilter())
    logging.getLogger("kopf").setLevel(logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # what it tries again is told where it fails for good


async def _main(
    cluster: Cluster,
    lease: LeaderLease,
    claims: Claims,
    namespaces: list[str],
    everywhere: bool,
    metrics_port: int | None,
    health_port: int | None,
) -> None:
    counted = ControllerMetrics()
    stop, working = asyncio.Event(), asyncio.Event()

    def readiness() -> tuple[int, bytes]:
        if working.is_set():
            return 200, b"leads\n"
        if lease.holder:
            return 200, f"stands by: {lease.holder} holds the lease {lease.name}\n".encode()
        return 503, b"the lease is neither held nor known to be another's\n"

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def metrics_text() -> tuple[int, bytes]:
        counted.standby.set(int(not working.is_set() and lease.holder is not None))
        return 200, counted.text()

    alive: Answer = lambda: (200, b"ok\n")  # noqa: E731
    runners = [
        await _serve(port, answers, kind)
        for port, answers, kind in (
            (metrics_port, {"/metrics": metrics_text}, metrics.CONTENT_TYPE),
            (health_port, {"/healthz": alive, "/readyz": readiness}, "text/plain"),
        )
        if port is not None
    ]
    try:
        if not await _until(stop, lease.acquire()):
            return
        await asyncio.to_thread(_check_kinds, cluster)
        counted.leader.set(1)
        working.set()
        registry = kopf.OperatorRegistry()
        triggers = handlers.register(registry, Reconciler(cluster, counted, handlers.tell, claims))
        keeping = asyncio.create_task(lease.keep())
        keeping.add_done_callback(lambda _: stop.set())
        claiming = asyncio.create_task(claims.keep())
        try:
            await kopf.operator(
                registry=registry,
                settings=handlers.settings(),
                namespaces=namespaces,
                clusterwide=everywhere,
                standalone=True,  # the lease takes the place of kopf's peering
                stop_flag=stop,
            )
        finally:
            working.clear()
            await triggers.close()
            lost = keeping.done()
            keeping.cancel()
            claiming.cancel()
        if lost:
            raise OperateError("the lease is lost: another operator works, or the API server was away too long")
        with suppress(KubeError):
            await lease.release()
    except KubeError as error:
        raise OperateError(
            f"the API server refuses: {error}", hint="see kit19_ray/operate/api/rbac.py for the rights"
        ) from None
    finally:
        for runner in runners:
            await runner.cleanup()


def _check_kinds(cluster: Cluster) -> None:
    """Refuses to work where KitRuns or RayJobs are not known: their watches would never start.

    Raises:
        OperateError: a CustomResourceDefinition is not installed.
    """
    for group, version, hint in (
        (crd.GROUP, crd.VERSION, "install k8s/crd.yaml, or the kit19-operator chart"),
        ("ray.io", "v1", f"install KubeRay's operator, {support.KUBERAY} or newer"),
    ):
        if not cluster.serves(group, version):
            raise OperateError(f"the API server does not know {group}/{version}", hint=hint)


async def _until(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Waits for `work`; False when `stop` came first."""
    doing = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait([doing, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not doing.done():
        doing.cancel()
        return False
    doing.result()
    return True


async def _serve(port: int, answers: Mapping[str, Answer], kind: str) -> web.AppRunner:
    """A server with these paths; each answers with a status and a text."""

    def handler(answer: Answer) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(_: web.Request) -> web.Response:
            status, text = answer()
            return web.Response(status=status, body=text, headers={"Content-Type": kind})

        return handle

    app = web.Application()
    for path, answer in answers.items():
        app.router.add_get(path, handler(answer))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, port=port).start()
    except OSError as error:
        raise OperateError(f"cannot listen on port {port}: {error.strerror or error}") from None
    return runner


def default_namespaces() -> list[str]:
    """Where to work when nothing is said: WATCH_NAMESPACES, else this pod's namespace."""
    named = [name.strip() for name in os.environ.get("WATCH_NAMESPACES", "").split(",") if name.strip()]
    return named or [own_namespace()]
