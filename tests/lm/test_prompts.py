from __future__ import annotations

import pytest

from kit19_ray.errors import ConfigError
from kit19_ray.lm.prompts import PROMPTS, fit_prompt, prompt_format, render_prompt


@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_instruction_and_input_stand_whole_and_braces_in_them_stay(name: str) -> None:
    text = render_prompt(name, "고르세요 {input}", "본문 {instruction}")
    assert text.index("고르세요 {input}") < text.index("본문 {instruction}")
    assert text.count("고르세요") == text.count("본문") == 1
    assert "{instruction}" not in render_prompt(name, "고르세요")


def test_the_korean_alpaca_form() -> None:
    assert render_prompt("kullm", "가", "나").endswith("\n\n### 명령어:\n가\n\n### 입력:\n나\n\n### 응답:\n")
    assert "### 입력" not in render_prompt("kullm", "가")
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
