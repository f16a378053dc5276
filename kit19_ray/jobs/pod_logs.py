"""The log of the drivers of a job's pods, one after another, as one text that only grows."""

from __future__ import annotations

import codecs
import threading
from collections.abc import Callable

from kit19_ray.operate.kube_client import Cluster, KubeError
from kit19_ray.operate.manifests.ray_cluster import LOG_CONTAINER
from kit19_ray.utils.json_types import Json


class PodLogs:
    """The drivers' logs of a RayJob, or of all the RayJobs of a KitRun.

        pod A   |################|                     what was read of a pod is kept: the pod may be
        pod B                     |###########|        deleted, another take its place
        text     ################ ###########

    Args:
        selector: labels of the pods.
    """

    def __init__(self, cluster: Cluster, namespace: str, selector: str) -> None:
        self._cluster, self._selector = cluster, selector
        self._folder = f"/api/v1/namespaces/{namespace}/pods"
        self._texts: dict[str, str] = {}  # by pod UID, in the order of the text
        self._lock = threading.Lock()  # a stream that hangs and the one opened instead of it

    def tail(self, emit: Callable[[str], None]) -> None:
        """Gives `emit` the text from its first character on, and what comes, until the newest pod's log ends.

        Raises:
            ApiError: the API server refuses, or the connection breaks.
        """
        self._each(emit, follow=True)

    def read(self) -> str:
        """The whole text so far.

        Raises:
            ApiError: see `tail`.
        """
        parts: list[str] = []
        self._each(parts.append, follow=False)
        return "".join(parts)

    def _each(self, emit: Callable[[str], None], follow: bool) -> None:
        with self._lock:
            known = dict(self._texts)
        emit("".join(known.values()))
        for pod in self._pods():
            uid, name = pod["metadata"]["uid"], pod["metadata"]["name"]
            if not self._one(uid, name, len(known.get(uid, "")), emit, follow):
                return

    def _pods(self) -> list[Json]:
        found = self._cluster.request("GET", self._folder, query={"labelSelector": self._selector})["items"]
        heads = [p for p in found if any(c["name"] == LOG_CONTAINER for c in p["spec"]["containers"])]
        return sorted(heads, key=lambda p: (p["metadata"]["creationTimestamp"], p["metadata"]["name"]))

    def _one(self, uid: str, name: str, seen: int, emit: Callable[[str], None], follow: bool) -> bool:
        """Reads a pod's log, of which `emit` has the first `seen` characters; False when there is none yet."""
        query = {"container": LOG_CONTAINER} | ({"follow": "true"} if follow else {})
        decoder, at = codecs.getincrementaldecoder("utf-8")("replace"), 0
        try:
            for chunk in self._cluster.stream(f"{self._folder}/{name}/log", query):
                text = decoder.decode(chunk)
                with self._lock:
                    known = self._texts.get(uid, "")
                    self._texts[uid] = known + text[max(0, len(known) - at) :]
                emit(text[max(0, seen - at) :])
                at += len(text)
        except KubeError as error:
            if error.status == 400:  # the container is waiting to start
                return False
            raise
        return True
