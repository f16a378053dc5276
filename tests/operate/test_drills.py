"""What may go wrong while runs are under way.

`KIT19_DRILLS=docs/explanation/drills.md pytest tests/operate -k drill` writes the table of outcomes from the run."""

from __future__ import annotations

import copy
import json
import threading
import time
from pathlib import Path

import pytest

from kit19_ray.operate.api.spec import STAGES
from kit19_ray.operate.kube_client import KubeError
from tests import drill_tables
from tests.operate.control_plane import ControlPlane
from tests.operate.drills import Drill, stage_jobs
from tests.operate.harness import OperatorProcess, create, gated, kitrun, phase, until, write_scores
from tests.operate.kuberay import COMPLETE, INITIALIZING, LOST, RUNNING, job_status
from tests.operate.proxy import Proxy

pytestmark = [
    pytest.mark.kube,
    # The test's own connections, when the API server is killed under them.
    pytest.mark.filterwarnings("ignore:Exception ignored in.*SSLSocket:pytest.PytestUnraisableExceptionWarning"),
]


def test_the_operator_is_killed_at_every_phase(drill: Drill, operator: OperatorProcess) -> None:
    drill.script.held = set(STAGES)
    drill.script.ready = False
    drill.create()
    operator.kill()  # before or after it saw the run
    for stage in STAGES:
        operator.start()
        drill.runs(stage)
        operator.kill()
        drill.script.held.discard(stage)  # the stage ends while nobody looks
        until(lambda s=stage: any(j["status"].get("jobStatus") == "SUCCEEDED" for j in stage_jobs(drill, s)), 20, stage)
    operator.start()
    drill.reaches("Deploying")
    operator.kill()
    drill.script.ready = True
    operator.start()
    drill.reaches("Serving")
    operator.kill()
    operator.start()
    assert [drill.jobs(stage) for stage in STAGES] == [1, 1, 1] and len(drill.kuberay.services) == 1
    drill.ends(
        "operator killed",
        "SIGKILL before the first look, in Data, Training, Evaluating, Deploying and Serving; each stage ends while no "
        "operator runs",
        "Serving; one RayJob a stage, one RayService",
    )


def test_the_api_server_restarts(drill: Drill, operator: OperatorProcess) -> None:
    if drill.plane.folder is None:
        pytest.skip("the API server of KIT19_TEST_KUBECONFIG is not ours to stop")
    drill.script.held = {"train"}
    drill.create()
    drill.runs("train")
    drill.plane.stop_api_server()
    time.sleep(3)
    drill.plane.start_api_server()
    drill.script.held.clear()

    def serving() -> bool:
        assert operator.process is not None
        if operator.process.poll() is not None:  # away for longer than the lease: the kubelet starts it again
            operator.start()
        return phase(drill.cluster, drill.place, "demo") == "Serving"

    until(serving, 90, lambda: str(drill.status()))
    assert [drill.jobs(stage) for stage in STAGES] == [1, 1, 1]
    drill.ends("API server restarted", "SIGKILL in Training, back after 3 s", "Serving; one RayJob a stage")


def test_the_watch_is_cut(operated_plane: ControlPlane, drill: Drill, tmp_path: Path) -> None:
    server = operated_plane.kubectl("config", "view", "-o", "jsonpath={.clusters[0].cluster.server}").stdout
    proxy = Proxy(int(server.rsplit(":", 1)[1]))
    operator = OperatorProcess(operated_plane, drill.place, tmp_path, server=f"https://127.0.0.1:{proxy.port}").start()
    try:
        drill.script.held = {"train"}
        drill.create()
        drill.runs("train")
        proxy.cut()
        drill.script.held.clear()  # the news comes while nobody can hear it
        until(lambda: any(j["status"].get("jobStatus") == "SUCCEEDED" for j in stage_jobs(drill, "train")), 20, "train")
        time.sleep(1)
        proxy.mend()
        drill.reaches("Serving", seconds=60)
        assert [drill.jobs(stage) for stage in STAGES] == [1, 1, 1]
        drill.ends(
            "watch cut", "every connection cut in Training; the job ends meanwhile", "Serving; the news is found"
        )
    finally:
        operator.kill()
        proxy.close()


@pytest.mark.usefixtures("operator")
def test_a_job_fails_once(drill: Drill) -> None:
    drill.script.broken["train"] = 1
    drill.create()
    status = drill.reaches("Serving")
    assert drill.jobs("train") == 2 and status["stages"]["train"]["failures"] == 1
    drill.ends("RayJob fails once", "the first train job ends in FAILED", "Serving after a second RayJob")


