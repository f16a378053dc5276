"""lm-evaluation-harness asks, the actors answer. Tokens are cut as the harness's own `hf` model cuts them.

One thing is otherwise: what looks like a special token in a document is text here, as in training and serving.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from kit19_ray.errors import EvaluateError, quote
from kit19_ray.evaluate.actors import Backend, GenerateOptions
from kit19_ray.lm.prefix_tree import Request
from kit19_ray.lm.text_encoder import TextEncoder
from kit19_ray.utils.json_types import Json

_GENERATION = {"max_gen_toks": 256, "temperature": 0.0, "top_p": 1.0}  # where a task says nothing, as in `hf`


class RayLM(TemplateLM):  # type: ignore[misc]  # lm_eval has no types
    """The model behind a backend.

    Args:
        backend: what answers; may be changed between two evaluations.
        tokenizer: the model's.
        max_length: tokens the model can read.
        templated: what the harness asks was made by `apply_chat_template`.
    """

    def __init__(self, backend: Backend, tokenizer: Any, max_length: int, templated: bool = False) -> None:
        super().__init__()
        self.backend = backend
        self.tokenizer = tokenizer
        self.encoder = TextEncoder(tokenizer)
        self.max_length = max_length
        self._templated = templated
        self.task = "tasks"
        """What is being asked, for the progress line."""
        # Contexts and continuations repeat; the same text is cut once.
        self._encode_cached = lru_cache(maxsize=1 << 16)(self._encode)

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text, else the one that begins one: what stands where there is no context.

        Raises:
            EvaluateError: the tokenizer has neither.
        """
        found = next((i for i in (self.tokenizer.eos_token_id, self.tokenizer.bos_token_id) if i is not None), None)
        if found is None:
            raise EvaluateError(
                f"{self.task}: a question without a context needs a token to stand before the answer, and the "
                f"tokenizer {quote(self.tokenizer_name)} has neither a beginning-of-text nor an end-of-text token",
                hint="name one in its tokenizer_config.json (eos_token), or leave these tasks out of evaluate.tasks",
            )
        return int(found)

    @property
    def prefix_token_id(self) -> int:
        """What stands before a continuation without a context.

        Raises:
            EvaluateError: as `eot_token_id`.
        """
        bos = self.tokenizer.bos_token_id
        return int(bos) if bos is not None else self.eot_token_id

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Tokens of `string`, with what the tokenizer puts round a text unless a template has opened it already."""
        return list(self._encode_cached(string, add_special_tokens))

    def _encode(self, string: str, add_special_tokens: bool | None) -> tuple[int, ...]:
        if not self._templated:
            return tuple(self.encoder.text([string], add_special_tokens is not False)[0])
        bos = self.tokenizer.bos_token or self.tokenizer.eos_token
        if add_special_tokens is None:
            add_special_tokens = not (bos and string.startswith(bos))
        return tuple(self.encoder.templated([string], add_special_tokens)[0])

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        if self._templated:  # the context was quoted when it was templated
            continuation = self.encoder.quoted(continuation)
        found: tuple[list[int], list[int]] = super()._encode_pair(context, continuation)
        return found

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer's name, which the harness puts into the keys of its own caches."""
        return str(self.tokenizer.name_or_path)

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The tokenizer's chat template.

        Raises:
            EvaluateError: it has none.
        """
        found = getattr(self.tokenizer, "chat_template", None)
        if not found:
            raise EvaluateError(
                "evaluate.apply_chat_template: the model's tokenizer has no chat template",
                hint="set evaluate.apply_chat_template=false to ask it with plain text",
            )
        return str(found)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The conversation as one text, up to where the answer starts; without the system's turn where there is none.

        Raises:
            EvaluateError: the tokenizer has no chat template.
        """
        from jinja2 import TemplateError

        self.chat_template()
        chat_history = [{**turn, "content": self.encoder.quoted(turn["content"])} for turn in chat_history]
        options = {
            "tokenize": False,
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": not add_generation_prompt,
        }
        try:
            return str(self.tokenizer.apply_chat_template(chat_history, **options))
        except TemplateError:  # as the harness's `hf` model does: some templates refuse the system's turn
            plain = [turn for turn in chat_history if turn["role"] != "system"]
            return str(self.tokenizer.apply_chat_template(plain, **options))

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Log-probability and greediness of each (context, continuation)."""
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return found

    def _loglikelihood_tokens(
        self, requests: Iterable[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        pairs = [self._windows(context, continuation) for _, context, continuation in requests]
        found = iter(self.backend.loglikelihoods([one for pair in pairs for one in pair], f"choices of {self.task}"))
        parts = [[next(found) for _ in pair] for pair in pairs]
        return [(sum(value for value, _ in part), all(greedy for _, greedy in part)) for part in parts]

    def _windows(self, context: list[int], continuation: list[int]) -> list[Request]:
        """A continuation longer than the model can read is scored in windows, each after the last token before it."""
        if len(continuation) <= self.max_length:
            return [(context, continuation)]
        return _disjoint(continuation, context[-1], self.max_length)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        """Log-probability of each whole text, in windows that do not overlap where they are counted."""
        windows: list[tuple[int, Request]] = []
        for number, request in enumerate(requests):
            (text,) = request.args
            ids = self.tok_encode(text)
            windows += [(number, pair) for pair in _disjoint(ids, self.prefix_token_id, self.max_length)]
        totals = [0.0] * len(requests)
        found = self.backend.loglikelihoods([pair for _, pair in windows], f"windows of {self.task}")
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
            # A task asks for 256 tokens where it says nothing; a short context keeps half of itself for the question.
            options["max_tokens"] = min(options["max_tokens"], max(1, self.max_length // 2))
            room = max(1, self.max_length - options["max_tokens"])
            prompts = [(self.tok_encode(requests[n].args[0]) or [self.prefix_token_id])[-room:] for n in numbers]
            for n, completion in zip(
                numbers, self.backend.generate(prompts, options, f"answers of {self.task}"), strict=True
            ):
                out[n] = completion.text
        return out


def _disjoint(ids: list[int], prefix: int, max_length: int) -> list[Request]:
    """A whole text as (context, continuation) pairs that the model can read; each token is asked for once."""
    windows = get_rolling_token_windows(token_list=ids, prefix_token=prefix, max_seq_len=max_length, context_len=1)
    return [make_disjoint_window(window) for window in windows]


def _options(asked: Json) -> GenerateOptions:
    """Keywords of `Generator.generate` for a task's generation_kwargs."""
    given: Json = _GENERATION | asked
    until = given.get("until") or []
    sampled = given.get("do_sample", given["temperature"] > 0)
    return {
        "max_tokens": given["max_gen_toks"],
        "temperature": given["temperature"] if sampled else 0.0,
        "top_p": given["top_p"],
        "stop": [until] if isinstance(until, str) else list(until),
    }
