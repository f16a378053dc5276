"""AdamW of 8 bits: its moments as float32 and back, and runs that are cut and go on. Its kernel is a stand-in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kit19_ray.artifacts import metrics_log
from kit19_ray.config.schema import TrainConfig
from kit19_ray.errors import TrainError
from kit19_ray.io import storage
from kit19_ray.train import eight_bit, stage, trackers
from kit19_ray.train.deepspeed_config import deepspeed_config
from kit19_ray.train.eight_bit import BLOCK, EightBitMoments, dequantize, quantize
from kit19_ray.train.optimizers import OPTIMIZERS, Kind
from tests.train.eight_bit_stand_in import StandIn, dynamic_map, kernel_quantize, theirs
from tests.train.ranks import losses, run_ranks, spec_of, train
from tests.train.test_elastic import SETTINGS, SHARDED

Make = Callable[..., Any]


def moments(signed: bool, blocks: int = 2000) -> torch.Tensor:
    """Values as a kernel left them: blocks of all sizes, one of zeros, the last one short."""
    torch.manual_seed(7)
    given = torch.randn(blocks, BLOCK) * torch.rand(blocks, BLOCK) ** 4 * torch.rand(blocks, 1) * 1e-4
    given[3] = 0
    flat = given.view(-1)[:-100]
    return dequantize(*kernel_quantize(flat if signed else flat**2, dynamic_map(signed)), dynamic_map(signed))


class TestQuantizing:
    @pytest.mark.parametrize("signed", [True, False])
    def test_gives_back_what_was_dequantized_to_the_bit(self, signed: bool) -> None:
        given, values = moments(signed), dynamic_map(signed)
        assert torch.equal(dequantize(*quantize(given, values), values), given)

    def test_as_the_kernel_does_it_would_not(self) -> None:
        given, values = moments(True), dynamic_map(True)
        again = dequantize(*kernel_quantize(given, values), values)
        assert (again != given).float().mean() > 0.4

    @pytest.mark.parametrize(("signed", "most"), [(True, 0.0071), (False, 0.0036)])
    def test_with_other_borders_is_off_by_half_a_step_of_the_map(self, signed: bool, most: float) -> None:
        values = dynamic_map(signed)
        given = moments(signed)[100:]
        off = (dequantize(*quantize(given, values), values) - given).abs()
        blocks = torch.nn.functional.pad(given, (0, -len(given) % BLOCK)).view(-1, BLOCK).abs().amax(1)
        assert bool((off <= most * blocks.repeat_interleave(BLOCK)[: len(given)]).all())

    @pytest.mark.filterwarnings("ignore:_check_is_size will be removed:FutureWarning")  # bitsandbytes on a CPU
    def test_is_what_bitsandbytes_reads(self) -> None:
        functional = pytest.importorskip("bitsandbytes.functional")
        for signed in (True, False):
            values, given = functional.create_dynamic_map(signed), moments(signed)
            assert torch.equal(values, dynamic_map(signed))
            codes, scales = quantize(given, values)
            state = functional.QuantState(absmax=scales, code=values, blocksize=BLOCK, dtype=torch.float32)
            assert torch.equal(functional.dequantize_blockwise(codes, state), given)


@pytest.fixture(params=["stand-in", "bitsandbytes"])
def make(request: pytest.FixtureRequest) -> Make:
    """Builds an optimizer with state of bitsandbytes' kind: a stand-in, or theirs without its kernel."""
    if request.param == "stand-in":
        return StandIn
    pytest.importorskip("bitsandbytes")
    return theirs