@pytest.mark.usefixtures("operator")
def test_a_job_fails_for_ever(drill: Drill) -> None:
    drill.script.broken["train"] = 99
    drill.create()
    status = drill.reaches("Failed")
    assert drill.jobs("train") == 2 and drill.jobs("evaluate") == 0 and not drill.kuberay.services
    assert status["message"] == "the driver died"
    drill.ends("RayJob fails for ever", "every train job ends in FAILED", "Failed after retries.rebuilds + 1 RayJobs")


@pytest.mark.usefixtures("operator")
def test_a_job_is_stuck_initializing(drill: Drill) -> None:
    drill.script.way["data"] = (INITIALIZING,)
    drill.create(deadlines={"start": 2})
    status = drill.reaches("Failed")
    assert drill.jobs("data") == 2 and "did not run within 2 seconds (Initializing)" in status["message"]
    drill.ends("RayJob stuck", "the data job stays Initializing", "Failed by deadlines.start, after a second RayJob")


@pytest.mark.usefixtures("operator")
def test_the_head_is_lost(drill: Drill) -> None:
    drill.script.way["evaluate"] = (INITIALIZING, RUNNING, LOST)
    drill.create()
    until(lambda: drill.status().get("stages", {}).get("evaluate", {}).get("failures"), 40, lambda: str(drill.status()))
    drill.script.way["evaluate"] = (INITIALIZING, RUNNING, COMPLETE)
    drill.reaches("Serving")
    assert drill.jobs("evaluate") == 2
    drill.ends(
        "head lost", "KubeRay gives the job up: Failed, jobStatus still RUNNING", "Serving after a second RayJob"
    )


@pytest.mark.usefixtures("operator")
def test_the_status_is_fought_over(drill: Drill) -> None:
    stop = threading.Event()

    def disturb() -> None:
        number = 0
        path = f"/apis/kit19.dev/v1alpha1/namespaces/{drill.place}/kitruns/demo"
        while not stop.wait(0.01):
            number += 1
            patch = {"metadata": {"annotations": {"disturbed": str(number)}}}
            try:
                drill.cluster.request("PATCH", path, patch, "application/merge-patch+json")
            except KubeError as error:
                if error.status != 404:
                    raise

    disturber = threading.Thread(target=disturb)
    disturber.start()
    try:
        drill.create()
        drill.reaches("Serving", seconds=60)
    finally:
        stop.set()
        disturber.join()
    assert [drill.jobs(stage) for stage in STAGES] == [1, 1, 1]
    drill.ends("status conflict", "another writer changes the KitRun 100 times a second", "Serving; one RayJob a stage")


@pytest.mark.usefixtures("operator")
def test_a_run_is_deleted_at_every_phase(drill: Drill) -> None:
    for stage in STAGES:
        drill.script.held.add(f"at-{stage}/{stage}")
        drill.create(f"at-{stage}")
    drill.create("at-queue", queue={"kueue": "team"}, suspend=True)
    drill.create("at-serving")
    for stage in STAGES:
        drill.runs(stage, f"at-{stage}")
    drill.reaches("Serving", "at-serving")
    drill.reaches("Suspended", "at-queue")
    assert (drill.root / "evaluate-1" / "scores.json").is_file()
    drill.ends(
        "KitRun deleted",
        "in Suspended, Data, Training, Evaluating and Serving",
        "gone with every child; the scores stay",
    )
    assert (drill.root / "evaluate-1" / "scores.json").is_file()


@pytest.mark.usefixtures("operator")
def test_the_spec_changes_in_mid_run(drill: Drill) -> None:
    drill.script.held = {"train"}
    drill.create()
    drill.runs("train")
    first = stage_jobs(drill, "train")[0]["metadata"]["name"]
    config = gated(drill.root)["config"]
    drill.create(config=config | {"train": {"epochs": 1}})
    until(lambda: [j["metadata"]["name"] for j in stage_jobs(drill, "train")] not in ([first], []), 40, "no new job")
    drill.script.held.clear()
    drill.reaches("Serving")
    assert [drill.jobs(stage) for stage in STAGES] == [1, 2, 1]
    drill.create(config=config | {"train": {"epochs": 1}, "evaluate": config["evaluate"] | {"num_fewshot": [5]}})
    until(lambda: drill.jobs("evaluate") == 2, 40, lambda: str(drill.status()))
    drill.reaches("Serving")
    assert [drill.jobs(stage) for stage in STAGES] == [1, 2, 2] and len(drill.kuberay.services) == 1
    drill.ends(
        "spec changed",
        "train.epochs in Training, then evaluate.num_fewshot in Serving",
        "only train, then only evaluate runs again; the served model answers on",
    )


