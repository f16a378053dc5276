"""How fast it goes: tokens, FLOPs and seconds since the last line of metrics."""

from __future__ import annotations

import torch

from kit19_ray.artifacts.metrics_log import MetricsLine
from kit19_ray.artifacts.packed_shards import PackedSplit
from kit19_ray.train import flops
from kit19_ray.train.batches import Int64
from kit19_ray.train.engine import TrainEngine
from kit19_ray.train.spec import TrainSpec


class Pace:
    """Sums that `figures` turns into rates, and begins anew.

    Attributes:
        seconds: of steps since the last line, without validation and checkpoints.
    """

    def __init__(self, spec: TrainSpec, engine: TrainEngine, device: torch.device) -> None:
        self._spec, self._workers, self._device = spec, engine.world_size, device
        self._peak = flops.peak(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
        config = engine.module.model.config.get_text_config()
        heads = config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // heads
        embedding = config.vocab_size * config.hidden_size
        tied = bool(getattr(config, "tie_word_embeddings", False))
        self._sizes = {
            "body": engine.parameters - embedding * (1 if tied else 2),
            "head": embedding,
            "layers": config.num_hidden_layers,
            "attention": heads * size,
            "adapters": engine.adapted is not None,
        }
        self._clear()

    def _clear(self) -> None:
        self._steps, self._labels = 0, 0
        self._flops = self.seconds = self._waited = self._saving = 0.0

    def flops(self, split: PackedSplit, rows: Int64) -> float:
        """FLOPs of a step on this rank's `rows`; 0 where no peak is known to hold them against."""
        if self._peak is None:
            return 0.0
        places = split.rows(rows)["position_ids"]
        return flops.of_rows(places, int(split.num_labels[rows].sum()), **self._sizes)

    def step(self, labels: int, flops_: float, seconds: float, waited: float) -> None:
        """A step of `labels` learned tokens took `seconds`, of which it waited for its batch."""
        self._steps += 1
        self._labels += labels
        self._flops += flops_
        self.seconds += seconds
        self._waited += waited

    def saved(self, seconds: float) -> None:
        """A checkpoint held the training up for `seconds`."""
        self._saving += seconds

    def figures(self, steps_left: int) -> MetricsLine:
        """The rates since the last call."""
        seconds = max(self.seconds, 1e-9)
        tokens = self._steps * self._spec.plan.batch_tokens / seconds
        found: MetricsLine = {
            "tokens_per_second": tokens,
            "learned_tokens_per_second": self._labels / seconds,
            "tokens_per_second_per_worker": tokens / self._workers,
            "data_wait_seconds": self._waited,
            "step_seconds": self.seconds,
            "save_seconds": self._saving,
            "eta_seconds": steps_left * seconds / max(1, self._steps),
        }
        if self._peak is not None:
            found["mfu"] = self._flops / seconds / self._peak
        if self._device.type == "cuda":
            found["memory_bytes"] = torch.cuda.max_memory_allocated(self._device)
        self._clear()
        return found
