"""The real thing: Ray Serve on loopback, a small model, HTTP."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from kit19_ray.config.schema import Config, ServeConfig
from kit19_ray.errors import ServeError, UserError
from kit19_ray.lm.generator import Generator
from kit19_ray.serve import client, stage

pytestmark = pytest.mark.ray

PROMPT = "이 영화는 정말"
PROMPTS = [
    "이 영화는 정말",
    "두 문장의 뜻이 같은지",
    "대한민국의 수도는",
    "질문에 예 또는 아니오로",
    "배우의",
    "긍정 또는 부정",
    "가장 큰 항구는 부산이다. 다음 문장의 감정을",
    "답변: ",
]


def complete(http: httpx.Client, prompt: Any = PROMPT, **fields: Any) -> dict[str, Any]:
    response = http.post("/v1/completions", json={"model": "kit19", "prompt": prompt, "temperature": 0, **fields})
    assert response.status_code == 200, response.text
    return dict(response.json())


def counted(http: httpx.Client, name: str) -> float:
    lines = [line for line in http.get("/metrics").text.splitlines() if line.startswith(f"ray_{name}{{")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def test_health_models_and_metrics_answer(http: httpx.Client) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    (model,) = http.get("/v1/models").json()["data"]
    assert (model["id"], model["max_model_len"]) == ("kit19", 128)
    assert http.get("/metrics").headers["content-type"].startswith("text/plain")


def test_a_completion_is_the_generators(http: httpx.Client, generator: Generator) -> None:
    (expected,) = generator.generate([generator.encode(PROMPT)], 12)
    answer = complete(http, max_tokens=12)
    (choice,) = answer["choices"]
    assert choice == {
        "index": 0,
        "text": expected.text,
        "logprobs": None,
        "finish_reason": expected.finish_reason,
    }
    assert answer["usage"]["prompt_tokens"] == len(generator.encode(PROMPT))
    assert answer["usage"]["completion_tokens"] == len(expected.token_ids)
    assert (answer["object"], answer["model"]) == ("text_completion", "kit19")


def test_concurrent_requests_share_batches_and_keep_their_answers(http: httpx.Client, generator: Generator) -> None:
    lengths = [4 + 5 * n for n in range(len(PROMPTS))]
    expected = [generator.generate([generator.encode(p)], n)[0].text for p, n in zip(PROMPTS, lengths)]
    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        sent = [pool.submit(complete, http, p, max_tokens=n) for p, n in zip(PROMPTS, lengths)]
        texts = [s.result()["choices"][0]["text"] for s in sent]
    assert texts == expected


def test_several_prompts_and_samples_come_in_order(http: httpx.Client) -> None:
    choices = complete(http, PROMPTS[:3], n=2, max_tokens=6)["choices"]
    assert [c["index"] for c in choices] == list(range(6))
    texts = [c["text"] for c in choices]
    assert texts[0::2] == texts[1::2], "greedy samples of one prompt are equal"
    assert texts[0::2] == [complete(http, p, max_tokens=6)["choices"][0]["text"] for p in PROMPTS[:3]]


def test_a_seed_gives_the_same_samples_again_and_other_ones_within_a_request(http: httpx.Client) -> None:
    def sample(seed: int) -> list[str]:
        return [c["text"] for c in complete(http, temperature=1.0, seed=seed, n=3, max_tokens=12)["choices"]]

    assert sample(5) == sample(5) != sample(6)
    assert len(set(sample(5))) == 3


def test_a_stop_sequence_ends_text_and_tokens(http: httpx.Client) -> None:
    whole = complete(http, max_tokens=16, logprobs=0)["choices"][0]
    stop = "".join(whole["logprobs"]["tokens"][5:8])
    assert stop, "the model's text has characters there"
    cut = complete(http, max_tokens=16, stop=[stop, "없는 말"], logprobs=0)["choices"][0]
    assert cut["finish_reason"] == "stop"
    assert cut["text"] == whole["text"][: whole["text"].index(stop)]
    assert "".join(cut["logprobs"]["tokens"]) == cut["text"]


def test_echo_with_logprobs_scores_the_prompt(http: httpx.Client, generator: Generator) -> None:
    ids = generator.encode(PROMPT)
    (expected,) = generator.score([ids], top_logprobs=2)
    (choice,) = complete(http, echo=True, max_tokens=0, logprobs=2)["choices"]
    listed = choice["logprobs"]
    assert choice["text"] == PROMPT == "".join(listed["tokens"])
    assert listed["token_logprobs"] == pytest.approx(expected.logprobs, abs=1e-5)
    assert listed["top_logprobs"][0] is None and all(2 <= len(top) <= 3 for top in listed["top_logprobs"][1:])
    assert [PROMPT[o : o + len(t)] for o, t in zip(listed["text_offset"], listed["tokens"])] == listed["tokens"]


def test_echo_goes_before_the_completion_also_for_token_ids(http: httpx.Client, generator: Generator) -> None:
    plain = complete(http, max_tokens=5)["choices"][0]["text"]
    for prompt in (PROMPT, generator.encode(PROMPT), [generator.encode(PROMPT)]):
        (choice,) = complete(http, prompt, echo=True, max_tokens=5, logprobs=1)["choices"]
        assert choice["text"] == PROMPT + plain
        assert {len(values) for values in choice["logprobs"].values()} == {len(generator.encode(PROMPT)) + 5}


BAD = [
    ({"content": b"{"}, 400, "not valid JSON"),
    ({"json": {"prompt": PROMPT}}, 400, "model: Field required"),
    ({"json": {"model": "kit91", "prompt": PROMPT}}, 404, "did you mean 'kit19'?"),
    ({"json": {"model": "kit19", "prompt": PROMPT, "max_tokens": -1}}, 400, "max_tokens"),
    ({"json": {"model": "kit19", "prompt": PROMPT, "max_tokens": 65}}, 400, "the most is 64"),
    ({"json": {"model": "kit19", "prompt": 3}}, 400, "prompt must be"),
    ({"json": {"model": "kit19", "prompt": PROMPT, "temprature": 0}}, 400, "did you mean 'temperature'?"),
    ({"json": {"model": "kit19", "prompt": PROMPT, "best_of": 2}}, 400, "best_of is not supported"),
    ({"json": {"model": "kit19", "prompt": "a" * (1 << 20)}}, 400, "1048576 characters, the most is 500"),
    ({"json": {"model": "kit19", "prompt": "뷁" * 120}}, 400, "exceed the context of 128"),
    ({"json": {"model": "kit19", "prompt": [5, 4000]}}, 400, "token id 4000 is not in"),
    ({"json": {"model": "kit19", "prompt": [-1]}}, 400, "token id -1 is not in"),
    ({"content": b" " * (3 << 20)}, 413, "more than 2097152 bytes"),
]


@pytest.mark.parametrize(("options", "status", "message"), BAD, ids=[message for _, _, message in BAD])
def test_a_bad_request_is_told_in_openais_shape(
    http: httpx.Client, options: dict[str, Any], status: int, message: str
) -> None:
    response = http.post("/v1/completions", **options)
    error = response.json()["error"]
    assert response.status_code == status, response.text
    assert message in error["message"] and error["type"] == "invalid_request_error"
    assert http.get("/healthz").status_code == 200


def test_it_is_alive_and_ready(http: httpx.Client) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    assert http.get("/readyz").json() == {"status": "ready"}


def test_an_unknown_path_has_the_shape_too(http: httpx.Client) -> None:
    response = http.get("/v1/embeddings")
    assert response.status_code == 404 and response.json()["error"]["type"] == "invalid_request_error"


def test_the_client_asks_and_tells_what_the_server_said(
    server: stage.Server, http: httpx.Client, free_port: Callable[[], int]
) -> None:
    text = client.ask(server.url, "kit19", PROMPT, max_tokens=6)
    assert text == complete(http, max_tokens=6)["choices"][0]["text"]
    with pytest.raises(ServeError, match="404, there is no model 'other'"):
        client.ask(server.url, "other", PROMPT)
    with pytest.raises(ServeError, match="is the server running"):
        client.ask(f"http://127.0.0.1:{free_port()}", "kit19", PROMPT)


def test_lm_eval_scores_through_the_endpoint_as_directly(
    server: stage.Server, generator: Generator, tiny_model: Path
) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    # KoBEST's form: one context, the choices as continuations.
    pairs = [
        (context, f" {choice}")
        for context in ("문장: 이 영화는 정말 재미있다. 긍부정:", "대한민국의 수도는 부산이다. 질문: 맞는가? 답변:")
        for choice in ("부정", "긍정", "아니오", "예")
    ]
    lm = LocalCompletionsAPI(
        base_url=f"{server.url}/v1/completions",
        model="kit19",
        tokenizer=str(tiny_model),
        tokenizer_backend="huggingface",
        max_length=128,
        batch_size=4,
        num_concurrent=1,
    )
    requests = [Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(pairs)]
    served = lm.loglikelihood(requests, disable_tqdm=True)
    direct = generator.loglikelihoods([lm._encode_pair(*pair) for pair in pairs])
    assert [greedy for _, greedy in served] == [greedy for _, greedy in direct]
    assert [value for value, _ in served] == pytest.approx([value for value, _ in direct], abs=1e-4)
    assert len({round(value, 3) for value, _ in served}) == len(pairs), "the items can be told apart"


def test_an_evaluation_scores_through_the_endpoint_as_directly(server: stage.Server, generator: Generator) -> None:
    from kit19_ray.evaluate.endpoint import KEYS, CharacterTokenizer, Endpoint

    context, choices = "문장: 이 영화는 정말 재미있다. 긍부정:", [" 부정", " 긍정", " 아니오"]
    letters = CharacterTokenizer(False)
    endpoint = Endpoint(f"{server.url}/v1", "evaluate.endpoint", KEYS, None, False, 2)
    try:
        assert endpoint.can_score and endpoint.model == "kit19"
        served = endpoint.loglikelihoods([(letters.encode(context), letters.encode(c)) for c in choices], "choices")
    finally:
        endpoint.close()
    before = generator.encode(context)
    direct = generator.loglikelihoods([(before, generator.encode(context + c)[len(before) :]) for c in choices])
    assert [greedy for _, greedy in served] == [greedy for _, greedy in direct]
    assert [value for value, _ in served] == pytest.approx([value for value, _ in direct], abs=1e-4)


def test_a_taken_port_is_the_users_to_change(server: stage.Server, tiny_model: Path) -> None:
    port = int(server.url.rsplit(":", 1)[1])
    with pytest.raises(ServeError, match=rf"serve.port: cannot listen on 127.0.0.1:{port}"):
        stage.start(Config(root="file:///unused", serve=ServeConfig(port=port)), str(tiny_model))


def test_a_cluster_that_serves_already_is_left_alone(
    server: stage.Server, tiny_model: Path, free_port: Callable[[], int]
) -> None:
    with pytest.raises(ServeError, match="runs a Ray Serve application already"):
        stage.start(Config(root="file:///unused", serve=ServeConfig(port=free_port())), str(tiny_model))
    assert client.ask(server.url, "kit19", PROMPT, max_tokens=1) is not None


def test_a_gpu_must_be_there_to_be_used(ray_cluster: None) -> None:
    with pytest.raises(ServeError, match="serve.use_gpu: true, but the Ray cluster has no GPU"):
        stage.with_gpu(ServeConfig(use_gpu=True))


@pytest.mark.parametrize(("state", "message"), [("DEPLOY_FAILED", "could not be loaded"), ("DEPLOYING", "within 0.01")])
def test_a_server_that_does_not_come_up_is_told_with_what_serve_says(
    monkeypatch: pytest.MonkeyPatch, state: str, message: str
) -> None:
    from ray import serve

    deployment = SimpleNamespace(message="no room")
    application = SimpleNamespace(status=state, deployments={"Replica": deployment})
    monkeypatch.setattr(serve, "status", lambda: SimpleNamespace(applications={stage.APP: application}))
    with pytest.raises(ServeError, match=f"{message}.*no room"):
        stage._await_running(ServeConfig(start_timeout_seconds=0.01))


def test_a_model_that_is_not_there_is_told_before_anything_starts(tmp_path: Path, free_port: Callable[[], int]) -> None:
    with pytest.raises(UserError, match="config.json"):
        stage.start(Config(root="file:///unused", serve=ServeConfig(port=free_port())), str(tmp_path))


def test_a_wrong_prompt_wrapper_is_told_before_anything_starts(free_port: Callable[[], int]) -> None:
    section = ServeConfig(port=free_port(), prompt="kulm")
    with pytest.raises(UserError, match="serve.prompt: 'kulm' .*did you mean 'kullm'"):
        stage.start(Config(root="file:///unused", serve=section), "unused")


def test_the_command_serves_until_it_is_interrupted(
    tiny_model: Path, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    words = [f"serve.model={tiny_model}", f"serve.port={free_port()}", f"root=file://{tmp_path}", "data.cpus=1"]
    command = [sys.executable, "-m", "kit19_ray", "serve", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            url = process.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:"), process.stderr.read()
            assert client.post(f"{url}/v1/completions", {"model": "kit19", "prompt": PROMPT, "max_tokens": 2})
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
            said = process.stderr.read()
            assert process.stdout.read() == "", "the URL is the last line"
        finally:
            process.kill()
    assert said.splitlines()[-1] == "stopping" and len(said.splitlines()) <= 3, said
    with pytest.raises(ServeError):
        client.ask(url, "kit19", PROMPT)


def test_the_request_bodys_schema_is_published(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    published = document["paths"]["/v1/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert published == {"$ref": "#/components/schemas/CompletionRequest"}
    assert "max_tokens" in document["components"]["schemas"]["CompletionRequest"]["properties"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"host": "0.0.0.0"}, "the server can be reached from other machines, but there is no API key"),
        ({"auth": "keys"}, "serve.auth: keys, but there is no API key"),
    ],
)
def test_a_server_for_others_needs_keys(free_port: Callable[[], int], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ServeError, match=message):
        stage.start(Config(root="file:///unused", serve=ServeConfig(port=free_port(), **fields)), "unused")
    stage.check_access(ServeConfig(host="0.0.0.0", auth="none"), is_local=False)
    stage.check_access(ServeConfig(host="0.0.0.0", api_keys_file="/keys"), is_local=False)
