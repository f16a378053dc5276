"""The loss, computed by us so that it is exact: one sum over the labels of a batch, whoever holds which rows.

    loss = sum of -log p(label) over the labels of the GLOBAL batch / their number

The number comes from the shards' `num_labels`, so no worker has to be asked. Labels stand at the token they name and
are shifted here: the hidden state at t is asked for the label at t + 1.

Only the positions before a label need logits. Where a model is nothing but a body and a linear head, the head runs on
those positions alone: with a small model and a large vocabulary that is a good part of the work.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from kit19_ray.artifacts.schemas import IGNORE
from kit19_ray.errors import DataError

# Heads that are one linear layer: no scaling, no soft cap between the body and the logits.
LINEAR_HEADS = frozenset({"GPTNeoXForCausalLM", "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM"})

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


def asked_positions(labels: Int32, position_ids: Int32) -> tuple[Int64, Int64]:
    """Where logits are needed, and what they are asked for.

    Args:
        labels, position_ids: int32 `[rows, seq_len]`.

    Returns:
        positions: int64 `[n]` into the flattened `[rows * seq_len]`, the token before each label.
        targets: int64 `[n]`, the labels.

    Raises:
        DataError: an example's first token has a label, which the example before it would be asked for.
    """
    learned = labels != IGNORE
    wrong = (learned & (position_ids == 0)).any(axis=1) | learned[:, 0]
    if wrong.any():
        at = int(np.argmax(wrong))
        raise DataError(f"packed row {at} of a batch learns the first token of an example: the shards are not ours")
    row, column = np.nonzero(learned)
    positions = row * labels.shape[1] + column - 1
    return positions.astype(np.int64), labels[row, column].astype(np.int64)


class PackedLM(torch.nn.Module):
    """A causal LM whose forward pass gives the summed loss of packed rows.

    Args:
        model: a Hugging Face causal LM.
        head_on_labels: run the head on the asked positions only; None means where the architecture allows it.
    """

    def __init__(self, model: Any, head_on_labels: bool | None = None) -> None:
        super().__init__()
        self.model = model
        known = type(model).__name__ in LINEAR_HEADS
        self.head_on_labels = known if head_on_labels is None else head_on_labels

    def forward(
        self, input_ids: torch.Tensor, position_ids: torch.Tensor, positions: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """The sum of the targets' negative log-likelihoods, a float32 scalar.

        Args:
            input_ids, position_ids: int64 `[rows, seq_len]`; the positions restart at every example.
            positions, targets: int64 `[n]`, see `asked_positions`.
        """
        # attention_mask stays None: only then does transformers keep the packed examples apart by their positions.
        if self.head_on_labels:
            body = self.model.base_model(input_ids=input_ids, position_ids=position_ids, use_cache=False)
            hidden = body.last_hidden_state.flatten(0, 1).index_select(0, positions)
            logits = self.model.get_output_embeddings()(hidden)
        else:
            full = self.model(input_ids=input_ids, position_ids=position_ids, use_cache=False).logits
            logits = full.flatten(0, 1).index_select(0, positions)
        return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")

    def logits(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        """All logits, float32 `[rows, seq_len, vocab]`."""
        out: torch.Tensor = self.model(input_ids=input_ids, position_ids=position_ids, use_cache=False).logits
        return out.float()
