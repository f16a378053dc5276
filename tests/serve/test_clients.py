"""Clients as they are, against the real server: OpenAI's SDK, LiteLLM, lm-evaluation-harness, hostile and half-sent."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from kit19_ray.config.schema import Config, ServeConfig
from kit19_ray.lm.generator import Generator
from kit19_ray.serve import stage
from kit19_ray.utils.console import say

pytestmark = pytest.mark.ray

QUESTION = "대한민국의 수도는?"
KEY = "alices-long-enough-key"


@pytest.fixture(scope="module")
def server(
    ray_cluster: None, tiny_model: Path, free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[stage.Server]:
    """Two models of two replicas each, behind a key."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"alice {KEY}\n")
    section = ServeConfig(
        port=free_port(),
        prompt="koalpaca",
        max_tokens=64,
        cpus_per_replica=0.25,
        replicas=2,
        models={"base": str(tiny_model)},
        api_keys_file=str(keys),
        max_queue=32,
        body_timeout_seconds=20,
        prefix_cache_tokens=0,
    )
    with stage.start(Config(root="file:///unused", serve=section), str(tiny_model)) as started:
        yield started


@pytest.fixture(scope="module")
def http(server: stage.Server) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False, headers=headers) as opened:
        yield opened


CASES = sorted(
    (Path(os.environ.get("KIT19_SHARED") or Path(__file__).parents[3] / "shared") / "cases" / "serving").glob("*.json")
)


@pytest.mark.parametrize("case", CASES, ids=[case.stem for case in CASES])
def test_bodies_from_the_field_are_answered(http: httpx.Client, case: Path) -> None:
    response = http.post("/v1/chat/completions", content=case.read_bytes())
    assert response.status_code == 200, response.text


def test_two_turns_through_openais_sdk(server: stage.Server) -> None:
    import openai

    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)
    assert [model.id for model in client.models.list()] == ["kit19", "base"]
    turns: list[Any] = [{"role": "user", "content": QUESTION, "name": "user_1"}]
    first = client.chat.completions.create(
        model="kit19", messages=turns, max_completion_tokens=6, temperature=0, logprobs=True, top_logprobs=2, store=True
    )
    turns += [first.choices[0].message, {"role": "user", "content": "다시 말해 줘"}]
    second = client.chat.completions.create(model="kit19", messages=turns, max_completion_tokens=6, temperature=0)
    assert second.choices[0].message.content is not None
    assert first.choices[0].logprobs and first.choices[0].logprobs.content
    listed = first.choices[0].logprobs.content
    assert all(one.bytes for one in listed), "a part of a character has bytes too"
    assert all(
        bytes(one.bytes or ()) == one.token.encode() for one in listed if one.token and "\ufffd" not in one.token
    )
    streamed = client.chat.completions.create(
        model="base", messages=turns, max_tokens=6, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(streamed)
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == second.choices[0].message.content and chunks[-1].usage
    with pytest.raises(openai.AuthenticationError, match="not known"):
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="somebody-elses-key", max_retries=0).models.list()
    with pytest.raises(openai.NotFoundError, match="did you mean 'base'"):
        client.completions.create(model="bass", prompt="가")
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="kit19", messages=[*turns[:1], {"role": "tool", "content": "x"}])  # type: ignore[typeddict-item, list-item]
    assert caught.value.param == "messages[1].role"


