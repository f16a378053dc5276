"""Writes safetensors files while the weights come in one by one: of a model of any size, one file is in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

INDEX = "model.safetensors.index.json"


class WeightsWriter:
    """Files as `save_pretrained` names them, each read back and compared when it is written.

    Args:
        most: bytes of a file; a tensor that is larger has one alone.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self._folder, self._most = folder, most
        self._held: dict[str, torch.Tensor] = {}
        self._bytes = self._total = self._elements = 0
        self._files: list[list[str]] = []
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Takes a tensor on the CPU."""
        if self._held and self._bytes + tensor.nbytes > self._most:
            self._write()
        self._held[name] = tensor.contiguous()
        self._bytes += tensor.nbytes
        self._elements += tensor.numel()

    def _write(self) -> None:
        from safetensors import safe_open
        from safetensors.torch import save_file

        path = self._folder / f"{len(self._files):05d}.partial"
        save_file(self._held, path, metadata={"format": "pt"})
        with safe_open(path, framework="pt") as file:
            for name, tensor in self._held.items():
                if not torch.equal(file.get_tensor(name), tensor):
                    raise RuntimeError(f"export: the file holds another {name} than was trained")
        self._total += self._bytes
        self._files.append(list(self._held))
        self._held, self._bytes = {}, 0

    def finish(self) -> int:
        """Writes what is left and the index, and gives the files their names; returns the number of tensors."""
        if self._held:
            self._write()
        number = len(self._files)
        if number == 1:
            (self._folder / "00000.partial").rename(self._folder / "model.safetensors")
            return len(self._files[0])
        places: dict[str, str] = {}
        for at, names in enumerate(self._files):
            file = f"model-{at + 1:05d}-of-{number:05d}.safetensors"
            (self._folder / f"{at:05d}.partial").rename(self._folder / file)
            places |= dict.fromkeys(names, file)
        index = {
            "metadata": {"total_parameters": self._elements, "total_size": self._total},
            "weight_map": dict(sorted(places.items())),
        }
        (self._folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")
        return len(places)


def stored_names(model: Any) -> set[str] | None:
    """The names that `save_pretrained` would store the weights under, where it stores them as the model holds them.

    Returns:
        None where it would rename, split or stack some (transformers' weight conversions): the whole is needed then.
    """
    from transformers.core_model_loading import revert_weight_conversion

    with torch.device("meta"):
        shell = type(model)(model.config)
    state = shell.state_dict()
    tied = set(getattr(shell, "all_tied_weights_keys", None) or ())
    ignored = set(getattr(shell, "_keys_to_ignore_on_save", None) or ())
    names = set(state) - tied - ignored
    stored = revert_weight_conversion(shell, {name: state[name] for name in sorted(names)})
    same = set(stored) == names and all(stored[name].shape == state[name].shape for name in names)
    return names if same else None


def write_config(folder: Path, model: Any, dtype: torch.dtype) -> None:
    """config.json as `save_pretrained` leaves it."""
    import copy

    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.dtype = str(dtype).removeprefix("torch.")
    config.save_pretrained(folder)


def write_all(folder: Path, weights: Iterable[tuple[str, torch.Tensor]], model: Any, most: int) -> None:
    """The weights as they come.

    Raises:
        RuntimeError: one is missing, or is not of the model.
    """
    names = stored_names(model)
    assert names is not None
    writer, seen, dtype = WeightsWriter(folder, most), set(), torch.float32
    for name, tensor in weights:
        if name in names:
            writer.add(name, tensor)
            seen.add(name)
            dtype = tensor.dtype if tensor.is_floating_point() else dtype
    if seen != names:
        raise RuntimeError(f"export: weights missing {sorted(names - seen)}")
    writer.finish()
    write_config(folder, model, dtype)
