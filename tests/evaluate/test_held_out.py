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
from kit19_ray.evaluate import held_out, held_out_scores
from kit19_ray.lm.decoding import DecodedText
from kit19_ray.lm.prompts import PROMPTS
from kit19_ray.lm.text_encoder import TextEncoder

END = 0


class Letters:
    """A tokenizer of one token a character."""

    eos_token_id = END

    def encode(self, texts: list[str]) -> list[list[int]]:
        return [[ord(c) for c in text] for text in texts]

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


class Judge:
    """A pool that finds an answer the likelier, the more of its letters the prompt has; it completes with 가나."""

    can_score = True

    def __init__(self) -> None:
        self.asked: list[tuple[list[int], list[int]]] = []
        self.options: dict[str, Any] = {}

    def loglikelihoods(
        self, requests: Sequence[tuple[list[int], list[int]]], what: str, on_results: Any = None
    ) -> list[tuple[float, bool]]:
        self.asked = list(requests)
        return [(float(sum(c in prompt for c in answer)), False) for prompt, answer in requests]

    def generate(
        self, prompts: Sequence[list[int]], options: dict[str, Any], what: str, on_results: Any = None
    ) -> list[DecodedText]:
        self.options = options
        return [DecodedText(text=" 가나\n", finish_reason="stop") for _ in prompts]


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
        {**choice(3, "나쁘다", 0, "closed"), "template": "new"},
        choice(4, "나", 1),
        choice(5, "모르겠다", 1),  # a tie: the first candidate
        row("nsmc", 6, "써라", output="가나"),
    ],
    "petitions": [row("petitions", 1, "제목?", output="가나"), row("petitions", 2, "제목?", output="다라마")],
}


LEXICAL = {"nsmc": {f"nsmc-{n}": 0 for n in range(1, 6)}}  # what the data stage's baseline answers


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


def scored(prefix: str, judge: Any, seq_len: int = 64, **config: Any) -> dict[str, Any]:
    letters = Letters()
    reader = held_out.Reader(letters.encode, letters.decode, PROMPTS["plain"], END, seq_len)
    out = {}
    for task in held_out.tasks(prefix):
        samples = held_out.ask(held_out.read(prefix, task), reader, judge, EvaluateConfig(**config), frozenset({"new"}))
        if samples:
            out[task] = held_out_scores.summarize(task, samples, LEXICAL.get(task))
    return out


def test_scores_by_hand(prefix: str) -> None:
    found = scored(prefix, Judge())
    assert set(found) == {"nsmc", "petitions"}
    nsmc, outcomes = found["nsmc"]
    assert nsmc["accuracy"] == pytest.approx(3 / 5)  # rows 1, 2 and 4
    assert nsmc["majority"] == pytest.approx(3 / 5)
    assert nsmc["lexical"] == pytest.approx(2 / 5)
    assert all("lexical" in part for part in (*nsmc["by_kind"].values(), *nsmc["by_template"].values()))
    assert nsmc["above_majority"] == 0
    assert (nsmc["n"], nsmc["labels"]) == (5, 2)
    assert nsmc["macro_f1"] == pytest.approx((2 / 4 + 4 / 6) / 2)
    assert nsmc["stderr"]["accuracy"] == pytest.approx((0.6 * 0.4 / 5) ** 0.5)
    assert {kind: (part["accuracy"], part["n"]) for kind, part in nsmc["by_kind"].items()} == {
        "closed": (0.5, 2),
        "open": (pytest.approx(2 / 3), 3),
    }
    assert {name: part["n"] for name, part in nsmc["by_template"].items()} == {"asked": 4, "new": 1}
    assert {name: part["accuracy"] for name, part in nsmc["by_seen"].items()} == {"seen": 0.75, "unseen": 0.0}
    assert sorted(outcomes["accuracy"].values()) == [0, 0, 1, 1, 1]
    assert outcomes["macro_f1"]["nsmc-2"] == [1, 1]
    assert nsmc["generation"]["exact_match"] == 1.0
    petitions, outcomes = found["petitions"]
    free = petitions["generation"]
    assert (free["exact_match"], free["n"], free["cut"]) == (0.5, 2, 0.0)
    assert free["chrf"] == pytest.approx(50.0) and free["rouge_l"] == 0.5
    assert free["stderr"]["chrf"] == pytest.approx(50.0)
    assert outcomes["generation.exact_match"] == {"petitions-1": 1.0, "petitions-2": 0.0}
    assert free["by_seen"] == {} and free["by_type"]["text"]["n"] == 2


