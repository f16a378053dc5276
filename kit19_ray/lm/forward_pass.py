"""One forward pass over some rows of a batch's key-value cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from kit19_ray.lm.decoding import DecodingSequence
from kit19_ray.lm.kv_cache import SlotCache, Step, attention_masks
from kit19_ray.lm.loaded_model import LoadedModel, ModelInputs


class ForwardPass:
    """A model with the keys and values of the sequences it is reading.

    Args:
        loaded: the model.

    Attributes:
        cache: the keys and values, where the model takes our cache.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self._solo: dict[int, Any] = {}  # caches of a model that does not take ours, by the id of their sequence
        self.reset()

    def reset(self) -> None:
        """Drops all keys and values."""
        layers = int(self.loaded.model.config.get_text_config().num_hidden_layers)
        self.cache = SlotCache(layers)
        self._solo.clear()

    def forget(self, sequence: DecodingSequence) -> None:
        """Drops what is held for an ended sequence outside the rows."""
        self._solo.pop(id(sequence), None)

    def __call__(
        self, first: int, rows: Sequence[DecodingSequence], chunks: Sequence[Sequence[int]], every: bool = False
    ) -> tuple[torch.Tensor, dict[int, int]]:
        """Logits [rows, places, vocabulary] after the chunks, and which place each offset within a chunk has.

        Args:
            first: the cache's row of the first of `rows`; the others follow it.
            every: logits of every token, not only of each chunk's last.
        """
        loaded = self.loaded
        counts = [len(chunk) for chunk in chunks]
        starts = [s.cached for s in rows]
        length = max(counts)
        # Token 0 as padding behind a chunk: the mask hides it, and its logits are not looked at.
        ids = torch.zeros((len(rows), length), dtype=torch.long)
        for place, chunk in enumerate(chunks):
            ids[place, : len(chunk)] = torch.tensor(chunk, dtype=torch.long)
        inputs: ModelInputs = {"input_ids": ids.to(loaded.device), "use_cache": True}
        if "position_ids" in loaded.accepts:
            positions = torch.tensor(starts)[:, None] + torch.arange(length)[None]
            # Padding may stand beyond the last position the model knows; nothing looks at it.
            inputs["position_ids"] = positions.clamp(max=loaded.max_length - 1).to(loaded.device)
        # Rows whose chunks end in different columns all need their own last one; the vocabulary times every column
        # would be the largest tensor of the pass.
        offsets = list(range(length)) if every else sorted({count - 1 for count in counts})
        if "logits_to_keep" in loaded.accepts:
            inputs["logits_to_keep"] = torch.tensor(offsets, device=loaded.device)
        if loaded.takes_slots:
            step = self.cache.step = Step(first, starts, counts)
            config = loaded.model.config.get_text_config()
            inputs["attention_mask"] = attention_masks(config, step, loaded.model.dtype, loaded.device)
            inputs["past_key_values"] = self.cache
            made = loaded.model(**inputs)
        else:
            # The batch gives such a model one sequence at a time; its cache object is carried from call to call here.
            key = id(rows[0])
            if (past := self._solo.get(key)) is not None:
                inputs["past_key_values"] = past
            elif starts[0]:  # a model without such a cache reads the whole text for every token
                inputs["input_ids"] = torch.tensor([[*rows[0].tokens[: starts[0]], *chunks[0]]], device=loaded.device)
                if "position_ids" in inputs:
                    inputs["position_ids"] = torch.arange(inputs["input_ids"].shape[1], device=loaded.device)[None]
                if "logits_to_keep" in inputs:
                    inputs["logits_to_keep"] = inputs["logits_to_keep"] + starts[0]
            made = loaded.model(**inputs)
            # None for a model that returns no cache: the next call then reads the text from its beginning.
            self._solo[key] = getattr(made, "past_key_values", None)
            # The whole text was read again: the caller asked about its last `length` tokens only.
            if made.logits.shape[1] > length:
                made.logits = made.logits[:, starts[0] :]
        if "logits_to_keep" not in loaded.accepts:
            return made.logits, {offset: offset for offset in range(length)}
        return made.logits, {offset: place for place, offset in enumerate(offsets)}
