"""lm-evaluation-harness asks, the actors answer. Tokens are cut as the harness's own `hf` model cuts them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from kit19_ray.evaluate.actors import Pool
from kit19_ray.lm.loaded_model import context_length

_GENERATION = {"max_gen_toks": 256, "temperature": 0.0, "top_p": 1.0}  # where a task says nothing, as in `hf`


class RayLM(TemplateLM):  # type: ignore[misc]  # lm_eval has no types
    """The model of a pool of actors.

    Args:
        config: the model's Hugging Face config.
        tokenizer: its tokenizer.
    """

    def __init__(self, pool: Pool, config: Any, tokenizer: Any) -> None:
        super().__init__()
        self.pool = pool
        self.tokenizer = tokenizer
        self.max_length = context_length(config, tokenizer)
        # Contexts and continuations repeat; the same text is cut once.
        self._encode_cached = lru_cache(maxsize=1 << 16)(self._encode)

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """What stands before a continuation without a context."""
        bos = self.tokenizer.bos_token_id
        return int(bos) if bos is not None else self.eot_token_id

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Tokens of `string`, with the tokenizer's own special tokens unless it opens with one already."""
        return list(self._encode_cached(string, add_special_tokens))

    def _encode(self, string: str, add_special_tokens: bool | None) -> tuple[int, ...]:
        if add_special_tokens is None and string.startswith(self._prefix):
            add_special_tokens = False
        options = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return tuple(self.tokenizer.encode(string, **options))

    @property
    def _prefix(self) -> str:
        return str(self.tokenizer.decode(self.prefix_token_id))

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Log-probability and greediness of each (context, continuation)."""
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return found

    def _loglikelihood_tokens(
        self, requests: Iterable[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        return self.pool.loglikelihoods([(context, continuation) for _, context, continuation in requests], "choices")

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        """Log-probability of each whole text, in windows that do not overlap where they are counted."""
        windows: list[tuple[int, tuple[list[int], list[int]]]] = []
        for number, request in enumerate(requests):
            (text,) = request.args
            rolling = get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            windows += [(number, make_disjoint_window(window)) for window in rolling]
        totals = [0.0] * len(requests)
        found = self.pool.loglikelihoods([pair for _, pair in windows], "windows of text")
        for (number, _), (value, _) in zip(windows, found, strict=True):
            totals[number] += value
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """The completion of each context up to its stop sequences."""
        out = [""] * len(requests)
        groups: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(repr(request.args[1]), []).append(number)
        for numbers in groups.values():
            options = _options(requests[numbers[0]].args[1])
            room = self.max_length - options["max_tokens"]
            prompts = [self.tok_encode(requests[n].args[0])[-room:] for n in numbers]
            for n, completion in zip(numbers, self.pool.generate(prompts, options, "generations"), strict=True):
                out[n] = completion.text
        return out


def _options(asked: dict[str, Any]) -> dict[str, Any]:
    """Keywords of `Generator.generate` for a task's generation_kwargs."""
    given = _GENERATION | asked
    until = given.get("until") or []
    sampled = given.get("do_sample", given["temperature"] > 0)
    return {
        "max_tokens": given["max_gen_toks"],
        "temperature": given["temperature"] if sampled else 0.0,
        "top_p": given["top_p"],
        "stop": [until] if isinstance(until, str) else list(until),
    }
