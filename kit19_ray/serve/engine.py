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
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import NamedTuple, Protocol

from kit19_ray.config.schema import ServeConfig
from kit19_ray.lm.adapters import Adapters
from kit19_ray.lm.continuous_batching import BatchLimits, ContinuousBatch
from kit19_ray.lm.decoding import DecodingSequence, OnToken
from kit19_ray.lm.loaded_model import LoadedModel
from kit19_ray.serve.metrics import ServeMetrics

log = logging.getLogger("ray.serve")

_ORDER_SECONDS = 300.0  # that an adapter may take to be read

OnEnd = Callable[[DecodingSequence], object]


class _Submitted(NamedTuple):
    sequence: DecodingSequence
    on_end: OnEnd


class _Order(NamedTuple):
    """Work on the model between two steps."""

    work: Callable[[], None]
    done: Future[None]


class Engine(Protocol):
    """Decodes sequences, as many at a time as it can."""

    def submit(self, sequence: DecodingSequence, on_end: OnEnd) -> None:
        """Takes a sequence; returns at once.

        Its `on_token` is called after each token, and `on_end` once, when it is finished, has failed (`error`) or was
        cancelled; both in the engine's own thread. Setting `cancelled` ends it within a step.
        """

    def load_adapter(self, name: str, folder: str) -> None:
        """Makes an adapter known, which sequences then name; blocks until it is.

        Raises:
            UserError: it does not fit the model.
        """

    def forget_adapter(self, name: str) -> None:
        """Lets go of an adapter that no sequence names any more."""

    @property
    def is_alive(self) -> bool:
        """Whether it still decodes; a dead one never does again."""

    def close(self) -> None:
        """Ends it; what still runs is cancelled."""


class TransformersEngine:
    """A thread that steps continuous batches for as long as there is something to do.

    One batch for the model and one for each adapter in use, in turn: they share the weights, and not the cache, since
    the same text has other keys and values under another adapter.

    Args:
        loaded: the model; nobody else may use it meanwhile.
        name: the model's name in metrics.
    """

    def __init__(self, loaded: LoadedModel, limits: BatchLimits, metrics: ServeMetrics, name: str) -> None:
        self._batches: dict[str | None, ContinuousBatch] = {None: ContinuousBatch(loaded, limits)}
        self._adapters = Adapters(loaded)
        self._limits, self._loaded = limits, loaded
        self._room = limits.cache_tokens or limits.max_sequences * loaded.max_length
        self._metrics, self._name = metrics, name
        self._inbox: queue.SimpleQueue[_Submitted | _Order | None] = queue.SimpleQueue()
        self._ends: dict[int, _Submitted] = {}
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
        self._inbox.put(_Submitted(sequence, on_end))

    def load_adapter(self, name: str, folder: str) -> None:
        """As Engine."""
        self._order(partial(self._adapters.load, name, folder))

    def forget_adapter(self, name: str) -> None:
        """As Engine."""

        def forget() -> None:
            if (batch := self._batches.get(name)) is None or batch.is_idle:
                self._batches.pop(name, None)
                self._adapters.forget(name)

        self._order(forget)

    def _order(self, work: Callable[[], None]) -> None:
        """Has the engine's thread do something between two steps, and raises what that raises."""
        if self._is_over:
            raise RuntimeError("the engine was closed")
        done: Future[None] = Future()
        self._inbox.put(_Order(work, done))
        done.result(timeout=_ORDER_SECONDS)

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
                busy = [(name, batch) for name, batch in self._batches.items() if not batch.is_idle]
                for name, batch in busy:
                    # The cache's room is shared out among those that decode now; a sequence alone always fits.
                    batch.limits = replace(self._limits, cache_tokens=max(1, self._room // len(busy)))
                    self._adapters.activate(name)
                    for sequence in batch.step():
                        self._end(sequence)
                for name in [name for name, batch in self._batches.items() if name is not None and batch.is_idle]:
                    del self._batches[name]  # with its cache
                self._count()
        except Exception:
            log.exception("the engine ends: a fault outside of a forward pass")
        finally:
            self._is_over = True
            while not self._inbox.empty():
                item = self._inbox.get()
                if isinstance(item, _Submitted):
                    self._ends[id(item.sequence)] = item
                elif item is not None:
                    item.done.set_exception(RuntimeError("the engine was closed"))
            for waiting, on_end in self._ends.values():
                waiting.error = RuntimeError("the engine was closed")
                on_end(waiting)
            self._ends.clear()

    def _take(self) -> bool:
        """Takes what was submitted, and waits for it when there is nothing else to do; False ends the thread."""
        while True:
            try:
                item = self._inbox.get(block=all(batch.is_idle for batch in self._batches.values()))
            except queue.Empty:
                return True
            if item is None:
                return False
            if isinstance(item, _Submitted):
                self._add(item)
            else:
                _obey(item)

    def _add(self, item: _Submitted) -> None:
        sequence = item.sequence
        self._ends[id(sequence)] = item
        sequence.on_token = partial(self._on_token, sequence.on_token)
        if sequence.adapter is not None and not self._adapters.has(sequence.adapter):
            sequence.error, sequence.finished = KeyError(sequence.adapter), True
        else:
            if sequence.adapter not in self._batches:
                self._batches[sequence.adapter] = ContinuousBatch(self._loaded, self._limits)
            self._batches[sequence.adapter].add(sequence)
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
        record, batches, name = self._metrics.record, list(self._batches.values()), self._name
        record("kit19_sequences_running", sum(batch.running for batch in batches), model=name)
        record("kit19_sequences_waiting", sum(len(batch.waiting) for batch in batches), model=name)
        cached = sum(batch.cached_tokens for batch in batches)
        record("kit19_cache_tokens", cached, model=name)
        record("kit19_cache_use", cached / self._room, model=name)


def _obey(order: _Order) -> None:
    try:
        order.work()
    except Exception as error:  # noqa: BLE001 - whatever it is, the one who ordered it is told
        order.done.set_exception(error)
    else:
        order.done.set_result(None)


def batch_limits(section: ServeConfig, loaded: LoadedModel) -> BatchLimits:
    """The config's limits; the cache's room by the memory that is free, unless it is given."""
    room = section.cache_tokens
    whole = section.max_batch_size * loaded.max_length
    if room is None:
        room = min(whole, max(loaded.max_length, int(loaded.free_memory() / 2 / loaded.cache_token_bytes)))
    return BatchLimits(section.max_batch_size, min(room, whole), section.prefill_tokens, section.prefix_cache_tokens)