@pytest.mark.filterwarnings("ignore:Item .* on TypedDict class:UserWarning")  # of litellm's own models
def test_litellm_talks_to_it(server: stage.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # no look at the net for prices
    litellm = pytest.importorskip("litellm")

    answer = litellm.completion(
        model="openai/kit19",
        api_base=f"{server.url}/v1",
        api_key=KEY,
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=5,
        temperature=0,
    )
    turns = [
        {"role": "user", "content": QUESTION},
        answer.choices[0].message.model_dump(),
        {"role": "user", "content": "가"},
    ]
    again = litellm.completion(
        model="openai/kit19", api_base=f"{server.url}/v1", api_key=KEY, messages=turns, max_tokens=5
    )
    assert again.usage.completion_tokens <= 5


def test_tokens_and_back(http: httpx.Client, generator: Generator) -> None:
    found = http.post("/tokenize", json={"prompt": QUESTION, "return_token_strs": True}).json()
    assert found["tokens"] == generator.encode(QUESTION) and found["count"] == len(found["tokens"])
    assert "".join(found["token_strs"]) == QUESTION and found["max_model_len"] == 128
    assert http.post("/detokenize", json={"tokens": found["tokens"]}).json() == {"prompt": QUESTION}
    messages = [{"role": "user", "content": QUESTION}]
    chat = http.post("/tokenize", json={"model": "base", "messages": messages}).json()
    rendered = http.post("/v1/chat/completions/render", json={"model": "base", "messages": messages}).json()
    assert http.post("/detokenize", json={"tokens": chat["tokens"]}).json()["prompt"] == rendered["prompt"]
    assert http.post("/detokenize", json={"tokens": [4000]}).json()["error"]["param"] == "tokens"
    assert http.post("/tokenize", json={"prompt": "가", "messages": messages}).status_code == 400


def test_half_sent_bodies_and_a_hostile_one_hold_nobody_up(server: stage.Server, http: httpx.Client) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 1000\r\n\r\n{{"
    halves = []
    try:
        for _ in range(530):
            halves.append(socket.create_connection((host, int(port)), timeout=30))
            halves[-1].sendall(head.encode())
        hostile = json.dumps({"model": "kit19", **{f"key{n}": n for n in range(15_000)}})
        with ThreadPoolExecutor(4) as pool:
            sent = [pool.submit(http.post, "/v1/completions", content=hostile) for _ in range(8)]
            answer = http.post("/v1/completions", json={"model": "kit19", "prompt": QUESTION, "max_tokens": 2})
            assert answer.status_code == 200, answer.text
            refused = [one.result() for one in sent]
        assert {one.status_code for one in refused} == {400} and len(refused[0].text) < 1000
    finally:
        for half in halves:
            half.close()


def test_every_answer_is_its_own_under_load_and_a_death_is_made_good(http: httpx.Client, generator: Generator) -> None:
    """Requests that have not begun to answer go to another replica when theirs is killed."""
    import ray

    rng = [QUESTION, "이 영화는 정말", "두 문장의 뜻이 같은지", "가장 큰 항구는", "예", "긍정 또는 부정"]
    asked = [(rng[n % len(rng)] + "가" * (n % 5), 4 + n % 9) for n in range(60)]
    expected = {
        (prompt, size): generator.generate([generator.encode(prompt)], size)[0].text for prompt, size in set(asked)
    }

    def ask(number: int) -> str:
        prompt, size = asked[number]
        body = {"model": "kit19", "prompt": prompt, "max_tokens": size, "temperature": 0}
        for _ in range(40):
            answer = http.post("/v1/completions", json=body)
            if answer.status_code != 429:  # the queue is short here on purpose
                break
            assert answer.headers["retry-after"] == "1"
            time.sleep(0.2)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["text"])

    with ThreadPoolExecutor(16) as pool:
        sent = [pool.submit(ask, number) for number in range(len(asked))]
        actors = ray.util.list_named_actors(all_namespaces=True)
        victim = next(actor for actor in actors if "Model-kit19" in actor["name"])
        ray.kill(ray.get_actor(victim["name"], namespace=victim["namespace"]), no_restart=False)
        answers = [one.result() for one in sent]
    assert answers == [expected[one] for one in asked]


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("KIT19_LOAD_SECONDS"), reason="KIT19_LOAD_SECONDS=60 asks for it")
def test_sixty_four_clients_without_a_pause(http: httpx.Client, generator: Generator) -> None:
    """Each answer is its prompt's greedy one; what is too much is a 429 that says when to come again."""
    texts = [QUESTION, "이 영화는 정말", "두 문장의 뜻이 같은지", "가장 큰 항구는", "예", "긍정 또는 부정"]
    asked = [(text + "가" * n, 4 + n) for text in texts for n in range(6)]
    expected = {pair: generator.generate([generator.encode(pair[0])], pair[1])[0].text for pair in asked}
    over = time.monotonic() + float(os.environ["KIT19_LOAD_SECONDS"])

    def client(number: int) -> tuple[int, int]:
        answered = refused = 0
        with httpx.Client(base_url=http.base_url, headers=http.headers, timeout=120, trust_env=False) as mine:
            while time.monotonic() < over:
                pair = asked[(number + 7 * answered) % len(asked)]
                body = {"model": "kit19", "prompt": pair[0], "max_tokens": pair[1], "temperature": 0}
                answer = mine.post("/v1/completions", json=body)
                if answer.status_code == 429:
                    refused += 1
                    time.sleep(float(answer.headers["retry-after"]))
                    continue
                assert answer.status_code == 200, answer.text
                assert answer.json()["choices"][0]["text"] == expected[pair]
                answered += 1
        return answered, refused

    with ThreadPoolExecutor(64) as pool:
        counts = list(pool.map(client, range(64)))
    answered, refused = (sum(values) for values in zip(*counts))
    say(f"{answered} answers, each its prompt's; {refused} refusals with Retry-After")  # read with pytest -s
    assert answered and all(mine or others for mine, others in counts)


def _published(http: httpx.Client) -> tuple[Any, list[Any]]:
    """The document's schema, and what an answer must be to keep it."""
    import schemathesis

    schema = schemathesis.openapi.from_dict(http.get("/openapi.json").json())
    names = ("status_code_conformance", "content_type_conformance", "response_schema_conformance")
    return schema, [schemathesis.checks.not_a_server_error, *map(schemathesis.checks.CHECKS.get_one, names)]


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/completions", {"prompt": QUESTION}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": QUESTION}]}),
    ],
)
def test_streams_keep_the_published_document(http: httpx.Client, path: str, asked: dict[str, Any]) -> None:
    schema, checks = _published(http)
    body = asked | {"model": "kit19", "max_tokens": 3, "stream": True}
    case = schema[path]["POST"].Case(body=body, media_type="application/json")
    answer = case.call_and_validate(
        base_url=str(http.base_url), headers={"Authorization": f"Bearer {KEY}"}, checks=checks, timeout=30
    )
    assert answer.headers["content-type"][0].startswith("text/event-stream")


def test_generated_requests_meet_no_fault_and_no_answer_off_the_schema(http: httpx.Client) -> None:
    """schemathesis on the published document; KIT19_FUZZ_CASES=2000 makes that many in all."""
    from hypothesis import HealthCheck, given, settings

    schema, checks = _published(http)
    operations = [operation.ok() for operation in schema.get_all_operations()]
    each = -(-int(os.environ.get("KIT19_FUZZ_CASES", "180")) // len(operations))
    for made in operations:

        @given(case=made.as_strategy())
        @settings(
            max_examples=each,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        def meet(case: Any) -> None:
            if isinstance(case.body, dict) and "model" in case.body:
                case.body["model"] = "kit19"
            case.call_and_validate(
                base_url=str(http.base_url), headers={"Authorization": f"Bearer {KEY}"}, checks=checks, timeout=30
            )

        meet()
