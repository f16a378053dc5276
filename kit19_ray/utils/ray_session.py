"""The connection to Ray: the cluster the environment names, or one on this machine for the length of a command.

What is wrong with it is one message within a minute: Ray itself waits for ever for a cluster that is not there.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from kit19_ray.errors import UserError
from kit19_ray.redaction import first_line, redacted
from kit19_ray.utils import local_ray, machine
from kit19_ray.utils.console import say
from kit19_ray.utils.proxies import spare_loopback

# Set before ray is imported anywhere: quiet defaults a user's own environment may override.
_QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_DATA_LOG_LEVEL": "CRITICAL",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",  # Serve kills one that is not up after 5 s
    "RAY_task_oom_retries": "3",  # Ray's own default tries a task that runs out of memory again for ever
    "TOKENIZERS_PARALLELISM": "false",
    "DS_ACCELERATOR_LOG_LEVEL": "ERROR",
}
# Ray's own switch for "this machine only": every port is bound to 127.0.0.1. It is read when ray is imported.
_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_CONNECT_SECONDS, _ANSWER_SECONDS = 5.0, 45.0
_SLOW = "timed out during startup"  # Ray 2.60's words for a raylet that was not up after 30 s
_SAID = 200  # characters of Ray's own words


def environment() -> None:
    """Fills in the quiet defaults; call it before `import ray`."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if not os.environ.get("RAY_ADDRESS") and _current_cluster() is None:
        os.environ.setdefault(_LOOPBACK, "0")
    spare_loopback()


def _current_cluster() -> str | None:
    """The address of the cluster that `ray start` left word of on this machine; None where nothing listens there."""
    base = os.environ.get("RAY_TMPDIR") or ("/tmp" if sys.platform == "linux" else tempfile.gettempdir())
    with suppress(OSError, UnicodeDecodeError):
        address = Path(base, "ray", "ray_current_cluster").read_text().strip()
        if address and _listens(address) is None:
            return address
    return None


