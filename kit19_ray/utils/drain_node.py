"""The preStop hook of a Ray pod: `python -m kit19_ray.utils.drain_node`.

Kubernetes ends a pod by SIGTERM, and Ray then ends everything on it at once. So the cluster is told first: a worker's
node is drained, with a deadline, which Ray Train and Ray Serve hear of; a head has all the workers' nodes drained, for
its end is theirs. The hook holds the pod until they are gone or the deadline is over; a node with nothing to do goes at
once.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

DEADLINE_SECONDS = 110
_POLL_SECONDS = 1.0


def drain(address: str, own_ip: str, seconds: float = DEADLINE_SECONDS, poll_seconds: float = _POLL_SECONDS) -> int:
    """Asks for the nodes to be drained and waits for them to be gone; returns how many were asked.

    Args:
        address: of the GCS, host:port.
        own_ip: of this pod.
    """
    import ray
    from ray.core.generated import autoscaler_pb2

    client: Any = ray._raylet.GcsClient(address=address)  # type: ignore[attr-defined]  # Cython
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")  # type: ignore[attr-defined]  # protobuf
    alive = _alive(client)
    head = {node for node, (_, is_head) in alive.items() if is_head}
    own = {node for node, (ip, _) in alive.items() if ip == own_ip}
    going = set(alive) - head if own & head else own
    limit = time.time() + seconds
    for node in going:
        client.drain_node(node.hex(), reason, "its pod is being ended", int(limit * 1000))
    while going & set(_alive(client)) and time.time() < limit:
        time.sleep(poll_seconds)
    return len(going)


def _alive(client: Any) -> dict[bytes, tuple[str, bool]]:
    """IP and whether it is the head, by id of each node that is alive."""
    from ray.core.generated import gcs_pb2

    found = {}
    for node_id, info in client.get_all_node_info(timeout=10).items():
        if info.state == gcs_pb2.GcsNodeInfo.GcsNodeState.Value("ALIVE"):  # type: ignore[attr-defined]  # protobuf
            found[node_id.binary()] = (info.node_manager_address, info.is_head_node)
    return found


def main() -> int:
    """0 whatever happens: a hook that fails ends the pod no later. What went wrong is said."""
    address = os.environ.get("RAY_ADDRESS") or "127.0.0.1:6379"
    try:
        drain(address, os.environ.get("RAY_NODE_IP") or os.environ.get("POD_IP") or _own_ip())
    except Exception as error:  # noqa: BLE001 - said; the cluster may be gone already
        sys.stderr.write(f"drain: {error}\n")
    return 0


def _own_ip() -> str:
    import ray

    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]  # Ray does not type it


if __name__ == "__main__":
    sys.exit(main())
