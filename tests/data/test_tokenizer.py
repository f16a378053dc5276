"""Published tokenizers of every kind: what they add to a text, gaps in their ids, a pad that is the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from kit19_ray.data import tokenizer as tokenizers
from kit19_ray.data.steps.tokens import _make_tokenizer
from tests.lm.test_prompts import CHATML


def published(folder: Path, **options: Any) -> str:
    """A tokenizer that puts its BOS before a text, as Llama's and Gemma's do."""
    words = {"<s>": 0, "</s>": 1, "a": 2, "b": 3}
    backend = Tokenizer(models.WordLevel(words, unk_token="</s>"))
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="</s>", add_bos_token=True, **options
    )
    made.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(("prompt", "begins"), [("kullm", [2]), ("chat", [0, 2])])
def test_what_is_asked_of_the_export_begins_as_what_was_learned(prompt: str, begins: list[int], tmp_path: Path) -> None:
    """A wrapper is learned without BOS, so nobody adds one later; a chat template has its own."""
    named = published(tmp_path / "published", chat_template=CHATML)
    out = f"file://{tmp_path}/out"
    info = _make_tokenizer([], (named, prompt, 0, 64, out))
    assert info == {"eos_token_id": 1, "pad_token_id": 1, "vocab_size": 4}  # the pad is the end of a text
    again = AutoTokenizer.from_pretrained(tmp_path / "out" / "tokenizer")
    assert again.encode("a") == begins
    assert again("a")["input_ids"] == begins


def test_a_class_of_transformers_own_does_not_put_it_back(tmp_path: Path) -> None:
    from transformers import LlamaTokenizer

    made = LlamaTokenizer(vocab={"<unk>": 0, "<s>": 1, "</s>": 2, "▁": 3, "a": 4, "▁a": 5}, merges=[("▁", "a")])
    made.add_bos_token = True
    assert made.encode("a")[0] == 1
    tokenizers.without_additions(made)
    assert made.encode("a")[0] != 1
    made.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).encode("a") == made.encode("a")


def test_added_tokens_beyond_a_gap_count(tmp_path: Path) -> None:
    made = AutoTokenizer.from_pretrained(published(tmp_path / "published"))
    made.add_tokens(["<new>"])
    assert tokenizers.vocabulary(made) == 5 and made.convert_tokens_to_ids("<new>") == 4
