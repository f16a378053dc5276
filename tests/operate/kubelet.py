"""A node for the API server to ask for container logs: its Node object and the HTTPS endpoint of a kubelet."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from kit19_ray.operate.kube_client import Cluster, KubeError
from kit19_ray.operate.manifests.ray_cluster import LOG_CONTAINER
from tests.operate import harness

Json = dict[str, Any]
END, CUT = object(), object()


class Kubelet:
    """Answers /containerLogs/<namespace>/<pod>/<container> with what a test says is in the log."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._cluster, self.name = cluster, name
        self._written: dict[str, bytes] = {}
        self._open: dict[str, list[queue.SimpleQueue[Any]]] = {}
        self._ended: set[str] = set()
        self._lock = threading.Lock()

    def write(self, pod: str, text: str) -> None:
        """The container writes `text`."""
        with self._lock:
            self._written[pod] = self._written.get(pod, b"") + text.encode()
            for stream in self._open.get(pod, []):
                stream.put(text.encode())

    def following(self, pod: str) -> bool:
        """Whether someone follows the log now."""
        with self._lock:
            return bool(self._open.get(pod))

    def cut(self, pod: str) -> None:
        """Every connection that follows the log breaks."""
        with self._lock:
            for stream in self._open.pop(pod, []):
                stream.put(CUT)

    def end(self, pod: str) -> None:
        """The container ends."""
        with self._lock:
            self._ended.add(pod)
            for stream in self._open.pop(pod, []):
                stream.put(END)

    def pod(self, namespace: str, name: str, labels: Json) -> None:
        """Creates a pod of this node with a container of the name that has the driver's log."""
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {
                "nodeName": self.name,
                "automountServiceAccountToken": False,
                "containers": [{"name": LOG_CONTAINER, "image": "kit19-ray/train:test"}],
            },
        }

        def created() -> bool:
            try:
                self._cluster.request("POST", f"/api/v1/namespaces/{namespace}/pods", body)
            except KubeError as error:
                if "serviceaccount" not in error.message:
                    raise
                return False  # a new namespace gets its own in a moment
            return True

        harness.until(created, 60, f"no pod {name}")

    @Request.application
    def __call__(self, request: Request) -> Response:
        pod = request.path.split("/")[3]
        with self._lock:
            if pod not in self._written:
                return Response(f"container {LOG_CONTAINER} in pod {pod} is waiting to start: ContainerCreating", 400)
            written = self._written[pod]
            if request.args.get("follow") != "true" or pod in self._ended:
                return Response(written)
            stream: queue.SimpleQueue[Any] = queue.SimpleQueue()
            self._open.setdefault(pod, []).append(stream)

        def body() -> Iterator[bytes]:
            yield written
            while (piece := stream.get()) is not END:
                if piece is CUT:
                    raise ConnectionAbortedError("cut")
                yield piece

        return Response(body())


@contextmanager
def running(cluster: Cluster, name: str) -> Iterator[Kubelet]:
    """A kubelet on loopback and its Node."""
    kubelet = Kubelet(cluster, name)
    served = make_server("127.0.0.1", 0, kubelet, threaded=True, ssl_context="adhoc")
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    cluster.request("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": served.server_port}},
    }
    cluster.request("PATCH", f"/api/v1/nodes/{name}/status", {"status": status}, "application/merge-patch+json")
    try:
        yield kubelet
    finally:
        cluster.request("DELETE", f"/api/v1/nodes/{name}")
        served.shutdown()
        thread.join()
        served.server_close()
