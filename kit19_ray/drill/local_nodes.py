"""Nodes of a Ray cluster on this machine, for the drills that lose one: a head without CPUs, and nodes of one CPU."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kit19_ray.utils import ray_session


class LocalNodes:
    """The cluster; this process is connected to it."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self._nodes: list[Any] = []

    def add(self) -> None:
        """Another node."""
        self._nodes.append(self._cluster.add_node(num_cpus=1))

    def lose(self) -> None:
        """The oldest node is gone at once, as by a power cut."""
        self._cluster.remove_node(self._nodes.pop(0), allow_graceful=False)

    def drain(self, seconds: float) -> None:
        """The oldest node is to go in `seconds`, as a cloud says before it takes one; the caller takes it."""
        import ray
        from ray.core.generated import autoscaler_pb2

        node: Any = self._nodes[0]
        client: Any = ray._raylet.GcsClient(address=self._cluster.address)  # type: ignore[attr-defined]  # Cython
        reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")  # type: ignore[attr-defined]
        client.drain_node(node.node_id, reason, "a drill", int(1000 * (time.time() + seconds)))


@contextmanager
def local_nodes(count: int = 2) -> Iterator[LocalNodes]:
    """The cluster for the block, with `count` nodes beside the head."""
    ray_session.environment()
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        made = LocalNodes(cluster)
        for _ in range(count):
            made.add()
        # Later ones come from a thread, where no signal handler can be set, which is how Ray would end them with this
        # process. They end with the head, or below.
        cluster._shutdown_at_exit = False
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        try:
            yield made
        finally:
            ray.shutdown()
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]
