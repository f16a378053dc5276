from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerBase

from kit19_ray.data.tokenizer import train_bpe
from kit19_ray.errors import ConfigError
from kit19_ray.lm.prompts import (
    PROMPTS,
    ChatPrompt,
    check_prompt,
    fit_prompt,
    load_prompt,
    prompt_format,
)
from tests.lm.talk import TALK


@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_instruction_and_input_stand_whole_and_braces_in_them_stay(name: str) -> None:
    text = prompt_format(name).render("고르세요 {input}", "본문 {instruction}")
    assert text.index("고르세요 {input}") < text.index("본문 {instruction}")
    assert text.count("고르세요") == text.count("본문") == 1
    assert "{instruction}" not in prompt_format(name).render("고르세요")


def test_the_korean_alpaca_form() -> None:
    assert prompt_format("kullm").render("가", "나").endswith("\n\n### 명령어:\n가\n\n### 입력:\n나\n\n### 응답:\n")
    assert "### 입력" not in prompt_format("kullm").render("가")
    assert prompt_format("kullm").stop == ("### 명령어:", "### 입력:", "### 응답:")


def test_an_unknown_wrapper_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'koalpaca'"):
        prompt_format("koalpaka")


def _characters(text: str) -> list[int]:
    return [ord(c) for c in text]


def _said(ids: list[int] | None) -> str:
    assert ids is not None
    return "".join(map(chr, ids))


def test_a_prompt_that_fits_is_whole() -> None:
    row = {"instruction": "Q", "input": "some text"}
    assert _said(fit_prompt(_characters, PROMPTS["plain"], row, 12)) == "Q\nsome text\n"


@pytest.mark.parametrize("room", range(4, 12))
def test_of_a_long_prompt_the_inputs_end_is_left_out(room: int) -> None:
    said = _said(fit_prompt(_characters, PROMPTS["plain"], {"instruction": "Q", "input": "some text"}, room))
    assert len(said) <= room and said.startswith("Q\ns") and said.endswith("\n")


def test_a_prompt_without_room_for_its_instruction_is_none() -> None:
    assert fit_prompt(_characters, PROMPTS["plain"], {"instruction": "Q" * 9, "input": "text"}, 8) is None
    assert fit_prompt(_characters, PROMPTS["plain"], {"instruction": "Q" * 9, "input": ""}, 8) is None


def test_tokens_at_hand_are_not_made_again() -> None:
    def never(text: str) -> list[int]:
        raise AssertionError(text)

    assert fit_prompt(never, PROMPTS["plain"], {"instruction": "Q", "input": ""}, 8, [7, 8]) == [7, 8]


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    made = train_bpe([m["content"] for m in TALK] * 4, 400, 128)
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return made


def test_a_chat_templates_answers_are_learned_and_nothing_else(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = CHATML
    prompt = ChatPrompt(tokenizer)
    segments = prompt.segments(TALK)
    whole = tokenizer.apply_chat_template(list(TALK), tokenize=False)
    assert "".join(s.text for s in segments) == str(whole).rstrip("\n")
    assert [s.text for s in segments if s.learned] == ["네.<|im_end|>", "둘<|im_end|>"]
    assert segments[-2].text.endswith("<|im_start|>assistant\n")
    assert prompt.end == "<|im_end|>" and prompt.stop == ("<|im_end|>",)
    asked = "<|im_start|>user\nQ\n\nI<|im_end|>\n<|im_start|>assistant\n"
    assert prompt.render("Q", "I") == asked


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "has no chat template"),
        (
            "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}A:{% endif %}",
            "another way",
        ),
        ("{{ raise_exception('no system turn here') }}", "no system turn here"),
    ],
)
def test_a_template_that_cannot_be_learned_from_is_refused(
    template: str | None, said: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    tokenizer.chat_template = template
    with pytest.raises(ConfigError, match=said):
        load_prompt("chat", tokenizer)


def test_a_template_that_forgets_earlier_turns_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = "{% for m in messages[-2:] %}" + CHATML.removeprefix("{% for m in messages %}")
    with pytest.raises(ConfigError, match="changes the turns of a longer conversation"):
        ChatPrompt(tokenizer).segments(TALK[1:])


def test_names_of_prompts_are_checked() -> None:
    check_prompt("chat")
    with pytest.raises(ConfigError, match="did you mean 'chat'"):
        check_prompt("chatt")
