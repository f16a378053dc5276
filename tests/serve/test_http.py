"""Chat and streaming over real HTTP: what is streamed is what is answered whole; and the playground in a browser."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from kit19_ray.lm.generator import Generator
from kit19_ray.lm.prompts import prompt_format
from kit19_ray.serve import page, stage

pytestmark = pytest.mark.ray

WRAPPER = prompt_format("koalpaca")
QUESTION = "대한민국의 수도는?"
PATHS = {"completions": {"prompt": QUESTION}, "chat/completions": {"messages": [{"role": "user", "content": QUESTION}]}}


def post(http: httpx.Client, path: str, **fields: Any) -> dict[str, Any]:
    response = http.post(f"/v1/{path}", json={"model": "kit19", "max_tokens": 20, **PATHS[path], **fields})
    assert response.status_code == 200, response.text
    return dict(response.json())


def stream(http: httpx.Client, path: str, **fields: Any) -> list[dict[str, Any]]:
    """The chunks of a stream, read as the standard says."""
    body = {"model": "kit19", "max_tokens": 20, **PATHS[path], **fields, "stream": True}
    with http.stream("POST", f"/v1/{path}", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        data = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert data.pop() == "[DONE]"
    return [json.loads(one) for one in data]


def joined(chunks: list[dict[str, Any]], index: int = 0) -> tuple[str, list[Any], str | None]:
    """Text, log-probabilities and reason of one choice of a stream."""
    text, logprobs, reason = "", [], None
    for chunk in chunks:
        for choice in chunk["choices"]:
            if choice["index"] != index:
                continue
            assert reason is None, "nothing follows the reason"
            text += choice["text"] if "text" in choice else choice["delta"].get("content", "")
            found = choice["logprobs"] or {}
            logprobs += found.get("content") or found.get("token_logprobs") or []
            reason = choice["finish_reason"]
    return text, logprobs, reason


def test_a_chat_answer_is_the_models_to_the_prompt_of_training(http: httpx.Client, generator: Generator) -> None:
    prompt = generator.encode(WRAPPER.render(QUESTION))
    (expected,) = generator.generate([prompt], 20, stop=WRAPPER.stop)
    answer = post(http, "chat/completions", temperature=0)
    assert answer["object"] == "chat.completion" and answer["id"].startswith("chatcmpl-")
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": expected.text, "refusal": None},
            "logprobs": None,
            "finish_reason": expected.finish_reason,
        }
    ]
    assert answer["usage"]["prompt_tokens"] == len(prompt)
    rendered = http.post("/v1/chat/completions/render", json={"model": "kit19", **PATHS["chat/completions"]}).json()
    assert rendered == {
        "prompt": WRAPPER.render(QUESTION),
        "prompt_tokens": len(prompt),
        "stop": list(WRAPPER.stop),
    }


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("fields", [{"temperature": 0}, {"temperature": 1.0, "seed": 5, "n": 3}])
def test_what_is_streamed_is_what_is_answered_whole(http: httpx.Client, path: str, fields: dict[str, Any]) -> None:
    logprobs = {"logprobs": True, "top_logprobs": 2} if "chat" in path else {"logprobs": 2}
    whole = post(http, path, **fields, **logprobs)
    chunks = stream(http, path, **fields, **logprobs, stream_options={"include_usage": True})
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"] == whole["usage"]
    assert {chunk["usage"] is None for chunk in chunks[:-1]} == {True}
    assert len(chunks) > len(whole["choices"]) + 2, "it came in parts"
    for choice in whole["choices"]:
        text, listed, reason = joined(chunks, choice["index"])
        assert text == (choice["text"] if "text" in choice else choice["message"]["content"])
        assert reason == choice["finish_reason"]
        values = choice["logprobs"].get("content") or choice["logprobs"]["token_logprobs"]
        assert len(listed) == len(values)
        assert [numbers(one) for one in listed] == [pytest.approx(numbers(one), abs=1e-4) for one in values]


def numbers(entry: Any) -> float:
    return float(entry["logprob"] if isinstance(entry, dict) else entry)


def test_streams_share_batches_and_a_stop_does_not_leak(http: httpx.Client) -> None:
    whole = post(http, "completions", temperature=0)["choices"][0]["text"]
    stop = whole[6:9]
    with ThreadPoolExecutor(4) as pool:
        sent = [pool.submit(stream, http, "completions", temperature=0, stop=stop) for _ in range(4)]
        texts = [joined(one.result())[0] for one in sent]
    assert texts == [whole[: whole.index(stop)]] * 4


def test_a_refusal_comes_before_the_stream(http: httpx.Client) -> None:
    body = {"model": "kit19", "messages": [{"role": "user", "content": "뷁" * 120}], "stream": True}
    response = http.post("/v1/chat/completions", json=body)
    assert response.status_code == 400 and response.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize("streamed", [True, False])
def test_a_client_that_leaves_is_counted_and_the_others_go_on(http: httpx.Client, streamed: bool) -> None:
    body = {"model": "kit19", "prompt": QUESTION, "max_tokens": 64, "temperature": 0, "stream": streamed, "n": 32}
    before = counted(http, "kit19_disconnects_total")
    if streamed:
        with http.stream("POST", "/v1/completions", json=body) as response:
            next(response.iter_lines())
    else:
        with pytest.raises(httpx.ReadTimeout):
            http.post("/v1/completions", json=body, timeout=httpx.Timeout(5, read=0.02))
    assert post(http, "completions", temperature=0)["choices"][0]["text"]
    limit = time.monotonic() + 60  # Ray's processes report every few seconds
    while counted(http, "kit19_disconnects_total") != before + 1 or counted(http, "kit19_sequences_running") != 0:
        assert time.monotonic() < limit
        time.sleep(0.5)
    assert counted(http, "kit19_time_to_first_token_seconds_count") > 0
    assert counted(http, "kit19_inter_token_seconds_count") > 0


def counted(http: httpx.Client, name: str) -> float:
    lines = [line for line in http.get("/metrics").text.splitlines() if line.startswith(f"ray_{name}{{")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def test_the_docs_curl_gets_an_answer(http: httpx.Client) -> None:
    if not shutil.which("curl"):
        pytest.skip("there is no curl")
    text = (Path(__file__).parents[2] / "docs/reference/stages.md").read_text(encoding="utf-8")
    command = re.search(r"^\$ (curl -N .*?)^```", text, re.MULTILINE | re.DOTALL)
    assert command
    words = shlex.split(
        command[1].replace("http://127.0.0.1:8000", str(http.base_url).rstrip("/")).replace("\\\n", " ")
    )
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    events = [line.removeprefix("data: ") for line in done.stdout.splitlines() if line]
    assert events[-1] == "[DONE]" and json.loads(events[0])["choices"][0]["delta"], done.stderr


def test_the_page_loads_nothing_from_elsewhere(http: httpx.Client) -> None:
    response = http.get("/")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "script-src 'sha256-" in policy
    assert "http://" not in response.text and "https://" not in response.text


def test_there_is_an_example_of_each_task() -> None:
    tasks = {path.stem for path in (Path(page.__file__).parents[1] / "tasks" / "definitions").glob("*.yaml")}
    assert {example["task"] for example in page.examples()} == tasks and len(tasks) == 20
    assert all(example["instruction"] and example["input"] for example in page.examples())


class Browser:
    """A few calls of the WebDriver protocol."""

    def __init__(self, http: httpx.Client, session: str) -> None:
        self._http, self._session = http, session

    def ask(self, path: str, **body: Any) -> Any:
        response = self._http.post(f"/session/{self._session}{path}", json=body)
        assert response.status_code == 200, response.text
        return response.json()["value"]

    def run(self, script: str) -> Any:
        return self.ask("/execute/sync", script=script, args=[])

    def type(self, id: str, text: str) -> None:
        (element,) = self.ask("/element", using="css selector", value=f"#{id}").values()
        self.ask(f"/element/{element}/clear")
        self.ask(f"/element/{element}/value", text=text)

    def until(self, script: str) -> None:
        limit = time.monotonic() + 30
        while not self.run(f"return {script}"):
            assert time.monotonic() < limit, self.run("return document.body.innerText")
            time.sleep(0.1)

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._http.get(f"/session/{self._session}/screenshot").json()["value"]))


@pytest.fixture(scope="module")
def browser(free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium")
    if driver is None or chromium is None:
        pytest.skip("no chromium with chromedriver (Debian: chromium chromium-driver)")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]
    flags += ["--window-size=1200,850", f"--user-data-dir={tmp_path_factory.mktemp('browser')}"]
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen([driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            options = {"browserName": "chrome", "goog:chromeOptions": {"args": flags, "binary": chromium}}
            options["goog:loggingPrefs"] = {"browser": "ALL"}
            transport = httpx.HTTPTransport(retries=8)
            with httpx.Client(base_url=url, transport=transport, timeout=60) as client:
                made = client.post("/session", json={"capabilities": {"alwaysMatch": options}}).json()["value"]
                assert "sessionId" in made, made
                yield Browser(client, made["sessionId"])
                client.delete(f"/session/{made['sessionId']}")
        finally:
            process.terminate()


@pytest.mark.browser
def test_the_playground_streams_an_answer_and_shows_the_prompt(
    server: stage.Server, http: httpx.Client, browser: Browser, tmp_path: Path
) -> None:
    browser.ask("/url", url=server.url)
    browser.until("document.querySelector('#model').textContent === 'kit19'")
    browser.type("instruction", "감정을 분류하세요.")
    browser.type("input", "정말 재미있다")
    browser.type("max_tokens", "20")
    browser.ask("/actions", actions=[{"type": "key", "id": "keys", "actions": _keys("\ue009", "\ue007")}])
    browser.until("document.querySelector('#figures').textContent.includes('tokens/s')")
    messages = [{"role": "system", "content": "감정을 분류하세요."}, {"role": "user", "content": "정말 재미있다"}]
    expected = post(http, "chat/completions", messages=messages, temperature=0)["choices"][0]["message"]["content"]
    assert browser.run("return document.querySelector('#answer').textContent") == expected
    prompt = browser.run("return document.querySelector('#prompt').textContent")
    assert prompt == WRAPPER.render("감정을 분류하세요.", "정말 재미있다")
    browser.run("document.querySelector('#second').value = 'kit19'; document.querySelector('#form').requestSubmit()")
    browser.until("document.querySelector('#other-figures').textContent.includes('tokens/s')")
    assert browser.run("return document.querySelector('#other-answer').textContent") == expected
    # KIT19_SCREENSHOTS=docs/images writes the pictures of the documentation.
    folder = Path(os.environ.get("KIT19_SCREENSHOTS") or tmp_path)
    for name, width in (("playground", 1200), ("playground-narrow", 500)):
        browser.ask("/window/rect", width=width, height=1100)
        browser.picture(folder / f"{name}.png")
        assert (folder / f"{name}.png").stat().st_size > 10_000
    browser.ask("/window/rect", width=1200, height=850)


@pytest.mark.browser
def test_the_playground_shows_what_the_server_refuses(server: stage.Server, browser: Browser) -> None:
    browser.ask("/url", url=server.url)
    browser.until("document.querySelector('#model').textContent === 'kit19'")
    browser.type("instruction", "가")
    browser.type("max_tokens", "65")
    browser.run("document.querySelector('#form').requestSubmit()")
    browser.until("!document.querySelector('#error').hidden")
    assert "the most is 64" in browser.run("return document.querySelector('#error').textContent")
    browser.run(
        "const box = document.querySelector('#example'); box.value = '12'; box.dispatchEvent(new Event('change'))"
    )
    assert browser.run("return document.querySelector('#instruction').value") == page.examples()[12]["instruction"]
    unnamed = "return [...document.querySelectorAll('input, textarea, select')].filter((e) => !e.labels.length).length"
    assert browser.run(unnamed) == 0
    browser.ask("/window/rect", width=500, height=850)
    assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth"), "it fits a telephone"


def _keys(*held: str) -> list[dict[str, str]]:
    """Pressed in order, let go in reverse."""
    down = [{"type": "keyDown", "value": key} for key in held]
    return down + [{"type": "keyUp", "value": key} for key in reversed(held)]
