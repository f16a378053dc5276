"""What one rank, the store or the user can do to a run: it ends at once with the right message, or goes on."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kit19_ray.artifacts import checkpoint, metrics_log, run_request
from kit19_ray.artifacts.checkpoint import CheckpointIndex
from kit19_ray.errors import StorageError, TrainError
from kit19_ray.io import storage
from kit19_ray.train import checkpoint_writer, interruptions, watchdog
from kit19_ray.train.agreement import AgreedError
from kit19_ray.train.checkpoint_writer import CheckpointWriter
from kit19_ray.train.flags import SAVE, STOP
from kit19_ray.train.saver import Saver
from kit19_ray.train.state_pieces import Piece
from kit19_ray.train.train_state import TrainState
from tests.train.ranks import run_ranks, spec_of, train
from tests.train.test_elastic import SETTINGS

pytestmark = pytest.mark.ranks


def fail_in(spec: Any, phase: str) -> tuple[int, str, str]:
    """A run in which rank 1 fails in `phase`."""
    import torch.distributed as dist

    from kit19_ray.artifacts.packed_shards import PackedSplit
    from kit19_ray.train import checkpoint_reader, engine, step_input, trainer

    def broken(*_: Any, **__: Any) -> Any:
        raise StorageError(f"rank 1 failed while {phase}")

    if dist.get_rank() == 1:
        if phase == "opening the data":
            PackedSplit.open = broken  # type: ignore[method-assign]
        elif phase == "loading the model":
            engine.models.build = broken  # type: ignore[attr-defined]
        elif phase == "reading a checkpoint":
            checkpoint_reader.read = broken
        elif phase == "reading a batch, or saving":
            step_input.StepReader.read = broken  # type: ignore[method-assign]
        else:
            trainer.export = broken
    try:
        train(spec)
    except AgreedError as error:
        return error.rank, error.phase, str(error.error)
    return -1, "", "nothing failed"


@pytest.mark.parametrize(
    "phase",
    ["opening the data", "loading the model", "reading a checkpoint", "reading a batch, or saving", "exporting"],
)
def test_one_ranks_error_ends_all_with_its_message(
    phase: str, make_config: Any, data_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(make_config(f"file://{tmp_path}", **SETTINGS | {"max_steps": 4}), data_prefix)
    if phase == "reading a checkpoint":
        run_ranks(2, train, spec, 2)
    found = run_ranks(2, fail_in, spec, phase, seconds=60)
    assert found == [(1, phase, f"rank 1 failed while {phase}")] * 2


def poison(spec: Any, steps: list[int]) -> Any:
    """A run in which rank 1's gradient is not a number in the steps `steps`."""
    import torch.distributed as dist

    from kit19_ray.train import engine

    take, count = engine.TrainEngine.step, [0]

    def poisoned(self: Any, batches: Any, rate: float, labels: int) -> Any:
        count[0] += 1
        bad = dist.get_rank() == 1 and count[0] in steps
        handles = []
        if bad:
            head = self.module.model.get_output_embeddings().weight
            handles.append(head.register_hook(lambda gradient: gradient * float("nan")))
        loss = take(self, batches, rate, labels)
        for handle in handles:
            handle.remove()
        return loss

    engine.TrainEngine.step = poisoned  # type: ignore[method-assign]
    try:
        return train(spec)
    except AgreedError as error:
        return str(error.error)


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_a_step_with_a_broken_gradient_is_left_out_and_named(
    zero_stage: int, make_config: Any, data_prefix: str, tmp_path: Path
) -> None:
    keys = SETTINGS | {"max_steps": 5, "zero_stage": zero_stage}
    spec = spec_of(make_config(f"file://{tmp_path}", **keys), data_prefix)
    made = run_ranks(2, poison, spec, [3])
    assert made[0]["skipped_steps"] == 1
    lines = {line["step"]: line for line in metrics_log.read(spec.out)}
    assert lines[3]["loss"] is None and lines[3]["grad_norm"] is None  # null, and no Infinity
    assert [lines[step]["skipped_steps"] for step in (2, 3, 5)] == [0, 1, 1]
    (event,) = [line["text"] for line in metrics_log.read(spec.out, metrics_log.EVENTS)]
    assert event.startswith("step 3 is left out: its gradient is not finite") and "packed rows" in event


def test_too_many_of_them_end_the_run(make_config: Any, data_prefix: str, tmp_path: Path) -> None:
    keys = SETTINGS | {"max_steps": 9, "max_skipped_steps": 2}
    spec = spec_of(make_config(f"file://{tmp_path}", **keys), data_prefix)
    found = run_ranks(2, poison, spec, [2, 3, 4, 5])
    assert found[0] == found[1]
    assert "gradients of 3 steps in a row are not finite, at step 4" in found[0]


def pieces() -> list[Piece]:
    tensors = {kind: torch.full((1000,), float(at)) for at, kind in enumerate("wmv")}
    return [Piece("a.weight", 0, 1000, tensors)]


def index(step: int) -> CheckpointIndex:
    return {
        "format": checkpoint.FORMAT, "step": step, "time": 0.0, "validation_loss": None, "workers": 1, "zero_stage": 2,
        "state": {}, "parameters": {"a.weight": 1000}, "block": checkpoint.BLOCK, "shards": [],
    }  # fmt: skip


