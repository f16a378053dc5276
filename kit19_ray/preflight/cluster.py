"""`kit19 plan --cluster`: what the Ray cluster has, and whether the config fits it.

A task on every node looks at it (`node_look`). Whether a stage gets its processes is asked of the stages themselves;
here is looked at what they do not know: that each process must fit one node, with its memory.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import TypedDict

from kit19_ray.config.schema import Config
from kit19_ray.errors import StorageError, TrainError, UserError
from kit19_ray.evaluate import actors
from kit19_ray.io import storage
from kit19_ray.lm.cuda import OLDEST_DRIVER
from kit19_ray.preflight import memory
from kit19_ray.preflight.findings import Findings
from kit19_ray.preflight.node_look import NodeLook, look
from kit19_ray.serve import stage as serving
from kit19_ray.train import fit
from kit19_ray.train import stage as training
from kit19_ray.utils import ray_session
from kit19_ray.utils.json_types import Json

_LOOK_SECONDS = 120.0  # a node that has not answered by then is said to be silent


class Node(TypedDict):
    """One node.

    Attributes:
        cpus, gpus, memory_bytes: what Ray has to give on it.
        look: what is on it; None where it did not answer.
    """

    address: str
    cpus: float
    gpus: float
    memory_bytes: int
    look: NodeLook | None


def cluster(config: Config, train: Findings) -> Findings:
    """The cluster at RAY_ADDRESS, or the one on this machine, looked at.

    Args:
        train: the train stage, looked at: its memory.

    Raises:
        UserError: the cluster cannot be joined.
    """
    with ray_session.connected():
        found = Findings("cluster", state="there")
        nodes = _nodes(config.root)
        found.facts["nodes"] = nodes
        check_nodes(nodes, found)
        asked: Sequence[tuple[str, int, Callable[[], tuple[bool, float, float]]]] = (
            ("train.workers", config.train.min_workers or config.train.workers, lambda: _train(config)),
            ("evaluate.workers", config.evaluate.workers, lambda: actors.sizes(config.evaluate)),
            ("serve.replicas", config.serve.replicas, lambda: _serve(config)),
        )
        for key, count, sizes in asked:
            if config.evaluate.endpoint and key == "evaluate.workers":
                continue  # another server's model is scored
            each = found.check(sizes)
            if each is None:
                continue
            on_gpu, cpus, gpus = each
            bytes_ = _bytes(train, on_gpu) if key == "train.workers" else None
            check_places(key, count, cpus, gpus, bytes_, nodes, found)
    return found


def _train(config: Config) -> tuple[bool, float, float]:
    on_gpu = fit.use_gpu(config.train)
    training.check_device(config.train, on_gpu)
    return on_gpu, config.train.cpus_per_worker, 1.0 if on_gpu else 0.0


def _serve(config: Config) -> tuple[bool, float, float]:
    section = serving.with_gpu(config.serve)
    return bool(section.use_gpu), section.cpus_per_replica, section.gpus_per_replica if section.use_gpu else 0.0


def _bytes(train: Findings, on_gpu: bool) -> int | None:
    """Memory of a worker by the plan's estimate."""
    device = "GPU" if on_gpu else "CPU"
    return next((d["bytes"]["total"] for d in train.facts.get("devices", []) if d["device"] == device), None)


def _nodes(root: str) -> list[Node]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    probe = storage.join(root, f"plan-{secrets.token_hex(4)}.probe")
    storage.write_text(probe, "")
    try:
        alive: list[Json] = [n for n in ray.nodes() if n["Alive"]]  # type: ignore[no-untyped-call]
        remote = ray.remote(num_cpus=0, max_retries=0)(look)
        tasks = [
            remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(n["NodeID"], soft=False)).remote(probe)
            for n in alive
        ]
        ready, _ = ray.wait(tasks, num_returns=len(tasks), timeout=_LOOK_SECONDS)
        return [
            {
                "address": node["NodeManagerAddress"],
                "cpus": node["Resources"].get("CPU", 0.0),
                "gpus": node["Resources"].get("GPU", 0.0),
                "memory_bytes": int(node["Resources"].get("memory", 0)),
                "look": ray.get(task) if task in ready else None,
            }
            for node, task in zip(alive, tasks, strict=True)
        ]
    finally:
        storage.delete(probe)


