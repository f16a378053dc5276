"""`kit19 generate`: rows with answers, the same ones the server gives; killed, it goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from kit19_ray.cli.main import app
from kit19_ray.config.schema import ServeConfig
from kit19_ray.errors import UserError
from kit19_ray.io import storage
from kit19_ray.lm.generator import Generator
from kit19_ray.serve.batch import stage
from kit19_ray.serve.batch.job import GenerateJob, Worker, limits_of

PROMPTS = ["이 영화는 정말", "두 문장의 뜻이 같은지", "대한민국의 수도는", "배우의", "질문에 예 또는", "긍정 또는 부정"]
GREEDY = {"max_tokens": 8, "temperature": 0.0, "top_p": 1.0, "stop": []}
SECTION = ServeConfig(cpus_per_replica=0.5, replicas=1)


def put(folder: Path, rows: list[Any], name: str = "rows.jsonl") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return folder


def answers(out: str) -> list[dict[str, Any]]:
    made = json.loads(storage.read_bytes(storage.join(out, "manifest.json")))
    return [
        json.loads(line) for name in made["parts"] for line in storage.read_text(storage.join(out, name)).splitlines()
    ]


@pytest.fixture(scope="module")
def expected(generator: Generator) -> dict[str, str]:
    return {prompt: generator.generate([generator.encode(prompt)], 8)[0].text for prompt in PROMPTS}


def test_options_and_places_are_checked_before_anything_starts(tmp_path: Path, tiny_model: Path) -> None:
    rows = str(put(tmp_path / "in", [{"prompt": "가", "completion": "나"}]))
    out = str(tmp_path / "out")

    def refused(said: str, source: str = rows, to: str = out, model: str = str(tiny_model), **fields: Any) -> None:
        job = GenerateJob(**{"column": "prompt", "is_chat": False, "added": "answer", "options": GREEDY, **fields})
        with pytest.raises(UserError) as caught:
            stage.check(SECTION, model, source, to, job)
        assert said in str(caught.value)

    refused("no column 'promt' (did you mean 'prompt'?)", column="promt")
    refused("--messages-column: the first row has no column 'chat'", column="chat", is_chat=True)
    refused("have a column 'completion' already", added="completion")
    refused("lie within one another", to=f"{rows}/out")
    refused("generate: temperature: Input should be less than", options={**GREEDY, "temperature": 9.0})
    refused("/no/such/model", model="/no/such/model")
    refused("nothing holds no .jsonl", source=str(tmp_path / "nothing"))
    assert stage.check(SECTION, str(tiny_model), rows, out, GenerateJob("prompt", False, "answer", GREEDY))


def test_the_command_line_says_what_it_would_do(tmp_path: Path, tiny_model: Path) -> None:
    put(tmp_path / "in", [{"prompt": p} for p in PROMPTS])
    words = ["generate", "--in", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--rows-per-part", "4"]
    done = CliRunner().invoke(app, [*words, "--dry-run", "--json", f"serve.model={tiny_model}"], catch_exceptions=False)
    found = json.loads(done.stdout)
    assert (found["files"], found["parts"], found["rows"], found["done"]) == (1, 2, 6, 0)
    assert not (tmp_path / "out").exists()


def test_a_worker_answers_as_the_server_and_counts_what_it_cannot(
    tmp_path: Path, tiny_model: Path, expected: dict[str, str]
) -> None:
    from dataclasses import asdict

    from kit19_ray.serve.batch import rows

    bad: list[Any] = ["no json", {"prompt": None}, {"prompt": 3}, {"prompt": "뷁" * 200}]
    put(tmp_path / "in", [*({"prompt": p} for p in PROMPTS[:3]), *bad])
    (part,) = rows.outline((tmp_path / "in" / "rows.jsonl").as_uri(), 100)
    worker = Worker(
        str(tiny_model), limits_of(SECTION, 8), GenerateJob("prompt", False, options=GREEDY), tmp_path.as_uri()
    )
    done = worker({"name": "part.jsonl", "part": json.dumps(asdict(part))})
    found = [json.loads(line) for line in (tmp_path / "part.jsonl").read_text().splitlines()]
    assert [row["completion"] for row in found] == [*(expected[p] for p in PROMPTS[:3]), None, None, None, None]
    assert [row["completion_error"] for row in found[3:6]] == [
        "the line is not a JSON object", "the row has no 'prompt'", "'prompt' is not a text",
    ]  # fmt: skip
    assert "exceed the context of 128" in found[6]["completion_error"]
    assert done["rows"] == 7 and len(json.loads(done["errors"])) == 4


@pytest.mark.ray
def test_rows_of_a_bucket_are_answered_in_order_and_again_only_where_they_changed(
    s3_root: str, tiny_model: Path, expected: dict[str, str]
) -> None:
    """Before the module's own cluster is there: what Ray starts must know the bucket's endpoint."""
    source, out = f"{s3_root}/rows", f"{s3_root}/answers"
    lines = [json.dumps({"n": n, "prompt": PROMPTS[n % 6]}) + "\n" for n in range(20)]
    storage.write_text(f"{source}/a.jsonl", "".join(lines))
    job = GenerateJob("prompt", False, options=GREEDY)
    assert stage.run(SECTION, str(tiny_model), source, out, job, 6) == out
    found = answers(out)
    assert [row["n"] for row in found] == list(range(20))
    assert [row["completion"] for row in found] == [expected[PROMPTS[n % 6]] for n in range(20)]
    times = {info.path: storage.read_bytes(f"{out}/{info.path}") for info in storage.list_files(out)}
    storage.write_text(f"{source}/a.jsonl", "".join([*lines[:19], json.dumps({"n": 19, "prompt": "가"}) + "\n"]))
    stage.run(SECTION, str(tiny_model), source, out, job, 6)
    again = {info.path for info in storage.list_files(out)}
    assert len(again & set(times)) == 5 and len(again) == 6, "three parts, the manifest and the request stay"
    with pytest.raises(UserError, match="holds answers of another job"):
        stage.run(
            SECTION, str(tiny_model), source, out, GenerateJob("prompt", False, options={**GREEDY, "max_tokens": 9}), 6
        )


@pytest.mark.ray
def test_messages_in_parquet_with_sampling_are_the_same_twice(
    ray_cluster: None, tmp_path: Path, tiny_model: Path
) -> None:
    rows = [{"chat": [{"role": "user", "content": p}], "id": n} for n, p in enumerate(PROMPTS)]
    (tmp_path / "in").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in" / "a.parquet", row_group_size=2)
    job = GenerateJob("chat", True, options={**GREEDY, "temperature": 1.0}, seed=7)
    section = SECTION.model_copy(update={"prompt": "koalpaca"})
    tables = []
    for name in ("one", "two"):
        out = stage.run(section, str(tiny_model), str(tmp_path / "in"), str(tmp_path / name), job, 4)
        parts = sorted((tmp_path / name).glob("part-*.parquet"))
        tables.append(pa.concat_tables([pq.read_table(part) for part in parts]))
        assert out == (tmp_path / name).as_uri()
    assert tables[0].equals(tables[1]) and tables[0].column("id").to_pylist() == list(range(6))
    assert all(tables[0].column("completion").to_pylist()) and not any(tables[0].column("completion_error").to_pylist())


@pytest.mark.ray
def test_a_killed_command_goes_on(tmp_path: Path, tiny_model: Path, expected: dict[str, str]) -> None:
    put(tmp_path / "in", [{"n": n, "prompt": PROMPTS[n % 6]} for n in range(300)])
    out = tmp_path / "out"
    words = ["generate", "--in", str(tmp_path / "in"), "--out", str(out), "--rows-per-part", "5", "--max-tokens", "8"]
    command = [sys.executable, "-m", "kit19_ray", *words, f"serve.model={tiny_model}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as process:
        try:
            limit = time.monotonic() + 120
            while len(list(out.glob("part-*"))) < 3 and process.poll() is None and time.monotonic() < limit:
                time.sleep(0.02)
            there = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*.jsonl")}
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert 3 <= len(there) < 60 and not (out / "manifest.json").exists()
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [out.as_uri()]
    assert all((out / name).stat().st_mtime_ns == time for name, time in there.items()), "what was whole stays"
    assert [row["completion"] for row in answers(out.as_uri())] == [expected[PROMPTS[n % 6]] for n in range(300)]
