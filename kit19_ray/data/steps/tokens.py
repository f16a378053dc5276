"""The tokenizer of a build, and examples -> tokens of the tasks that have none yet: a Ray task a file of examples."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from kit19_ray.artifacts import manifest
from kit19_ray.artifacts.data_manifests import TokenizerInfo, TokensManifest
from kit19_ray.data import export, ray_tasks, rendering, tokenize
from kit19_ray.data import tokenizer as tokenizers
from kit19_ray.data.export import MixtureEntry
from kit19_ray.data.ray_tasks import MIB
from kit19_ray.data.tokenize import Tokenizing
from kit19_ray.io import storage
from kit19_ray.lm.chat_template import chat_template
from kit19_ray.lm.prompts import CHAT, load_prompt


def make_tokenizer(
    entries: Sequence[MixtureEntry], named: str | None, prompt: str, vocab_size: int, seq_len: int, out: str
) -> TokenizerInfo:
    """Writes a tokenizer's files below `out`/tokenizer; its ids and size.

    Args:
        entries: the mixture a tokenizer is trained on when none is named.
        named: a published one.
    """
    making = (named, prompt, vocab_size, seq_len, out)
    info: TokenizerInfo
    (info,) = ray_tasks.run("tokenizer", _make_tokenizer, [("of the build", making)], entries, 1024 * MIB)
    return info


def make(prefixes: Mapping[str, str], examples: Mapping[str, str], how: Tokenizing) -> None:
    """Makes the tokens of the tasks in `prefixes`, each from its examples."""
    parts = []
    for name, prefix in prefixes.items():
        for split, counts in manifest.require(examples[name], "data", "examples")["splits"].items():
            for number in range(counts["parts"]):
                path = rendering.part_path(split, number)
                pair = (storage.join(examples[name], path), storage.join(prefix, path))
                parts.append((counts["examples"] // counts["parts"], name, path, pair))
    parts.sort(key=lambda part: (-part[0], *part[1:3]))  # the largest first, so that none starts last
    items = [(f"{name} {path}", pair) for _, name, path, pair in parts]
    hashes = ray_tasks.run("tokenize", tokenize.tokenize, items, how, 320 * MIB)
    known: dict[str, dict[str, str]] = {name: {} for name in prefixes}
    for (_, name, path, _), sha256 in zip(parts, hashes, strict=True):
        known[name][path] = sha256
    for name, prefix in prefixes.items():
        made: TokensManifest = {"stage": "tokens", "examples": examples[name].rpartition("/")[2]}
        manifest.commit(prefix, made, known=known[name])


def _make_tokenizer(entries: Sequence[MixtureEntry], item: tuple[str | None, str, int, int, str]) -> TokenizerInfo:
    named, prompt, vocab_size, seq_len, out = item
    if named:
        loaded = tokenizers.published(named)
    else:
        loaded = tokenizers.train_bpe(export.texts(entries, prompt), vocab_size, seq_len)
    load_prompt(prompt, loaded)  # a chat template that cannot be learned from is said here, not row by row
    loaded.chat_template = chat_template(prompt) or loaded.chat_template
    if prompt != CHAT:  # a chat template spells its own beginning out
        tokenizers.without_additions(loaded)
    with tempfile.TemporaryDirectory() as folder:
        tokenizers.save(loaded, Path(folder))
        storage.upload_dir(Path(folder), storage.join(out, "tokenizer"))
    pad = loaded.pad_token_id if loaded.pad_token_id is not None else loaded.eos_token_id
    return {"eos_token_id": loaded.eos_token_id, "pad_token_id": pad, "vocab_size": tokenizers.vocabulary(loaded)}