class TestMoments:
    def stepped(self, make: Make, sizes: tuple[int, ...] = (3000, 50), steps: int = 3) -> Any:
        torch.manual_seed(1)
        flats = [torch.nn.Parameter(torch.randn(size)) for size in sizes]
        adam = make([{"params": [flat], "weight_decay": 0.0} for flat in flats], 1e-3, (0.9, 0.95), 1e-8)
        for _ in range(steps):
            for flat in flats:
                flat.grad = torch.randn_like(flat)
            adam.step()
        return adam, flats

    def test_are_taken_up_by_an_optimizer_that_never_stepped(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(eight_bit, "_PART", 2 * BLOCK)  # several conversions, the last one short
        (old, before), (new, after) = self.stepped(make), self.stepped(make, steps=0)
        for there, here in zip(before, after, strict=True):
            saved, held = EightBitMoments(old).read(there), EightBitMoments(new).read(here)
            assert not any(values.any() for values in held.values())
            for kind, values in saved.items():
                held[kind].copy_(values)
            EightBitMoments(new).write(here, held, 3)
            here.data.copy_(there.data)
            assert new.state[here]["state1"].dtype is (torch.uint8 if len(here) > 1000 else torch.float32)
            here.grad = there.grad = torch.randn_like(here)
        old.step()
        new.step()
        for there, here in zip(before, after, strict=True):
            assert torch.equal(there, here) and old.state[there]["step"] == new.state[here]["step"] == 4

    def test_are_copies(self, make: Make) -> None:
        adam, flats = self.stepped(make)
        for flat in flats:
            EightBitMoments(adam).read(flat)["m"].fill_(9)
            assert float(EightBitMoments(adam).read(flat)["m"].abs().max()) < 9


def eight_bit_train(spec: Any, stop_at: int | None, make: Make) -> Any:
    """`train` on a rank whose adamw_8bit steps on a CPU."""
    OPTIMIZERS["adamw_8bit"] = Kind(make, EightBitMoments)
    return train(spec, stop_at)


def runs(make_config: Any, data: str, root: Path, legs: list[tuple[int, int, int | None]], make: Make) -> Any:
    spec = None
    for workers, zero_stage, stop_at in legs:
        keys = SETTINGS | {"workers": workers, "zero_stage": zero_stage, "deepspeed": SHARDED}
        spec = spec_of(make_config(f"file://{root}", **keys, optimizer="adamw_8bit", weight_decay=0.01), data)
        run_ranks(workers, eight_bit_train, spec, stop_at, make)
    return spec


@pytest.fixture(scope="module")
def whole(make_config: Any, data_prefix: str, tmp_path_factory: Any) -> Any:
    """Two workers, never interrupted."""
    return runs(make_config, data_prefix, tmp_path_factory.mktemp("whole"), [(2, 2, None)], StandIn)


@pytest.mark.ranks
class TestARun:
    def test_lowers_the_loss(self, whole: Any) -> None:
        found = [line["validation_loss"] for line in metrics_log.read(whole.out) if "validation_loss" in line]
        assert found[-1] < found[0]

    def test_goes_on_with_the_same_bits(
        self, whole: Any, make: Make, make_config: Any, data_prefix: str, tmp_path: Path
    ) -> None:
        cut = runs(make_config, data_prefix, tmp_path, [(2, 2, 5), (2, 2, None)], make)
        assert losses(cut) == losses(whole)
        weights = [storage.read_bytes(f"{spec.out}/export/model.safetensors") for spec in (cut, whole)]
        assert weights[0] == weights[1]

    def test_goes_on_with_the_same_bits_under_zero_3(self, make_config: Any, data_prefix: str, tmp_path: Path) -> None:
        cut = runs(make_config, data_prefix, tmp_path / "cut", [(2, 3, 5), (2, 3, None)], StandIn)
        not_cut = runs(make_config, data_prefix, tmp_path / "whole", [(2, 3, None)], StandIn)
        assert losses(cut) == losses(not_cut)

    def test_goes_on_with_other_workers_and_another_stage(
        self, whole: Any, make_config: Any, data_prefix: str, tmp_path: Path
    ) -> None:
        spec = runs(make_config, data_prefix, tmp_path, [(2, 2, 5), (1, 1, 8), (2, 3, None)], StandIn)
        # Blocks that begin elsewhere are rounded otherwise, from the first step on another layout.
        assert losses(spec) == pytest.approx(losses(whole), rel=1e-3)


class TestTheKey:
    def test_is_let_through_by_deepspeed(self, make_config: Any, data_prefix: str, tmp_path: Path) -> None:
        def told(**keys: Any) -> Any:
            return deepspeed_config(spec_of(make_config(f"file://{tmp_path}", **keys), data_prefix), torch.float32, 2)

        assert told(optimizer="adamw_8bit")["zero_allow_untested_optimizer"] is True
        assert "zero_allow_untested_optimizer" not in told()

    def test_is_part_of_what_is_trained(self) -> None:
        found = TrainConfig.model_validate({"optimizer": "adamw_8bit"}).identity()
        assert found["optimizer"] == "adamw_8bit"

    @pytest.mark.parametrize(
        ("keys", "said"),
        [
            ({"use_gpu": False}, "optimizer=adamw_8bit does not go with use_gpu=false: it steps on GPUs only"),
            ({"offload": "optimizer"}, "optimizer=adamw_8bit does not go with offload=optimizer"),
            ({"offload": "all", "zero_stage": 3}, "optimizer=adamw_8bit does not go with offload=all"),
        ],
    )
    def test_is_refused_on_cpus(self, keys: dict[str, Any], said: str) -> None:
        with pytest.raises(ValueError, match=said):
            TrainConfig.model_validate({"optimizer": "adamw_8bit"} | keys)

    def test_is_refused_by_a_cluster_without_gpus(self) -> None:
        config = TrainConfig.model_validate({"optimizer": "adamw_8bit"})
        stage.check_device(config, True)
        stage.check_device(TrainConfig(), False)
        with pytest.raises(
            TrainError, match=r"train.optimizer=adamw_8bit steps on GPUs only, and the cluster has none"
        ):
            stage.check_device(config, False)

    def test_needs_bitsandbytes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import importlib.util

        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else True)
        config = TrainConfig.model_validate({"optimizer": "adamw_8bit"})
        with pytest.raises(TrainError, match="train.optimizer: bitsandbytes is not installed"):
            trackers.require([], few_bits=config.needing_bitsandbytes)
        trackers.require([], few_bits=TrainConfig().needing_bitsandbytes)

    def test_is_bitsandbytes_optimizer(self) -> None:
        pytest.importorskip("bitsandbytes")
        flat = torch.nn.Parameter(torch.zeros(5000))
        adam = OPTIMIZERS["adamw_8bit"].make([{"params": [flat], "weight_decay": 0.5}], 1e-3, (0.9, 0.95), 1e-6)
        assert type(adam).__module__.startswith("bitsandbytes")
        (group,) = adam.param_groups
        assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (1e-3, (0.9, 0.95), 1e-6, 0.5)
        assert (adam.args.block_wise, adam.args.min_8bit_size, adam.args.percentile_clipping) == (True, 4096, 100)
        EightBitMoments(adam).read(flat)
        assert adam.state[flat]["state1"].dtype is torch.uint8 and len(adam.state[flat]["absmax1"]) == 20