class TestTheWriter:
    def test_goes_on_trying_while_the_store_is_out(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write, failures, said = storage.write_stream, [3], []

        def failing(uri: str, source: Any) -> None:
            if failures[0]:
                failures[0] -= 1
                source.read(100)  # some of it was sent
                raise StorageError("the store is out")
            write(uri, source)

        monkeypatch.setattr(storage, "write_stream", failing)
        monkeypatch.setattr(checkpoint_writer, "_RETRY_SECONDS", (0.01, 0.01))
        out = f"file://{tmp_path}"
        writer = CheckpointWriter(out, "ab", 0, 1, said.append, 2, 0)
        writer.start(pieces(), index(7))
        assert writer.wait(60)
        assert writer.saved_step == 7 and writer.failing_since is None
        assert [text.split(": ")[-1] for text in said] == ["the store is out", "the store takes checkpoints again"]
        at = checkpoint.folders(out)[0]
        found = checkpoint.read_index(out, at)
        assert found is not None
        reader = checkpoint.ShardReader(out, at, found["shards"][0], found["block"])
        entry = reader.entries()[2]
        assert (entry.kind, reader.read(entry.offset, 4)) == ("v", torch.tensor([2.0]).numpy().tobytes())
        assert [f.path for f in storage.list_files(at.uri(out))] == ["index.json", "shard-00000.safetensors"]

    def test_copies_before_it_returns(self, tmp_path: Path) -> None:
        state = pieces()
        writer = CheckpointWriter(f"file://{tmp_path}", "ab", 0, 1, print, 2, 0)
        writer.start(state, index(1))
        state[0].tensors["w"].fill_(99.0)  # the training goes on
        assert writer.wait(60)
        at = checkpoint.folders(f"file://{tmp_path}")[0]
        found = checkpoint.read_index(f"file://{tmp_path}", at)
        assert found is not None
        reader = checkpoint.ShardReader(f"file://{tmp_path}", at, found["shards"][0], found["block"])
        assert reader.read(reader.entries()[0].offset, 4) == bytes(4)

    def test_a_fault_of_ours_is_raised_where_the_training_waits(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(checkpoint, "to_header", lambda _: 1 / 0)
        writer = CheckpointWriter(f"file://{tmp_path}", "ab", 0, 1, print, 2, 0)
        writer.start(pieces(), index(1))
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            writer.wait(60)

    def test_without_the_other_ranks_there_is_no_index(self, tmp_path: Path) -> None:
        writer = CheckpointWriter(f"file://{tmp_path}", "ab", 0, 2, print, 2, 0)
        writer.start(pieces(), index(1))
        assert not writer.wait(1.0) and writer.busy
        writer.close()
        assert not writer.busy and checkpoint.newest(f"file://{tmp_path}") is None

    @pytest.mark.s3
    def test_on_s3(self, s3_root: str) -> None:
        out = f"{s3_root}/train-x"
        big = [Piece("a.weight", 0, 4_000_000, {kind: torch.rand(4_000_000) for kind in "wmv"})]  # in several parts
        writer = CheckpointWriter(out, "ab", 0, 1, print, 2, 0)
        writer.start(big, index(7))
        assert writer.wait(120)
        at = checkpoint.folders(out)[0]
        found = checkpoint.read_index(out, at)
        assert found is not None and found["shards"][0]["size"] > 48_000_000
        reader = checkpoint.ShardReader(out, at, found["shards"][0], found["block"])
        entry = reader.entries()[1]
        assert (
            reader.read(entry.offset + 4 * 3_000_000, 40) == big[0].tensors["m"][3_000_000:3_000_010].numpy().tobytes()
        )


class TestRequests:
    def test_a_request_is_found_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(interruptions, "_POLL_SECONDS", {"file": 0.01})
        out = f"file://{tmp_path}"
        found = interruptions.Interruptions(out, 0)
        found.start()
        for ask, flags in (("save", SAVE), ("stop", SAVE | STOP)):
            run_request.write(out, ask)  # type: ignore[arg-type]
            until = time.monotonic() + 20
            while found.flags != flags and time.monotonic() < until:
                time.sleep(0.01)
            assert found.flags == flags
            found.answered()
            assert run_request.pending(out) is None
        found.close()

    def test_sigterm_asks_the_run_to_stop(self, tmp_path: Path) -> None:
        import os
        import signal

        out = f"file://{tmp_path}"
        run_request.write(out, "stop")
        before = signal.getsignal(signal.SIGTERM)
        with interruptions.stopping_in_good_order(out):
            assert run_request.pending(out) is None  # an earlier start's
            os.kill(os.getpid(), signal.SIGTERM)
            until = time.monotonic() + 20
            while run_request.pending(out) is None and time.monotonic() < until:
                time.sleep(0.01)
            request = run_request.pending(out)
            assert request is not None and request["ask"] == "stop"
        assert signal.getsignal(signal.SIGTERM) is before


def hang(out: str) -> None:
    dog = watchdog.Watchdog(out, 1, 0.5)
    dog.start()
    dog.progress("step")
    time.sleep(60)


def test_a_rank_that_hangs_says_where_and_ends(tmp_path: Path) -> None:
    assert run_ranks(1, hang, f"file://{tmp_path}", seconds=30) == [None]
    text = (tmp_path / "stacks" / "worker-00001.txt").read_text()
    assert "worker 1: no progress for" in text and "last: step" in text
    assert "time.sleep(60)" in text


def test_a_store_that_takes_nothing_for_too_long_ends_the_run(
    make_config: Any, data_prefix: str, tmp_path: Path
) -> None:
    spec = spec_of(make_config(f"file://{tmp_path}", **SETTINGS | {"save_grace_minutes": 1e-9}), data_prefix)
    alone: Any = SimpleNamespace(rank=0, world_size=1)
    saver = Saver(spec, TrainState(spec.config), alone, "ab", print)
    saver.check()
    saver._writer.failing_since = time.monotonic() - 5
    with pytest.raises(TrainError, match="no checkpoint has got through to .* for 0 minutes"):
        saver.check()
