from __future__ import annotations

import pytest

from kit19_ray.errors import ConfigError
from kit19_ray.lm.prompts import PROMPTS, prompt_format, render_prompt


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