def _listens(address: str) -> str | None:
    """Why nothing answers at host:port; None where something does."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS):
            return None
    except (OSError, ValueError, OverflowError) as error:
        return first_line(error)


def _check_address(address: str) -> None:
    """Refuses an address at which no cluster is that this process could join.

    Raises:
        UserError: with what to do.
    """
    where = f"RAY_ADDRESS={_without_userinfo(address)}"
    if "://" in address and not address.startswith("ray://"):
        raise UserError(
            f"{where} is a dashboard's address: a stage joins a cluster at host:6379",
            hint="unset RAY_ADDRESS for a local cluster; `kit19 submit --address` takes the dashboard and runs the "
            "stage as a job",
        )
    if address in ("auto", "local"):
        return
    plain = address.removeprefix("ray://")
    if not plain.rpartition(":")[2].isdigit():
        raise UserError(f"{where}: an address is host:port, such as head:6379", hint="unset it for a local cluster")
    why = _listens(plain)
    if why:
        raise UserError(
            f"{where}: nothing answers there ({why[:_SAID]})",
            hint="start the cluster, mend RAY_ADDRESS, or unset it for a local one",
        )
    if address.startswith("ray://"):
        return
    # In a process of its own: Ray waits for ever for a server that accepts and is no Ray head.
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", plain]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_ANSWER_SECONDS, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise UserError(
            f"{where}: what listens there does not answer as a Ray cluster does",
            hint="the port of a Ray head is 6379 by default; 8265 is the dashboard's, 10001 the client's",
        ) from None
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise UserError(
            f"{where}: {lines[-1][:_SAID] if lines else 'it is no Ray cluster'}",
            hint="a stage needs the cluster's versions of Ray and Python: use the image the cluster was started from",
        )


def _without_userinfo(address: str) -> str:
    scheme, separator, rest = address.rpartition("://")
    return (scheme + separator + rest.partition("?")[0].rpartition("@")[2])[:_SAID]


@contextmanager
def connected(cpus: int | None = None, verbose: bool = False) -> Iterator[None]:
    """A Ray connection for the block: a running one is used as it is, RAY_ADDRESS is honoured, else a local one.

    Args:
        cpus: CPUs of a local cluster; None means all that this process may use. Without effect on an existing cluster.
        verbose: let the workers' output through to this terminal.

    Raises:
        UserError: the cluster cannot be joined, or none can be started here.
    """
    environment()
    import ray

    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS") or _current_cluster() or "local"
    if address != "local":
        if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:  # a job's cluster is there: it started us
            _check_address(address)
    else:
        local_ray.prepare()
    try:
        _start(address, cpus, verbose)
    except UserError:
        ray.shutdown()
        raise
    try:
        yield
    finally:
        ray.shutdown()


def _start(address: str, cpus: int | None, verbose: bool) -> None:
    import ray

    before = _children()
    for last in (False, True):
        try:
            ray.init(
                address=address,
                num_cpus=(cpus or machine.cpus()) if address == "local" else None,  # Ray knows no affinity
                log_to_driver=verbose,
                logging_level=logging.INFO if verbose else logging.ERROR,
                # The dashboard stays on: without it Train's cleaner logs a failure twice a second (Ray 2.60).
            )
            return
        except Exception as error:
            if not last and address == "local" and _SLOW in str(error):
                say("ray: it did not come up in its own 30 s; once more")
                ray.shutdown()
                _end(_children() - before)  # Ray forgets what it had started
                continue
            raise _explained(error, address) from error


def _children() -> set[int]:
    """The processes that this one started and that are not gone."""
    found: set[int] = set()
    for listed in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            found.update(map(int, listed.read_text().split()))
    return found


def _end(processes: set[int]) -> None:
    for process in processes:
        with suppress(OSError):
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)


def _explained(error: Exception, address: str) -> UserError:
    """Ray's own words, and what to do."""
    text = " ".join(redacted(str(error)).split()) or type(error).__name__
    if address != "local":
        mismatch = "Version mismatch" in text
        return UserError(
            f"RAY_ADDRESS={_without_userinfo(address)}: {text[:_SAID]}",
            hint="use the image the cluster was started from: Ray and Python must be the same on both sides"
            if mismatch
            else "start the cluster, mend RAY_ADDRESS, or unset it for a local one",
        )
    if "AF_UNIX" in text:
        hint = "a socket's path has at most 107 bytes: set RAY_TMPDIR to a short folder, such as /tmp/r"
    elif _SLOW in text:
        hint = "the machine is too busy or has too little memory; a smaller data.cpus starts fewer processes"
    else:
        hint = "Ray writes below RAY_TMPDIR (/tmp/ray): it must be yours and have room, and /dev/shm some 100 MB"
    return UserError(f"Ray could not be started on this machine: {text[:_SAID]}", hint=hint)


def require(
    what: str,
    count: int,
    cpus: float,
    use_gpu: bool | None,
    hint: str,
    error: type[UserError] = UserError,
    gpus: float = 1,
    at_most: Mapping[str, float] | None = None,
) -> bool:
    """Whether processes get a GPU each, after a look at what the cluster has.

    Args:
        what: the config key of the number of processes, for messages.
        count: processes.
        cpus: CPUs of each.
        use_gpu: None uses GPUs when the cluster has any.
        hint: what to lower.
        error: class of the error raised.
        gpus: of each process, where GPUs are used.
        at_most: what the cluster may grow to by itself.

    Raises:
        UserError: a local cluster cannot hold them all; one that RAY_ADDRESS names may grow.
    """
    import ray

    have: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    most = at_most or {}
    gpu = bool(have.get("GPU") or most.get("GPU")) if use_gpu is None else use_gpu
    for name, each in (("CPU", cpus), ("GPU", gpus if gpu else 0)):
        if count * each <= have.get(name, 0):
            continue
        text = f"{what}={count} need {count * each:g} {name}s, the Ray cluster has {have.get(name, 0):g}"
        if not os.environ.get("RAY_ADDRESS") and count * each > most.get(name, 0):
            raise error(text, hint=hint)
        say(f"{what.partition('.')[0]}: {text}; waiting for it to grow")
    return gpu


def prepare_ray_data() -> None:
    """Ray Data's bars on a terminal, none elsewhere; and our own errors as they are, not as text in Ray's."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = sys.stderr.isatty()
    context.raise_original_map_exception = True
    # Our datasets have one operator, whose rows say which files it wrote: there is no downstream to keep half of a
    # small node's CPUs for, as Ray 2.60 does.
    context.op_resource_reservation_enabled = False
