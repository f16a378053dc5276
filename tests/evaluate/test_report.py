from __future__ import annotations

from typing import Any

import pytest

from kit19_ray.evaluate import report

SCORES: dict[str, Any] = {
    "model": "file:///runs/train-1",
    "data": "file:///runs/data-1",
    "ablation": None,
    "num_fewshot": [0, 5],
    "limit": None,
    "tasks": {
        "kobest_copa": {
            "n": 1000, "num_fewshot": 0, "acc": 0.612, "macro_f1": 0.6119,
            "stderr": {"acc": 0.0154, "macro_f1": 0.0155}, "interval": {"acc": [0.582, 0.642]},
        },
        "kobest_copa@5": {"n": 1000, "num_fewshot": 5, "acc": 0.63, "stderr": {}, "interval": {}},
        "kobest_wic": {"n": 1260, "num_fewshot": 0, "acc": 0.4881, "macro_f1": 0.328, "stderr": {"acc": 0.0141}},
        "paws_ko": {"n": 2000, "num_fewshot": 0, "exact": 0.5, "stderr": {}},
    },
    "groups": {"own": {"n": 30, "tasks": ["a", "b"], "num_fewshot": 5, "acc": 0.4, "stderr": {"acc": 0.05}}},
    "held_out": {
        "nsmc": {
            "accuracy": 0.74, "accuracy_norm": 0.73, "macro_f1": 0.7398, "majority": 0.51, "lexical": 0.6,
            "above_majority": 10.28,
            "n": 500, "labels": 2, "pearson": 0.5, "stderr": {"accuracy": 0.0196, "macro_f1": 0.0197},
            "by_kind": {"closed": {"accuracy": 0.75, "n": 240}, "open": {"accuracy": 0.7307, "n": 260}},
            "by_seen": {"seen": {"accuracy": 0.75, "n": 450}, "unseen": {"accuracy": 0.65, "n": 50}},
            "by_template": {"asked": {"accuracy": 0.74, "majority": 0.51, "n": 500, "stderr": {"accuracy": 0.0196}}},
        },
        "petitions": {
            "generation": {
                "exact_match": 0.0, "chrf": 12.345, "rouge_l": 0.2, "n": 16, "cut": 0.25,
                "stderr": {"exact_match": 0.0, "chrf": 1.25, "rouge_l": 0.01},
                "by_template": {"title": {"n": 16, "chrf": 12.345, "stderr": {"chrf": 1.25}}},
            },
        },
    },
    "judge": {
        "logickor": {
            "score": 6.5, "n": 4, "unjudged": 1, "stderr": {"score": 0.25},
            "by_category": {"추론": {"score": 6.5, "n": 4}},
        },
        "none": {"n": 0, "unjudged": 2},
    },
    "leaks": {"kobest_copa": {"status": "cleaned", "rows": 8}, "paws_ko": {"status": "not cleaned"}},
    "versions": {"kit19-ray": "0.1.0", "lm-eval": "0.4.13"},
}  # fmt: skip

