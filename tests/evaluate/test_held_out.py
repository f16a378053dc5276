"""Held-out rows against scores worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kit19_ray.artifacts.schemas import EXAMPLE_SCHEMA
from kit19_ray.config.schema import EvaluateConfig
from kit19_ray.evaluate import held_out
from kit19_ray.lm.decoding import Completion
from kit19_ray.lm.prompts import PROMPTS

END = 0


class Letters:
    """A tokenizer of one token a character."""

    eos_token_id = END

    def __call__(self, texts: list[str], add_special_tokens: bool) -> dict[str, list[list[int]]]:
        assert not add_special_tokens
        return {"input_ids": [[ord(c) for c in text] for text in texts]}


class Judge:
    """A pool that finds an answer the likelier, the more of its letters the prompt has; it completes with 가나."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[int], list[int]]] = []
        self.options: dict[str, Any] = {}

    def loglikelihoods(self, requests: Sequence[tuple[list[int], list[int]]], what: str) -> list[tuple[float, bool]]:
        self.asked = list(requests)
        return [(float(sum(c in prompt for c in answer)), False) for prompt, answer in requests]

    def generate(self, prompts: list[list[int]], options: dict[str, Any], what: str) -> list[Completion]:
        self.options = options
        return [Completion(text=" 가나\n") for _ in prompts]


def row(task: str, number: int, text: str, **values: Any) -> dict[str, Any]:
    return {
        "id": f"{task}-{number}",
        "task": task,
        "category": "sentiment_analysis",
        "source": task,
        "source_id": f"file:{number}",
        "licence": "CC0",
        "split": "validation",
        "template": "asked",
        "kind": "open",
        "instruction": "?",
        "input": text,
        "output": "",
        "label": -1,
        "candidates": [],
        "order": number,
    } | values


def choice(number: int, text: str, label: int, kind: str = "open") -> dict[str, Any]:
    return row("nsmc", number, text, label=label, kind=kind, candidates=["좋", "나"], output=["좋", "나"][label])


ROWS = {
    "nsmc": [
        choice(1, "좋다", 0),
        choice(2, "나쁘다", 1, "closed"),
        choice(3, "나쁘다", 0, "closed"),
        choice(4, "나", 1),
        choice(5, "모르겠다", 1),  # a tie: the first candidate
        row("nsmc", 6, "써라", output="가나"),
    ],
    "petitions": [row("petitions", 1, "제목?", output="가나"), row("petitions", 2, "제목?", output="다라마")],
}


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    (tmp_path / "examples").mkdir()
    for task, rows in ROWS.items():
        table = pa.Table.from_pylist(list(reversed(rows)), schema=EXAMPLE_SCHEMA)
        pq.write_table(table, tmp_path / "examples" / f"validation-{task}.parquet")
    pq.write_table(
        pa.Table.from_pylist([choice(9, "좋다", 1)], schema=EXAMPLE_SCHEMA),
        tmp_path / "examples" / "train-nsmc.parquet",
    )
    return f"file://{tmp_path}"


def scored(prefix: str, judge: Judge, seq_len: int = 64, **config: Any) -> dict[str, Any]:
    built = {"prompt": "plain", "seq_len": seq_len}
    return held_out.score(judge, Letters(), 1000, prefix, built, EvaluateConfig(**config))  # type: ignore[arg-type]


def test_scores_by_hand(prefix: str) -> None:
    found = scored(prefix, Judge())
    assert set(found) == {"nsmc", "petitions"}
    nsmc = found["nsmc"]
    assert nsmc["accuracy"] == pytest.approx(3 / 5)  # rows 1, 2 and 4
    assert nsmc["majority"] == pytest.approx(3 / 5)
    assert nsmc["above_majority"] == 0
    assert (nsmc["n"], nsmc["labels"]) == (5, 2)
    assert nsmc["macro_f1"] == pytest.approx((2 / 4 + 4 / 6) / 2)
    assert nsmc["stderr"]["accuracy"] == pytest.approx((0.6 * 0.4 / 5) ** 0.5)
    assert {kind: (part["accuracy"], part["n"]) for kind, part in nsmc["by_kind"].items()} == {
        "closed": (0.5, 2),
        "open": (pytest.approx(2 / 3), 3),
    }
    assert sorted(nsmc["correct"].values()) == [0, 0, 1, 1, 1]
    assert "correct" not in found["petitions"]
    assert nsmc["generation"]["exact_match"] == 1.0
    petitions = found["petitions"]["generation"]
    assert (petitions["exact_match"], petitions["n"]) == (0.5, 2)
    assert petitions["chrf"] == pytest.approx(50.0)
    assert petitions["stderr"]["exact_match"] == pytest.approx((0.25 / 2) ** 0.5)
    assert petitions["stderr"]["chrf"] == pytest.approx(50.0)


def test_what_is_asked_is_what_was_learned(prefix: str) -> None:
    judge = Judge()
    scored(prefix, judge, max_tokens=7)
    prompt = [ord(c) for c in PROMPTS["plain"].render("?", "좋다")]
    assert judge.asked[:2] == [(prompt, [ord("좋"), END]), (prompt, [ord("나"), END])]
    assert judge.options == {"max_tokens": 7, "stop": list(PROMPTS["plain"].stop)}


def test_generations_are_capped(prefix: str) -> None:
    found = scored(prefix, Judge(), generation_limit=1)
    assert found["petitions"]["generation"]["n"] == 1
    assert "petitions" not in scored(prefix, Judge(), generation_limit=0)


def test_a_long_input_loses_its_end_as_in_training() -> None:
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import WordLevel

    from kit19_ray.data.encoding import Encoder

    words = {c: i for i, c in enumerate("E?\nabcdefgh ")}
    tokenizer = Tokenizer(WordLevel(words, unk_token="E"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()

    def encode(texts: list[str]) -> list[list[int]]:
        return [tokenizer.encode(text).ids for text in texts]

    long = row("nsmc", 1, "abcdefgh" * 9, label=0, candidates=["a", "b"], output="a")
    reader = held_out.Reader(encode, PROMPTS["plain"], 0, 32)
    (example,) = reader.examples([long], 8)
    ((trained, cut),) = Encoder(tokenizer, PROMPTS["plain"], 0, 32).encode([long])
    assert cut and trained is not None
    assert example.prompt == trained.input_ids[: trained.num_prompt].tolist()
    assert len(example.prompt) + len(example.candidates[0]) <= 32
    assert list(held_out.Reader(encode, PROMPTS["plain"], 0, 4).examples([long], 8)) == []