def check_nodes(nodes: list[Node], found: Findings) -> None:
    """What of a node keeps it from being used: versions, the root, the driver."""
    for node in nodes:
        at, seen = node["address"], node["look"]
        if seen is None:
            found.missing.append(UserError(f"node {at} did not answer within {_LOOK_SECONDS:.0f} s"))
            continue
        if seen["root"]:
            found.missing.append(
                StorageError(
                    f"node {at} cannot use the root: {seen['root']}", hint="give an s3:// root, or a shared disk"
                )
            )
        major = (seen["cuda"] or "").split(".")[0]
        oldest = OLDEST_DRIVER.get(major)
        drivers = {gpu["driver"] for gpu in seen["gpus"]}
        for driver in sorted(drivers):
            if oldest and driver.split(".")[0].isdigit() and int(driver.split(".")[0]) < oldest:
                found.missing.append(
                    TrainError(f"node {at} has NVIDIA's driver {driver}; torch's CUDA {seen['cuda']} needs {oldest}")
                )
        if node["gpus"] and not seen["cuda"]:
            found.missing.append(TrainError(f"node {at} has GPUs, and its torch is built without CUDA"))
    looks = [(node["address"], node["look"]) for node in nodes if node["look"] is not None]
    first = looks[0] if looks else None
    for at, seen in looks[1:]:
        assert first is not None
        for name, there in sorted(first[1]["versions"].items()):
            here = seen["versions"].get(name)
            if here != there:
                found.missing.append(
                    UserError(
                        f"node {at} has {name} {here or 'not at all'}, node {first[0]} has {there}",
                        hint="all nodes run one image",
                    )
                )


def check_places(
    key: str, count: int, cpus: float, gpus: float, bytes_: int | None, nodes: list[Node], found: Findings
) -> None:
    """Whether `count` processes fit the nodes, each on one of them, with their memory.

    Args:
        key: of the number of processes.
        cpus, gpus: of each process.
        bytes_: of each process, on its GPU if it has one; None where nobody knows.
    """
    places = [_places(node, cpus, gpus) for node in nodes]
    if sum(places) < count:
        each = f"{cpus:g} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")
        found.notes.append(
            f"{key}={count}: the nodes that are there have room for {sum(places)} processes of {each} each; the rest "
            "waits for the cluster to grow"
        )
    if bytes_ is None:
        return
    for node, here in zip(nodes, places, strict=True):
        here = min(here, count)
        if not here:
            continue
        if gpus and node["look"] is not None:
            least = min((gpu["bytes"] for gpu in node["look"]["gpus"]), default=0)
            usable = least * memory.USABLE
            what = f"node {node['address']}: its GPU has {least / 1e9:.0f} GB"
            if least and bytes_ > usable:
                found.missing.append(
                    TrainError(
                        f"{what}, a worker needs about {bytes_ / 1e9:.0f} GB",
                        hint="see what the plan of the train stage suggests for such a card",
                    )
                )
        elif not gpus and here * bytes_ > node["memory_bytes"] > 0:
            found.missing.append(
                TrainError(
                    f"node {node['address']} has {node['memory_bytes'] / 1e9:.1f} GB for its processes, {here} workers "
                    f"need about {here * bytes_ / 1e9:.1f} GB",
                    hint="lower train.micro_batch_size, or set train.gradient_checkpointing=true",
                )
            )


def _places(node: Node, cpus: float, gpus: float) -> int:
    """Processes of that size that one node holds."""
    found = [int(have // need) for have, need in ((node["cpus"], cpus), (node["gpus"], gpus)) if need]
    return min(found, default=1 << 20)
