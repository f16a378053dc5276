"""What a message quotes of a value: some 200 characters, whichever verb, key, file or body it came by."""

from __future__ import annotations

import ast
import io
import json
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

import kit19_ray
from kit19_ray.cli import main
from kit19_ray.config.schema import ServeConfig
from kit19_ray.errors import UserError, clipped, quote
from kit19_ray.serve import chat, protocol, tokenizing
from kit19_ray.serve.api_error import ApiError
from kit19_ray.sources.catalog import Source
from kit19_ray.sources.files import locate
from tests.sources.stranger import spec

WORD, SENTENCE = "x" * 10_000, "가 나 " * 2_500
PACKAGE = Path(kit19_ray.__file__).parent
# `!r` there is of a class's name, of an exception or of a name of ours: nobody's value.
OURS = {
    "cli/extras.py", "data/ray_tasks.py", "train/fit.py", "train/checkpoint_writer.py", "data/inspect/describe_task.py",
    "operate/controller/stage_output.py", "errors.py",
}  # fmt: skip


def check(message: str) -> None:
    assert "x" * 301 not in message and "가 나 " * 80 not in message, message[:500]
    assert max(map(len, message.split("\n"))) <= 1000


def test_values_are_quoted_by_the_one_helper() -> None:
    found = []
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FormattedValue) and node.conversion == ord("r") and name not in OURS:
                found.append(f"{name}:{node.lineno}: {{{ast.unparse(node.value)}!r}} instead of quote(...)")
    assert found == []


def test_what_is_cut_and_what_is_not() -> None:
    assert quote("짧은 값") == "'짧은 값'" and quote(SENTENCE) == f"'{SENTENCE[:199]}..."
    assert clipped(f"s3://b/{WORD}: no") == f"s3://b/{WORD[:193]}... no"
    names = "known: " + ", ".join(f"task_{n}" for n in range(100))
    assert clipped(names) == names and clipped(f"{names}\n{names}") == f"{names}\n{names}"
    check(str(UserError(f"{SENTENCE}: no", hint=f"put it at file:///{SENTENCE}")))


def told(*words: str) -> str:
    """What a command prints that the user got wrong."""
    err, out = io.StringIO(), io.StringIO()
    with redirect_stderr(err), redirect_stdout(out), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["kit19", *words])
        patch.setattr(main.console, "accept_any_stream", lambda: None)
        with pytest.raises(SystemExit) as ended:
            main.main()
    assert ended.value.code == 2, err.getvalue()[-2000:]
    return err.getvalue() + out.getvalue()


@pytest.mark.parametrize("value", [WORD, SENTENCE], ids=["word", "sentence"])
@pytest.mark.parametrize(
    "words",
    [
        "config {}",
        "{}",
        "data --{}",
        "data --config {}",
        "data root=R {}",
        "data root=R data.{}=3",
        "data root={}",
        "data root=R data.sources={}",
        "data root=R data.quota={}",
        "data root=R data.quotas={{'{}':3}}",
        "data root=R data.tasks=['{}']",
        "data root=R data.tasks_dir=/{}",
        "data root=R data.prompt={}",
        "data root=R data.splits={{'{}':['a']}}",
        "data root=R data.encoding={{nsmc:'{}'}}",
        "data root=R data.held_out_templates={{nsmc:['{}']}}",
        "data root=R data.datasets=[{{path:'/a.jsonl',format:'{}'}}]",
        "plan root=R data.tokenizer.name={}",
        "plan root=R data.tokenizer.name=/{}",
        "train root=R train.data={}",
        "train root=R train.data=s3://{}/a",
        "evaluate root=R evaluate.model={} evaluate.held_out=false",
        "serve root=R serve.model=/{}",
        "fetch root=R {}",
        "fetch root=R nsmc:{}",
        "report {}",
        "tasks show {}",
        "status --address {}",
        "submit --address {} data root=file:///R",
    ],
)
def test_every_verb_cuts_what_it_quotes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, value: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = told(*(word.replace("root=R", f"root={tmp_path}").format(value) for word in words.split(" ")))
    assert said
    check(said)


@pytest.mark.parametrize("value", [WORD, SENTENCE], ids=["word", "sentence"])
@pytest.mark.parametrize(
    "made",
    ["{V}: 1", "source: {V}", "templates: [{V}]", "choices: {{{V}: 1}}", "fields: [{V}, {V}]", "quota: {V}", "[{V}"],
)
def test_a_task_file_and_a_config_file(tmp_path: Path, made: str, value: str) -> None:
    text = made.format(V=json.dumps(value, ensure_ascii=False))
    (tmp_path / "stranger.yaml").write_text(text, encoding="utf-8")
    check(told("tasks", "show", "stranger", f"root={tmp_path}", f"data.tasks_dir={tmp_path}"))
    check(told("data", "--config", str(tmp_path / "stranger.yaml"), f"root={tmp_path}"))


@pytest.mark.parametrize("value", [WORD, SENTENCE], ids=["word", "sentence"])
@pytest.mark.parametrize(
    "body",
    [
        {"{V}": 1}, {"model": "{V}", "messages": "{V}"}, {"messages": [{"role": "{V}", "content": "a"}]},
        {"messages": [{"role": "user", "{V}": "a"}]}, {"messages": [{"role": "user", "content": [{"type": "{V}"}]}]},
        {"model": "m", "prompt": "a", "max_tokens": "{V}"}, {"model": "m", "prompt": "a", "logit_bias": {"{V}": 1}},
        {"model": "m", "prompt": {"{V}": 1}}, {"tokens": ["{V}"]}, {"model": "m", "prompt": "a", "tools": ["{V}"]},
    ],
)  # fmt: skip
def test_a_request(body: dict[str, Any], value: str) -> None:
    data = json.dumps(body).replace("{V}", value).encode()
    limits, refused = ServeConfig(), 0
    for parse in (chat.parse, protocol.parse, tokenizing.parse_tokenize, tokenizing.parse_detokenize):
        try:
            parse(data, limits)
        except ApiError as error:
            check(json.dumps(error.body(), ensure_ascii=False).replace('", "', "\n"))
            refused += 1
    assert refused >= 3


def test_a_row_of_a_source(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    for value in (WORD, SENTENCE):
        for text in (f"text\tlabel\n{value}\n", f"{value}\tlabel\n1\t2\n", f'{{"{value}": 1}}'):
            (tmp_path / "own" / "a.tsv").write_text(text, encoding="utf-8")
            own = Source.model_validate(spec(options={"keep": ["text", "label"]}))
            with pytest.raises(UserError) as caught:
                [row for file in locate("own", own, str(tmp_path), ["train"]) for row in own.read(file)]
            check(str(caught.value))
            assert re.search("a.tsv", str(caught.value))
