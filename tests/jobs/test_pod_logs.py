"""Logs of real pods through a real API server, from a kubelet that breaks connections."""

from __future__ import annotations

import threading
import time

import pytest

from kit19_ray.jobs.pod_logs import PodLogs
from kit19_ray.operate.kube_client import Cluster, KubeError
from tests.operate import harness
from tests.operate.kubelet import Kubelet

pytestmark = pytest.mark.kube
JOB = {"kit19.dev/job": "nightly-data-1"}


class Reader(threading.Thread):
    """Tails until the stream ends, and keeps what came."""

    def __init__(self, logs: PodLogs) -> None:
        super().__init__(daemon=True)
        self.logs, self.text, self.error = logs, "", ""
        self.start()

    def run(self) -> None:
        try:
            self.logs.tail(self._take)
        except KubeError as error:
            self.error = str(error)

    def _take(self, text: str) -> None:
        self.text += text

    def wait_for(self, text: str) -> None:
        harness.until(lambda: self.text == text, 30, f"it has {self.text!r}, not {text!r}")


def test_a_log_is_followed_as_it_is_written(node: Kubelet, admin: Cluster, place: str) -> None:
    node.pod(place, "nightly-a", JOB)
    node.write("nightly-a", "하나\n")
    reader = Reader(PodLogs(admin, place, "kit19.dev/job=nightly-data-1"))
    reader.wait_for("하나\n")
    node.write("nightly-a", "둘\n")
    reader.wait_for("하나\n둘\n")
    node.end("nightly-a")
    reader.join(30)
    assert not reader.is_alive() and not reader.error


def test_after_a_break_everything_comes_again_from_the_beginning_once(
    node: Kubelet, admin: Cluster, place: str
) -> None:
    logs = PodLogs(admin, place, "kit19.dev/job=nightly-data-1")
    node.pod(place, "nightly-a", JOB)
    node.write("nightly-a", "one\n")
    first = Reader(logs)
    first.wait_for("one\n")
    node.cut("nightly-a")
    first.join(30)
    node.write("nightly-a", "two\n")
    second = Reader(logs)
    second.wait_for("one\ntwo\n")
    node.end("nightly-a")
    second.join(30)
    assert logs.read() == "one\ntwo\n" and first.text == "one\n"


def test_a_pod_that_is_gone_keeps_its_place_before_its_successor(node: Kubelet, admin: Cluster, place: str) -> None:
    logs = PodLogs(admin, place, "kit19.dev/job=nightly-data-1")
    node.pod(place, "nightly-a", JOB)
    node.write("nightly-a", "first try\n")
    node.end("nightly-a")
    assert logs.read() == "first try\n"
    path = f"/api/v1/namespaces/{place}/pods/nightly-a"
    admin.request("DELETE", path, query={"gracePeriodSeconds": "0"})
    time.sleep(1.1)  # creation times have seconds
    node.pod(place, "nightly-b", JOB)
    assert logs.read() == "first try\n"  # the second waits to start
    node.write("nightly-b", "second try\n")
    assert logs.read() == "first try\nsecond try\n"


def test_other_pods_are_left_alone_and_what_is_refused_is_said(node: Kubelet, admin: Cluster, place: str) -> None:
    node.pod(place, "stranger", {"kit19.dev/job": "another"})
    node.write("stranger", "nothing of ours\n")
    assert PodLogs(admin, place, "kit19.dev/job=nightly-data-1").read() == ""
    with pytest.raises(KubeError, match="expected"):
        PodLogs(admin, place, "kit19.dev/job=not a label").read()
