"""Token by token: one batch of prompts, padded on the left, through the model's key-value cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from kit19_ray.lm.loaded_model import LoadedModel


@dataclass
class Completion:
    """What followed one prompt."""

    text: str = ""
    """Decoded, special tokens included; cut before the stop sequence that ended it."""
    token_ids: list[int] = field(default_factory=list)
    """Every token but the one that ends a text. A stop sequence's tokens are here though not in `text`."""
    finish_reason: Literal["stop", "length"] = "length"
    """stop: the model ended the text, or a stop sequence came up. length: cut at the limit, or no longer wanted."""
    logprobs: list[float] = field(default_factory=list)
    """Of each token."""
    top_logprobs: list[dict[int, float]] = field(default_factory=list)
    """At each token the likeliest ones, as many as were asked for; empty when none were."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen and texts are ended; see `Generator.generate`."""

    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    top_logprobs: int = 0


class Decoder:
    """Decodes one batch. A row that has ended leaves the batch once half of the rows have."""

    def __init__(self, loaded: LoadedModel, sampling: Sampling) -> None:
        self.loaded = loaded
        self.model = loaded.model
        self.sampling = sampling
        # A token has at least one byte, so a stop sequence that has just ended lies within this many tokens. A few
        # more, so that the first of them does not begin within a character.
        self._tail = max((len(s.encode()) for s in sampling.stop), default=0) + 4

    @torch.inference_mode()
    def run(
        self,
        prompts: Sequence[Sequence[int]],
        limits: Sequence[int],
        seeds: Sequence[int | None],
        wanted: Sequence[Callable[[], bool]] | None = None,
        heard: Sequence[Callable[[Completion], None]] | None = None,
    ) -> list[Completion]:
        """Completions of the prompts, each of at most its limit of tokens."""
        out = [Completion() for _ in prompts]
        sources = [_source(seed) for seed in seeds] if self.sampling.temperature > 0 else []
        length = max(map(len, prompts))
        ids = torch.zeros((len(prompts), length), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, length - len(prompt) :] = torch.tensor(prompt, dtype=torch.long)
            mask[row, length - len(prompt) :] = 1
        ids, mask = ids.to(self.loaded.device), mask.to(self.loaded.device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        rows = list(range(len(prompts)))  # which prompt each row of the batch belongs to
        alive = {n for n in rows if limits[n] > 0}
        cache: Any = None
        while alive:
            if wanted is not None:
                for n in [n for n in alive if not wanted[n]()]:
                    out[n].text = self.loaded.decode(out[n].token_ids)
                    alive.discard(n)
                if not alive:
                    break
            logits, cache = self._step(ids, mask, positions, cache)
            chosen, logprobs, tops = self._choose(logits, [sources[n] for n in rows] if sources else [])
            for row, n in enumerate(rows):
                if n not in alive:
                    continue
                before = len(out[n].token_ids)
                if self._ended(out[n], chosen[row], logprobs[row], tops[row] if tops else None, limits[n]):
                    alive.discard(n)
                if heard is not None and len(out[n].token_ids) > before:
                    heard[n](out[n])
            kept = [row for row, n in enumerate(rows) if n in alive]
            ids = torch.tensor(chosen, dtype=torch.long, device=self.loaded.device)[:, None]
            positions = positions[:, -1:] + 1
            if alive and 2 * len(kept) <= len(rows) and hasattr(cache, "batch_select_indices"):
                index = torch.tensor(kept, device=self.loaded.device)
                cache.batch_select_indices(index)
                ids, mask, positions = ids[index], mask[index], positions[index]
                rows = [rows[row] for row in kept]
            mask = torch.cat([mask, mask.new_ones((len(rows), 1))], dim=-1)
        return out

    def _step(self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Any) -> tuple[Any, Any]:
        """float32[rows, vocabulary] logits after the last token, and the cache."""
        accepts = self.loaded.accepts
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "use_cache": True, "past_key_values": cache}
        if "position_ids" in accepts:
            inputs["position_ids"] = positions
        if "logits_to_keep" in accepts:
            inputs["logits_to_keep"] = 1
        made = self.model(**inputs)
        return made.logits[:, -1].float(), made.past_key_values

    def _choose(
        self, logits: torch.Tensor, sources: Sequence[torch.Generator]
    ) -> tuple[list[int], list[float], list[dict[int, float]]]:
        """The next token of each row with its log-probability, and the likeliest ones when asked for."""
        logprobs = logits.log_softmax(-1)
        if self.sampling.temperature > 0:
            chosen = sample(logits.cpu(), self.sampling.temperature, self.sampling.top_p, sources).to(logits.device)
        else:
            chosen = logits.argmax(-1)
        values = logprobs.gather(-1, chosen[:, None])[:, 0]
        tops = top(logprobs, self.sampling.top_logprobs) if self.sampling.top_logprobs else []
        return chosen.tolist(), values.tolist(), tops

    def _ended(self, done: Completion, token: int, logprob: float, top: dict[int, float] | None, limit: int) -> bool:
        """Adds a token to a completion; whether it is the last one."""
        loaded = self.loaded
        if token in loaded.eos_ids:
            done.finish_reason = "stop"
            done.text = loaded.decode(done.token_ids)
            return True
        done.token_ids.append(token)
        done.logprobs.append(logprob)
        if top is not None:
            done.top_logprobs.append(top)
        stop = self.sampling.stop
        if stop and any(s in loaded.decode(done.token_ids[-self._tail :]) for s in stop):
            text = loaded.decode(done.token_ids)
            cuts = [place for s in stop if (place := text.find(s)) >= 0]
            if cuts:
                done.text, done.finish_reason = text[: min(cuts)], "stop"
                return True
        if len(done.token_ids) >= limit:
            done.text = loaded.decode(done.token_ids)
            return True
        return False


def _source(seed: int | None) -> torch.Generator:
    source = torch.Generator()
    if seed is None:
        source.seed()
    else:
        source.manual_seed(seed)
    return source


def sample(logits: torch.Tensor, temperature: float, top_p: float, sources: Sequence[torch.Generator]) -> torch.Tensor:
    """int64[rows]: a token of each row of float32[rows, vocabulary] logits, by its own source of randomness.

    Among the likeliest tokens that together reach `top_p`, the one that crosses it included.
    """
    probabilities, order = (logits.double() / temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
    reached = probabilities.cumsum(-1)
    kept = (reached - probabilities < top_p).sum(-1, keepdim=True).clamp(min=1)
    total = reached.gather(-1, kept - 1)
    draws = torch.stack([torch.rand(1, generator=source, dtype=torch.float64) for source in sources])
    place = torch.searchsorted(reached, draws * total, right=True)
    tokens: torch.Tensor = order.gather(-1, torch.minimum(place, kept - 1))[:, 0]
    return tokens


def top(logprobs: torch.Tensor, number: int) -> list[dict[int, float]]:
    """The `number` likeliest tokens of each row of [rows, vocabulary], likeliest first."""
    values, tokens = logprobs.topk(min(number, logprobs.shape[-1]), dim=-1)
    return [dict(zip(t, v)) for t, v in zip(tokens.tolist(), values.tolist())]
