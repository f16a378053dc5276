"""Nodes that cannot be used, processes that do not fit; and the verb on a real cluster of this machine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kit19_ray.config.schema import Config
from kit19_ray.preflight import plan, render
from kit19_ray.preflight.cluster import Node, check_nodes, check_places
from kit19_ray.preflight.findings import Findings
from kit19_ray.preflight.node_look import NodeLook, parse_gpus

H100 = "NVIDIA H100 80GB HBM3, 81559, 535.129.03\n"


def node(address: str, cpus: float = 8, gpus: float = 0, **look: Any) -> Node:
    seen: NodeLook = {
        "host": "h", "versions": {"python": "3.11.7", "ray": "2.60.0"}, "cuda": "13.0",
        "gpus": parse_gpus(H100)[: int(gpus)],
        "disk_bytes": 1 << 40, "root": "",
    }  # fmt: skip
    return {
        "address": address, "cpus": cpus, "gpus": gpus, "memory_bytes": 16 * 10**9, "look": seen | look  # type: ignore[typeddict-item]
    }  # fmt: skip


def missing(nodes: list[Node]) -> list[str]:
    found = Findings("cluster")
    check_nodes(nodes, found)
    return [str(error) for error in found.missing]


def test_cards_as_nvidia_smi_lists_them() -> None:
    (card,) = parse_gpus(H100)
    assert card == {"name": "NVIDIA H100 80GB HBM3", "bytes": 81559 << 20, "driver": "535.129.03"}


class TestANodeThatCannotBeUsed:
    def test_none_is_missing_where_all_are_alike(self) -> None:
        assert missing([node("a"), node("b")]) == []

    def test_another_version(self) -> None:
        (text,) = missing([node("a"), node("b", versions={"python": "3.12.1", "ray": "2.60.0"})])
        assert "node b has python 3.12.1, node a has 3.11.7" in text

    def test_a_root_of_its_own(self) -> None:
        (text,) = missing([node("a"), node("b", root="what the driver wrote there is not there")])
        assert text.startswith("node b cannot use the root") and "s3://" in text

    def test_an_old_driver(self) -> None:
        (text,) = missing([node("a", gpus=1)])
        assert text == "node a has NVIDIA's driver 535.129.03; torch's CUDA 13.0 needs 580"

    def test_torch_without_cuda_beside_gpus(self) -> None:
        (text,) = missing([node("a", gpus=1, cuda=None)])
        assert "built without CUDA" in text

    def test_silence(self) -> None:
        silent: Node = node("a")
        silent["look"] = None
        assert "node a did not answer" in missing([silent])[0]


class TestPlaces:
    def looked(self, count: int, cpus: float, gpus: float, bytes_: int | None, nodes: list[Node]) -> Findings:
        found = Findings("cluster")
        check_places("train.workers", count, cpus, gpus, bytes_, nodes, found)
        return found

    def test_a_process_must_fit_one_node(self) -> None:
        found = self.looked(2, 6, 0, None, [node("a"), node("b", cpus=4)])
        assert "room for 1 processes of 6 CPUs each" in found.notes[0] and not found.missing
        assert not self.looked(2, 4, 0, None, [node("a"), node("b", cpus=4)]).notes

    def test_its_memory(self) -> None:
        (error,) = self.looked(3, 1, 0, 6 * 10**9, [node("a")]).missing
        assert "16.0 GB for its processes, 3 workers need about 18.0 GB" in str(error)
        assert not self.looked(3, 4, 0, 6 * 10**9, [node("a"), node("b")]).missing  # two and one

    def test_its_card(self) -> None:
        (error,) = self.looked(1, 1, 1, 90 * 10**9, [node("a", gpus=1)]).missing
        assert "its GPU has 86 GB, a worker needs about 90 GB" in str(error)
        assert not self.looked(1, 1, 1, 70 * 10**9, [node("a", gpus=1)]).missing


@pytest.mark.ray
def test_the_cluster_of_this_machine(ray_cluster: None, config: Config, tmp_path: Any) -> None:
    config = config.model_copy(
        update={"evaluate": config.evaluate.model_copy(update={"workers": 3, "cpus_per_worker": 1})}
    )
    found = plan.make(config, on_cluster=True)
    (seen,) = [stage for stage in found.stages if stage.name == "cluster"]
    (only,) = seen.facts["nodes"]
    assert only["cpus"] == 2 and only["look"]["root"] == "" and only["look"]["versions"]["ray"]
    assert [str(error).splitlines()[0] for error in seen.missing] == [
        "evaluate.workers=3 need 3 CPUs, the Ray cluster has 2"
    ]
    assert "2 CPUs, 0 GPUs" in render.text(found)
    assert json.loads(render.json_text(found))["stages"]["cluster"]["nodes"]
    assert list(tmp_path.iterdir()) == []  # the probe is gone
