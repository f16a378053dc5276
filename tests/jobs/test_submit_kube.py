"""`kit19 submit --rayjob` and `--kitrun` against a real API server, with someone who writes status as KubeRay does."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kit19_ray.jobs.kube_jobs import _PATHS
from kit19_ray.operate.kube_client import Cluster, KubeError
from kit19_ray.operate.manifests import naming
from kit19_ray.operate.manifests.naming import RunRef
from tests.operate import harness
from tests.operate.control_plane import ControlPlane
from tests.operate.kubelet import Kubelet
from tests.operate.ray_head import environment

pytestmark = pytest.mark.kube
Json = dict[str, Any]


@pytest.fixture(scope="module")
def space(operated_plane: ControlPlane) -> Iterator[str]:
    with harness.namespace(operated_plane) as name:
        yield name


class Shell:
    """kit19 as someone with a kubeconfig runs it."""

    def __init__(self, plane: ControlPlane, cluster: Cluster, space: str, folder: Path) -> None:
        self.cluster, self.space = cluster, space
        self._env = environment() | {"KUBECONFIG": str(plane.kubeconfig), "KIT19_ROOT": f"file://{folder}"}

    def use(self, kubeconfig: Path) -> None:
        """Acts as another user."""
        self._env["KUBECONFIG"] = str(kubeconfig)

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "kit19_ray", *words, "--namespace", self.space]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=self._env
        )

    def run(self, *words: str) -> tuple[int, str, str]:
        process = self.start(*words)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    def path(self, kind: str) -> str:
        api, plural = _PATHS[kind]
        return f"{api}/namespaces/{self.space}/{plural}"

    def wait_for(self, kind: str, prefix: str) -> str:
        def found() -> str | None:
            names = [item["metadata"]["name"] for item in self.cluster.request("GET", self.path(kind))["items"]]
            return next((name for name in names if name.startswith(prefix)), None)

        return harness.until(found, 60, f"no {kind} {prefix}")

    def write(self, kind: str, name: str, status: Json) -> None:
        """Writes a status as the controller of the kind does."""
        path = f"{self.path(kind)}/{name}"
        body = self.cluster.request("GET", path)
        if kind == "KitRun":
            status = {"observedGeneration": body["metadata"]["generation"], **status}
        self.cluster.request("PUT", f"{path}/status", body | {"status": status})

    def script(self, kind: str, prefix: str, *steps: Json) -> threading.Thread:
        """Writes the statuses one after another as soon as the object is there."""

        def play() -> None:
            name = self.wait_for(kind, prefix)
            for status in steps:
                self.write(kind, name, status)
                time.sleep(1.5)

        thread = threading.Thread(target=play, daemon=True)
        thread.start()
        return thread


@pytest.fixture
def shell(operated_plane: ControlPlane, admin: Cluster, space: str, tmp_path: Path) -> Shell:
    return Shell(operated_plane, admin, space, tmp_path)


RUNNING = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
STARTING = {"jobDeploymentStatus": "Initializing"}
DONE = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}


def job(name: str, *words: str) -> list[str]:
    return ["submit", "data", "--rayjob", "--image", "kit19-ray/train:test", "--name", name, *words]


@pytest.mark.parametrize(
    ("name", "end", "code", "said"),
    [
        ("good", DONE, 0, "succeeded"),
        (
            "bad",
            {
                "jobDeploymentStatus": "Failed",
                "jobStatus": "FAILED",
                "reason": "AppFailed",
                "message": "exit code 1: boom",
            },
            1,
            "boom",
        ),
        (
            "mine",
            {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "message": "exit code 2, error: data.sources: no"},
            2,
            "data.sources: no",
        ),
        (
            "late",
            {"jobDeploymentStatus": "Failed", "jobStatus": "RUNNING", "reason": "DeadlineExceeded", "message": "over"},
            1,
            "DeadlineExceeded",
        ),
        ("ended", {"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, 130, "was stopped"),
    ],
)
def test_a_rayjob_ends_with_its_own_status(shell: Shell, name: str, end: Json, code: int, said: str) -> None:
    script = shell.script("RayJob", f"{name}-data-", STARTING, RUNNING, end)
    exit_code, _, err = shell.run(*job(name))
    script.join(30)
    assert exit_code == code and said in err, err
    assert "Starting" in err
    made = shell.wait_for("RayJob", f"{name}-data-")
    spec = shell.cluster.request("GET", f"{shell.path('RayJob')}/{made}")["spec"]
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["metadata"]
    assert "root: file://" in head["annotations"]["kit19.dev/config"]
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    path = f"/apis/networking.k8s.io/v1/namespaces/{shell.space}/networkpolicies"
    selected = [one["spec"]["podSelector"]["matchLabels"] for one in shell.cluster.request("GET", path)["items"]]
    assert any(labels.items() <= head["labels"].items() for labels in selected)


def test_a_rayjob_in_flight_is_taken_over_and_a_deletion_while_following_is_no_success(shell: Shell) -> None:
    code, first, _ = shell.run(*job("twice"), "--no-wait")
    follower = shell.start(*job("twice"))
    name = shell.wait_for("RayJob", "twice-data-")
    assert code == 0 and first == f"{name}\n"
    shell.write("RayJob", name, RUNNING)
    code, second, _ = shell.run(*job("twice"), "--no-wait", "--new")
    assert code == 0 and second != first
    time.sleep(2)
    shell.cluster.delete("RayJob", shell.space, name)
    out, err = follower.communicate(timeout=60)
    assert (follower.returncode, out) == (1, "") and "is in flight already" in err
    assert f"the cluster does not know {name} any more" in err


def test_the_log_of_a_rayjob_s_pod_is_shown_through_breaks_and_its_last_line_is_the_output(
    shell: Shell, node: Kubelet
) -> None:
    follower = shell.start(*job("told"))
    name = shell.wait_for("RayJob", "told-data-")
    shell.write("RayJob", name, RUNNING)
    node.pod(shell.space, f"{name}-a", {"kit19.dev/job": name})
    node.write(f"{name}-a", "data: reading the sources of 20 tasks\n")
    harness.until(lambda: node.following(f"{name}-a"), 60, "the log is not followed")
    node.cut(f"{name}-a")
    node.write(f"{name}-a", "data: packing\ns3://bucket/runs/data-0123456789ab\n")
    harness.until(lambda: node.following(f"{name}-a"), 60, "the log is not followed again")
    shell.write("RayJob", name, DONE)
    out, err = follower.communicate(timeout=60)
    assert (follower.returncode, out) == (0, "s3://bucket/runs/data-0123456789ab\n"), err
    assert err.count("reading the sources of 20 tasks") == 1 and err.count("data: packing") == 1, err


def test_the_log_of_a_kitrun_is_that_of_its_stages_one_after_another(shell: Shell, node: Kubelet) -> None:
    follower = shell.start(*run("story"))
    shell.wait_for("KitRun", "story")
    shell.write("KitRun", "story", {"phase": "Data", "stage": "data"})
    for stage, line in (("data", "data: packing"), ("train", "train: step 1/2")):
        node.pod(shell.space, f"story-{stage}", naming.pod_labels(RunRef("story", shell.space), stage))
        node.write(f"story-{stage}", f"{line}\n")
        harness.until(lambda pod=f"story-{stage}": node.following(pod), 60, f"the log of {stage} is not followed")
        node.end(f"story-{stage}")
        time.sleep(1.1)  # creation times have seconds
    shell.write("KitRun", "story", {"phase": "Serving", "stage": "serve", "endpoint": "http://story:8000"})
    _, err = follower.communicate(timeout=60)
    assert follower.returncode == 0, err
    assert [line for line in err.splitlines() if line in ("data: packing", "train: step 1/2")] == [
        "data: packing",
        "train: step 1/2",
    ]


def test_someone_who_may_not_read_logs_is_told_once_and_follows_the_status(
    shell: Shell, operated_plane: ControlPlane, tmp_path: Path
) -> None:
    rules = [
        {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["*"]},
        {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["*"]},
    ]
    harness.grant(operated_plane, shell.space, "no-logs", rules)
    shell.use(harness.kubeconfig(operated_plane, tmp_path / "kubeconfig", shell.space, "no-logs"))
    script = shell.script("RayJob", "mute-data-", RUNNING, RUNNING, DONE)
    code, _, err = shell.run(*job("mute"))
    script.join(30)
    assert code == 0 and err.count("the log cannot be read") == 1 and "forbidden" in err, err


def test_status_lists_the_rayjobs_and_kitruns_of_a_namespace(shell: Shell) -> None:
    _, name, _ = shell.run(*job("listed"), "--no-wait")
    shell.write("RayJob", name.strip(), RUNNING)
    rows = {row["id"]: row for row in json.loads(shell.run("status", "--rayjob", "--json")[1])}
    assert rows[name.strip()]["status"] == "RUNNING"
    shell.run(*run("listed-run"), "--no-wait")
    shell.write("KitRun", "listed-run", {"phase": "Training", "stage": "train", "progress": "42%"})
    code, out, _ = shell.run("status", "--kitrun")
    line = next(line for line in out.splitlines() if line.startswith("listed-run"))
    assert code == 0 and line.split()[1:4] == ["Training", "train", "42%"]


def test_stop_deletes_a_rayjob(shell: Shell) -> None:
    _, name, _ = shell.run(*job("halt"), "--no-wait")
    assert shell.run("status", name.strip(), "--rayjob")[1].startswith("id ")
    assert shell.run("stop", name.strip(), "--rayjob")[:2] == (0, "STOPPED\n")
    with pytest.raises(KubeError, match="not found"):
        shell.cluster.request("GET", f"{shell.path('RayJob')}/{name.strip()}")


def run(name: str) -> list[str]:
    return ["submit", "run", "--kitrun", "--image", "kit19-ray/train:test", "--name", name]


@pytest.mark.parametrize(
    ("name", "end", "code", "said"),
    [
        ("serves", {"phase": "Serving", "stage": "serve", "endpoint": "http://serves:8000"}, 0, "http://serves:8000"),
        ("gated", {"phase": "GateFailed", "message": "nsmc acc 0.5 is below 0.7"}, 1, "nsmc acc 0.5 is below 0.7"),
        ("paused", {"phase": "Suspended"}, 130, "was stopped"),
    ],
)
def test_a_kitrun_ends_with_its_phase(shell: Shell, name: str, end: Json, code: int, said: str) -> None:
    working = {"phase": "Training", "stage": "train", "progress": "42%", "eta": "3h12m"}
    script = shell.script("KitRun", name, working, end)
    exit_code, _, err = shell.run(*run(name))
    script.join(30)
    assert exit_code == code and said in err, err
    assert "Training, train, 42%, 3h12m left" in err


def test_stop_suspends_a_kitrun_and_submit_goes_on(shell: Shell) -> None:
    assert shell.run(*run("again"), "--no-wait")[:2] == (0, "again\n")
    stop = shell.start("stop", "again", "--kitrun")
    path = f"{shell.path('KitRun')}/again"
    harness.until(lambda: shell.cluster.request("GET", path)["spec"].get("suspend"), 60, "it is not suspended")
    shell.write("KitRun", "again", {"phase": "Suspended"})
    assert stop.communicate(timeout=60)[0] == "STOPPED\n"
    assert shell.run(*run("again"), "--no-wait")[0] == 0
    assert shell.cluster.request("GET", path)["spec"]["suspend"] is False


def test_user_mistakes_create_nothing(shell: Shell, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("images: {train: a}\nstages: {data: {cpus: 3}}\nqueu: {}\n")
    both = tmp_path / "both.yaml"
    both.write_text("images: {train: a}\nconfig: {}\n")
    secret = tmp_path / "secret.yaml"
    secret.write_text("images: {train: a}\nstages: {data: {env: [{name: X, value: hf_abcdefghijklmnopqrstuvwx}]}}\n")
    for words, said in [
        ([*job("no")[:3], "--name", "no"], "images.train"),
        ([*job("no"), "--spec", str(spec)], "2 mistakes"),
        ([*job("no"), "--spec", str(both)], "`config` is what --config is for"),
        ([*job("no"), "--spec", str(secret)], "a Hugging Face token"),
        ([*job("no"), "--spec", "nowhere.yaml"], "--spec nowhere.yaml: no such file"),
        ([*job("no"), "--env", "HOME"], "--env: pods take variables from the cluster"),
        ([*job("no"), "--kitrun"], "exclude one another"),
        (["submit", "serve", "--rayjob", "--image", "a", "--name", "no"], "not one of data, train, evaluate"),
        (["submit", "data", "--kitrun", "--image", "a"], "submit 'data': not one of run"),
        ([*run("no"), "--new"], "a KitRun is one thing with a name"),
        (["status", "no", "--kitrun"], "no: no such KitRun"),
        (["status", "--rayjob", "--follow"], "--follow: the id of a job is needed"),
        (["submit", "data"], "--spec, --image and --namespace are for --rayjob and --kitrun"),
    ]:
        code, out, err = shell.run(*words)
        assert (code, out) == (2, "") and said in err and "Traceback" not in err, err
    names = [item["metadata"]["name"] for item in shell.cluster.request("GET", shell.path("RayJob"))["items"]]
    assert not [name for name in names if name.startswith("no-")]
