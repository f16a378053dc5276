"""The one config tree: frozen, typed, unknown keys refused. A section's fields stand in the file of its name.

A field marked `RUNTIME` changes how fast or where a stage runs, never what it writes; it is left out of
`identity()`, so a run goes on under the same URI on another number of workers.
"""

from __future__ import annotations

from pydantic import Field

from kit19_ray.config.data import DataConfig, DatasetConfig, GatesConfig, TokenizerConfig
from kit19_ray.config.evaluate import EvaluateConfig, GateRule, JudgeConfig
from kit19_ray.config.section import RUNTIME, Section
from kit19_ray.config.serve import AdapterConfig, ServeConfig
from kit19_ray.config.train import LoraConfig, ModelConfig, TrainConfig

__all__ = [
    "RUNTIME", "AdapterConfig", "Config", "DataConfig", "DatasetConfig", "EvaluateConfig", "GateRule", "GatesConfig",
    "JudgeConfig",
    "LoraConfig", "ModelConfig", "Section", "ServeConfig", "TokenizerConfig", "TrainConfig",
]  # fmt: skip


class Config(Section):
    """The whole run."""

    root: str = Field("", json_schema_extra=RUNTIME)
    """file:///... or s3://bucket/prefix that holds sources and every stage's output. KIT19_ROOT when not set."""
    seed: int = Field(19, ge=0)
    """Everything random derives from this and from ids."""
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    serve: ServeConfig = ServeConfig()
