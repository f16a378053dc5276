"""What decodes, behind one small interface: sequences go in, each is told token by token, and ends once.

transformers    continuous batching of our own over any Hugging Face model (kit19_ray.lm.continuous_batching)
vllm            vLLM's engine (kit19_ray.serve.vllm_engine), for GPUs
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

from kit19_ray.config.schema import ServeConfig
from kit19_ray.lm.continuous_batching import BatchLimits, ContinuousBatch
from kit19_ray.lm.decoding import DecodingSequence, OnToken
from kit19_ray.lm.loaded_model import LoadedModel
from kit19_ray.serve.metrics import Metrics

log = logging.getLogger("ray.serve")

OnEnd = Callable[[DecodingSequence], object]


class Engine(Protocol):
    """Decodes sequences, as many at a time as it can."""

    def submit(self, sequence: DecodingSequence, on_end: OnEnd) -> None:
        """Takes a sequence; returns at once.

        Its `on_token` is called after each token, and `on_end` once, when it is finished, has failed (`error`) or was
        cancelled; both in the engine's own thread. Setting `cancelled` ends it within a step.
        """

    @property
    def is_alive(self) -> bool:
        """Whether it still decodes; a dead one never does again."""

    def close(self) -> None:
        """Ends it; what still runs is cancelled."""


class TransformersEngine:
    """A thread that steps one continuous batch for as long as there is something to do.

    Args:
        loaded: the model; nobody else may use it meanwhile.
        name: the model's name in metrics.
    """

    def __init__(self, loaded: LoadedModel, limits: BatchLimits, metrics: Metrics, name: str) -> None:
        self._batch = ContinuousBatch(loaded, limits)
        self._limits, self._loaded = limits, loaded
        self._metrics, self._name = metrics, name
        self._inbox: queue.SimpleQueue[tuple[DecodingSequence, OnEnd] | None] = queue.SimpleQueue()
        self._ends: dict[int, tuple[DecodingSequence, OnEnd]] = {}
        self._last: dict[int, float] = {}
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name="decode", daemon=True)
        self._thread.start()

    def submit(self, sequence: DecodingSequence, on_end: OnEnd) -> None:
        """As Engine."""
        if self._is_over:  # nobody would take it out of the inbox
            sequence.error = RuntimeError("the engine was closed")
            on_end(sequence)
            return
        self._inbox.put((sequence, on_end))

    @property
    def is_alive(self) -> bool:
        """As Engine."""
        return self._thread.is_alive()

    def close(self) -> None:
        """As Engine."""
        self._inbox.put(None)
        self._thread.join(timeout=60)

    def _run(self) -> None:
        try:
            while self._take():
                for sequence in self._batch.step():
                    self._end(sequence)
                self._count()
        except Exception:
            log.exception("the engine ends: a fault outside of a forward pass")
        finally:
            self._is_over = True
            while not self._inbox.empty():
                if (item := self._inbox.get()) is not None:
                    self._ends[id(item[0])] = item
            for waiting, on_end in self._ends.values():
                waiting.error = RuntimeError("the engine was closed")
                on_end(waiting)
            self._ends.clear()

    def _take(self) -> bool:
        """Takes what was submitted, and waits for it when there is nothing else to do; False ends the thread."""
        while True:
            try:
                item = self._inbox.get(block=self._batch.is_idle)
            except queue.Empty:
                return True
            if item is None:
                return False
            sequence, on_end = item
            self._ends[id(sequence)] = sequence, on_end
            sequence.on_token = partial(self._on_token, sequence.on_token)
            self._batch.add(sequence)
            if sequence.finished:
                self._end(sequence)

    def _on_token(self, told: OnToken | None, sequence: DecodingSequence) -> None:
        now, last = time.monotonic(), self._last.get(id(sequence))
        if last is None:
            self._metrics.record("kit19_time_to_first_token_seconds", now - sequence.arrived, model=self._name)
        else:
            self._metrics.record("kit19_inter_token_seconds", now - last, model=self._name)
        self._last[id(sequence)] = now
        if told is not None:
            told(sequence)

    def _end(self, sequence: DecodingSequence) -> None:
        self._last.pop(id(sequence), None)
        if sequence.started is not None:
            record, name = self._metrics.record, self._name
            record("kit19_queue_seconds", sequence.started - sequence.arrived, model=name)
            record("kit19_prompt_tokens", len(sequence.prompt), model=name)
            record("kit19_reused_prompt_tokens", sequence.reused, model=name)
            record("kit19_completion_tokens", len(sequence.completion.token_ids), model=name)
        _, on_end = self._ends.pop(id(sequence))
        on_end(sequence)

    def _count(self) -> None:
        record, batch, name = self._metrics.record, self._batch, self._name
        record("kit19_sequences_running", batch.running, model=name)
        record("kit19_sequences_waiting", len(batch.waiting), model=name)
        record("kit19_cache_tokens", batch.cached_tokens, model=name)
        room = self._limits.cache_tokens or self._limits.max_sequences * self._loaded.max_length
        record("kit19_cache_use", batch.cached_tokens / room, model=name)


def batch_limits(section: ServeConfig, loaded: LoadedModel) -> BatchLimits:
    """The config's limits; the cache's room by the memory that is free, unless it is given."""
    room = section.cache_tokens
    whole = section.max_batch_size * loaded.max_length
    if room is None:
        room = min(whole, max(loaded.max_length, int(loaded.free_memory() / 2 / loaded.cache_token_bytes)))
    return BatchLimits(section.max_batch_size, min(room, whole), section.prefill_tokens, section.prefix_cache_tokens)
