from __future__ import annotations

from typing import Any

import pytest

from kit19_ray.report import page
from kit19_ray.report.comparison import compare
from kit19_ray.report.runs import collect

GOLDEN = """\
# Runs compared

| run | data | parameters | steps | tokens | validation loss | tokens/s |
| --- | --- | --- | --- | --- | --- | --- |
| train-aaaa | data-1 | 362,240 | 10 | 6,400 | 9.500 -> 3.000 | 1,234 |
| train-bbbb | data-1 | 362,240 | 10 | 6,400 | 9.500 -> 2.500 | 1,234 |

## What differs in the config

| key | train-aaaa | train-bbbb |
| --- | --- | --- |
| `evaluate.limit` | 7 |  |
| `train.epochs` | 1.0 | 3.0 |

![loss](loss.png)

## lm-evaluation-harness, beside the paper's

Percent, ± one standard error.

| task | metric | train-aaaa | train-bbbb | KIT 1.3B (paper) | KIT 5.8B (paper) | Polyglot-Ko 1.3B (paper) |
| --- | --- | --- | --- | --- | --- | --- |
| kobest_copa | acc | 60.00 ± 3.00 [a] [b] | 60.00 ± 3.00 [c] | 83.80 | 91.60 | 72.00 |
| kobest_copa | macro_f1 | 59.00 [a] [b] | 59.00 [c] | 83.78 | 91.59 | 71.96 |

## Held-out rows of the data stage

Percent, ± one standard error. majority: the most frequent label of these rows, always answered. lexical: what a \
linear classifier that sees runs of one to three letters, trained on the training rows, answers to these; one figure \
a run where their rows differ. A model that is no better has read no sentence.

| task | metric | train-aaaa | train-bbbb | majority | lexical |
| --- | --- | --- | --- | --- | --- |
| nsmc | accuracy | 70.00 ± 4.00 | 70.00 ± 4.00 | 51.00 | 62.50 |
| nsmc | macro_f1 | 69.00 | 69.00 |  |  |
| petitions | chrf | 12.00 ± 1.00 | 12.00 ± 1.00 |  |  |

Measured under different conditions, so not to be compared:

- [a] limit: 7
- [b] unlike the paper: 7 of 1,000 documents
- [c] limit: none

## train-bbbb less train-aaaa

Points of percent, ± the standard error of the difference. Paired: over the same documents, one by one. Unpaired: from \
both scores' own errors, as if the documents had been others, so too wide. p: how often chance alone gives such a \
difference, by 1,000 draws of the documents; of twenty rows one is below 0.05 by chance.

| task | metric | difference | standard errors | 95 % interval | p | how |
| --- | --- | --- | --- | --- | --- | --- |
| kobest_copa | acc |  |  |  |  | not comparable: limit differs |
| kobest_copa | macro_f1 |  |  |  |  | not comparable: limit differs |
| nsmc (held out) | accuracy | +0.00 ± 5.66 | +0.0 |  |  | unpaired |
| nsmc (held out) | macro_f1 | +0.00 |  |  |  | no error known |
| petitions (held out) | generation.chrf | +0.00 ± 1.41 | +0.0 |  |  | unpaired |
"""


def test_golden(root: Any) -> None:
    data = root.data("data-1")
    nsmc = {"macro_f1": 0.69, "majority": 0.51, "lexical": 0.625}
    root.evaluate("evaluate-1", root.train("train-aaaa", data), limit=7, n=7, nsmc=nsmc)
    root.evaluate("evaluate-2", root.train("train-bbbb", data, last=2.5, epochs=3.0), nsmc=nsmc)
    found = compare(collect(["train-aaaa", "train-bbbb"], root.uri))
    assert page.markdown(found, ["loss.png"]) == GOLDEN


def test_paired_rows_and_equal_configs(root: Any) -> None:
    correct = {str(i): float(i % 2) for i in range(4)}
    root.evaluate("evaluate-1", "organisation/model", correct=correct)
    root.evaluate("evaluate-2", "organisation/model", correct=correct | {"0": 1.0}, acc=0.85)
    text = page.markdown(compare(collect(["evaluate-1", "evaluate-2"], root.uri)))
    assert "The configs do not differ." in text
    assert "| organisation/model / evaluate-1" not in text and "| evaluate-1 (organisation/model) |" in text
    assert "| kobest_copa | acc | +25.00 ± 25.00 | +1.0 | +0.0 to +75.0 | " in text
    assert "| paired, 4 documents |" in text
    assert "| kobest_copa | macro_f1 | +0.00 |  |  |  | no error known |" in text


@pytest.mark.parametrize(
    ("first", "second", "shown"),
    [
        ({}, {}, "|  |  |"),
        ({"majority": 0.51}, {"majority": 0.51, "lexical": 0.6}, "| 51.00 | 60.00 |"),  # the older one had no lexical
        ({"majority": 0.51, "lexical": 0.6}, {"majority": 0.48, "lexical": 0.6}, "| 51.00 / 48.00 | 60.00 |"),
    ],
)
def test_guesses_of_runs_that_differ(root: Any, first: Any, second: Any, shown: str) -> None:
    root.evaluate("evaluate-1", "organisation/base", nsmc=first | {"accuracy_norm": 0.6})
    root.evaluate("evaluate-2", "organisation/model", nsmc=second)
    root.train("train-aaaa", root.data("data-1"))  # has no scores
    text = page.markdown(compare(collect(["evaluate-1", "evaluate-2", "train-aaaa"], root.uri)))
    assert f"| nsmc | accuracy |  | 70.00 ± 4.00 | 70.00 ± 4.00 {shown}\n" in text


def test_a_run_without_a_guess_that_the_others_differ_in(root: Any) -> None:
    for name, share in (("1", {"lexical": 0.6}), ("2", {}), ("3", {"lexical": 0.55})):
        root.evaluate(f"evaluate-{name}", f"organisation/{name}", nsmc=share)
    text = page.markdown(compare(collect(["evaluate-1", "evaluate-2", "evaluate-3"], root.uri)))
    assert "|  | 60.00 / none / 55.00 |\n" in text


def test_leaks_of_each_run(root: Any) -> None:
    root.evaluate("evaluate-1", "organisation/base", leaks={"kobest_copa": {"status": "unknown"}})
    root.evaluate("evaluate-2", "organisation/model", leaks={"kobest_copa": {"status": "cleaned", "rows": 8}})
    text = page.markdown(compare(collect(["evaluate-1", "evaluate-2"], root.uri)))
    assert "## Test sets in the training data" in text
    assert "| kobest_copa | unknown | cleaned (8) |" in text
