"""The loss, computed by us so that it is exact: one sum over the labels of a batch, whoever holds which rows.

    loss = sum of -log p(label) over the labels of the GLOBAL batch / their number

The number comes from the shards' `num_labels`, so no worker has to be asked. Labels stand at the token they name and
are shifted here: the hidden state at t is asked for the label at t + 1.

Only the positions before a label need logits. Where nothing stands between the body and the logits but a linear layer,
the head runs on those positions alone: with a small model and a large vocabulary that is a good part of the work.
Whether that is so is found by computing both ways once (`PackedLM.find_head`), not from a list of architectures.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from kit19_ray.artifacts.schemas import IGNORE
from kit19_ray.errors import DataError
from kit19_ray.lm.loaded_model import ModelInputs

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


def target_positions(labels: Int32, position_ids: Int32) -> tuple[Int64, Int64]:
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
    # The shift reads the hidden state at column - 1: of a first token that is the example before it, or with column 0
    # the row before it.
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
        model: a Hugging Face causal LM; with adapters, the one they were put into.
        head_on_labels: run the head on the target positions only; `find_head` finds out whether that is the same.
    """

    def __init__(self, model: Any, head_on_labels: bool = False) -> None:
        super().__init__()
        self.model = model
        self.head_on_labels = head_on_labels

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        positions: torch.Tensor,
        targets: torch.Tensor,
        borders: torch.Tensor | None = None,
        longest: int | None = None,
        each: bool = False,
    ) -> torch.Tensor:
        """The sum of the targets' negative log-likelihoods, a float32 scalar.

        Args:
            input_ids, position_ids: int64 `[rows, seq_len]`; the positions restart at every example. With `borders`
                `[1, rows * seq_len]`.
            positions, targets: int64 `[n]`, see `target_positions`.
            each: do not add them up: float32 `[n]`.
            borders, longest: see `lm.attention.borders`; None where the model attends by masks.
        """
        inputs = _inputs(input_ids, position_ids, borders, longest)
        if self.head_on_labels:
            # index_select before the head: [rows * seq_len, vocabulary] is never made, only [labels, vocabulary].
            hidden = self.model.base_model(**inputs).last_hidden_state.flatten(0, 1).index_select(0, positions)
            logits = self.model.get_output_embeddings()(hidden)
        else:
            logits = self.model(**inputs).logits.flatten(0, 1).index_select(0, positions)
        # A sum, in float32 whatever the weights are: the mean is taken once over the global batch (`Engine.step`), so
        # rows with few labels weigh no more than their labels.
        return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none" if each else "sum")

    def logits(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        borders: torch.Tensor | None = None,
        longest: int | None = None,
    ) -> torch.Tensor:
        """All logits, float32 `[rows, seq_len, vocab]`."""
        out: torch.Tensor = self.model(**_inputs(input_ids, position_ids, borders, longest)).logits
        return out.float()

    @torch.no_grad()
    def find_head(self, **batch: Any) -> bool:
        """Whether the head alone makes the logits of the body's output, and remembers it for `forward`.

        A model that scales or caps its logits, or has no linear head, says no.
        """
        inputs = _inputs(**batch)
        expected = self.model(**inputs).logits
        head = self.model.get_output_embeddings()
        body = self.model.base_model(**inputs)
        found = head(body.last_hidden_state) if isinstance(head, torch.nn.Linear) else None
        # Bit for bit: near is not enough, since what is trained must be what the model computes wherever it is loaded.
        self.head_on_labels = found is not None and found.shape == expected.shape and torch.equal(found, expected)
        return self.head_on_labels


def _inputs(
    input_ids: torch.Tensor, position_ids: torch.Tensor, borders: torch.Tensor | None = None, longest: int | None = None
) -> ModelInputs:
    inputs: ModelInputs = {"input_ids": input_ids, "position_ids": position_ids, "use_cache": False}
    if borders is None:
        # attention_mask stays None: only then does transformers keep the packed examples apart by their positions.
        return inputs
    # With a mask that hides nothing transformers does not look for borders in the positions, for which it would wait
    # for the device.
    everything = torch.ones_like(input_ids, dtype=torch.bool)
    lengths = {"cu_seq_lens_q": borders, "cu_seq_lens_k": borders, "max_length_q": longest, "max_length_k": longest}
    return inputs | lengths | {"attention_mask": everything}
