"""What logits become: the next token of each sequence, and the log-probabilities of its prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from kit19_ray.lm.decoding import DecodingSequence
from kit19_ray.lm.loaded_model import LoadedModel
from kit19_ray.lm.sampling import adjust, draw, top


def score_prompt(sequence: DecodingSequence, logits: torch.Tensor, count: int) -> None:
    """Adds the log-probabilities of the prompt's tokens that follow those of this chunk."""
    # Of a prompt read in pieces: this piece's logits say how likely the tokens AFTER each of its own are, so its first
    # token was scored with the piece before, and the prompt's very first by nobody (None, as in OpenAI's answers).
    done, number = sequence.completion, sequence.params.top_logprobs
    if not done.prompt_logprobs:
        done.prompt_logprobs.append(None)
        done.prompt_top_logprobs.append(None)
    following = sequence.prompt[sequence.cached + 1 : sequence.cached + count + 1]
    if following:
        logprobs = logits[: len(following)].float().log_softmax(-1)
        tokens = torch.tensor(following, device=logits.device)[:, None]
        done.prompt_logprobs += logprobs.gather(-1, tokens)[:, 0].tolist()
        done.prompt_top_logprobs += top(logprobs, number) if number else [{} for _ in following]


def choose_tokens(loaded: LoadedModel, logits: torch.Tensor, rows: Sequence[DecodingSequence]) -> None:
    """Gives each row its next token, from float32[rows, vocabulary] logits."""
    wanted = [place for place, s in enumerate(rows) if s.params.max_tokens > 0]
    for place, sequence in enumerate(rows):
        if place not in wanted:  # only its prompt was to be scored
            sequence.finish("length", loaded)
    if not wanted:
        return
    if len(wanted) < len(rows):
        logits, rows = logits[wanted], [rows[place] for place in wanted]
    # Greedy for all rows in one call; only rows that draw or change logits cost a pass in Python of their own.
    tokens = logits.argmax(-1).tolist()
    for place, sequence in enumerate(rows):
        params = sequence.params
        if params.changes_logits or sequence.source is not None:
            row = logits[place]
            if params.changes_logits:
                row = adjust(row, params, sequence.prompt, sequence.completion.token_ids)
            tokens[place] = draw(row, params, sequence.source) if sequence.source is not None else int(row.argmax())
    # Reported probabilities are of the logits as the model gave them, whatever penalties chose the token.
    total = logits.logsumexp(-1)
    chosen = torch.tensor(tokens, device=logits.device)
    values = (logits.gather(-1, chosen[:, None])[:, 0] - total).tolist()
    most = max(s.params.top_logprobs for s in rows)
    # As many for all rows as the most demanding asks for, cut for each below: one topk instead of one a row.
    tops = top(logits - total[:, None], most) if most else []
    for place, (sequence, token, value) in enumerate(zip(rows, tokens, values)):
        number = sequence.params.top_logprobs
        likeliest = dict(list(tops[place].items())[:number]) if number else None
        sequence.add(token, value, likeliest, loaded)
