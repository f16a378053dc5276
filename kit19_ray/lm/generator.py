"""The model as evaluation and serving use it, so that what is measured is what is served.

    loglikelihoods   how likely is each continuation after its context
    score            how likely is each token of a text
    generate         complete prompts, greedily or by sampling

Probabilities are log-softmax in float32 of the model's own logits: temperature and top_p choose tokens, they do not
change what is reported.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from kit19_ray.errors import UserError
from kit19_ray.lm import cuda, prefix_tree, pretrained
from kit19_ray.lm.continuous_batching import BatchLimits, ContinuousBatch
from kit19_ray.lm.decoding import DecodedText, DecodingSequence
from kit19_ray.lm.loaded_model import LoadedModel, ModelInputs, compute_dtype
from kit19_ray.lm.prefix_tree import Request
from kit19_ray.lm.sampling import SamplingParams, top

log = logging.getLogger(__name__)

_PROBE = 6  # tokens of the context that shared and plain computation are compared on


@dataclass
class TextScore:
    """How likely each token of a text is after those before it; the first has nothing before it, hence None."""

    logprobs: list[float | None] = field(default_factory=list)
    top_logprobs: list[dict[int, float] | None] = field(default_factory=list)


class Generator(LoadedModel):
    """A loaded model that scores and completes. One thread at a time may use it.

    Args:
        batch_tokens: tokens, padding included, of one forward pass.
    """

    def __init__(self, model: Any, tokenizer: Any, batch_tokens: int = 8192) -> None:
        super().__init__(model, tokenizer)
        self.batch_tokens = batch_tokens

    @classmethod
    def load(
        cls,
        name: str,
        use_gpu: bool = False,
        threads: int | None = None,
        batch_tokens: int = 8192,
        spread: bool = False,
    ) -> Generator:
        """The model `name` (see `pretrained.resolve`) with its own tokenizer.

        Args:
            threads: compute threads of this process on a CPU; None leaves torch's.
            spread: the layers over all devices this process sees, for a model that does not fit one GPU.

        Raises:
            UserError: there is no such model or tokenizer, or no GPU that torch can use.
        """
        if use_gpu and (problem := cuda.problem()):
            raise UserError(problem)
        if threads is not None:
            torch.set_num_threads(threads)
        tokenizer = pretrained.load_tokenizer(name)
        model = pretrained.load_causal_lm(name, spread=spread)
        device = torch.device("cuda") if use_gpu else torch.device("cpu")
        dtype = compute_dtype(model.dtype, device)
        if not spread:
            model = model.to(device=device, dtype=dtype)
        elif model.dtype != dtype:  # what is spread over devices is where it belongs
            model = model.to(dtype)
        return cls(model, tokenizer, batch_tokens)

    @torch.inference_mode()
    def loglikelihoods(self, requests: Sequence[Request]) -> list[tuple[float, bool]]:
        """For each (context ids, continuation ids) the log-probability of the continuation, and whether it is greedy.

        A context longer than the model can read loses its beginning, as in lm-evaluation-harness. What requests have in
        common is computed once. The result does not depend on the others' company beyond rounding.

        Raises:
            ValueError: a part is empty, or a continuation is longer than the model can read.
        """
        trees = prefix_tree.build(
            requests, self.max_length, max(self.max_length, self.batch_tokens), self.supports_prefix_sharing
        )
        sums = np.zeros(len(requests))
        greedy = np.ones(len(requests), dtype=bool)
        for batch in prefix_tree.batches(trees, self.batch_tokens, self.vocab_size):
            self._score_trees(batch, sums, greedy)
        return [(float(total), bool(best)) for total, best in zip(sums, greedy)]

    def _score_trees(self, batch: list[prefix_tree.Tree], sums: Any, greedy: Any) -> None:
        try:
            layout = prefix_tree.layout(batch)
            logprobs, best = self._score_layout(layout)
        except torch.cuda.OutOfMemoryError:
            # One row cannot be halved. Else the bound is lowered for all that follows: what did not fit once seldom
            # does.
            if len(batch) == 1:
                raise
            torch.cuda.empty_cache()
            log.warning("out of GPU memory with %d rows: halving the batch", len(batch))
            self.batch_tokens = max(1, self.batch_tokens // 2)
            for part in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                self._score_trees(part, sums, greedy)
            return
        # add.at, not +=: a request has many targets in a batch, and fancy indexing would count only the last.
        np.add.at(sums, layout.requests, logprobs)
        np.logical_and.at(greedy, layout.requests, best)

    def _score_layout(self, layout: prefix_tree.Layout) -> tuple[Any, Any]:
        """float64[asked] log-probabilities and bool[asked] whether the token is the likeliest."""
        inputs: ModelInputs = {"input_ids": torch.from_numpy(layout.input_ids).to(self.device)}
        if layout.mask is not None:
            inputs["position_ids"] = torch.from_numpy(layout.positions).to(self.device)
            inputs["attention_mask"] = self._additive(torch.from_numpy(layout.mask))
        # Several continuations may ask at one place: its logits are made and reduced once.
        width = layout.input_ids.shape[1]
        places, inverse = np.unique(layout.rows * width + layout.columns, return_inverse=True)
        picked = self._logits_at(inputs, torch.from_numpy(places))
        where = torch.from_numpy(inverse).to(picked.device)
        tokens = torch.from_numpy(layout.tokens).to(picked.device)
        chosen = picked[where, tokens] - picked.logsumexp(-1)[where]
        best = picked.argmax(-1)[where] == tokens
        return chosen.double().cpu().numpy(), best.cpu().numpy()

    def _logits_at(self, inputs: ModelInputs, places: torch.Tensor) -> torch.Tensor:
        """float32[places, vocabulary], the logits at some places of the flattened batch.

        A head that is a module of its own is run on those places only: for a small model with a large vocabulary, whose
        batch is mostly contexts, it would be a fifth of the work and most of the memory.
        """

        def keep(head: torch.nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
            del head
            if not arguments:
                return None
            hidden, *others = arguments
            return hidden.flatten(0, 1)[places.to(hidden.device)][None], *others

        head = self.model.get_output_embeddings()
        hook = head.register_forward_pre_hook(keep) if head is not None else None
        try:
            logits = self._forward(inputs)
        finally:
            if hook is not None:
                hook.remove()
        if tuple(logits.shape[:2]) != (1, len(places)):  # the model does not call its head as a module
            logits = logits.flatten(0, 1)[places.to(logits.device)][None]
        # float32 after picking: the whole tensor in float32 would be twice as large, for places nobody asks about.
        return logits[0].float()

    def _forward(self, inputs: ModelInputs) -> torch.Tensor:
        """Logits [rows, length, vocabulary], or what a hook on the head leaves of them."""
        if "use_cache" in self.accepts:
            inputs["use_cache"] = False
        return torch.as_tensor(self.model(**inputs).logits)

    def _additive(self, mask: torch.Tensor) -> torch.Tensor:
        """[rows, 1, length, length] in the model's dtype: 0 where a token may look, the lowest number elsewhere."""
        dtype = self.model.dtype
        out = torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)
        return out[:, None].to(self.device)

    @cached_property
    @torch.inference_mode()
    def supports_prefix_sharing(self) -> bool:
        """Whether the model takes position ids and a mask of its own for each row, so that contexts can be shared.

        Found out by trying: continuations computed together must come out as those computed alone.
        """
        config = self.model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ())
        if "position_ids" not in self.accepts or getattr(config, "sliding_window", None) or kinds - {"full_attention"}:
            return False
        ids = [int(i) for i in np.random.default_rng(0).integers(self.vocab_size, size=_PROBE + 6)]
        context = ids[:_PROBE]
        requests = [(context, ids[_PROBE : _PROBE + 3]), (context, ids[_PROBE + 3 :])]
        sums = np.zeros((2, len(requests)))
        for row, share in zip(sums, (True, False)):
            for tree in prefix_tree.build(requests, self.max_length, self.max_length, share):
                try:
                    self._score_trees([tree], row, np.ones(len(requests), dtype=bool))
                except (ValueError, TypeError, RuntimeError) as error:  # the model refuses such a mask
                    log.info("contexts are not shared: %s", error)
                    return False
        # What rounding explains: another mask may take another kernel, and bf16 has 8 bits.
        tolerance = 1e-3 if self.model.dtype == torch.float32 else 0.3
        return bool(np.abs(sums[0] - sums[1]).max() < tolerance)

    @torch.inference_mode()
    def score(self, texts: Sequence[Sequence[int]], top_logprobs: int = 0) -> list[TextScore]:
        """The log-probability of every token of each text.

        Args:
            texts: token ids, at most `max_length` of each.
            top_logprobs: how many of the likeliest tokens to list at each place.

        Raises:
            ValueError: a text is longer than the model can read.
        """
        out = [TextScore() for _ in texts]
        for numbers in self._grouped([len(text) for text in texts]):
            length = max(len(texts[n]) for n in numbers)
            if length > self.max_length:
                raise ValueError(f"a text of {length} tokens, the model reads at most {self.max_length}")
            ids = torch.zeros((len(numbers), length), dtype=torch.long)
            for row, n in enumerate(numbers):
                ids[row, : len(texts[n])] = torch.tensor(texts[n], dtype=torch.long)
            ids = ids.to(self.device)
            logits = self._forward({"input_ids": ids})
            for row, n in enumerate(numbers):
                size = len(texts[n])
                logprobs = logits[row, : size - 1].float().log_softmax(-1)
                chosen = logprobs.gather(-1, ids[row, 1:size, None])[:, 0].tolist()
                out[n] = TextScore([None, *chosen], [None, *top(logprobs, top_logprobs)] if top_logprobs else [])
        return out

    def _grouped(self, lengths: Sequence[int]) -> list[list[int]]:
        """Numbers of the non-empty texts, longest first, in batches of at most `batch_tokens` padded tokens."""
        order = sorted((n for n, length in enumerate(lengths) if length), key=lambda n: -lengths[n])
        groups: list[list[int]] = []
        for n in order:
            if not groups or (len(groups[-1]) + 1) * lengths[groups[-1][0]] > self.batch_tokens:
                groups.append([])
            groups[-1].append(n)
        return groups

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_tokens: int | Sequence[int],
        *,
        temperature: float = 0.0,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
        seed: int | Sequence[int | None] | None = None,
        top_logprobs: int = 0,
        should_continue: Callable[[int], bool] | None = None,
        on_token: Callable[[int, DecodedText], None] | None = None,
    ) -> list[DecodedText]:
        """Completes each prompt.

        Args:
            prompts: token ids, one at least. A prompt that leaves no room for `max_tokens` loses its beginning.
            max_tokens: most tokens of a completion; one number, or one a prompt.
            temperature: 0 takes the likeliest token.
            top_p: sample among the likeliest tokens that together have this probability.
            stop: texts that end a completion; they are cut off.
            seed: of the sampling: one a prompt, or a number from which they follow. None is random.
            top_logprobs: how many of the likeliest tokens to list beside each.
            should_continue: asked before each step about each prompt's number; False ends its completion.
            on_token: told each prompt's number and its completion so far, after each of its tokens.

        Raises:
            ValueError: a prompt is empty, or `max_tokens` leaves no room for a prompt.
        """
        limits = [max_tokens] * len(prompts) if isinstance(max_tokens, int) else list(max_tokens)
        cut: list[list[int]] = []
        for prompt, limit in zip(prompts, limits, strict=True):
            if not prompt:
                raise ValueError("a prompt needs at least one token")
            if limit >= self.max_length:
                raise ValueError(f"max_tokens={limit}, the model's context is {self.max_length} tokens")
            cut.append(list(prompt[-(self.max_length - limit) :]))
        seeds = (
            list(seed) if isinstance(seed, Sequence) else [None if seed is None else seed + n for n in range(len(cut))]
        )
        sequences = [
            DecodingSequence(
                prompt,
                SamplingParams(limit, temperature, top_p, stop=tuple(stop), seed=own_seed, top_logprobs=top_logprobs),
                None if on_token is None else lambda sequence, n=n: on_token(n, sequence.completion),  # type: ignore[misc]
                None if should_continue is None else lambda n=n: should_continue(n),  # type: ignore[misc]
            )
            for n, (prompt, limit, own_seed) in enumerate(zip(cut, limits, seeds, strict=True))
        ]
        needs = [len(prompt) + limit for prompt, limit in zip(cut, limits)]
        room = max(self.batch_tokens, self.max_length)
        # As many rows as the shortest need would allow; what is let in is bounded by tokens all the same.
        batch = ContinuousBatch(self, BatchLimits(max(1, room // min(needs, default=1)), room, self.batch_tokens))
        # The longest first: those that end last start first, and neighbours are about as long.
        batch.run([sequences[n] for n in sorted(range(len(cut)), key=lambda n: -needs[n])])
        for sequence in sequences:
            if sequence.error is not None:
                raise sequence.error
        return [sequence.completion for sequence in sequences]
