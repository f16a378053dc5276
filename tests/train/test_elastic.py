"""A run goes on with another number of workers and another ZeRO stage, and its losses are those of one that did not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kit19_ray.artifacts import checkpoint, metrics_log
from kit19_ray.io import storage
from tests.train.ranks import losses, run_ranks, spec_of, train

pytestmark = pytest.mark.ranks

SETTINGS: dict[str, Any] = {"max_steps": 12, "log_every": 1, "eval_every": 12, "save_every": None, "save_minutes": 10.0}
SHARDED = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}  # or ZeRO-3 would keep these few whole


def runs(make_config: Any, data: str, root: Path, legs: list[tuple[int, int, int | None]], **train_keys: Any) -> Any:
    """One run by legs of (workers, ZeRO stage, stop after step); returns its last spec."""
    spec = None
    for workers, stage, stop_at in legs:
        config = make_config(f"file://{root}", **SETTINGS, workers=workers, zero_stage=stage, **train_keys)
        spec = spec_of(config, data)
        made = run_ranks(workers, train, spec, stop_at)
        assert ("stopped" in made[0]) == (stop_at is not None)
    return spec


@pytest.fixture(scope="module")
def whole(make_config: Any, data_prefix: str, tmp_path_factory: Any) -> Any:
    """Two workers, never interrupted."""
    return runs(make_config, data_prefix, tmp_path_factory.mktemp("whole"), [(2, 2, None)])


def test_another_number_of_workers(whole: Any, make_config: Any, data_prefix: str, tmp_path: Path) -> None:
    spec = runs(make_config, data_prefix, tmp_path, [(2, 2, 3), (1, 2, 6), (3, 2, 9), (4, 2, None)])
    assert losses(spec) == pytest.approx(losses(whole), rel=1e-6)


def test_another_zero_stage(whole: Any, make_config: Any, data_prefix: str, tmp_path: Path) -> None:
    spec = runs(make_config, data_prefix, tmp_path, [(2, 2, 3), (2, 3, 7), (2, 1, None)], deepspeed=SHARDED)
    assert losses(spec) == pytest.approx(losses(whole), rel=1e-6)


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_the_same_workers_give_the_same_bits(
    zero_stage: int, make_config: Any, data_prefix: str, tmp_path: Path
) -> None:
    keys = {"deepspeed": SHARDED}
    cut = runs(make_config, data_prefix, tmp_path / "cut", [(2, zero_stage, 5), (2, zero_stage, None)], **keys)
    not_cut = runs(make_config, data_prefix, tmp_path / "whole", [(2, zero_stage, None)], **keys)
    assert losses(cut) == losses(not_cut)
    weights = [storage.read_bytes(f"{spec.out}/export/model.safetensors") for spec in (cut, not_cut)]
    assert weights[0] == weights[1]


def test_bf16_goes_on_with_its_float32_weights(make_config: Any, data_prefix: str, tmp_path: Path) -> None:
    cut = runs(make_config, data_prefix, tmp_path / "cut", [(1, 2, 5), (1, 2, None)], precision="bf16")
    not_cut = runs(make_config, data_prefix, tmp_path / "whole", [(1, 2, None)], precision="bf16")
    assert losses(cut) == losses(not_cut)


def test_a_batch_that_does_not_divide(whole: Any, make_config: Any, data_prefix: str, tmp_path: Path) -> None:
    """8 rows on 3 workers: 3, 3 and 2, in passes of 2."""
    spec = runs(make_config, data_prefix, tmp_path, [(3, 2, None)])
    assert losses(spec) == pytest.approx(losses(whole), rel=1e-6)


class TestABrokenCheckpoint:
    def broken(self, make_config: Any, data: str, root: Path) -> tuple[Any, list[checkpoint.Folder]]:
        """A run with checkpoints of the steps 3 and 6."""
        spec = runs(make_config, data, root, [(2, 2, 3), (2, 2, 6)])
        found = checkpoint.folders(spec.out)
        assert [at.step for at in found] == [6, 3]
        return spec, found

    @pytest.mark.parametrize("how", ["cut off", "altered", "missing", "no index", "torn index"])
    def test_is_left_out_for_the_one_before(
        self, how: str, whole: Any, make_config: Any, data_prefix: str, tmp_path: Path
    ) -> None:
        spec, found = self.broken(make_config, data_prefix, tmp_path)
        folder = storage.local_path(found[0].uri(spec.out))
        assert folder is not None
        shard, index = folder / "shard-00001.safetensors", folder / "index.json"
        data = shard.read_bytes()
        if how == "cut off":
            shard.write_bytes(data[: len(data) // 2])
        elif how == "altered":
            shard.write_bytes(data[:-100] + bytes([data[-100] ^ 1]) + data[-99:])
        elif how == "missing":
            shard.unlink()
        elif how == "no index":
            index.unlink()
        else:
            index.write_text(index.read_text()[:100])
        again = runs(make_config, data_prefix, tmp_path, [(2, 2, None)])
        assert losses(again) == losses(whole)
        said = " ".join(line["text"] for line in metrics_log.read(spec.out, metrics_log.EVENTS))
        assert "goes on at step 3" in said
        assert how == "no index" or "the checkpoint of step 6 is left out" in said
