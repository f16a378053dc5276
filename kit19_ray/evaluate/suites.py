"""Suites: names for sets of tasks, in lm-evaluation-harness's own names. `kit19 plan` reads them without it."""

from __future__ import annotations

from collections.abc import Iterable

KOBEST = ("kobest_boolq", "kobest_copa", "kobest_hellaswag", "kobest_sentineg", "kobest_wic")
KLUE = ("klue_sts", "klue_ynat")
"""Not the harness's own: task files of ours, in `evaluate/klue`."""

SUITES: dict[str, tuple[str, ...]] = {
    # The paper's table, and WiC, which it lacks: all five of KoBEST are trained on, so all five are scored. The report
    # has no figure of the paper's beside it.
    "paper": (*KOBEST, *KLUE),
    "kobest": KOBEST,
    # Korean suites of the pinned harness (0.4.13), as groups where it has groups. Their documents are on the hub.
    "korean": (
        *KOBEST, "haerae", "kmmlu", "click", "csatqa", "kormedmcqa", "belebele_kor_Hang", "global_mmlu_ko", "hrm8k",
        "paws_ko",
    ),
}  # fmt: skip
ALIASES = {"belebele_kor": "belebele_kor_Hang"}
"""Names people use for tasks that the harness calls otherwise."""


def expand(names: Iterable[str]) -> list[str]:
    """The harness's names behind `evaluate.tasks`, suites as their members, each once."""
    found = [member for name in names for member in SUITES.get(name, (ALIASES.get(name, name),))]
    return list(dict.fromkeys(found))