@pytest.mark.usefixtures("operator")
def test_suspended_and_resumed(drill: Drill) -> None:
    drill.script.held = {"train"}
    drill.create()
    drill.runs("train")
    drill.create(suspend=True)
    drill.reaches("Suspended")
    until(lambda: stage_jobs(drill, "train") == [], 30, "the train job is not gone")
    drill.script.held.clear()
    drill.create()
    drill.reaches("Serving")
    assert [drill.jobs(stage) for stage in STAGES] == [1, 2, 1]
    drill.ends("suspended", "spec.suspend in Training, later taken back", "no pod meanwhile, then Serving")


@pytest.mark.usefixtures("operator")
def test_a_failed_gate(drill: Drill) -> None:
    drill.script.done = write_scores(drill.root, 0.25)
    drill.create()
    status = drill.reaches("GateFailed")
    assert status["message"] == "kobest_copa acc is 0.2500, the gate asks for 0.5" and not drill.kuberay.services
    drill.ends("gate not passed", "the scores are below the gate", "GateFailed; no RayService ever")


@pytest.mark.usefixtures("operator")
def test_a_hundred_runs_at_once(drill: Drill) -> None:
    number = 100
    config = {"root": f"file://{drill.root}", "train": {"data": f"file://{drill.root}/data-1"}}
    spec = {"config": config, "skip": ["data", "evaluate"]}
    create(drill.plane, *(kitrun(f"run-{n:03}", drill.place, **spec) for n in range(number)))

    def serving() -> bool:
        listed = drill.cluster.request("GET", f"/apis/kit19.dev/v1alpha1/namespaces/{drill.place}/kitruns")["items"]
        return sum((one.get("status") or {}).get("phase") == "Serving" for one in listed) == number

    until(serving, 400, "not all serve")
    assert [drill.jobs(stage) for stage in STAGES] == [0, number, 0] and len(drill.kuberay.services) == number
    drill.ends(
        "100 KitRuns at once", "train and serve, by one `kubectl apply`", "Serving; 100 RayJobs, 100 RayServices"
    )


def test_another_operator_takes_over(operated_plane: ControlPlane, drill: Drill, tmp_path: Path) -> None:
    first = OperatorProcess(operated_plane, drill.place, tmp_path, identity="first").start()
    second = OperatorProcess(operated_plane, drill.place, tmp_path, identity="second")
    try:
        until(first.leads, 60, "the first does not lead")
        second.start()
        until(second.healthy, 60, "the second does not stand by")
        drill.script.held = {"data"}
        drill.create()
        drill.runs("data")
        assert not second.leads() and first.readiness() == (200, "leads\n")
        assert second.readiness() == (200, "stands by: first holds the lease kit19-operator\n")
        assert "kit19_operator_standby 1.0" in second.scrape()
        assert first.stop() == 0
        until(second.leads, 10, "the second does not lead")
        drill.script.held.clear()
        drill.reaches("Serving")
        assert [drill.jobs(stage) for stage in STAGES] == [1, 1, 1]
        drill.ends(
            "handover", "SIGTERM to the operator in Data, another stands by", "the other goes on at once: Serving"
        )
    finally:
        first.kill()
        second.kill()


def test_a_namespace_goes_with_its_operator(drill: Drill, operator: OperatorProcess) -> None:
    """B3: nothing waits for an operator that is gone."""
    drill.script.held = {"train"}
    drill.create()
    drill.runs("train")
    operator.kill()
    drill.plane.kubectl("delete", "namespace", drill.place, "--wait=false")
    path = f"/api/v1/namespaces/{drill.place}"

    def gone() -> bool:
        return drill.plane.kubectl("get", "--raw", path, check=False).returncode != 0

    until(gone, 120, lambda: drill.plane.kubectl("get", "--raw", path, check=False).stdout)
    seconds = time.monotonic() - drill.begun
    done, outcome = "in Training, the operator killed first", "gone, KitRun and all"
    drill_tables.record("The operator", "namespace deleted", done, outcome, seconds)


