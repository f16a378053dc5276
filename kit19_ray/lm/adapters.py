"""LoRA adapters over one loaded model, one active at a time: changing costs no copy of a weight."""

from __future__ import annotations

from typing import Any

import torch

from kit19_ray.errors import UserError
from kit19_ray.lm.loaded_model import LoadedModel


class Adapters:
    """The adapters of a model. One thread at a time may use it, the one that runs the model.

    Without an active adapter the model's results are its own to the bit: its layers are wrapped, not changed.

    Args:
        loaded: the model that the adapters were trained on.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._wrapped: Any = None  # peft's model around the same layers
        self._names: set[str] = set()
        self._active: str | None = None

    def has(self, name: str) -> bool:
        """Whether an adapter is loaded."""
        return name in self._names

    def load(self, name: str, folder: str) -> None:
        """Reads the adapter in `folder`, as peft writes it.

        Raises:
            UserError: it does not fit this model, or peft does not know it.
        """
        from peft import PeftModel

        if name in self._names:
            return
        try:
            if self._wrapped is None:
                self._wrapped = PeftModel.from_pretrained(self._loaded.model, folder, adapter_name=_key(name))
            else:
                self._wrapped.load_adapter(folder, _key(name), torch_device=str(self._loaded.device))
        except (ValueError, KeyError, RuntimeError, TypeError, OSError) as error:
            self._forget(name)
            raise UserError(f"adapter {folder}: it does not fit this model: {str(error)[:300]}") from error
        self._names.add(name)
        self._loaded.model.eval()
        for weight in self._loaded.model.parameters():
            weight.requires_grad_(False)
        self._active = name
        self.activate(None)

    def forget(self, name: str) -> None:
        """Lets go of an adapter's weights."""
        if name in self._names:
            if self._active == name:
                self.activate(None)
            self._names.discard(name)
            self._forget(name)

    def activate(self, name: str | None) -> None:
        """What the next forward passes are computed with; None is the model itself.

        Raises:
            KeyError: it was not loaded.
        """
        if name == self._active or self._wrapped is None:
            if name is not None and name not in self._names:
                raise KeyError(name)
            return
        if name is None:
            self._wrapped.base_model.disable_adapter_layers()
        else:
            if name not in self._names:
                raise KeyError(name)
            if self._active is None:
                self._wrapped.base_model.enable_adapter_layers()
            with torch.inference_mode(False):
                self._wrapped.base_model.set_adapter(_key(name), inference_mode=True)
        self._active = name

    def _forget(self, name: str) -> None:
        if self._wrapped is not None and _key(name) in self._wrapped.peft_config:
            self._wrapped.delete_adapter(_key(name))


def _key(name: str) -> str:
    """A name of a module, which holds no dot."""
    return name.encode().hex()
