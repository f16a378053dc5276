from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.errors import OperateError
from kit19_ray.jobs import follow
from kit19_ray.jobs.follow import Follower
from kit19_ray.jobs.job import Gone, JobOutcome, JobReport, Unreachable, exit_code
from kit19_ray.jobs.log_cursor import Lines, LogCursor

LOG = "data: begun\n한글 로그\ntrain: 3 steps -> s3://b/runs/train-0123456789ab\ns3://b/runs/data-0123\nlast words"


@given(st.lists(st.lists(st.integers(0, len(LOG)), max_size=6)))
def test_streams_that_begin_anew_make_one_log(streams: list[list[int]]) -> None:
    """Each stream is cut at any places and breaks off at any place; the whole log comes last."""
    cursor, out = LogCursor(), ""
    for cuts in [*streams, [len(LOG)]]:
        cursor.restart()
        begin = 0
        for end in sorted(cuts):
            out += cursor.feed(LOG[begin:end])
            begin = end
        assert LOG.startswith(out)
    assert out == LOG


@given(st.lists(st.integers(0, len(LOG))))
def test_the_uri_is_found_wherever_the_log_is_cut(cuts: list[int]) -> None:
    lines, begin = Lines(), 0
    for end in [*sorted(cuts), len(LOG)]:
        lines.feed(LOG[begin:end])
        begin = end
    assert lines.uri == "s3://b/runs/data-0123" and lines.trains == "s3://b/runs/train-0123456789ab"


@pytest.mark.parametrize(
    ("report", "code"),
    [
        (JobReport("SUCCEEDED"), 0),
        (JobReport("SUCCEEDED", exit_code=0), 0),
        (JobReport("FAILED"), 1),
        (JobReport("FAILED", exit_code=-9), 1),
        (JobReport("FAILED", exit_code=2), 2),
        (JobReport("STOPPED"), 130),
        (JobReport("STOPPED", exit_code=0), 130),
    ],
)
def test_exit_codes(report: JobReport, code: int) -> None:
    assert exit_code(report) == code


class Scripted:
    """A job whose answers are written down."""

    id = "scripted"

    def __init__(self, polls: list[JobReport | Exception], log: str | Exception = LOG) -> None:
        self._polls, self._log = polls, log
        self.streams = 0

    def poll(self) -> JobReport:
        return _given(self._polls.pop(0) if len(self._polls) > 1 else self._polls[0])

    def tail(self, emit: Callable[[str], None]) -> None:
        self.streams += 1
        emit(LOG[:20])
        emit(LOG[20 : 20 + self.streams])
        raise Unreachable("broken off")

    def log(self) -> str:
        return _given(self._log)

    def stop(self) -> None:
        self._polls[:] = [JobReport("STOPPED")]

    def commands(self) -> tuple[str, str]:
        return "follow-it", "stop-it"


def _given(answer: object) -> object:
    if isinstance(answer, Exception):
        raise answer
    return answer


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(follow, "_LOG_SECONDS", 0.2)
    monkeypatch.setattr(follow, "_SILENCE_SECONDS", 0.0)


def run(job: Scripted, **options: object) -> tuple[JobOutcome, str]:
    text: list[str] = []
    outcome = Follower(job, write=text.append, **options).run()  # type: ignore[arg-type]
    return outcome, "".join(text)


def test_a_log_that_breaks_off_all_the_time_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    job = Scripted([JobReport("RUNNING")] * 10 + [JobReport("SUCCEEDED")])
    outcome, text = run(job)
    assert (outcome.state, outcome.code, outcome.uri) == ("SUCCEEDED", 0, "s3://b/runs/data-0123")
    assert text == LOG + "\n" and job.streams > 1
    assert capsys.readouterr().err.endswith("scripted succeeded\n")


def test_a_log_that_is_lost_changes_no_status(capsys: pytest.CaptureFixture[str]) -> None:
    outcome, _ = run(Scripted([JobReport("FAILED", "its last lines", 1)], log=Unreachable("no agent")))
    said = capsys.readouterr().err
    assert outcome.code == 1 and "the end of the log could not be read (no agent)" in said and "its last lines" in said
    outcome, _ = run(Scripted([JobReport("SUCCEEDED")], log=Gone("no file")))
    assert outcome.code == 0


def test_an_outage_is_told_once_and_survived(capsys: pytest.CaptureFixture[str]) -> None:
    up = JobReport("RUNNING")
    outcome, _ = run(Scripted([up, *[Unreachable("HTTP 503")] * 3, up, JobReport("SUCCEEDED")]))
    said = capsys.readouterr().err
    assert outcome.code == 0 and said.count("does not answer (HTTP 503)") == 1 and said.count("answers again") == 1


def test_patience_ends_and_a_job_that_is_gone_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    outcome, _ = run(Scripted([Unreachable("nobody")]), patience=0.2)
    assert (outcome.state, outcome.code) == (None, 1) and "follow it again with: follow-it" in capsys.readouterr().err
    outcome, _ = run(Scripted([JobReport("RUNNING"), Gone("no such job")]))
    assert (outcome.state, outcome.code) == (None, 1) and "how it ended is not known" in capsys.readouterr().err


def test_an_error_of_a_thread_is_raised() -> None:
    with pytest.raises(OperateError, match="a token is needed"):
        run(Scripted([JobReport("RUNNING"), OperateError("a token is needed")]))


def test_metrics_are_shown_while_the_log_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    class Training(Scripted):
        def tail(self, emit: Callable[[str], None]) -> None:
            emit(LOG)
            threading.Event().wait(5)

    def newest(uri: str) -> str:
        return f"step 2/3 of {uri}"

    run(Training([JobReport("RUNNING")] * 10 + [JobReport("SUCCEEDED")]), newest=newest)
    assert "submit: step 2/3 of s3://b/runs/train-0123456789ab" in capsys.readouterr().err


def test_without_the_package_the_reason_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    text = "/usr/bin/python: No module named kit19_ray\n"

    class Bare(Scripted):
        def tail(self, emit: Callable[[str], None]) -> None:
            time.sleep(5)

    outcome, _ = run(Bare([JobReport("FAILED", "", 1)], log=text))
    assert outcome.code == 1 and "the cluster's Python has no kit19-ray" in capsys.readouterr().err
