"""The request, everything that can be wrong with it, and the error shape."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from kit19_ray.config.schema import ServeConfig
from kit19_ray.serve import protocol
from kit19_ray.serve.api_error import ApiError

LIMITS = ServeConfig(max_tokens=32, max_prompt_chars=100, max_prompts=4)


def parse(**fields: Any) -> protocol.CompletionRequest:
    return protocol.parse(json.dumps({"model": "kit19", "prompt": "안녕", **fields}).encode(), LIMITS)


def test_a_minimal_request_has_openais_defaults() -> None:
    request = parse()
    assert (request.max_tokens, request.temperature, request.top_p, request.n) == (16, 1.0, 1.0, 1)
    assert request.prompts == ["안녕"] and request.stop == [] and request.logprobs is None


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("가", ["가"]), (["가", "나"], ["가", "나"]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]])],
)
def test_a_prompt_is_text_or_tokens_one_or_many(prompt: Any, prompts: Any) -> None:
    assert parse(prompt=prompt).prompts == prompts


def test_nulls_and_parameters_that_ask_for_nothing_pass() -> None:
    request = parse(temperature=None, stop=None, stream=False, best_of=1, presence_penalty=0.0, logit_bias={}, user="a")
    assert request.temperature == 1.0 and request.stop == []


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"max_tokens": -1}, "max_tokens", "greater than or equal to 0"),
        ({"max_tokens": "5"}, "max_tokens", "valid integer"),
        ({"max_tokens": True}, "max_tokens", "valid integer"),
        ({"max_tokens": 33}, "max_tokens", "the most is 32"),
        ({"max_tokens": 0}, "max_tokens", "needs echo=true"),
        ({"temperature": -0.1}, "temperature", "greater than or equal to 0"),
        ({"temperature": 2.5}, "temperature", "less than or equal to 2"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"n": 5}, "prompt", "prompts x n is 5, the most is 4"),
        ({"prompt": ["가"] * 5}, "prompt", "prompts x n is 5"),
        ({"prompt": ""}, "prompt", "empty"),
        ({"prompt": []}, "prompt", "must be a string"),
        ({"prompt": [[]]}, "prompt", "must be a string"),
        ({"prompt": ["가", 1]}, "prompt", "must be a string"),
        ({"prompt": [True]}, "prompt", "must be a string"),
        ({"prompt": {"text": "가"}}, "prompt", "must be a string"),
        ({"prompt": "가" * 101}, "prompt", "101 characters, the most is 100"),
        ({"prompt": "\ud800"}, "prompt", "lone surrogate"),
        ({"prompt": None}, "prompt", "Field required"),
        ({"stop": ""}, "stop", "non-empty"),
        ({"stop": [""]}, "stop", "non-empty"),
        ({"stop": ["a"] * 17}, "stop", "the most is 16"),
        ({"stop": "\udfff"}, "stop", "lone surrogate"),
        ({"logprobs": 6}, "logprobs", "less than or equal to 5"),
        ({"seed": 1.5}, "seed", "valid integer"),
        ({"seed": 2**63}, "seed", "less than"),
        ({"echo": "yes"}, "echo", "valid boolean"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "needs stream=true"),
        ({"stream": True, "echo": True, "logprobs": 1}, "stream", "cannot be streamed"),
        ({"best_of": 3}, "best_of", "best_of is not supported"),
        ({"presence_penalty": 2.5}, "presence_penalty", "less than or equal to 2"),
        ({"top_k": -1}, "top_k", "greater than or equal to 0"),
        ({"min_p": 1.5}, "min_p", "less than or equal to 1"),
        ({"repetition_penalty": 0}, "repetition_penalty", "greater than 0"),
        ({"logit_bias": [1]}, "logit_bias", "must be an object of token ids"),
        ({"logit_bias": {"a": 1}}, "logit_bias", "must be an object of token ids"),
        ({"logit_bias": {"5": 101}}, "logit_bias", "from -100 to 100"),
        ({"logit_bias": {str(n): 1 for n in range(1025)}}, "logit_bias", "the most is 1024"),
        ({"max_token": 5}, "max_token", "did you mean 'max_tokens'?"),
        ({"model": 3}, "model", "valid string"),
    ],
)
def test_a_wrong_field_is_a_400_that_names_it(fields: dict[str, Any], param: str | None, message: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse(**fields)
    error = caught.value.body()["error"]
    assert caught.value.status == 400
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert message in error["message"]


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(ApiError, match="temperature: .*; max_tokens: .*"):
        parse(max_tokens=-1, temperature=9)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe{", b'{"prompt": NaN}', b"[" * 100_000])
def test_what_is_not_json_is_a_400(body: bytes) -> None:
    with pytest.raises(ApiError, match="not valid JSON") as caught:
        protocol.parse(body, LIMITS)
    assert caught.value.status == 400


def test_json_that_is_no_object_is_a_400() -> None:
    with pytest.raises(ApiError, match="must be a JSON object, got an array"):
        protocol.parse(b"[1]", LIMITS)


def test_another_model_is_a_404_with_the_near_name() -> None:
    with pytest.raises(ApiError, match="did you mean 'kit19'") as caught:
        protocol.check_model("kit91", ["kit19", "base"])
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")


def test_sampling_parameters_are_taken() -> None:
    request = parse(presence_penalty=1, frequency_penalty=-0.5, top_k=3, min_p=0.1, logit_bias={"7": -100, "9": 2.5})
    assert (request.presence_penalty, request.frequency_penalty, request.top_k, request.min_p) == (1, -0.5, 3, 0.1)
    assert request.logit_bias == {7: -100.0, 9: 2.5}


def test_fields_that_ask_nothing_of_the_model_pass() -> None:
    books = {"metadata": {"a": "b"}, "store": True, "service_tier": "flex", "safety_identifier": "x"}
    assert parse(**books, prompt_cache_key="k", user="u") == parse()


def test_a_body_of_many_keys_costs_little_and_is_told_shortly() -> None:
    with pytest.raises(ApiError, match="the body has 20002 fields, the most is 64"):
        parse(**{f"key{n}": n for n in range(20_000)})
    with pytest.raises(ApiError) as caught:
        parse(**{f"{n}{'k' * 5000}": n for n in range(60)})
    assert caught.value.message.endswith("and more") and len(caught.value.message) < 3000


def test_an_error_travels_between_processes() -> None:
    sent = ApiError(429, "later", "model", "busy", 3)
    came = pickle.loads(pickle.dumps(sent))
    assert (came.body(), came.headers()) == (sent.body(), {"Retry-After": "3"})
    assert ApiError(401, "who").headers() == {"WWW-Authenticate": "Bearer"}


def test_a_megabyte_of_prompt_is_refused_without_being_repeated() -> None:
    with pytest.raises(ApiError) as caught:
        parse(prompt="가" * 400_000)
    assert caught.value.status == 400 and len(json.dumps(caught.value.body())) < 300
