"""Models by name: found, loaded from safetensors only, or a GPT-NeoX built from sizes. Remote code is never run."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit19_ray.artifacts import manifest
from kit19_ray.artifacts.stage_manifests import is_train
from kit19_ray.errors import UserError, quote
from kit19_ray.io import node_cache, storage
from kit19_ray.lm import model_files
from kit19_ray.redaction import first_line

if TYPE_CHECKING:
    import torch

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def resolve(name: str, marker: str = "config.json") -> str:
    """What `from_pretrained` is given for `name`: a hub id, or the path of a folder on this node.

    Args:
        name: hub id, local path, or file:// or s3:// prefix. A train prefix stands for its export.
        marker: a file that a folder must hold to be what is asked for.

    Raises:
        UserError: nothing is there, or nothing that looks like a model.
        StorageError: the prefix cannot be read.
    """
    found = _prefix(name)
    if found is None:
        return name
    uri, sha256 = found
    _require(name, uri, marker)
    model_files.check(uri)
    return str(node_cache.local_dir(uri, sha256))


def resolve_adapter(name: str) -> str:
    """The folder on this node of a LoRA adapter as peft writes it.

    Args:
        name: local path, or file:// or s3:// prefix. A train prefix stands for its adapter.

    Raises:
        UserError: there is none, or its weights are not safetensors.
        StorageError: the prefix cannot be read.
    """
    return str(node_cache.local_dir(*find_adapter(name)))


def find_adapter(name: str) -> tuple[str, dict[str, str]]:
    """The prefix of an adapter's files, and their SHA-256 as far as known; only a few bytes are read.

    Raises:
        UserError: as `resolve_adapter`.
        StorageError: as `resolve_adapter`.
    """
    if "://" not in name and not Path(name).expanduser().exists():
        raise UserError(
            f"adapter {quote(name)}: there is no such folder",
            hint="give an existing folder, or a file:// or s3:// prefix",
        )
    uri = storage.normalise(name)
    made = manifest.read(uri)
    sha256: dict[str, str] = {}
    if is_train(made):
        if "adapter" not in made:
            raise UserError(f"adapter {quote(name)}: this run trained the whole model", hint="serve it by serve.models")
        sha256 = manifest.hashes(made, made["adapter"])
        uri = storage.join(uri, made["adapter"])
    for marker in ("adapter_config.json", "adapter_model.safetensors"):
        if not storage.exists(storage.join(uri, marker)):
            raise UserError(
                f"adapter {quote(name)}: {uri} has no {marker}",
                hint="it is to be an adapter as peft writes it, safetensors",
            )
    model_files.check(uri)
    names = model_files.weight_names(storage.join(uri, "adapter_model.safetensors"))
    whole = [name for name in names if "lora_" not in name and name.endswith((".weight", ".bias"))]
    if whole:  # peft would write them over the base's own, which others are answered with
        raise UserError(
            f"adapter {quote(name)}: it holds whole weights beside the adapters ({quote(whole[0], plain=True)}), and a "
            "base model is shared with others",
            hint="serve the run's merged model: its train prefix, or the prefix's export",
        )
    return uri, sha256


def _prefix(name: str) -> tuple[str, dict[str, str]] | None:
    """The prefix of a model's files, or a train prefix's export, with their SHA-256 as far as known; None: a hub id."""
    if "://" not in name and not Path(name).expanduser().exists():
        if _HUB_ID.fullmatch(name):
            return None
        raise UserError(
            f"{quote(name)}: there is no such folder, and a hub id looks like `organisation/name`",
            hint="give an existing folder, a file:// or s3:// prefix, or a hub id",
        )
    uri = storage.normalise(name)
    made = manifest.read(uri)
    sha256: dict[str, str] = {}
    if is_train(made):
        sha256 = manifest.hashes(made, made["export"])
        uri = storage.join(uri, made["export"])
    return uri, sha256


def _require(name: str, uri: str, marker: str) -> None:
    if not storage.exists(storage.join(uri, marker)):
        raise UserError(
            f"{quote(name)}: {uri} has no {marker}, so it is neither in Hugging Face's layout nor a finished "
            "train prefix",
            hint="a training run that is not finished has no export: run `kit19 train` again to go on",
        )


def load_tokenizer(name: str) -> Any:
    """The tokenizer of `name` (see `resolve`).

    Raises:
        UserError: there is none.
    """
    from transformers import AutoTokenizer

    found = resolve(name, "tokenizer_config.json")
    try:
        loaded = AutoTokenizer.from_pretrained(found, trust_remote_code=False)
    except Exception as error:  # of a tokenizer.json it does not know, tokenizers raises no narrower class
        raise UserError(
            f"tokenizer {quote(name)}: {first_line(error)}",
            hint="it was cut short, or a newer release of transformers or tokenizers wrote it",
        ) from error
    backend = getattr(loaded, "backend_tokenizer", None)
    if backend is not None:  # the file's own settings would cut answers, and would go into what is saved of it
        backend.no_truncation()
        backend.no_padding()
    # BERT's, and Polyglot-Ko's: transformers 4 ends in an error where GPT-NeoX is given them, GPT-2 embeds them.
    if "token_type_ids" in loaded.model_input_names:
        names = [name for name in loaded.model_input_names if name != "token_type_ids"]
        loaded.model_input_names = loaded.init_kwargs["model_input_names"] = names
    return loaded


def load_config(name: str, revision: str | None = None) -> Any:
    """The model config of `name` (see `resolve`); of a remote prefix its config.json alone is read.

    Raises:
        UserError: there is none, or its code is not part of transformers.
    """
    from transformers import AutoConfig

    with tempfile.TemporaryDirectory() as folder:
        prefix = _prefix(name)
        if prefix is None:
            found = name
        else:
            uri, _ = prefix
            _require(name, uri, "config.json")
            found = folder
            Path(folder, "config.json").write_bytes(storage.read_bytes(storage.join(uri, "config.json")))
        try:
            return AutoConfig.from_pretrained(found, trust_remote_code=False, revision=revision or "main")
        except (OSError, ValueError) as error:
            raise UserError(f"model {quote(name)}: {first_line(error)}") from error


def positions(config: Any) -> int | None:
    """Tokens that a model can read, as its config says; None where it does not.

    Args:
        config: transformers' object, or a `config.json` as it is.
    """

    def at(holder: Any, name: str) -> Any:
        return holder.get(name) if isinstance(holder, dict) else getattr(holder, name, None)

    text = at(config, "text_config") or config
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        if (value := at(text, name)) is not None:
            return int(value)
    return None


def load_causal_lm(
    name: str,
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    spread: bool = False,
    quantized: Any = None,
) -> Any:
    """The causal LM `name` (see `resolve`), in evaluation mode on the CPU.

    Args:
        dtype: of the weights; None keeps the files'.
        revision: of a hub id; None means `main`.
        quantized: transformers' settings for weights of fewer bits; the model is then on this process's device.
        spread: the layers over all GPUs of this process, by accelerate's `device_map="auto"`, not on the CPU.

    Raises:
        UserError: there is no such model, or it has no safetensors weights.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    found = resolve(name)
    place: Any = "auto" if spread else None
    if quantized is not None:
        import torch

        place = {"": torch.cuda.current_device() if torch.cuda.is_available() else "cpu"}
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # of reading local files; a download from the hub keeps its own
    try:
        return AutoModelForCausalLM.from_pretrained(
            found,
            dtype="auto" if dtype is None else dtype,
            use_safetensors=True,
            trust_remote_code=False,
            revision=revision or "main",
            device_map=place,
            quantization_config=quantized,
        )
    except (OSError, ValueError, SafetensorError) as error:  # the last: half a file in the hub's cache
        raise UserError(
            f"model {quote(name)}: {first_line(error)}",
            hint="weights are read from safetensors files only; other formats can hold code",
        ) from error


def build_gpt_neox(
    *,
    hidden_size: int,
    layers: int,
    heads: int,
    intermediate_size: int | None,
    vocab_size: int,
    seq_len: int,
    eos_token_id: int,
    pad_token_id: int,
    seed: int,
) -> Any:
    """A GPTNeoXForCausalLM with fresh float32 weights that depend on the sizes and `seed` only.

    Args:
        intermediate_size: width of the feed-forward layer; None means 4 x hidden_size.
        seq_len: positions the model is trained on, and so its context length.
    """
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=intermediate_size or 4 * hidden_size,
        max_position_embeddings=seq_len,
        bos_token_id=eos_token_id,
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPTNeoXForCausalLM(config)