GOLDEN = f"""\
# Scores

Model `file:///runs/train-1`, 0-shot and 5-shot. Percent, ± one standard error; intervals of 95 % by bootstrap. What the model said to \
each question is in `samples.jsonl`.

## lm-evaluation-harness, beside the paper's

{report._PAPER}

| task | metric | n | ours | 95 % interval | chance | Polyglot-Ko 1.3B | Polyglot-Ko 5.8B | KoAlpaca 5.8B | KULLM 5.8B v2 | KIT 5.8B | KIT 1.3B |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| kobest_copa | acc | 1,000 | 61.20 ± 1.54 | 58.2 to 64.2 | 50 | 72.00 | 77.60 | 69.80 | 76.60 | 91.60 | 83.80 |
| kobest_copa | macro_f1 | 1,000 | 61.19 ± 1.55 |  |  | 71.96 | 77.55 | 69.77 | 76.53 | 91.59 | 83.78 |
| kobest_copa, 5-shot | acc | 1,000 | 63.00 |  | 50 |  |  |  |  |  |  |
| kobest_wic | acc | 1,260 | 48.81 ± 1.41 |  | 50 |  |  |  |  |  |  |
| kobest_wic | macro_f1 | 1,260 | 32.80 |  |  |  |  |  |  |  |  |
| paws_ko | exact | 2,000 | 50.00 |  |  |  |  |  |  |  |  |
| kobest_boolq | acc |  | not scored |  | 50 | 49.86 | 53.63 | 56.34 | 50.28 | 66.24 | 50.71 |
| kobest_boolq | macro_f1 |  | not scored |  |  | 35.52 | 43.56 | 50.64 | 33.71 | 66.14 | 34.78 |
| kobest_hellaswag | acc |  | not scored |  | 25 | 40.60 | 48.80 | 38.20 | 44.40 | 97.60 | 81.60 |
| kobest_hellaswag | acc_norm |  | not scored |  | 25 | 53.00 | 59.80 | 46.20 | 55.20 | 98.20 | 89.80 |
| kobest_hellaswag | macro_f1 |  | not scored |  |  | 40.13 | 48.53 | 38.15 | 44.25 | 97.61 | 81.49 |
| kobest_sentineg | acc |  | not scored |  | 50 | 69.27 | 50.38 | 38.79 | 50.38 | 71.54 | 80.86 |
| kobest_sentineg | macro_f1 |  | not scored |  |  | 68.19 | 33.95 | 38.48 | 33.50 | 68.98 | 80.86 |
| klue_sts | acc |  | not scored |  | 50 | 42.39 | 45.28 | 51.83 | 42.39 | 65.51 | 42.20 |
| klue_sts | f1 |  | not scored |  |  | 59.54 | 60.34 | 33.86 | 59.54 | 69.71 | 56.52 |
| klue_ynat | macro_f1 |  | not scored |  |  | 33.24 | 33.62 | 20.91 | 32.20 | 28.15 | 38.34 |

## Groups

As the harness makes one figure of a group's tasks.

| group | metric | tasks | n | ours |
| --- | --- | --- | --- | --- |
| own, 5-shot | acc | 2 | 30 | 40.00 ± 5.00 |

## Test sets and the training data

{report._LEAKS}

| test set | training data | rows dropped |
| --- | --- | --- |
| kobest_copa | cleaned | 8 |
| paws_ko | not cleaned |  |

## Held-out rows of the data stage: choices

From `file:///runs/data-1`. {report._CHOICES}

| task | n | accuracy | majority | lexical | standard errors above majority | by letter | macro F1 | closed | open | unseen | Pearson | Spearman |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| nsmc | 500 | 74.00 ± 1.96 | 51.00 | 60.00 | +10.3 | 73.00 | 73.98 ± 1.97 | 75.00 of 240 | 73.07 of 260 | 65.00 of 50 | 0.500 |  |

## Held-out rows of the data stage: free answers

From `file:///runs/data-1`. {report._FREE}

| task | n | cut | exact match | set F1 | chrF | ROUGE-L |
| --- | --- | --- | --- | --- | --- | --- |
| petitions | 16 | 25 | 0.00 ± 0.00 |  | 12.3 ± 1.2 | 20.00 ± 1.00 |

## Open answers, judged by another model

| questions | category | n | grade of 10, or won in percent | not judged |
| --- | --- | --- | --- | --- |
| logickor | all | 4 | 6.50 ± 0.25 | 1 |
| logickor | 추론 | 4 | 6.50 |  |
| none | all | 0 |  | 2 |

## Held-out rows by template

| task | template | n | accuracy | majority | lexical | exact match | chrF |
| --- | --- | --- | --- | --- | --- | --- | --- |
| nsmc | asked | 500 | 74.00 ± 1.96 | 51.00 |  |  |  |
| petitions | title | 16 |  |  |  |  | 12.3 |

Versions: kit19-ray 0.1.0, lm-eval 0.4.13
"""  # noqa: E501 - a table's row is a line


def test_golden() -> None:
    assert report.markdown(SCORES) == GOLDEN


def test_a_limit_is_not_comparable() -> None:
    text = report.markdown(SCORES | {"limit": 7, "held_out": {}})
    assert "the first 7 documents of each task only: not comparable" in text
    assert "Held-out" not in text
    assert "beside the paper" not in report.markdown(SCORES | {"tasks": {}})


def test_a_model_that_saw_the_tests_says_so() -> None:
    assert "Trained on test data on purpose" in report.markdown(SCORES | {"ablation": "with-test"})


def test_the_papers_counts_are_whole() -> None:
    """Each accuracy of the paper times the size of the test set is a number of documents: no digit was mistyped."""
    sizes = {
        "kobest_copa": 1000,
        "kobest_boolq": 1404,
        "kobest_hellaswag": 500,
        "kobest_sentineg": 397,
        "klue_sts": 519,
    }
    for (task, metric), values in report.PAPER.items():
        if metric in ("acc", "acc_norm"):
            for value in values:
                documents = round(value * sizes[task] / 100)
                assert round(100 * documents / sizes[task], 2) == pytest.approx(value, abs=0.006), (task, value)


def test_shown_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    report.show(SCORES)
    shown = capsys.readouterr()
    assert shown.out == ""
    rows = [line.split() for line in shown.err.splitlines()]
    assert ["kobest_copa", "acc", "1,000", "61.20", "±", "1.54", "50", "83.80", "91.60", "72.00"] in rows
    assert ["nsmc", "500", "74.00", "±", "1.96", "51.00", "60.00", "+10.3", "73.98", "±", "1.97"] in rows
    report.show(SCORES | {"tasks": {}, "groups": {}, "held_out": {}, "judge": {}})
    assert capsys.readouterr().err == ""
