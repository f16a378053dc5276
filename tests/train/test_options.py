"""Keys that change where or how a step is computed and not what comes of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from kit19_ray.train.deepspeed_config import deepspeed_config
from tests.train.ranks import losses, run_ranks, spec_of, train
from tests.train.test_elastic import SETTINGS, SHARDED

pytestmark = pytest.mark.ranks


@pytest.fixture(scope="module")
def plain(make_config: Any, data_prefix: str, tmp_path_factory: Any) -> dict[int, float]:
    """Four steps of one worker with none of them."""
    spec = spec_of(
        make_config(f"file://{tmp_path_factory.mktemp('plain')}", **SETTINGS | {"max_steps": 4}), data_prefix
    )
    run_ranks(1, train, spec)
    return losses(spec)


@pytest.mark.parametrize(("offload", "zero_stage"), [("optimizer", 2), ("optimizer", 3), ("all", 3)])
def test_offload_takes_the_same_steps_and_is_taken_up(
    offload: str, zero_stage: int, plain: dict[int, float], make_config: Any, data_prefix: str, tmp_path: Path
) -> None:
    keys = {"offload": offload, "deepspeed": SHARDED, "max_steps": 4}
    config = make_config(f"file://{tmp_path}", **SETTINGS | keys | {"workers": 1, "zero_stage": zero_stage})
    spec = spec_of(config, data_prefix)
    run_ranks(1, train, spec, 2)
    run_ranks(1, train, spec)
    assert losses(spec) == pytest.approx(plain, rel=1e-6)


def compiled(spec: Any) -> Any:
    """A run whose process may compile, which those of the other tests may not."""
    import torch._dynamo

    torch._dynamo.config.disable = False
    return train(spec)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs g++")
def test_compiled_layers_take_the_same_steps(
    plain: dict[int, float], make_config: Any, data_prefix: str, tmp_path: Path
) -> None:
    config = make_config(f"file://{tmp_path}", **SETTINGS | {"max_steps": 4, "workers": 1, "compile": True})
    spec = spec_of(config, data_prefix)
    run_ranks(1, compiled, spec, seconds=900)
    assert losses(spec) == pytest.approx(plain, rel=1e-5)  # fused kernels round in another order


class TestDeepSpeedKeys:
    def told(self, make_config: Any, data: str, tmp_path: Path, **keys: Any) -> dict[str, Any]:
        spec = spec_of(make_config(f"file://{tmp_path}", **keys), data)
        return deepspeed_config(spec, torch.float32, spec.config.workers)

    def test_are_laid_over_ours(self, make_config: Any, data_prefix: str, tmp_path: Path) -> None:
        free = {"zero_optimization": {"zero_hpz_partition_size": 8, "overlap_comm": False}, "prescale_gradients": True}
        found = self.told(make_config, data_prefix, tmp_path, zero_stage=3, deepspeed=free)
        assert found["prescale_gradients"] is True
        assert found["zero_optimization"] == {
            "stage": 3, "contiguous_gradients": True, "overlap_comm": False, "zero_hpz_partition_size": 8
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("keys", "said"),
        [
            ({"zero_optimization": {"stage": 1}}, "deepspeed.zero_optimization.stage follows from other keys"),
            ({"optimizer": {}}, "deepspeed.optimizer follows from other keys"),
            ({"zero_optimisation": {}}, r"no key that may be set here \(did you mean 'zero_optimization'\?\)"),
        ],
    )
    def test_that_follow_from_ours_or_are_none_are_refused(
        self, keys: dict[str, Any], said: str, make_config: Any, tmp_path: Path
    ) -> None:
        with pytest.raises(ValueError, match=said):
            make_config(f"file://{tmp_path}", deepspeed=keys)