@pytest.mark.usefixtures("operator")
def test_the_submitter_s_word_is_not_ray_s(drill: Drill) -> None:
    """B1: KubeRay says Running, Ray has no job."""
    drill.script.way["data"] = (INITIALIZING, ("Running", ""))
    drill.create(deadlines={"start": 6})
    status = drill.reaches("Failed", seconds=90)
    assert "did not run within 6 seconds (Submitting)" in status["message"]
    drill.ends("job never submitted", "KubeRay says Running, jobStatus stays empty", "Failed by deadlines.start")


@pytest.mark.usefixtures("operator")
def test_the_server_fails_behind_a_ready_service(drill: Drill) -> None:
    """D1: KubeRay's Ready condition holds while the application has failed."""
    drill.script.application = "DEPLOY_FAILED"
    drill.create()
    status = drill.reaches("Failed")
    assert "DEPLOY_FAILED" in status["message"]
    drill.script.application = "RUNNING"
    drill.reaches("Serving")
    drill.ends("DEPLOY_FAILED", "Ready is True, the application failed, then runs", "Failed, then Serving")


@pytest.mark.usefixtures("operator")
def test_kueue_takes_a_job_back(drill: Drill) -> None:
    """D4: suspended in mid run, resumed later."""
    drill.script.way["train"] = (
        INITIALIZING,
        RUNNING,
        ("Suspended", ""),
        ("Suspended", ""),
        INITIALIZING,
        RUNNING,
        COMPLETE,
    )
    drill.script.held = {"train"}
    drill.create(queue={"kueue": "team"})
    until(
        lambda: drill.status().get("stages", {}).get("train", {}).get("ranSeconds") is not None,
        40,
        lambda: str(drill.status()),
    )
    drill.script.held.clear()
    drill.reaches("Serving")
    assert drill.jobs("train") == 1
    drill.ends("preempted", "Kueue suspends the train job and lets it go on", "Serving with the same RayJob")


@pytest.mark.usefixtures("operator")
def test_a_quota_keeps_a_job_out(drill: Drill) -> None:
    """B1b."""
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none", "namespace": drill.place},
        "spec": {"hard": {"count/rayjobs.ray.io": "0"}},
    }
    create(drill.plane, quota)
    until(
        lambda: drill.plane.kubectl("get", "quota", "none", "-n", drill.place, "-o", "jsonpath={.status.hard}").stdout,
        30,
        "quota",
    )
    drill.create()
    until(lambda: "exceeded quota" in str(drill.status().get("message")), 40, lambda: str(drill.status()))
    assert drill.jobs("data") == 0
    drill.plane.kubectl("delete", "quota", "none", "-n", drill.place)
    drill.reaches("Serving")
    drill.ends("quota", "no RayJob is allowed, later one is", "the message says so; then Serving by itself")


@pytest.mark.usefixtures("operator")
def test_the_keys_of_a_server_stay(drill: Drill) -> None:
    """They are made once and survive every change of the run."""
    drill.create()
    status = drill.reaches("Serving")
    path = f"/api/v1/namespaces/{drill.place}/secrets/{status['keysSecret']}"
    first = drill.cluster.request("GET", path)
    assert set(first["data"]) == {"api-keys", "key"} and first["metadata"]["ownerReferences"][0]["kind"] == "KitRun"
    (service,) = drill.kuberay.items("rayservices")
    assert first["data"]["key"] not in json.dumps([drill.cluster.run(drill.place, "demo"), service])
    drill.create(images={"train": "kit19:2"})
    until(
        lambda: drill.kuberay.items("rayservices")[0]["metadata"]["generation"] > service["metadata"]["generation"],
        40,
        lambda: str(drill.status()),
    )
    drill.create(suspend=True, images={"train": "kit19:2"})
    drill.reaches("Suspended")
    drill.create(images={"train": "kit19:2"})
    drill.reaches("Serving")
    assert drill.cluster.request("GET", path)["data"] == first["data"]
    drill.ends(
        "server's keys",
        "the server is changed, suspended, resumed",
        "the same keys; gone with the KitRun",
    )


