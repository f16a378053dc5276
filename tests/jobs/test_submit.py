"""`kit19 submit`, `status` and `stop` in processes of their own against a live Ray head."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from kit19_ray.artifacts import manifest
from kit19_ray.tasks.task import DEFINITIONS
from tests.operate.ray_head import Head, Line, environment, free_ports

pytestmark = pytest.mark.ray
TINY = ["data.sources=samples", "data.tasks=[nsmc,kobest_copa]", "data.quota=24", "data.validation=4"]
TINY += ["data.validation_fraction=0.15", "data.tokenizer.vocab_size=400", "data.seq_len=128"]
COUNT = "python -uc \"import time, sys\nfor n in range(120): print('line', n); time.sleep(0.1)\nsys.exit({code})\""
SLEEP = "python -uc \"print('asleep'); import time; time.sleep(300)\""


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    head = Head()
    head.start()
    yield head
    head.stop()


def start(*words: str, address: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "kit19_ray", *words, "--address", address]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), stdin=subprocess.DEVNULL
    )


def kit19(*words: str, address: str) -> tuple[int, str, str]:
    process = start(*words, address=address)
    out, err = process.communicate(timeout=180)
    return process.returncode, out, err


def wait_for(head: Head, name: str, *states: str) -> None:
    limit = time.monotonic() + 60
    while head.status(name) not in states:
        assert time.monotonic() < limit, head.status(name)
        time.sleep(0.2)


class Following:
    """`kit19 status ID --follow` without a terminal, its words read as they come."""

    def __init__(self, name: str, *words: str, address: str) -> None:
        self.process = start("status", name, "--follow", *words, address=address)
        self.said = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line

    def expect(self, text: str) -> None:
        """Waits for `text`."""
        limit = time.monotonic() + 60
        while text not in self.said:
            assert self.process.poll() is None and time.monotonic() < limit, self.said
            time.sleep(0.05)

    def wait(self) -> tuple[int, str]:
        """The exit code and stdout."""
        code = self.process.wait(120)
        self._reader.join(10)
        assert self.process.stdout is not None and self.process.stderr is not None
        out = self.process.stdout.read()
        self.process.stdout.close()
        self.process.stderr.close()
        return code, out


def lines_of(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("line ")]


def test_success_a_local_task_file_travels_and_an_equal_submission_in_flight_is_taken_over(
    head: Head, tmp_path: Path
) -> None:
    own = tmp_path / "tasks"
    own.mkdir()
    packaged = DEFINITIONS / "nsmc.yaml"
    (own / "nsmc_again.yaml").write_text(packaged.read_text())
    config = tmp_path / "Tiny Run.yaml"
    config.write_text(yaml.safe_dump({"root": str(tmp_path / "root")}))
    words = ["submit", "data", "--config", str(config), *TINY, "data.tasks=[nsmc_again,kobest_copa]"]
    words.append(f"data.tasks_dir={own}")
    code, name, said = kit19(*words, "--no-wait", address=head.address)
    assert code == 0 and f"kit19 stop {name.strip()}" in said
    assert name.startswith("tiny-run-data-") and name.endswith("-1\n")
    code, out, said = kit19(*words, address=head.address)
    assert f"{name.strip()} is in flight already" in said
    assert code == 0, said
    assert "root=file://" in said and "data.tasks_dir" not in said
    made = manifest.require(out.strip().splitlines()[-1], "data")
    assert set(made["tasks"]) == {"nsmc_again", "kobest_copa"}
    code, out, _ = kit19("status", name.strip(), "--json", address=head.address)
    found = json.loads(out)
    assert (
        code == 0 and (found["status"], found["exit_code"]) == ("SUCCEEDED", 0) and found["uri"].startswith("file://")
    )
    code, out, _ = kit19("status", address=head.address)
    assert code == 0 and name.strip() in out and "python -m kit19_ray data --config kit19.yaml" in out
    # A finished one is no longer in flight: the next attempt has the next number, and finds the stage done.
    code, out, said = kit19(*words, "--json", address=head.address)
    assert code == 0 and json.loads(out)["id"] == f"{name.strip()[:-2]}-2"


def test_the_jobs_own_mistake_is_exit_2(head: Head, tmp_path: Path) -> None:
    code, out, said = kit19(
        "submit", "data", f"root={tmp_path}", *TINY, "data.sources=file:///nowhere", address=head.address
    )
    assert (code, out) == (2, "") and "failed with exit code 2" in said and "error: " in said
    assert "data.sources=file:///nowhere is a local path" in said


def test_failure_is_exit_1_with_the_failing_lines(head: Head) -> None:
    head.job("python -c \"print('before'); raise RuntimeError('broken pump')\"", "fails")
    code, out, said = kit19("status", "fails", "--follow", address=head.address)
    assert (code, out) == (1, "")
    assert "RuntimeError: broken pump" in said and "fails failed with exit code 1" in said


def test_an_environment_that_cannot_be_made_is_exit_1_with_the_reason(head: Head) -> None:
    import httpx

    body = {"entrypoint": "true", "submission_id": "bad-env", "runtime_env": {"working_dir": "gcs://_ray_pkg_none.zip"}}
    httpx.post(f"{head.address}/api/jobs/", json=body, headers=head.headers, timeout=60).raise_for_status()
    code, _, said = kit19("status", "bad-env", "--follow", address=head.address)
    assert code == 1 and "_ray_pkg_none" in said and "bad-env failed" in said


def test_a_variable_reaches_the_job_and_its_value_is_not_shown(
    head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIT19_ROOT", str(tmp_path / "elsewhere"))
    code, _, said = kit19(
        *("submit", "data", f"root={tmp_path}", *TINY, "data.sources=file:///nowhere", "--env", "KIT19_ROOT", "--new"),
        address=head.address,
    )
    assert code == 2 and "KIT19_ROOT go into the job's runtime_env" in said and str(tmp_path / "elsewhere") not in said


def test_stop_ends_the_job_and_its_follower_exits_130(head: Head) -> None:
    head.job(SLEEP, "sleeps")
    wait_for(head, "sleeps", "RUNNING")
    follower = start("status", "sleeps", "--follow", address=head.address)
    code, out, _ = kit19("stop", "sleeps", address=head.address)
    assert (code, out) == (0, "STOPPED\n")
    out, said = follower.communicate(timeout=60)
    assert follower.returncode == 130 and "sleeps was stopped" in said and out == ""
    code, out, said = kit19("stop", "sleeps", address=head.address)
    assert (code, out) == (0, "STOPPED\n") and "has ended already" in said


class Terminal:
    """kit19 on a terminal of its own."""

    def __init__(self, *words: str) -> None:
        self._master, slave = pty.openpty()
        command = [sys.executable, "-m", "kit19_ray", *words]
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment(), start_new_session=True
        )
        os.close(slave)
        self.text = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                self.text += os.read(self._master, 4096).decode(errors="replace")
            except OSError:
                return

    def expect(self, text: str, after: int = 0) -> int:
        """Waits for `text` and returns how much was said by then."""
        limit = time.monotonic() + 60
        while text not in self.text[after:]:
            assert time.monotonic() < limit, self.text
            time.sleep(0.05)
        return len(self.text)

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait(self) -> int:
        code = self.process.wait(60)
        self._reader.join(10)
        os.close(self._master)
        return code


def test_ctrl_c_asks_no_goes_on_yes_stops(head: Head) -> None:
    head.job(SLEEP, "asked")
    terminal = Terminal("status", "asked", "--follow", "--address", head.address)
    terminal.expect("asleep")
    terminal.interrupt()
    seen = terminal.expect("Stop asked? [y]es")
    terminal.type("n\n")
    time.sleep(1.5)
    assert terminal.process.poll() is None and head.status("asked") == "RUNNING"
    terminal.interrupt()
    terminal.expect("Stop asked? [y]es", after=seen)
    terminal.type("y\n")
    assert terminal.wait() == 130 and "asked was stopped" in terminal.text
    assert head.status("asked") == "STOPPED"


def test_a_second_ctrl_c_leaves_the_job_running(head: Head) -> None:
    head.job(SLEEP, "left")
    terminal = Terminal("status", "left", "--follow", "--address", head.address)
    terminal.expect("asleep")
    terminal.interrupt()
    terminal.expect("Stop left? [y]es")
    terminal.interrupt()
    assert terminal.wait() == 130 and "left goes on" in terminal.text and "kit19 stop left" in terminal.text
    assert head.status("left") == "RUNNING"
    assert kit19("stop", "left", address=head.address)[0] == 0


def test_ctrl_c_without_a_terminal_leaves_the_job_running(head: Head) -> None:
    head.job(SLEEP, "headless")
    wait_for(head, "headless", "RUNNING")
    follower = Following("headless", address=head.address)
    follower.expect("asleep")
    follower.process.send_signal(signal.SIGINT)
    assert follower.wait() == (130, "") and "kit19 status headless --follow" in follower.said
    assert head.status("headless") == "RUNNING"
    assert kit19("stop", "headless", address=head.address)[0] == 0


@pytest.mark.parametrize("code", [0, 1])
def test_a_line_cut_twice_loses_and_doubles_nothing(head: Head, code: int) -> None:
    line = Line(head.port)
    head.job(COUNT.format(code=code), f"counts-{code}")
    follower = Following(f"counts-{code}", address=line.address)
    follower.expect("line 3\n")
    line.cut()
    time.sleep(2)
    line.restore()
    follower.expect("the cluster answers again")
    line.cut()
    wait_for(head, f"counts-{code}", "SUCCEEDED", "FAILED")  # it ends while nobody can see it
    line.restore()
    exit_code, _ = follower.wait()
    line.cut()
    assert exit_code == code, follower.said
    assert lines_of(follower.said) == [f"line {n}" for n in range(120)]
    assert "the cluster does not answer" in follower.said


def test_a_cluster_that_stays_silent_is_not_success(head: Head) -> None:
    line = Line(head.port)
    head.job(SLEEP, "silent")
    wait_for(head, "silent", "RUNNING")
    follower = Following("silent", "--patience", "3", address=line.address)
    follower.expect("asleep")
    line.cut()
    assert follower.wait() == (1, "") and "whether silent goes on is not known" in follower.said
    assert kit19("stop", "silent", address=head.address)[0] == 0


def test_user_mistakes_send_nothing(head: Head, tmp_path: Path) -> None:
    root = f"root={tmp_path}"
    for words, said in [
        (
            ["submit", "tain", root],
            "submit 'tain': not one of data, train, evaluate, serve, run (did you mean ",
        ),
        (["submit", "data", root, "--env", "KIT19_UNSET"], "--env KIT19_UNSET: the variable is not set here"),
        (["submit", "data", root, "--env", "A=b"], "--env A=...: give the name only"),
        (["submit", "data", root, "data.quotta=1"], "did you mean 'quota'"),
        (["status", "nobody"], "nobody: no such job"),
        (["status", "--follow"], "the id of a job is needed"),
        (["stop", "nobody"], "nobody: no such job"),
    ]:
        code, out, err = kit19(*words, address=head.address)
        assert (code, out) == (2, "") and said in err and "Traceback" not in err, err


def test_no_cluster_no_token_and_no_json_are_told(head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [nobody] = free_ports(1)
    code, _, said = kit19("status", address=f"http://127.0.0.1:{nobody}")
    assert code == 2 and f"127.0.0.1:{nobody}: no Ray dashboard answers there" in said
    bare = {name: value for name, value in environment().items() if name != "RAY_AUTH_TOKEN"}
    for variables, expected in [
        (bare | {"RAY_ADDRESS": head.address, "HOME": str(tmp_path)}, "set RAY_AUTH_TOKEN"),
        (bare, "where to: no cluster is named"),
        (
            bare | {"RAY_API_SERVER_ADDRESS": head.address, "RAY_JOB_HEADERS": "{"},
            "RAY_JOB_HEADERS is not a JSON object",
        ),
    ]:
        done = subprocess.run(
            [sys.executable, "-m", "kit19_ray", "status"], env=variables, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 2 and expected in done.stderr, done.stderr


def test_ray_job_submit_runs_a_stage(head: Head, tmp_path: Path) -> None:
    """The command of the README, with Ray's own client."""
    words = ["--", "python", "-m", "kit19_ray", "data", *TINY, f"root={tmp_path}"]
    ray = Path(sys.executable).with_name("ray")
    variables = environment() | {"RAY_API_SERVER_ADDRESS": head.address, "RAY_AUTH_MODE": "token"}
    done = subprocess.run([ray, "job", "submit", *words], env=variables, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"file://{tmp_path}/data-" in done.stdout


def test_the_dashboard_restarted_while_following(head: Head) -> None:
    head.job(COUNT.format(code=3), "survives")
    follower = Following("survives", address=head.address)
    follower.expect("line 3\n")
    head.restart_dashboard(pause=2)
    assert follower.wait()[0] == 1 and "failed with exit code 3" in follower.said, follower.said
    assert lines_of(follower.said) == [f"line {n}" for n in range(120)]
    assert "the cluster does not answer" in follower.said and "the cluster answers again" in follower.said