def test_what_is_asked_is_what_was_learned(prefix: str) -> None:
    judge = Judge()
    scored(prefix, judge, max_tokens=7)
    prompt = [ord(c) for c in PROMPTS["plain"].render("?", "좋다")]
    assert judge.asked[:2] == [(prompt, [ord("좋"), END]), (prompt, [ord("나"), END])]
    assert judge.options == {"max_tokens": 7, "stop": list(PROMPTS["plain"].stop)}
    scored(prefix, judge)
    assert judge.options["max_tokens"] == len("다라마") + 16, "the task's longest answer, and a little"


def test_generations_are_capped(prefix: str) -> None:
    found = scored(prefix, Judge(), generation_limit=1)
    assert found["petitions"][0]["generation"]["n"] == 1
    assert "petitions" not in scored(prefix, Judge(), generation_limit=0)


class Writer(Judge):
    """A backend without likelihoods, which answers by what the prompt holds."""

    can_score = False

    def generate(
        self, prompts: Sequence[list[int]], options: dict[str, Any], what: str, on_results: Any = None
    ) -> list[DecodedText]:
        said = {"좋다": "답은 좋!", "나쁘다": "나", "모르겠다": "글쎄요"}
        texts = [next((said[key] for key in said if key in "".join(map(chr, ids))), "가나") for ids in prompts]
        return [DecodedText(text=text, finish_reason="stop") for text in texts]


def test_choices_in_words(prefix: str) -> None:
    nsmc = scored(prefix, Writer())["nsmc"][0]
    assert nsmc["method"] == "generation"
    assert nsmc["accuracy"] == pytest.approx(3 / 5)  # rows 1, 2 and 4: 가나 names 나
    assert nsmc["names_no_choice"] == 1  # 글쎄요
    assert "accuracy_norm" not in nsmc


def test_candidates_of_unlike_length_by_sum_and_by_letter(tmp_path: Path) -> None:
    class Longer(Judge):
        def loglikelihoods(self, requests: Any, what: str, on_results: Any = None) -> list[tuple[float, bool]]:
            return [(-1.0 * len(answer), False) if len(answer) < 4 else (-3.5, False) for _, answer in requests]

    (tmp_path / "examples").mkdir()
    rows = [row("nsmc", n, "글", label=1, candidates=["짧", "아주길다"], output="아주길다") for n in range(2)]
    pq.write_table(pa.Table.from_pylist(rows, schema=EXAMPLE_SCHEMA), tmp_path / "examples" / "validation-nsmc.parquet")
    nsmc = scored(f"file://{tmp_path}", Longer())["nsmc"][0]
    assert (nsmc["accuracy"], nsmc["accuracy_norm"]) == (0.0, 1.0)


def test_grades_have_correlations(tmp_path: Path) -> None:
    class Grader(Judge):
        def loglikelihoods(self, requests: Any, what: str, on_results: Any = None) -> list[tuple[float, bool]]:
            return [(-float(abs((prompt[-2] - 48) * 0.5 - (answer[0] - 48))), False) for prompt, answer in requests]

    (tmp_path / "examples").mkdir()
    rows = [row("korsts", n, str(n), label=n, candidates=list("012345"), output=str(n)) for n in range(6)]
    pq.write_table(
        pa.Table.from_pylist(rows, schema=EXAMPLE_SCHEMA), tmp_path / "examples" / "validation-korsts.parquet"
    )
    korsts = scored(f"file://{tmp_path}", Grader())["korsts"][0]
    assert korsts["accuracy"] < 0.5 and korsts["spearman"] == pytest.approx(1.0) and 0.9 < korsts["pearson"] < 1


def test_rows_of_an_earlier_version_have_the_output_as_reference(prefix: str, tmp_path: Path) -> None:
    schema = pa.schema([field for field in EXAMPLE_SCHEMA if field.name not in ("answer", "answer_type")])
    path = tmp_path / "examples" / "validation-petitions.parquet"
    pq.write_table(pq.read_table(path).select(schema.names), path)
    rows = held_out.read(prefix, "petitions")
    assert {row["answer"] for row in rows} == {None}
    assert scored(prefix, Judge())["petitions"][0]["generation"]["exact_match"] == 0.5


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
    reader = held_out.Reader(encode, str, PROMPTS["plain"], 0, 32)
    (example,) = reader.examples([long], 8)  # type: ignore[list-item]
    ((trained, cut),) = Encoder(TextEncoder(tokenizer), PROMPTS["plain"], 0, 32).encode([long])
    assert cut and trained is not None
    assert example.prompt == trained.input_ids[: trained.num_prompt].tolist()
    assert len(example.prompt) + len(example.candidates[0]) <= 32
    assert list(held_out.Reader(encode, str, PROMPTS["plain"], 0, 4).examples([long], 8)) == []  # type: ignore[list-item]


def test_templates_that_no_training_row_has(prefix: str) -> None:
    assert held_out.unseen_templates(prefix, "nsmc") == {"new"}
    assert held_out.unseen_templates(prefix, "petitions") == frozenset()  # it has no training rows to compare with
