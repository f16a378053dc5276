"""The preStop hook against a real Ray cluster of two nodes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from kit19_ray.utils import drain_node


@pytest.mark.ray
def test_a_head_that_goes_has_its_workers_drained_first_and_waits_for_them() -> None:
    script = """
import ray
from ray.cluster_utils import Cluster
from kit19_ray.utils import drain_node
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
head = next(node for node in ray.nodes() if "node:__internal_head__" in node["Resources"])
assert len([node for node in ray.nodes() if node["Alive"]]) == 2
asked = drain_node.drain(cluster.address, head["NodeManagerAddress"], seconds=60, poll_seconds=0.2)
alive = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
print("asked", asked, "left", alive == [head["NodeID"]])
ray.shutdown()
cluster.shutdown()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240)
    assert "asked 1 left True" in done.stdout, done.stderr[-3000:]


@pytest.mark.slow  # as long as Ray looks for one
def test_a_cluster_that_is_gone_is_said_and_holds_nothing_up() -> None:
    environment = os.environ | {"RAY_ADDRESS": "127.0.0.1:1", "POD_IP": "127.0.0.1"}
    command = [sys.executable, "-m", "kit19_ray.utils.drain_node"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0 and "drain: " in done.stderr
    assert drain_node.DEADLINE_SECONDS < 180  # of the pod's terminationGracePeriodSeconds
