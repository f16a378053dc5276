from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.data.encoding import Encoder
from kit19_ray.data.tokenizer import train_bpe
from kit19_ray.lm.prompts import PROMPTS, prompt_format
from kit19_ray.lm.text_encoder import TextEncoder

TEXTS = ["영화가 정말 재미있다", "배우의 연기가 훌륭하다", "지루하고 뻔한 이야기", "다시 보고 싶은 작품이다"] * 3


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    tokenizer = train_bpe(TEXTS, 400, 64)
    return Encoder(TextEncoder(tokenizer), prompt_format("plain"), tokenizer.eos_token_id, seq_len=64)


def row(input: str, output: str = "긍정") -> dict[str, str]:
    return {"id": "x", "instruction": "리뷰를 분류하세요.", "input": input, "output": output}


def test_tokens_are_prompt_then_answer_then_end(encoder: Encoder) -> None:
    (tokens, cut), *_ = encoder.encode([row("재미있다")])
    assert tokens is not None and not cut
    ids = tokens.input_ids.tolist()
    tokenizer = train_bpe(TEXTS, 400, 64)
    prompt = tokenizer.encode(prompt_format("plain").render("리뷰를 분류하세요.", "재미있다"), add_special_tokens=False)
    assert ids[: tokens.num_prompt] == prompt
    assert tokenizer.decode(ids[tokens.num_prompt : -1]) == "긍정"
    assert ids[-1] == encoder.eos_id


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=0, max_size=300))
def test_a_cut_input_leaves_instruction_and_answer_whole(text: str) -> None:
    tokenizer = _shared()
    encoder = Encoder(TextEncoder(tokenizer), prompt_format("koalpaca"), tokenizer.eos_token_id, seq_len=64)
    (tokens, cut), *_ = encoder.encode([row(text)])
    if tokens is None:
        assert cut
        return
    assert len(tokens.input_ids) <= 64
    said = tokenizer.decode(tokens.input_ids.tolist()[: tokens.num_prompt])
    assert said.startswith("### 질문: 리뷰를 분류하세요.") and said.endswith("### 답변:")
    assert cut or said == prompt_format("koalpaca").render("리뷰를 분류하세요.", text)


_CACHE: list = []


def _shared():  # type: ignore[no-untyped-def]
    if not _CACHE:
        _CACHE.append(train_bpe([*TEXTS, *(p.with_input for p in PROMPTS.values())] * 4, 1000, 64))
    return _CACHE[0]


def test_an_answer_that_cannot_fit_is_left_out(encoder: Encoder) -> None:
    (tokens, cut), *_ = encoder.encode([row("재미", "긍정" * 200)])
    assert tokens is None and cut


def test_bpe_round_trips_any_text_and_is_deterministic() -> None:
    one, other = train_bpe(iter(TEXTS), 400, 64), train_bpe(iter(TEXTS), 400, 64)
    assert one.backend_tokenizer.to_str() == other.backend_tokenizer.to_str()
    for text in ("낯선 글자 龍 🙂 \n\t끝", " 앞 공백"):
        assert one.decode(one(text)["input_ids"]) == text
