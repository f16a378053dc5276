"""The build's tokenizer: a published one, or a byte-level BPE trained on the training examples."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from kit19_ray.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"


def train_bpe(texts: Iterable[str], vocab_size: int, model_max_length: int) -> PreTrainedTokenizerBase:
    """A byte-level BPE in GPT-2's manner: any text round-trips, there is no unknown token.

    Args:
        texts: what to learn merges from, in a fixed order.
        vocab_size: entries, special tokens included; fewer when the texts hold fewer pairs.
        model_max_length: the length the tokenizer's config states.
    """
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    made: PreTrainedTokenizerBase = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers does not type it
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        pad_token=PAD,
        model_max_length=model_max_length,
        clean_up_tokenization_spaces=False,
    )
    return made


def published(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a hub id, path or prefix.

    Raises:
        DataError: it has no fast implementation or no end-of-text token.
    """
    from kit19_ray.lm.pretrained import load_tokenizer

    tokenizer: PreTrainedTokenizerBase = load_tokenizer(name)
    if not tokenizer.is_fast:
        raise DataError(f"data.tokenizer.name: {name} has no fast tokenizer (tokenizer.json), which is required")
    if tokenizer.eos_token_id is None:
        raise DataError(f"data.tokenizer.name: {name} has no end-of-text token, so answers could not end")
    return tokenizer


def without_additions(tokenizer: PreTrainedTokenizerBase) -> None:
    """From here on, and when it is saved and loaded again, `tokenizer` adds no token of its own to a text.

    A wrapper's prompts are learned without them (Llama's and Gemma's BOS): the harness, a server and held-out scoring
    ask the export's tokenizer, and so ask without them too.
    """
    from tokenizers import processors

    if tokenizer.encode("a") == tokenizer.encode("a", add_special_tokens=False):
        return
    for name in ("add_bos_token", "add_eos_token"):
        if getattr(tokenizer, name, None):
            setattr(tokenizer, name, False)
        if name in tokenizer.init_kwargs:
            tokenizer.init_kwargs[name] = False
    tokenizer.backend_tokenizer.post_processor = processors.Sequence([])


def vocabulary(tokenizer: PreTrainedTokenizerBase) -> int:
    """Entries that a model needs for it: up to the largest id, which added tokens may have beyond a gap."""
    return 1 + max(tokenizer.get_vocab().values())


def save(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Writes the Hugging Face tokenizer files."""
    tokenizer.save_pretrained(str(folder))
