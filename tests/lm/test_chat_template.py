from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerBase

from kit19_ray.data.tokenizer import train_bpe
from kit19_ray.lm.chat_template import chat_template
from kit19_ray.lm.prompts import PROMPTS, Message, prompt_format
from tests.lm.talk import TALK


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return train_bpe([m["content"] for m in TALK] * 4, 400, 128)


@pytest.mark.parametrize("name", sorted(PROMPTS))
@pytest.mark.parametrize(
    "messages", [TALK, TALK[1:], TALK[1:3], TALK[:3]], ids=["all", "no-system", "one", "one+system"]
)
def test_a_wrappers_chat_template_renders_what_is_trained_on(
    name: str, messages: list[Message], tokenizer: PreTrainedTokenizerBase
) -> None:
    tokenizer.chat_template = chat_template(name)
    prompt = prompt_format(name)
    segments = prompt.segments(messages)
    trained = "".join(s.text + str(tokenizer.eos_token) * s.learned for s in segments)
    assert tokenizer.apply_chat_template(list(messages), tokenize=False) == trained
    asked = tokenizer.apply_chat_template(list(messages[:-1]), tokenize=False, add_generation_prompt=True)
    assert trained == asked + messages[-1]["content"] + str(tokenizer.eos_token)


def test_the_tokenizers_own_template_is_left_to_it() -> None:
    assert chat_template("chat") is None
