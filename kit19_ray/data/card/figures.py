"""The card's figures: lengths, labels and templates of the training examples, packing, and the plots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from kit19_ray.data.card.statistics import Distribution, SplitStatistics, Statistics
from kit19_ray.data.card.table import table

_LENGTHS: tuple[Literal["prompt_characters", "answer_characters", "tokens"], ...] = (
    "prompt_characters", "answer_characters", "tokens"
)  # fmt: skip
_PACKING: tuple[Literal["rows", "examples", "learned", "masked", "padding"], ...] = (
    "rows", "examples", "learned", "masked", "padding"
)  # fmt: skip
_PLOTS = {
    "tokens.png": "Tokens per training example",
    "characters.png": "Characters per training example",
    "labels.png": "Label balance",
    "templates.png": "Use of the templates",
    "packing.png": "Packing and the tasks' shares of the tokens",
    "drops.png": "Rows dropped or repeated in the sources",
}


def lines(counted: Statistics, drawn: Sequence[str]) -> list[str]:
    """The section's lines.

    Args:
        counted: what `statistics.of_build` gives.
        drawn: file names of the plots that were written.
    """
    tasks = counted["tasks"]
    out = [
        "`statistics.json` has all of it, histograms included. Of the training examples, median / 90% / longest:",
        "",
    ]
    out += table(
        ("task", "prompt, characters", "answer, characters", "tokens"),
        [(name, *(_span(task["train"][key]) for key in _LENGTHS)) for name, task in tasks.items()],
    )
    out += ["", "Labels and templates of the training examples:", ""]
    out += table(
        ("task", "labels", "closed", "open", "least and most used template"),
        [(name, _labels(task["train"]), *_templates(task["train"])) for name, task in tasks.items()],
    )
    out += ["", "Packing:", ""]
    out += table(
        ("split", "rows", "examples", "learned tokens", "masked tokens", "padding", "full"),
        [(n, *(f"{s[p]:,}" for p in _PACKING), f"{s['efficiency']:.1%}") for n, s in counted["packing"].items()],
    )
    return out + [line for name in drawn for line in ("", f"![{_PLOTS[name]}](plots/{name})")]


def _span(found: Distribution | None) -> str:
    return f"{found['p50']:,} / {found['p90']:,} / {found['max']:,}" if found else ""


def _labels(split: SplitStatistics) -> str:
    total = split["examples"] or 1
    return ", ".join(f"{label} {n / total:.1%}" for label, n in split["labels"].items())


def _templates(split: SplitStatistics) -> tuple[str, str, str]:
    used = list(split["templates"].values())
    closed, open_ = (sum(t["examples"] for t in used if t["kind"] == kind) for kind in ("closed", "open"))
    counts = [t["examples"] for t in used]
    return f"{closed:,}", f"{open_:,}", f"{min(counts):,} to {max(counts):,}"
