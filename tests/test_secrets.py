"""A secret that a URL may carry, put into each place that takes one: it is in no output, file, manifest or card."""

from __future__ import annotations

import io
import json
import sys
import types
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import httpx
import pytest

from kit19_ray.cli import main
from kit19_ray.errors import UserError, clipped
from kit19_ray.evaluate import openai_client
from kit19_ray.evaluate.openai_client import OpenAIClient
from kit19_ray.redaction import redacted
from kit19_ray.sources.catalog import Source
from kit19_ray.train import fit
from kit19_ray.utils import console, proxies
from tests.sources.stranger import spec

SECRET = "hunter2secret"
PLACES = [
    f"http://user:{SECRET}@host.example:9/v1", f"http://{SECRET}@host.example:9/v1", f"http://host.example:9/v1?key={SECRET}",
]  # fmt: skip
KEYED = f"s3://AKIAEXAMPLE:{SECRET}/slash@bucket/prefix"


def run(*words: str) -> tuple[int, str]:
    """Exit code of a command and all that it printed."""
    err, out = io.StringIO(), io.StringIO()
    with redirect_stderr(err), redirect_stdout(out), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["kit19", *words])
        patch.setattr(console, "accept_any_stream", lambda: None)
        with pytest.raises(SystemExit) as ended:
            main.main()
    code = ended.value.code
    return int(code or 0), err.getvalue() + out.getvalue()


def hidden(*words: str) -> str:
    """What a command printed that failed for its user's mistake, without the secret."""
    code, said = run(*words)
    assert code == 2 and SECRET not in said and "Traceback" not in said, said
    return said


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"get {PLACES[0]} now", "get http://host.example:9/v1 now"),
        (f"{PLACES[2]}: 404", "http://host.example:9/v1 404"),
        (KEYED, "s3://bucket/prefix"),
        ("'mysql+x://a:b@h/c'", "'mysql+x://h/c'"),
        ("http://host:8265/a@b", "http://host:8265/a@b"),
        ("s3://bucket/key?v=1#2", "s3://bucket/key?v=1#2"),
        ("file:///a@b/c", "file:///a@b/c"),
        ("ab://" * 20_000, "ab://" * 20_000),
        ("a" * 100_000 + "://" + "b" * 100_000, None),
    ],
)
def test_a_url_in_a_text(text: str, shown: str | None) -> None:
    assert redacted(text) == (text if shown is None else shown)
    assert SECRET not in clipped(text) and SECRET not in str(UserError(text, hint=text))


@pytest.mark.parametrize("url", PLACES)
@pytest.mark.parametrize(
    "words",
    [
        "evaluate root=R evaluate.held_out=false evaluate.endpoint={}",
        "plan root=R evaluate.endpoint={}",
        "evaluate root=R evaluate.judge.endpoint={}",
        "data root={}",
        "data root=R data.sources={}",
        "train root=R train.data={}",
        "plan root=R data.tokenizer.name={}",
        "serve root=R serve.model={}",
        "report {}",
        "data --config {}",
        "submit --address {} data root=file:///R",
        "status --address {}",
        "stop --address {} some-job",
    ],
)
def test_a_url_of_the_command_line(tmp_path: Path, words: str, url: str) -> None:
    hidden(*(word.replace("root=R", f"root={tmp_path}").format(url) for word in words.split(" ")))


@pytest.mark.parametrize("verb", ["status --address {}", "submit --address {} data root=file:///R"])
@pytest.mark.parametrize("address", [PLACES[0], PLACES[2], f"user:{SECRET}@host.example:8265"])
def test_an_address_with_a_secret_is_refused(verb: str, address: str) -> None:
    assert "holds no user, password or query" in hidden(*verb.format(address).split(" "))


@pytest.mark.parametrize("key", ["root", "data.sources", "train.data", "data.tokenizer.name", "evaluate.model"])
def test_a_key_in_an_s3_uri_is_refused(tmp_path: Path, key: str) -> None:
    words = [f"{key}={KEYED}"] if key == "root" else [f"root={tmp_path}", f"{key}={KEYED}"]
    said = hidden("plan", *words)
    assert "holds no key, secret or host" in said and "/slash" not in said