def test_two_releases_watch_one_namespace(operated_plane: ControlPlane, drill: Drill, tmp_path: Path) -> None:
    first = OperatorProcess(operated_plane, drill.place, tmp_path, identity="first").start()
    second = OperatorProcess(operated_plane, drill.place, tmp_path, identity="second")
    second.lease = "another-release"
    try:
        until(first.leads, 60, "the first does not lead")
        drill.script.held = {"data"}
        drill.create()
        drill.runs("data")
        second.start()
        until(second.leads, 60, "the second does not lead")
        contested = f'kit19_operator_contested{{namespace="{drill.place}"}} 1.0'
        until(lambda: contested in second.scrape(), 20, second.scrape)
        drill.script.held.clear()
        drill.reaches("Serving")
        words = ("get", "events", "-n", drill.place, "-o", "jsonpath={.items[*].reason}")
        assert "TwoOperators" in drill.plane.kubectl(*words).stdout
        assert [drill.jobs(stage) for stage in STAGES] == [1, 1, 1] and contested not in first.scrape()
        assert "works here already; its KitRuns are left alone" in second.log.read_text()
        drill.ends(
            "two releases",
            "another release watches the namespace too",
            "the second leaves the KitRun alone and says so; Serving, one RayJob a stage",
        )
    finally:
        first.kill()
        second.kill()


@pytest.mark.usefixtures("operator")
def test_gpu_workers_join_later_than_the_head(drill: Drill) -> None:
    """A1: KubeRay has the application built when the head is there and says Ready of its proxy; workers come later."""
    drill.script.application = "DEPLOYING"
    drill.create(stages={"serve": {"gpus": 1}})
    status = drill.reaches("Deploying", seconds=90)
    until(lambda: "DEPLOYING" in str(drill.status().get("message")), 20, lambda: str(drill.status()))
    assert "endpoint" not in status
    drill.script.application = "RUNNING"
    assert drill.reaches("Serving")["endpoint"]
    drill.ends("GPU workers come late", "Ready is True, the application waits for its GPUs", "Deploying, then Serving")


@pytest.mark.usefixtures("operator")
def test_a_cut_stream_does_not_use_up_the_rebuilds(drill: Drill) -> None:
    """B2: KubeRay loses sight of a job that gets on."""
    drill.script.held = {"train"}
    drill.create(retries={"rebuilds": 0, "backoffSeconds": 0.5})
    out = drill.root / "train-1"
    out.mkdir()
    for number in (1, 2):
        drill.runs("train")
        (job,) = stage_jobs(drill, "train")
        head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
        pointer = Path(next(v["value"] for v in head["env"] if v["name"] == "KIT19_POINTER").removeprefix("file://"))
        (out / "metrics.jsonl").write_text(json.dumps({"step": 10 * number, "steps": 40, "loss": 2.0}) + "\n")
        pointer.write_text(json.dumps({"stage": "train", "uri": f"file://{out}", "finished": False}))
        until(lambda n=number: drill.status()["stages"]["train"].get("step") == 10 * n, 40, lambda: str(drill.status()))
        lost = job_status(LOST) | {"reason": "SubmissionFailed", "message": "the log stream was cut"}
        drill.kuberay.write("rayjobs", job, lost)
        until(lambda n=number: drill.jobs("train") == n + 1, 40, lambda: str(drill.status()))
    drill.script.held.clear()
    status = drill.reaches("Serving")
    assert status["stages"]["train"]["failures"] == 0 and drill.jobs("train") == 3
    drill.ends(
        "log stream cut",
        "KubeRay gives a train job up twice (SubmissionFailed) while it gets on; retries.rebuilds is 0",
        "neither counts: Serving with the third RayJob",
    )


@pytest.mark.usefixtures("operator")
def test_an_older_kuberay_lacks_a_field(drill: Drill) -> None:
    """C2, B1b: what protects the run is refused with the version it needs, not dropped."""
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/rayjobs.ray.io"
    newer = drill.cluster.request("GET", path)["spec"]
    older = copy.deepcopy(newer)
    for version in older["versions"]:
        spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        del spec["rayClusterSpec"]["properties"]["authOptions"]
    try:
        drill.cluster.request("PATCH", path, {"spec": older}, "application/merge-patch+json")
        time.sleep(3)  # until the server has the new schema
        drill.create()
        status = drill.reaches("Failed")
        assert "its KubeRay is too old; upgrade it (auth: token needs KubeRay 1.5.1)" in status["message"]
        assert drill.jobs("data") == 0
        drill.create(auth="none")
        drill.reaches("Serving")
    finally:
        drill.cluster.request("PATCH", path, {"spec": newer}, "application/merge-patch+json")
    drill.ends(
        "KubeRay too old",
        "the RayJob kind has no authOptions; later auth: none",
        "Failed with the version it needs, no RayJob; then Serving",
    )
