"""A stand-in for KubeRay's operator: it watches RayJobs and RayServices and writes status as KubeRay does.

`Scripted` only writes statuses, as a test tells it. `Running` (in `realray.py`) runs the entrypoints.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from kit19_ray.operate.kube_client import Cluster, KubeError
from kit19_ray.operate.manifests.naming import STAGE_LABEL

Json = dict[str, Any]
State = tuple[str, str]

INITIALIZING: State = ("Initializing", "")
RUNNING: State = ("Running", "RUNNING")
COMPLETE: State = ("Complete", "SUCCEEDED")
FAILED: State = ("Failed", "FAILED")
LOST: State = ("Failed", "RUNNING")
WAY: tuple[State, ...] = (INITIALIZING, RUNNING, COMPLETE)
_POLL_SECONDS = 0.1


@dataclass
class Script:
    """What happens to the jobs of a namespace.

    Attributes:
        way: by stage, the states a job goes through; the last one stays.
        broken: by stage, how many jobs end in FAILED first.
        message: of a FAILED state.
        held: stages, or `run/stage`, whose jobs stay where they are before COMPLETE, until taken out.
    """

    way: dict[str, tuple[State, ...]] = field(default_factory=dict)
    broken: Counter[str] = field(default_factory=Counter)
    message: str = "the driver died"
    held: set[str] = field(default_factory=set)
    ready: bool = True
    """Whether a RayService answers at once."""
    application: str = "RUNNING"
    """What Ray Serve says of the application of a RayService that answers."""
    done: Callable[[Json], None] | None = None
    """Called with a RayJob before it is COMPLETE."""


class Scripted:
    """The stand-in for one namespace.

    Attributes:
        seen: every RayJob ever seen, uid -> (stage, name).
        together: by stage, the most RayJobs that were ever seen at once.
    """

    def __init__(self, cluster: Cluster, namespace: str, script: Script | None = None) -> None:
        self._cluster, self._namespace = cluster, namespace
        self.script = script or Script()
        self.seen: dict[str, tuple[str, str]] = {}
        self.together: Counter[tuple[str, str]] = Counter()
        self.services: dict[str, str] = {}
        self._place: dict[str, int] = {}
        self._fate: dict[str, tuple[State, ...]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.error: Exception | None = None

    def __enter__(self) -> Scripted:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=20)
        if self.error is not None:
            raise self.error

    def items(self, plural: str) -> list[Json]:
        """The RayJobs or RayServices there are."""
        found: list[Json] = self._cluster.request("GET", f"/apis/ray.io/v1/namespaces/{self._namespace}/{plural}")[
            "items"
        ]
        return found

    def write(self, plural: str, item: Json, status: Json) -> None:
        """Writes a status as KubeRay does; an object that is gone meanwhile is none of its business."""
        path = f"/apis/ray.io/v1/namespaces/{self._namespace}/{plural}/{item['metadata']['name']}/status"
        try:
            self._cluster.request("PATCH", path, {"status": status}, "application/merge-patch+json")
        except KubeError as error:
            if error.status != 404:
                raise

    def _work(self) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            try:
                self.step()
            except KubeError as error:
                if error.status != 0 and error.status < 500 and error.status not in (401, 403, 404):
                    self.error = error
                    return
            except Exception as error:  # noqa: BLE001 - handed to the test's own thread
                self.error = error
                return

    def step(self) -> None:
        """One look at everything."""
        jobs = self.items("rayjobs")
        owners = Counter(
            (job["metadata"]["ownerReferences"][0]["name"], job["metadata"]["labels"][STAGE_LABEL]) for job in jobs
        )
        for key, number in owners.items():
            self.together[key] = max(self.together[key], number)
        for job in jobs:
            if "deletionTimestamp" not in job["metadata"]:
                self._job(job)
        for service in self.items("rayservices"):
            self.services[service["metadata"]["uid"]] = service["metadata"]["name"]
            self._service(service)

    def _job(self, job: Json) -> None:
        uid, stage = job["metadata"]["uid"], job["metadata"]["labels"][STAGE_LABEL]
        if uid not in self.seen:
            self.seen[uid] = (stage, job["metadata"]["name"])
            way = self.script.way.get(stage, WAY)
            if self.script.broken[stage] > 0:
                self.script.broken[stage] -= 1
                way = (*way[:-1], FAILED)
            self._fate[uid] = way
            self._place[uid] = 0
        way, place = self._fate[uid], self._place[uid]
        owner = job["metadata"]["ownerReferences"][0]["name"]
        held = stage in self.script.held or f"{owner}/{stage}" in self.script.held
        if place >= len(way) or (held and way[place] == COMPLETE):
            return
        self._place[uid] += 1
        if way[place] == COMPLETE and self.script.done is not None:
            self.script.done(job)
        self.write("rayjobs", job, job_status(way[place], self.script.message))

    def _service(self, service: Json) -> None:
        if "deletionTimestamp" in service["metadata"]:
            return
        wanted = service_status(service, self.script.ready, self.script.application)

        def seen(status: Json) -> tuple[Any, ...]:
            conditions = [c["status"] for c in status.get("conditions", [])]
            return status.get("observedGeneration"), conditions, status.get("activeServiceStatus")

        if seen(service.get("status") or {}) != seen(wanted):
            self.write("rayservices", service, wanted)


def job_status(state: State, message: str = "") -> Json:
    """A RayJob's status."""
    status: Json = {"jobDeploymentStatus": state[0]} | ({"jobStatus": state[1]} if state[1] else {})
    if state[0] == "Failed":
        lost = state == LOST
        status |= {
            "message": "the head is gone" if lost else message,
            "reason": "JobStatusCheckTimeoutExceeded" if lost else "AppFailed",
        }
    return status


def service_status(service: Json, ready: bool, application: str = "RUNNING") -> Json:
    """A RayService's status. As KubeRay's own does, Ready counts endpoints, whatever the application says."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    word = "True" if ready else "False"
    number = service["metadata"]["generation"]
    condition = {
        "type": "Ready",
        "status": word,
        "reason": "NonZeroServeEndpoints" if ready else "ZeroServeEndpoints",
        "message": "serving" if ready else "no Serve endpoint",
        "lastTransitionTime": now,
    }
    return {
        "observedGeneration": service["metadata"]["generation"],
        **({"serviceStatus": "Running"} if ready else {}),
        "activeServiceStatus": {
            "rayClusterName": f"{service['metadata']['name']}-{number}",
            "applicationStatuses": {"kit19": {"status": application if ready else "DEPLOYING"}},
        },
        "conditions": [condition],
    }
