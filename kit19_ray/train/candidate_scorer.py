"""Scores one checkpoint of a run that goes on: Ray Train's validation function, in a Ray task of its own.

The weights are read out of the checkpoint, so no worker stops for it; they lie below the run's prefix as a model any
evaluation can read, until the score is there.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Protocol

from kit19_ray.artifacts import checkpoint, gate, score_files
from kit19_ray.artifacts.checkpoint import Folder
from kit19_ray.config.train import BestConfig
from kit19_ray.errors import TrainError, nearest
from kit19_ray.io import storage
from kit19_ray.redaction import first_line
from kit19_ray.train import best
from kit19_ray.train.best import Score
from kit19_ray.train.spec import TrainSpec

_MODELS = "candidates"  # folder of the run with the models under way


class Evaluate(Protocol):
    """Scores a model; it is sent to the task. The stage that does so is none that this one knows."""

    def __call__(self, model: str, root: str) -> str:
        """Scores the model at a URI and returns the evaluate prefix, below the root."""

    def require(self) -> None:
        """Raises a UserError when it never could, on the cluster that is connected."""


class CheckpointScorer:
    """What Ray Train calls with each reported checkpoint.

    Args:
        spec: of the run.
        evaluate: scores the model.
    """

    def __init__(self, spec: TrainSpec, evaluate: Evaluate) -> None:
        self._spec, self._evaluate = spec, evaluate

    def __call__(self, named: Any, step: int, folder: str, dtype: str) -> dict[str, float]:
        """Leaves the score, or why there is none, in the run's prefix; the same again for who asks twice."""
        out = self._spec.out
        known = best.read(out, step)
        if known is None:
            known = self._score(Folder(step, folder), dtype)
            best.write(out, step, known)
        return {} if known.value is None else {"score": known.value}

    def _score(self, at: Folder, dtype: str) -> Score:
        out, wanted = self._spec.out, self._spec.config.best
        model = storage.join(out, _MODELS, at.name)
        try:
            with tempfile.TemporaryDirectory(prefix="kit19-candidate-") as folder:
                write_model(Path(folder), self._spec, at, dtype)
                storage.upload_dir(Path(folder), model)
            scored = self._evaluate(model, storage.join(out, best.FOLDER))
            return Score(value(gate.table(score_files.read(scored)), wanted))
        except Exception as error:  # noqa: BLE001 - the training goes on, and says it
            return Score(None, first_line(error, 300))
        finally:
            storage.delete(model)


def value(table: gate.Scores, wanted: BestConfig) -> float:
    """The named score.

    Raises:
        TrainError: there is none of that name.
    """
    task, metric = str(wanted.task), wanted.metric
    if task not in table:
        raise TrainError(f"train.best.score: {task} was not scored{nearest(task, table)}")
    if metric not in table[task]:
        known = ", ".join(sorted(table[task]))
        raise TrainError(f"train.best.score: {task} has no {metric}{nearest(metric, table[task])}; it has {known}")
    return table[task][metric]


def write_model(folder: Path, spec: TrainSpec, at: Folder, dtype: str) -> None:
    """Writes a checkpoint's weights as the export would have them.

    Raises:
        TrainError: the checkpoint is gone.
    """
    import torch

    from kit19_ray.lm import pretrained
    from kit19_ray.train import checkpoint_reader, export
    from kit19_ray.train import model as models

    index = checkpoint.read_index(spec.out, at)
    if index is None:
        raise TrainError(f"the checkpoint {at.name} is gone")
    type_: torch.dtype = getattr(torch, dtype)
    tensors = checkpoint_reader.weights(spec.out, at, index)
    if spec.config.lora.rank:
        base = pretrained.load_causal_lm(str(spec.config.model.name), type_, spec.config.model.revision)
        if spec.config.model.grow_vocabulary:
            models.grow_vocabulary(base, spec.vocab_size)
        adapted = models.add_adapters(base, spec.config.lora, spec.seed, spec.config.embeddings_beside_adapters)
        trained = dict(base.named_parameters())
        for name, tensor in tensors:
            trained[name].data.copy_(tensor.to(type_).reshape(trained[name].shape))
        config = base.config
        export.save(folder, adapted.merge_and_unload())
    else:
        shell = models.shell(spec)
        shapes = {name: parameter.shape for name, parameter in shell.named_parameters()}
        config = shell.config
        export.write(folder, ((name, t.to(type_).reshape(shapes[name])) for name, t in tensors), shell)
    export.finish_folder(folder, config, spec)
