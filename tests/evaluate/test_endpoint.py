from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from kit19_ray.artifacts import manifest, sample_file
from kit19_ray.config import loading
from kit19_ray.errors import ConfigError, EvaluateError
from kit19_ray.evaluate import endpoint as endpoints
from kit19_ray.evaluate import openai_client, stage
from kit19_ray.evaluate.endpoint import CharacterTokenizer, Endpoint
from kit19_ray.evaluate.openai_client import OpenAIClient
from kit19_ray.io import storage
from tests.evaluate.stand_in import StandIn, serving


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    for name in endpoints.KEYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(openai_client.time, "sleep", lambda seconds: None)
    with serving() as stand_in:
        yield stand_in


@pytest.fixture
def endpoint(server: StandIn) -> Iterator[Callable[..., Endpoint]]:
    made: list[Endpoint] = []

    def make(chat: bool = False, model: str | None = None) -> Endpoint:
        made.append(Endpoint(server.url, "evaluate.endpoint", endpoints.KEYS, model, chat, 4))
        return made[-1]

    yield make
    for opened in made:
        opened.close()


Make = Callable[..., Endpoint]


def ids(text: str) -> list[int]:
    return CharacterTokenizer(False).encode(text)


@pytest.mark.parametrize("opening", ["", "<s>"])
def test_a_continuation_is_the_tokens_that_begin_in_it(server: StandIn, endpoint: Make, opening: str) -> None:
    server.opening = opening
    server.logprob = lambda text, place: -3.0 if text[place] == "아" else -0.5
    made = endpoint()
    assert made.can_score and made.model == "stand-in"
    found = made.loglikelihoods(
        [(ids("질문: 답변:"), [*ids(" 예"), 0]), (ids("질문: 답변:"), ids(" 아니오"))], "choices"
    )
    assert found == [(-1.0, True), (-4.5, False)]
    # Both are asked at once, in either order; the end of a text is nothing a server can be asked for.
    assert {asked[1]["prompt"] for asked in server.asked[-2:]} == {"질문: 답변: 예", "질문: 답변: 아니오"}


def test_what_is_written_stops_where_it_should(server: StandIn, endpoint: Make) -> None:
    server.write = lambda text: f"{text} 가### 나\n\n다"
    made = endpoint()
    options = {"max_tokens": 9, "stop": ["A", "B", "C", "D", "###"]}
    (completion,) = made.generate([ids("물음")], options, "answers")
    assert (completion.text, completion.finish_reason) == ("물음 가", "stop")
    assert server.asked[-1][1]["stop"] == ["A", "B", "C", "D"] and server.asked[-1][1]["max_tokens"] == 9


def test_a_conversation_is_sent_as_one(server: StandIn, endpoint: Make) -> None:
    made = endpoint(chat=True)
    assert not made.can_score
    turns = [{"role": "system", "content": "짧게"}, {"role": "user", "content": "물음"}]
    text = CharacterTokenizer(True).apply_chat_template(turns)
    made.generate([ids(text), ids("맨글")], {"max_tokens": 5}, "answers")
    asked = sorted((body["messages"] for _, body in server.asked), key=len)
    assert asked == [[{"role": "user", "content": "맨글"}], turns]


def test_the_key_comes_from_the_environment_and_is_never_shown(
    server: StandIn, endpoint: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "very-secret"
    with pytest.raises(EvaluateError, match="answers 401: no such key") as caught:
        endpoint()
    assert "KIT19_ENDPOINT_API_KEY or OPENAI_API_KEY" in caught.value.hint
    monkeypatch.setenv("OPENAI_API_KEY", "other")
    monkeypatch.setenv("KIT19_ENDPOINT_API_KEY", "very-secret")
    assert endpoint().can_score
    with pytest.raises(EvaluateError, match="127.0.0.1 holds a secret or a query") as caught:
        OpenAIClient("http://me:very-secret@127.0.0.1/v1", "evaluate.endpoint", endpoints.KEYS, 1)
    assert "very-secret" not in str(caught.value)


def test_a_busy_server_is_asked_again_and_a_dead_one_is_named(server: StandIn, endpoint: Make) -> None:
    server.busy = 3
    assert endpoint().can_score
    server.busy = 99
    with pytest.raises(EvaluateError, match="does not answer, after 5 tries: 503: busy"):
        endpoint()
    client = OpenAIClient("http://127.0.0.1:9/v1", "evaluate.endpoint", endpoints.KEYS, 1)
    with pytest.raises(EvaluateError, match="does not answer, after 5 tries: ConnectError"):
        client.only_model()
    client.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [("ftp://host/v1", "is no http:// or https:// URL"), ("host:8000", "is no http:// or https:// URL")],
)
def test_a_url_that_is_none(url: str, said: str) -> None:
    with pytest.raises(EvaluateError, match=said):
        OpenAIClient(url, "evaluate.endpoint", endpoints.KEYS, 1)