def test_a_source_of_ones_own(tmp_path: Path) -> None:
    licence = {"name": "mine", "url": PLACES[0], "commercial": True, "derivatives": True}
    files = [{"path": "a.tsv", "split": "train", "url": PLACES[0]}]
    own = spec(homepage=PLACES[1], licence=licence, files=files, options={"keep": ["text", "label"]})
    source = Source.model_validate(own)
    assert SECRET not in source.homepage and SECRET not in str(source.licence.url)
    assert source.files[0].url == PLACES[0], "fetch asks with it"
    (tmp_path / "mine.yaml").write_text(_task(own), encoding="utf-8")
    words = [f"root={tmp_path}/runs", f"data.tasks_dir={tmp_path}", "data.tasks=[mine]"]
    said = [
        run(*verb.split(), *words) for verb in ("tasks", "tasks show mine", "tasks show mine --json", "plan", "data")
    ]
    said.append(run("fetch", "--dry-run", *words))
    assert all(SECRET not in text for _, text in said)
    assert any("host.example" in text for _, text in said), said


def _task(source: dict[str, Any]) -> str:
    """A task file, as JSON, that brings its source along."""
    template = {"kind": "open", "instruction": "고르세요.", "input": "{{ text }}", "outputs": ["{{ choice }}"]}
    return json.dumps({
        "category": "sentiment_analysis", "description": "내 과제", "source": source, "splits": ["train"],
        "fields": ["text", "label"], "answer": "label", "choices": {"0": "나쁨", "1": "좋음"}, "metrics": ["accuracy"],
        "templates": [{"name": name, **template} for name in ("first", "second")],
    })  # fmt: skip


@pytest.mark.slow
def test_where_the_environment_names_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"http://user:{SECRET}@127.0.0.1:9")
    assert "RAY_ADDRESS" in hidden("data", f"root={tmp_path}", "data.sources=samples", "data.tasks=[nsmc]")
    assert "holds a user" in hidden("status")
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:{SECRET}@127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    hidden("report", "s3://bucket/runs")


def test_a_traceback_is_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(f"cannot reach {PLACES[0]}")

    monkeypatch.setattr(main, "app", fail)
    code, said = run("data")
    assert code == 1 and "Traceback" in said and SECRET not in said and "host.example" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    "proxy",
    [
        f"http://user:{SECRET}@127.0.0.1:9", f"user:{SECRET}@127.0.0.1:9", f"socks5://user:{SECRET}@127.0.0.1:9",
        f"ftp://user:{SECRET}@127.0.0.1:9", f"http://user:{SECRET}/more@127.0.0.1:9", f"http://user:{SECRET}@host:99x",
    ],
)  # fmt: skip
def test_a_proxy_with_a_password(proxy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://host.example:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", tmp_path.name)  # no connection of another test
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert "s3://bucket/runs" in hidden("report", "s3://bucket/runs")
    monkeypatch.setattr(openai_client, "_TRIES", 1)
    with pytest.raises(UserError) as caught:
        OpenAIClient("http://host.example/v1", "evaluate.endpoint", ["OPENAI_API_KEY"], 1).post("completions", {})
    assert SECRET not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        (f"http://user:{SECRET}/x@127.0.0.1:9", "HTTPS_PROXY: not the address of a proxy"),
        (f"ftp://user:{SECRET}@127.0.0.1:9", "HTTPS_PROXY: not the address of a proxy"),
        (f"socks5://user:{SECRET}@127.0.0.1:9", "HTTPS_PROXY: a SOCKS proxy needs the package socksio"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_without_its_value(
    proxy: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    monkeypatch.setitem(sys.modules, "socksio", None)
    with pytest.raises(UserError, match=said) as caught, proxies.usable_proxies():
        httpx.Client()
    assert SECRET not in str(caught.value)


def test_what_a_failed_training_leaves_is_redacted(tmp_path: Path) -> None:
    spec = types.SimpleNamespace(out=f"file://{tmp_path}")
    told = fit.explained(RuntimeError(f"ConnectionError: {PLACES[0]}"), spec)  # type: ignore[arg-type]
    kept = (tmp_path / fit.FAILURE).read_text()
    assert SECRET not in kept and "host.example" in kept and SECRET not in clipped(str(told))
