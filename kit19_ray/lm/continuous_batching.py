"""Continuous batching: sequences join and leave between steps, over one key-value cache.

A step is at most two forward passes: a piece of the prompts that are still to be read, then one token of every sequence
whose prompt is read. So a long prompt holds the others up by one piece at a time, and a short answer does not wait for
the long ones beside it. Rows of the cache:

    0 .. d-1     decoding
    d .. n-1     their prompts are being read
    n ..         free

Both kinds are adjacent, so each pass reads one view of the cache. A sequence's tokens do not depend on its company
beyond rounding: masks hide the other rows' padding, and each draws from its own source of randomness.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from kit19_ray.lm.decoding import DecodingSequence
from kit19_ray.lm.forward_pass import ForwardPass
from kit19_ray.lm.loaded_model import LoadedModel
from kit19_ray.lm.next_token import choose_tokens, score_prompt
from kit19_ray.lm.prefix_store import PrefixStore

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchLimits:
    """How much is decoded together."""

    max_sequences: int = 16
    cache_tokens: int | None = None
    """Tokens of all rows together, padding included; None is room for `max_sequences` whole contexts. A sequence that
    does not fit beside the others waits; alone it always fits."""
    prefill_tokens: int = 512
    """Tokens of prompts read in one pass while others decode; four times as many when none does."""
    prefix_tokens: int = 0
    """Tokens of finished sequences kept for prompts that begin like them."""


class ContinuousBatch:
    """Sequences in progress. One thread at a time may use it.

    Args:
        loaded: the model.
    """

    def __init__(self, loaded: LoadedModel, limits: BatchLimits) -> None:
        self.loaded, self.limits = loaded, limits
        self.waiting: deque[DecodingSequence] = deque()
        self._decoding: list[DecodingSequence] = []
        self._prefilling: list[DecodingSequence] = []
        self.prefixes = PrefixStore(limits.prefix_tokens if loaded.takes_slots else 0)
        self._forward = ForwardPass(loaded)

    def add(self, sequence: DecodingSequence) -> None:
        """Puts a sequence at the end of the queue."""
        if sequence.params.max_tokens <= 0 and not sequence.params.score_prompt:
            sequence.finish("length", self.loaded)
        else:
            self.waiting.append(sequence)

    @property
    def running(self) -> int:
        """Sequences that have a row."""
        return len(self._decoding) + len(self._prefilling)

    @property
    def decoding(self) -> int:
        """Sequences that get a token in the next step."""
        return len(self._decoding)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.running and not self.waiting

    @property
    def cached_tokens(self) -> int:
        """Tokens whose keys and values are held for running sequences."""
        return sum(sequence.cached for sequence in (*self._decoding, *self._prefilling))

    @torch.inference_mode()
    def step(self) -> list[DecodingSequence]:
        """One step; the sequences that it ended, in no particular order.

        An error of a forward pass ends the sequences that had a row with that error; those that wait go on.
        """
        # First, so that a cancelled sequence neither takes a row nor costs a pass.
        ended = self._drop_unwanted()
        try:
            # Before the passes, so that whoever is admitted can be read in this very step.
            self._admit()
            if self._prefilling:
                self._prefill()
            if self._decoding:
                self._decode()
        except Exception as error:
            log.exception("a step with %d sequences failed", self.running)
            for sequence in (*self._decoding, *self._prefilling):
                sequence.error, sequence.finished = error, True
            # After an error the cache may be half written (out of memory in mid-layer), so nothing in it is trusted.
            ended += [*self._decoding, *self._prefilling]
            self._decoding, self._prefilling = [], []
            self.prefixes.clear()
            self._forward.reset()
            return ended
        return ended + self._take_finished()

    def run(self, sequences: Sequence[DecodingSequence]) -> None:
        """Decodes all of them to their end."""
        for sequence in sequences:
            self.add(sequence)
        while not self.is_idle:
            self.step()

    # ---- rows ----

    def _drop_unwanted(self) -> list[DecodingSequence]:
        ended = []
        for sequence in [s for s in self.waiting if not s.is_wanted]:
            self.waiting.remove(sequence)
            sequence.finish("length", self.loaded)
            ended.append(sequence)
        for sequence in (*self._decoding, *self._prefilling):
            if not sequence.is_wanted:
                sequence.finish("length", self.loaded)
        return ended + self._take_finished()

    def _admit(self) -> None:
        """Gives rows to sequences that wait, in order, while there is room: none overtakes another."""
        while self.waiting and self.running < self.limits.max_sequences:
            sequence = self.waiting[0]
            # What each MAY come to, not what it has: a sequence that was let in must never have to leave for want of
            # room.
            needs = [_most(s) for s in (*self._decoding, *self._prefilling, sequence)]
            room = self.limits.cache_tokens or self.limits.max_sequences * self.loaded.max_length
            # Rows of one tensor are as wide as the widest. A sequence that waits is not overtaken by smaller ones
            # behind it: else a long prompt could wait for ever. Alone it is always let in, however large.
            if self.running and len(needs) * max(needs) > room:
                return
            self.waiting.popleft()
            row = self.running
            if self.loaded.takes_slots:
                self._forward.cache.reserve(len(needs), max(needs), room)
                # Scoring needs the logits of every token of the prompt, so none of it may be taken from the store.
                if self.prefixes.capacity and not sequence.params.score_prompt:
                    length, layers = self.prefixes.find(sequence.prompt)
                    if length:
                        self._forward.cache.write(row, layers, length)
                        sequence.cached = sequence.reused = length
            sequence.started = time.monotonic()
            self._prefilling.append(sequence)

    def _take_finished(self) -> list[DecodingSequence]:
        """Takes the rows of ended sequences away; the last row of each kind fills the gap."""
        ended = [s for s in (*self._decoding, *self._prefilling) if s.finished]
        for sequence in ended:
            self._forward.forget(sequence)
            if sequence in self._decoding:
                # The invariant of the rows (see the module): decoding ones first, without a gap, then those being read.
                # Taking one away moves at most one row of each kind.
                row, last = self._decoding.index(sequence), len(self._decoding) - 1
                # Before its row is overwritten.
                self._keep_prefix(sequence, row)
                self._move(self._decoding[last], last, row)
                self._decoding[row] = self._decoding[last]
                self._decoding.pop()
                if self._prefilling:  # their first row is now one too far
                    self._move(self._prefilling[-1], last + len(self._prefilling), last)
                    self._prefilling.insert(0, self._prefilling.pop())
            else:
                place = self._prefilling.index(sequence)
                first, last = len(self._decoding), len(self._prefilling) - 1
                self._move(self._prefilling[last], first + last, first + place)
                self._prefilling[place] = self._prefilling[last]
                self._prefilling.pop()
        return ended

    def _move(self, sequence: DecodingSequence, source: int, target: int) -> None:
        if self.loaded.takes_slots:
            self._forward.cache.move(source, target, sequence.cached)

    def _keep_prefix(self, sequence: DecodingSequence, row: int) -> None:
        tokens = sequence.tokens[: sequence.cached]
        if self.prefixes.capacity and self.prefixes.wants(tokens):
            self.prefixes.keep(tokens, self._forward.cache.read(row, len(tokens)))

    # ---- forward passes ----

    def _prefill(self) -> None:
        """Reads a piece of the prompts, the first ones first."""
        if self.loaded.takes_slots:
            # What is left of a prompt that was mostly found in the store costs no pass: it is as a token to go on from.
            for sequence in [s for s in self._prefilling if len(s.prompt) - s.cached == 1]:
                if not sequence.params.score_prompt:
                    self._start_decoding(sequence)
            if not self._prefilling:
                return
        # Scoring needs the logits of every token, a vocabulary each: no larger passes for that.
        alone = not self._decoding and not any(s.params.score_prompt for s in self._prefilling)
        budget = self.limits.prefill_tokens * (4 if alone else 1)
        rows: list[DecodingSequence] = []
        counts: list[int] = []
        for sequence in self._prefilling if self.loaded.takes_slots else self._prefilling[:1]:
            left = len(sequence.prompt) - sequence.cached
            # The first row may take the whole budget; the others are no longer than it, so that padding stays small.
            count = min(left, budget) if not rows else min(left, max(counts))
            # A row that would be cut by its neighbours' length, or make the pass too large, waits for the next.
            if rows and ((len(rows) + 1) * max(counts) > budget or count < left):
                break
            rows.append(sequence)
            counts.append(count)
        chunks = [s.prompt[s.cached : s.cached + count] for s, count in zip(rows, counts)]
        scored = any(s.params.score_prompt for s in rows)
        logits, columns = self._forward(len(self._decoding), rows, chunks, every=scored)
        for place, (sequence, count) in enumerate(zip(rows, counts)):
            if sequence.params.score_prompt:
                score_prompt(sequence, logits[place], count)
            sequence.cached += count
        read = [place for place, s in enumerate(rows) if s.cached == len(s.prompt)]
        if not read:
            return
        last = torch.stack([logits[place, columns[counts[place] - 1]] for place in read]).float()
        choose_tokens(self.loaded, last, [rows[place] for place in read])
        for place in reversed(read):
            self._start_decoding(rows[place])

    def _start_decoding(self, sequence: DecodingSequence) -> None:
        """Puts a row whose prompt is read at the end of the decoding ones, in exchange with the one that is there."""
        place, border = self._prefilling.index(sequence), len(self._decoding)
        if place and self.loaded.takes_slots:
            length = max(sequence.cached, self._prefilling[0].cached)
            self._forward.cache.swap(border, border + place, length)
        self._prefilling[place] = self._prefilling[0]
        self._prefilling.pop(0)
        self._decoding.append(sequence)

    def _decode(self) -> None:
        places = [place for place, s in enumerate(self._decoding) if not s.finished]
        if not places:
            return
        if not self.loaded.takes_slots:
            for sequence in [self._decoding[place] for place in places]:
                logits, columns = self._forward(0, [sequence], [sequence.tokens[sequence.cached :]])
                sequence.cached += 1
                choose_tokens(self.loaded, logits[:, columns[0]].float(), [sequence])
            return
        # A row that ended with its first token stays in place until the step is over; its logits are thrown away.
        chunks = [s.tokens[s.cached : s.cached + 1] or [0] for s in self._decoding]
        logits, columns = self._forward(0, self._decoding, chunks)
        for place in places:
            self._decoding[place].cached += 1
        choose_tokens(self.loaded, logits[places][:, columns[0]].float(), [self._decoding[place] for place in places])


def _most(sequence: DecodingSequence) -> int:
    """Tokens a sequence may come to have in the cache."""
    return len(sequence.prompt) + sequence.params.max_tokens