def test_which_model_is_asked(server: StandIn, endpoint: Make) -> None:
    server.models = ["a", "b"]
    with pytest.raises(EvaluateError, match=r"endpoint_model is not set, and .* serves a, b"):
        endpoint()
    assert endpoint(model="b").model == "b"


def test_an_answer_that_is_not_openais(server: StandIn, endpoint: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = endpoint()
    monkeypatch.setattr(server, "answer", lambda path, body: (200, {"choices": []}))
    with pytest.raises(EvaluateError, match="an answer that is not OpenAI's: IndexError"):
        made.generate([ids("가")], {"max_tokens": 1}, "answers")

    def plain(*args: Any, **options: Any) -> httpx.Response:
        return httpx.Response(200, text="<html>", request=httpx.Request("POST", "http://x"))

    monkeypatch.setattr(made._client._http, "request", plain)
    with pytest.raises(EvaluateError, match="answers no JSON object: '<html>'"):
        made.generate([ids("가")], {"max_tokens": 1}, "answers")


def config(server: StandIn, tmp_path: Path, *words: str) -> Any:
    base = [f"root={tmp_path}/runs", "data.sources=samples", "evaluate.held_out=false", "evaluate.limit=6"]
    return loading.load(None, [*base, f"evaluate.endpoint={server.url}", *words])


def test_an_evaluation_through_an_endpoint_by_likelihood(server: StandIn, tmp_path: Path) -> None:
    # BoolQ's prompt ends in a space, which the harness counts to the choice, so 예 has three letters here.
    server.logprob = lambda text, place: -1.0
    made = config(server, tmp_path, "evaluate.tasks=[kobest_sentineg,kobest_boolq]")
    uri = stage.run(made, server.url, None)
    scores = json.loads(storage.read_text(f"{uri}/scores.json"))
    assert scores["model"] == f"{server.url} stand-in" and scores["leaks"]["kobest_boolq"] == {"status": "unknown"}
    kept = [s for s in sample_file.read(uri) if s["task"] == "kobest_boolq"]
    assert [(s["choices"], s["loglikelihoods"], s["answer"]) for s in kept] == [
        ([" 아니오", " 예"], [-5.0, -3.0], 1)
    ] * 6
    assert manifest.require(uri, "evaluate")["model_identity"] == server.url


def test_choices_in_words_where_there_is_no_likelihood(server: StandIn, tmp_path: Path) -> None:
    server.echoes = False
    server.write = lambda text: "제 생각에는 부정입니다." if "긍부정" in text else "글쎄요"
    made = config(server, tmp_path, "evaluate.tasks=[kobest_sentineg,kobest_copa]", "evaluate.num_fewshot=[0,1]")
    scores = json.loads(storage.read_text(f"{stage.run(made, server.url, None)}/scores.json"))["tasks"]
    assert set(scores) == {"kobest_sentineg", "kobest_copa", "kobest_sentineg@1", "kobest_copa@1"}
    sentineg = scores["kobest_sentineg"]
    assert (sentineg["method"], sentineg["names_no_choice"], sentineg["n"]) == ("generation", 0, 6)
    uri = stage.run(made, server.url, None)
    kept = [s for s in sample_file.read(uri) if s["task"] == "kobest_sentineg"]
    assert sentineg["acc"] == sum(s["gold"] == 0 for s in kept) / 6 and {s["answer"] for s in kept} == {0}
    assert scores["kobest_copa"]["acc"] == 0 and scores["kobest_copa"]["names_no_choice"] == 6


@pytest.mark.slow
def test_a_task_that_needs_likelihoods(server: StandIn, tmp_path: Path) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "rows.jsonl").write_text('{"q": "가나다"}\n', "utf-8")
    (folder / "own.yaml").write_text(
        f"""
task: own_text
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/rows.jsonl}}, cache_dir: {folder}/cache}}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "{{{{q}}}}"
metric_list: [{{metric: word_perplexity}}]
""",
        "utf-8",
    )
    words = [f"evaluate.include_path=[{folder}]", "evaluate.tasks=[own_text]", "evaluate.endpoint_api=chat"]
    with pytest.raises(EvaluateError, match="own_text needs log-likelihoods, which the endpoint does not give"):
        stage.run(config(server, tmp_path, *words), server.url, None)


def test_the_chat_template_is_the_servers(server: StandIn, tmp_path: Path) -> None:
    words = ["evaluate.apply_chat_template=true", "evaluate.tasks=[kobest_sentineg]", "evaluate.num_fewshot=1"]
    with pytest.raises(ConfigError, match="apply_chat_template needs endpoint_api=chat"):
        config(server, tmp_path, *words)
    chat = [
        *words,
        "evaluate.endpoint_api=chat",
        "evaluate.fewshot_as_multiturn=true",
        "evaluate.system_instruction=짧게",
    ]
    stage.run(config(server, tmp_path, *chat), server.url, None)
    roles = [turn["role"] for turn in server.asked[-1][1]["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    with pytest.raises(ConfigError, match="`endpoint` and `model` exclude each other"):
        config(server, tmp_path, "evaluate.model=organisation/model")
