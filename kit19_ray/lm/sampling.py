"""Which token comes next: each sequence by its own parameters, whatever the others of the batch ask for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

_FIRST_LOOK = 256  # likeliest tokens looked at before all are sorted: nearly always enough for top_p


@dataclass(frozen=True)
class SamplingParams:
    """How tokens are chosen and texts are ended. The defaults are greedy and change nothing.

    Log-probabilities that are reported are the model's own: none of this changes them.
    """

    max_tokens: int = 16
    temperature: float = 0.0
    """0 takes the likeliest token; then top_p, top_k, min_p and seed mean nothing."""
    top_p: float = 1.0
    """Among the likeliest tokens that together have this probability, the one that crosses it included."""
    top_k: int = 0
    """Among this many likeliest tokens; 0 is all."""
    min_p: float = 0.0
    """Among tokens at least this times as likely as the likeliest."""
    presence_penalty: float = 0.0
    """Subtracted from the logit of every token that was generated already."""
    frequency_penalty: float = 0.0
    """Subtracted as often as the token was generated."""
    repetition_penalty: float = 1.0
    """Divides positive logits, multiplies negative ones, of tokens in prompt or completion (Keskar et al. 2019)."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to the logits of these tokens."""
    stop: tuple[str, ...] = ()
    """Texts that end a completion; they are cut off."""
    seed: int | None = None
    """None is random."""
    ignore_eos: bool = False
    """Go on to max_tokens."""
    top_logprobs: int = 0
    """How many of the likeliest tokens to list beside each."""
    score_prompt: bool = False
    """Give the log-probabilities of the prompt's tokens too."""

    @property
    def changes_logits(self) -> bool:
        """Whether the logits are altered before a token is chosen."""
        return bool(
            self.presence_penalty or self.frequency_penalty or self.logit_bias or self.repetition_penalty != 1.0
        )


def random_source(seed: int | None) -> torch.Generator:
    """A sequence's own source of randomness, so that its company does not change what it draws."""
    source = torch.Generator()
    if seed is None:
        source.seed()
    else:
        source.manual_seed(seed)
    return source


def adjust(
    logits: torch.Tensor, params: SamplingParams, prompt: Sequence[int], generated: Sequence[int]
) -> torch.Tensor:
    """float32[vocabulary]: one row's logits with penalties and biases applied."""
    logits = logits.clone()
    if params.repetition_penalty != 1.0:
        seen = torch.tensor(sorted({*prompt, *generated}), device=logits.device)
        # As CTRL has it, penalising by division alone would make a negative logit likelier.
        values = logits[seen]
        logits[seen] = torch.where(values > 0, values / params.repetition_penalty, values * params.repetition_penalty)
    if generated and (params.presence_penalty or params.frequency_penalty):
        counts = Counter(generated)
        tokens = torch.tensor(list(counts), device=logits.device)
        times = torch.tensor(list(counts.values()), device=logits.device, dtype=logits.dtype)
        logits[tokens] -= params.presence_penalty + params.frequency_penalty * times
    if params.logit_bias:
        biased = torch.tensor(list(params.logit_bias), device=logits.device)
        logits[biased] += torch.tensor(list(params.logit_bias.values()), device=logits.device, dtype=logits.dtype)
    return logits


def draw(logits: torch.Tensor, params: SamplingParams, source: torch.Generator) -> int:
    """A token of float32[vocabulary] logits, by the source given; float64 so that the sums are exact enough."""
    # On the CPU, where the source of randomness is: torch sums up on a GPU in another order each time, and a seed
    # promises the same text.
    probabilities = (logits.double().cpu() / params.temperature).softmax(-1)
    number = float(torch.rand(1, generator=source, dtype=torch.float64))
    if params.top_p >= 1 and not params.top_k and not params.min_p:
        reached = probabilities.cumsum(-1)
        return int(torch.searchsorted(reached, number * reached[-1], right=True).clamp(max=len(reached) - 1))
    size = len(probabilities)
    # Sorting the whole vocabulary for every token is work that the first few hundred nearly always make needless.
    look = min(size, params.top_k or _FIRST_LOOK)
    values, order = probabilities.topk(look)
    while not params.top_k and look < size and (values.sum() < params.top_p or values[-1] >= params.min_p * values[0]):
        look = min(size, 8 * look)
        values, order = probabilities.topk(look)
    reached = values.cumsum(-1)
    # The sum BEFORE a token is held against top_p, so the one that crosses it is in.
    kept = (reached - values < params.top_p) & (values >= params.min_p * values[0])
    # top_p=0 would leave nothing to draw from.
    kept[0] = True
    reached = reached[kept]
    return int(order[kept][torch.searchsorted(reached, number * reached[-1], right=True).clamp(max=len(reached) - 1)])


def top(logprobs: torch.Tensor, number: int) -> list[dict[int, float]]:
    """The `number` likeliest tokens of each row of [rows, vocabulary], likeliest first."""
    values, tokens = logprobs.topk(min(number, logprobs.shape[-1]), dim=-1)
    return [dict(zip(t, v)) for t, v in zip(tokens.tolist(), values.tolist())]
