"""A job as a person sees it, wherever it runs: its state, how it ended, what may go wrong in asking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from kit19_ray.errors import EXIT_DONE, EXIT_OURS, EXIT_USER

State = Literal["PENDING", "RUNNING", "SUCCEEDED", "FAILED", "STOPPED"]
ENDED: tuple[State, ...] = ("SUCCEEDED", "FAILED", "STOPPED")
EXIT_STOPPED = 130


class Unreachable(Exception):
    """The cluster does not answer now; the job goes on without us."""


class Gone(Exception):
    """The cluster answers and does not know the job."""


@dataclass(frozen=True)
class JobReport:
    """What the cluster says of a job.

    Attributes:
        message: why it failed, or what it waits for.
        exit_code: of the job's own process; None while it runs, or where it is not told.
        detail: where it is, in a few words; shown each time it changes.
    """

    state: State
    message: str = ""
    exit_code: int | None = None
    detail: str = ""


@dataclass(frozen=True)
class JobOutcome:
    """How following ended.

    Attributes:
        state: None when the end of the job is not known: detached from, or lost.
        code: the exit code.
        uri: the last output prefix the job printed.
    """

    id: str
    state: State | None
    code: int
    uri: str | None = None
    message: str = ""


class Job(Protocol):
    """A job on a cluster. Every method may raise Unreachable or Gone."""

    @property
    def id(self) -> str:
        """Its name on the cluster."""

    def poll(self) -> JobReport:
        """Its status now."""

    def tail(self, emit: Callable[[str], None]) -> None:
        """Gives `emit` the log from its first character on, until the stream ends, for whatever reason."""

    def log(self) -> str:
        """All of the log so far."""

    def stop(self) -> None:
        """Asks for its end."""

    def commands(self) -> tuple[str, str]:
        """The commands that follow it and that stop it."""


def exit_code(report: JobReport) -> int:
    """0 succeeded, 2 the job says it is the user's mistake, 1 failed, 130 stopped."""
    if report.state == "SUCCEEDED":
        return EXIT_DONE
    if report.state == "STOPPED":
        return EXIT_STOPPED
    return EXIT_USER if report.exit_code == EXIT_USER else EXIT_OURS
