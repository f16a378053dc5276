"""A model or tokenizer that the config names: whether it is there, and what size it has."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

from kit19_ray.artifacts import manifest
from kit19_ray.artifacts.stage_manifests import is_train
from kit19_ray.config.schema import Config
from kit19_ray.errors import UserError, quote
from kit19_ray.io import storage
from kit19_ray.lm import model_files, pretrained
from kit19_ray.preflight.findings import Findings
from kit19_ray.preflight.model_sizes import PUBLISHED, Sizes, from_config, from_scratch
from kit19_ray.utils.json_types import Json

_PLAIN = (None, "PreTrainedTokenizerFast", "TokenizersBackend")  # classes without tokens of their own
_YES = frozenset({"1", "true", "yes", "on"})  # as huggingface_hub reads its variables


def check_named(name: str, key: str, marker: str, found: Findings) -> bool:
    """Whether `name` is here already; what is missing, and what will be downloaded, goes to `found`.

    Args:
        key: the config key that names it.
        marker: the file that a folder must hold.
    """
    if "://" in name or Path(name).expanduser().exists():
        there = found.check(lambda: storage.exists(storage.join(storage.normalise(name), marker)))
        if there is False:
            found.missing.append(UserError(f"{key}={quote(name)}: there is no {marker} in it"))
        if there:
            found.check(lambda: _check_files(storage.normalise(name)))
        return bool(there)
    folder = found.check(lambda: _cached(pretrained.resolve(name), marker))
    if folder is not None:
        found.check(lambda: _check_files(folder))
    if folder is not None and (marker != "config.json" or model_files.has_weights(folder)):
        return True
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in _YES:
        found.missing.append(
            UserError(
                f"{key}={quote(name)} is not whole in the hub's cache on this machine, and HF_HUB_OFFLINE is set",
                hint="unset HF_HUB_OFFLINE, or give a folder or an s3:// prefix that holds it",
            )
        )
    elif not found.missing:
        found.notes.append(f"{key}={name} is not on this machine: it comes from the hub")
    return False


def check_end(name: str, key: str, found: Findings) -> None:
    """A tokenizer that says of itself that it has no end-of-text token cannot end an answer.

    One whose class has a token of its own where the file is silent is left to the stage.
    """
    folder = found.check(lambda: _folder(name, "tokenizer_config.json"))
    path = storage.join(folder, "tokenizer_config.json") if folder else None
    if path is None or not found.check(lambda: storage.exists(path)):
        return
    try:
        stated = json.loads(storage.read_text(path))
    except ValueError:
        return  # `check_named` says so
    if stated.get("tokenizer_class") in _PLAIN and not stated.get("eos_token"):
        found.missing.append(
            UserError(
                f"{key}: {quote(name, plain=True)} has no end-of-text token, so answers could not end",
                hint="name one in its tokenizer_config.json: eos_token",
            )
        )


def _check_files(uri: str) -> None:
    """Opens what the stages will open; the tokenizer only where its library is installed."""
    model_files.check(uri)
    tokenizer = storage.join(uri, "tokenizer.json")
    if importlib.util.find_spec("tokenizers") and storage.exists(tokenizer):
        model_files.tokenizer_of(storage.read_text(tokenizer), tokenizer)


def sizes(config: Config, vocab_size: int, found: Findings) -> Sizes | None:
    """The sizes of the model to train, None where they are not known without a download."""
    model = config.train.model
    if model.name is None:
        return from_scratch(model, vocab_size)
    name = model.name
    stated = found.check(lambda: read_config(name))
    if stated is not None:
        known = from_config(stated)
        if known is None:
            found.notes.append(f"no formula for a model of type {quote(stated.get('model_type'))}: no memory estimate")
        return known
    if name in PUBLISHED:
        return PUBLISHED[name]
    if not found.missing:
        found.notes.append(f"train.model.name={name}: its config.json is not on this machine, so its size is not known")
    return None


def read_config(name: str) -> Json | None:
    """`config.json` of a model by name: a folder, a prefix, a train prefix's export or the hub's cache.

    Returns:
        None for a hub id that this machine has no copy of.

    Raises:
        UserError: there is no such folder or prefix, or it holds no model.
        StorageError: the prefix cannot be read.
    """
    uri = _folder(name, "config.json")
    if uri is None:
        return None
    path = storage.join(uri, "config.json")
    if not storage.exists(path):
        raise UserError(f"{quote(name)}: {uri} has no config.json, so it is no model in Hugging Face's layout")
    try:
        found = json.loads(storage.read_text(path))
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: a model's config is a JSON object, this is a {type(found).__name__}")
    return found


def _folder(name: str, marker: str) -> str | None:
    if "://" not in name and not Path(name).expanduser().exists():
        return _cached(pretrained.resolve(name), marker)  # a hub id, or a UserError
    uri = storage.normalise(name)
    made = manifest.read(uri)
    if is_train(made):
        return storage.join(uri, made["export"])
    return uri


def _cached(hub_id: str, marker: str) -> str | None:
    """The folder of the hub's cache that holds `marker` of a hub id."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:  # the extras that bring it are not installed
        return None
    found = try_to_load_from_cache(hub_id, marker)
    return storage.normalise(Path(found).parent) if isinstance(found, str) else None
