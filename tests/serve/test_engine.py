"""The engine's thread: sequences in, tokens and ends out, whatever else runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kit19_ray.config.schema import ServeConfig
from kit19_ray.lm.continuous_batching import BatchLimits
from kit19_ray.lm.decoding import DecodingSequence
from kit19_ray.lm.generator import Generator
from kit19_ray.lm.sampling import SamplingParams
from kit19_ray.serve.engine import TransformersEngine, batch_limits
from kit19_ray.serve.metrics import MemoryRecorder, ServeMetrics

PROMPTS = ["이 영화는 정말", "대한민국의 수도는 서울이고 가장 큰", "예", "두 문장의 뜻이"]


@pytest.fixture
def recorder() -> MemoryRecorder:
    return MemoryRecorder()


@pytest.fixture
def engine(generator: Generator, recorder: MemoryRecorder) -> Iterator[TransformersEngine]:
    made = TransformersEngine(generator, BatchLimits(3, prefix_tokens=200), ServeMetrics(recorder), "kit19")
    yield made
    made.close()


def finished(engine: TransformersEngine, sequences: list[DecodingSequence]) -> None:
    """Submits all of them and waits until each has ended."""
    ended = threading.Semaphore(0)
    for sequence in sequences:
        engine.submit(sequence, lambda _: ended.release())
    for _ in sequences:
        assert ended.acquire(timeout=60)


def test_every_sequence_is_told_and_ends_once(
    generator: Generator, engine: TransformersEngine, recorder: MemoryRecorder
) -> None:
    heard: dict[int, list[int]] = {}

    def hear(sequence: DecodingSequence) -> None:
        heard.setdefault(id(sequence), []).append(sequence.completion.token_ids[-1])

    params = SamplingParams(max_tokens=7, ignore_eos=True)
    sequences = [DecodingSequence(generator.encode(prompt), params, hear) for prompt in PROMPTS]
    finished(engine, sequences)
    expected = generator.generate([generator.encode(prompt) for prompt in PROMPTS], 7)
    for sequence, alone in zip(sequences, expected):
        assert sequence.completion.token_ids[: len(alone.token_ids)] == alone.token_ids
        assert heard[id(sequence)] == sequence.completion.token_ids and len(heard[id(sequence)]) == 7
    assert recorder.values["kit19_completion_tokens", "kit19"] == 28
    assert recorder.values["kit19_prompt_tokens", "kit19"] == sum(len(s.prompt) for s in sequences)
    assert len(recorder.observed["kit19_time_to_first_token_seconds"]) == len(PROMPTS)
    assert len(recorder.observed["kit19_inter_token_seconds"]) == 24
    assert len(recorder.observed["kit19_queue_seconds"]) == len(PROMPTS)


def test_a_cancelled_one_ends_and_the_engine_goes_on(generator: Generator, engine: TransformersEngine) -> None:
    first = DecodingSequence(generator.encode(PROMPTS[0]), SamplingParams(max_tokens=100, ignore_eos=True))
    first.on_token = lambda sequence: sequence.cancelled.set()
    finished(engine, [first])
    assert len(first.completion.token_ids) <= 2
    again = DecodingSequence(generator.encode(PROMPTS[1]), SamplingParams(max_tokens=2, ignore_eos=True))
    finished(engine, [again])
    assert len(again.completion.token_ids) == 2 and engine.is_alive


def test_what_asks_for_nothing_ends_at_once(generator: Generator, engine: TransformersEngine) -> None:
    nothing = DecodingSequence(generator.encode(PROMPTS[0]), SamplingParams(max_tokens=0))
    finished(engine, [nothing])
    assert nothing.completion.token_ids == [] and nothing.error is None


def test_a_closed_engine_leaves_nobody_waiting(generator: Generator) -> None:
    engine = TransformersEngine(generator, BatchLimits(1), ServeMetrics(MemoryRecorder()), "kit19")
    ended = threading.Event()
    endless = DecodingSequence(generator.encode(PROMPTS[0]), SamplingParams(max_tokens=100, ignore_eos=True))
    endless.on_token = lambda _: engine._inbox.put(None) if len(endless.completion.token_ids) == 3 else None
    engine.submit(endless, lambda _: ended.set())
    assert ended.wait(60)
    engine._thread.join(60)
    assert not engine.is_alive and isinstance(endless.error, RuntimeError)
    late = DecodingSequence(generator.encode(PROMPTS[0]), SamplingParams())
    finished(engine, [late])
    assert isinstance(late.error, RuntimeError)


def test_a_fault_of_the_engine_ends_it_and_leaves_nobody_waiting(
    generator: Generator, engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ValueError("a fault")

    monkeypatch.setattr(engine, "_count", fail)
    sequence = DecodingSequence(generator.encode(PROMPTS[0]), SamplingParams(max_tokens=9, ignore_eos=True))
    finished(engine, [sequence])
    assert isinstance(sequence.error, RuntimeError)
    engine._thread.join(60)
    assert not engine.is_alive, "Ray Serve replaces the replica"


def test_the_caches_room_is_the_memorys(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: Any = Generator.load(str(tiny_model))
    assert loaded.cache_token_bytes == 2 * 2 * 32 * 4  # keys and values, 2 layers, 32 numbers of 4 bytes
    assert batch_limits(ServeConfig(max_batch_size=4), loaded).cache_tokens == 4 * 128, "all that four contexts need"
    monkeypatch.setattr(Generator, "free_memory", lambda _: 2 * 200 * 512)
    assert batch_limits(ServeConfig(max_batch_size=4), loaded).cache_tokens == 200
    monkeypatch.setattr(Generator, "free_memory", lambda _: 0)
    assert batch_limits(ServeConfig(max_batch_size=4), loaded).cache_tokens == 128, "one context at least"
    assert batch_limits(ServeConfig(max_batch_size=4, cache_tokens=150), loaded).cache_tokens == 150
