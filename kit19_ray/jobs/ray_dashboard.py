"""Jobs of a Ray cluster, through its dashboard: `kit19 submit`'s way to a cluster that runs already.

What Ray's own client honours is honoured: RAY_API_SERVER_ADDRESS and RAY_ADDRESS, RAY_AUTH_TOKEN or
RAY_AUTH_TOKEN_PATH (or ~/.ray/auth_token with RAY_AUTH_MODE=token), RAY_JOB_HEADERS (JSON), and REQUESTS_CA_BUNDLE or
SSL_CERT_FILE for a certificate of one's own.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit19_ray.errors import OperateError, nearest
from kit19_ray.jobs.job import ENDED, Gone, JobReport, State, Unreachable
from kit19_ray.jobs.submission import Submission, attempt_of
from kit19_ray.redaction import redacted
from kit19_ray.utils import ray_session

ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
BASE_KEY = "kit19"
"""Metadata of a job that holds its submission's base."""
_TIMEOUT = (5.0, 60.0)  # seconds to connect, to answer
_ERROR_LENGTH = 300  # characters of a server's answer shown


@dataclass(frozen=True)
class Listed:
    """A job as `kit19 status` shows it: `started` and `ended` in Unix seconds, `command` as it was submitted."""

    id: str
    report: JobReport
    started: float | None
    ended: float | None
    command: str


class DashboardRefusal(Exception):
    """An answer that is neither success nor an outage.

    Args:
        status: HTTP status.
    """

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"{status}: {said}")
        self.status, self.said = status, said


class Dashboard:
    """A connection to the dashboard of one cluster.

    Args:
        address: http(s)://host:port; None takes the environment's.

    Raises:
        OperateError: no address, no answer, not a Ray dashboard, a wrong token, or headers that are not JSON.
    """

    def __init__(self, address: str | None) -> None:
        self.address = address
        if address is not None:
            address = address if "://" in address else f"http://{address}"
            # The environment has precedence in Ray's client; on a command line it is the other way round.
            os.environ[ADDRESS_VARIABLES[0]] = address
        elif not any(os.environ.get(name) for name in ADDRESS_VARIABLES):
            raise OperateError(
                "where to: no cluster is named",
                hint=f"add --address http://host:8265, set {ADDRESS_VARIABLES[0]}, or use --rayjob or --kitrun",
            )
        shown = address or next(os.environ[name] for name in ADDRESS_VARIABLES if os.environ.get(name))
        if "@" in shown or "?" in shown:
            raise OperateError(
                "--address: a dashboard's address holds no user, password or query"
                if address
                else "the dashboard's address in the environment holds a user, a password or a query",
                hint="put a token into RAY_AUTH_TOKEN, headers into RAY_JOB_HEADERS",
            )
        headers = _headers()
        ray_session.environment()
        if any(os.environ.get(name) for name in TOKEN_VARIABLES):
            os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray looks for a token only then, once, when imported
        try:
            with _translated():
                self._client: Any = _client_class()(address, headers=headers, verify=_verify())
        except (Unreachable, Gone, DashboardRefusal, ConnectionError, RuntimeError, ValueError) as error:
            said = redacted(str(error))[:_ERROR_LENGTH]
            raise OperateError(
                f"{shown}: no Ray dashboard answers there: {said}",
                hint="the address is that of the dashboard, port 8265; in Kubernetes: kubectl port-forward",
            ) from error

    def submit(self, submission: Submission, env: Mapping[str, str], anew: bool) -> tuple[DashboardJob, bool]:
        """The job of a submission, and whether it was created now; one in flight is taken over unless `anew`.

        Args:
            env: variables of the job's runtime_env; the dashboard's API shows them to its users.

        Raises:
            OperateError: the cluster refuses it.
        """
        with _translated(), tempfile.TemporaryDirectory() as folder:
            for name, text in submission.files.items():
                path = Path(folder, name)
                path.parent.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8")
            while True:
                attempts = self._attempts(submission.base)
                flying = [n for n, state in attempts.items() if state not in ENDED]
                if flying and not anew:
                    return DashboardJob(self, submission.id(max(flying))), False
                name = submission.id(max(attempts, default=0) + 1)
                try:
                    self._client.submit_job(
                        entrypoint=submission.entrypoint,
                        submission_id=name,
                        runtime_env={"working_dir": folder} | ({"env_vars": dict(env)} if env else {}),
                        metadata={BASE_KEY: submission.base},
                    )
                except DashboardRefusal as error:
                    if "already exists" in error.said:
                        continue  # someone else was quicker
                    raise OperateError(f"{name}: the cluster refuses the job: {_last_line(error.said)}") from None
                return DashboardJob(self, name), True

    def job(self, name: str) -> DashboardJob:
        """The job `name`.

        Raises:
            OperateError: the cluster has none of that name.
        """
        known = [one.id for one in self.jobs()]
        if name not in known:
            raise OperateError(f"{name}: no such job{nearest(name, known)}", hint="`kit19 status` lists them")
        return DashboardJob(self, name)

    def jobs(self) -> list[Listed]:
        """Every submitted job, the newest first."""
        with _translated():
            found = [job for job in self._client.list_jobs() if job.submission_id]
        return [listed(job) for job in sorted(found, key=lambda job: job.start_time or 0, reverse=True)]

    def _attempts(self, base: str) -> dict[int, str]:
        numbered = {attempt_of(base, job.submission_id or ""): job.status for job in self._client.list_jobs()}
        return {number: status.value for number, status in numbered.items() if number is not None}


