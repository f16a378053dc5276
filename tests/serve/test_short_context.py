"""A model whose context is 32 tokens, and whose tokenizer ends no text: what fits is answered, the rest is told."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from kit19_ray.config.schema import ServeConfig
from kit19_ray.lm.prompts import prompt_format
from kit19_ray.lm.text_encoder import TextEncoder
from kit19_ray.serve import chat, protocol
from kit19_ray.serve.api_error import ApiError
from kit19_ray.serve.conversation import Conversation
from kit19_ray.serve.request_parser import RequestParser


class Codec:
    """What a parser needs of a loaded model."""

    max_length = 32

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.encoder, self.vocab_size = tokenizer, TextEncoder(tokenizer), len(tokenizer)

    def encode(self, text: str) -> list[int]:
        return self.encoder.text([text])[0]


def test_what_fits_is_parsed_and_the_rest_is_told(tiny_tokenizer: Any) -> None:
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.eos_token = None
    codec, limits = Codec(tokenizer), ServeConfig(max_tokens=256)
    parser = RequestParser(codec, limits, Conversation(tokenizer, codec.encoder, prompt_format("plain")))

    def asked(text: str) -> Any:
        body = {"model": "m", "messages": [{"role": "user", "content": text}]}
        return parser.parse(chat.parse(json.dumps(body).encode(), limits))

    short = asked("가")
    assert short.params.max_tokens == 32 - len(short.prompts[0]), "what the context has room for"
    with pytest.raises(ApiError, match="exceed the context of 32") as told:
        asked("이 영화는 정말 재미있다. " * 20)
    assert (told.value.status, told.value.code) == (400, "context_length_exceeded")
    body = {"model": "m", "prompt": "<|endoftext|><|pad|>", "max_tokens": 8}
    (ids,) = parser.parse(protocol.parse(json.dumps(body).encode(), limits)).prompts
    assert not {0, 1} & set(ids) and tokenizer.decode(ids) == body["prompt"]
    with pytest.raises(ApiError, match="exceed the context of 32"):
        parser.parse(protocol.parse(json.dumps({**body, "max_tokens": 31}).encode(), limits))