class DashboardJob:
    """A submitted job (`job.Job`)."""

    def __init__(self, dashboard: Dashboard, name: str) -> None:
        self._dashboard, self._client, self.id = dashboard, dashboard._client, name

    def poll(self) -> JobReport:
        """Its status now."""
        return self.listed().report

    def listed(self) -> Listed:
        """Its status now, with its times and its command."""
        with _translated():
            return listed(self._client.get_job_info(self.id))

    def tail(self, emit: Callable[[str], None]) -> None:
        """The log from its first character on, until the stream ends."""

        async def read() -> None:
            async for text in self._client.tail_job_logs(self.id):
                emit(text)

        with _translated():
            asyncio.run(read())

    def log(self) -> str:
        """All of the log so far."""
        with _translated():
            return str(self._client.get_job_logs(self.id))

    def stop(self) -> None:
        """SIGTERM for its process, SIGKILL three seconds later."""
        with _translated():
            self._client.stop_job(self.id)

    def commands(self) -> tuple[str, str]:
        """The commands that follow it and that stop it."""
        where = f" --address {self._dashboard.address}" if self._dashboard.address else ""
        return f"kit19 status {self.id} --follow{where}", f"kit19 stop {self.id}{where}"


def listed(job: Any) -> Listed:
    """A job from Ray's JobDetails."""
    state: State = job.status.value
    message = job.message or ""
    detail = "waiting for its environment" if state == "PENDING" else ""
    report = JobReport(state, message, job.driver_exit_code, detail)
    return Listed(job.submission_id, report, _seconds(job.start_time), _seconds(job.end_time), job.entrypoint)


def _seconds(milliseconds: int | None) -> float | None:
    return milliseconds / 1000 if milliseconds else None


def _client_class() -> Any:
    """Ray's client with a time limit on every request and errors that keep their HTTP status."""
    from ray.job_submission import JobSubmissionClient

    for module in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging"):
        logging.getLogger(f"ray.{module}").setLevel(logging.ERROR)

    class Client(JobSubmissionClient):
        def _do_request(self, method: str, endpoint: str, **kwargs: Any) -> Any:
            return super()._do_request(method, endpoint, timeout=_TIMEOUT, **kwargs)

        def _raise_error(self, r: Any) -> None:
            raise DashboardRefusal(r.status_code, r.text)

    return Client


@contextmanager
def _translated() -> Iterator[None]:
    """Turns what the client raises into Unreachable, Gone, Refused, or the user's mistake.

    Raises:
        OperateError: the cluster asks for a token, or does not take the one it gets.
    """
    import aiohttp
    import requests
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise OperateError(
            str(error).splitlines()[0],
            hint="set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, or RAY_AUTH_MODE=token when it is in ~/.ray/auth_token",
        ) from None
    except DashboardRefusal as error:
        if error.status == 404 and "does not exist" in error.said:
            raise Gone(error.said[:_ERROR_LENGTH]) from None
        if error.status == 400:
            raise
        raise Unreachable(f"HTTP {error.status}: {_last_line(error.said)}") from None
    except (TimeoutError, requests.RequestException, aiohttp.ClientError, OSError) as error:
        raise Unreachable(type(error).__name__) from error
    except RuntimeError as error:
        if "WebSocket" not in str(error):
            raise
        raise Unreachable(str(error)) from None


def _headers() -> dict[str, str] | None:
    text = os.environ.get("RAY_JOB_HEADERS")
    if not text:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise OperateError('RAY_JOB_HEADERS is not a JSON object such as {"Authorization": "..."}')
    return found


def _verify() -> str | bool:
    """The certificates to trust; both of Ray's HTTP clients get the same."""
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or True


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:_ERROR_LENGTH] if lines else "no text"
