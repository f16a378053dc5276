"""The data card: what a build holds, where it comes from and under which licences, as a Hugging Face dataset card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from kit19_ray.tasks import Task

_COLUMNS = ("task", "rows read", "records", "dropped", "unique", "examples", "repeated", "validation", "tokens", "cut")


def summary(built: Mapping[str, Any]) -> str:
    """A few lines for the terminal: totals, and every task that is short of its quota with the reason."""
    train, held_out = built["splits"]["train"], built["splits"]["validation"]
    lines = [
        f"data: {train['examples']:,} training examples in {train['rows']:,} rows of {built['seq_len']} tokens "
        f"({train['packing_efficiency']:.1%} full), {held_out['examples']:,} validation examples"
    ]
    lines += [f"data: {name} is short: {t['shortfall']}" for name, t in built["tasks"].items() if t["shortfall"]]
    return "\n".join(lines)


def render(built: Mapping[str, Any], tasks: Mapping[str, Task]) -> str:
    """The card's Markdown, with the metadata block that `datasets.load_dataset` reads."""
    metadata = {
        "language": ["ko"],
        "pretty_name": "KIT-19, rebuilt",
        "license": "other",
        "task_categories": ["text-generation"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": split, "path": f"examples/{split}-*.parquet"}
                    for split in ("train", "validation")
                    if built["splits"][split]["examples"]
                ],
            }
        ],
    }
    return "\n".join(
        [
            "---",
            yaml.safe_dump(metadata, allow_unicode=True, sort_keys=False).rstrip(),
            "---",
            "",
            "# KIT-19, rebuilt",
            "",
            f"Build `{built['identity'][:12]}`, seed {built['seed']}: "
            f"{built['splits']['train']['examples']:,} training examples of {len(built['tasks'])} tasks, "
            f"packed into {built['splits']['train']['rows']:,} rows of {built['seq_len']} tokens "
            f"({built['splits']['train']['packing_efficiency']:.1%} full). "
            "Fixed test splits are not used unless the table of sources says so.",
            "",
            "## Tasks",
            "",
            *_table(_COLUMNS, [_task_row(name, t) for name, t in built["tasks"].items()]),
            "",
            *_shortfalls(built),
            "## Sources and licences",
            "",
            *_table(
                ("task", "source", "splits", "licence", "commercial use", "derivatives"),
                [_source_row(name, built["tasks"][name], task) for name, task in tasks.items()],
            ),
            "",
            "## Citations",
            "",
            *sorted({f"- {task.source.title}: {task.source.citation}" for task in tasks.values()}),
            "",
        ]
    )


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(r)} |" for r in (columns, tuple("---" for _ in columns), *rows)]


def _task_row(name: str, task: Mapping[str, Any]) -> tuple[str, ...]:
    dropped = ", ".join(f"{reason} {n:,}" for reason, n in task["dropped"].items()) or "0"
    numbers = (
        task["unique"],
        task["examples"]["train"],
        task["repeated"],
        task["examples"]["validation"],
        task["tokens"],
        task["truncated"],
    )
    return (name, f"{task['raw']:,}", f"{task['records']:,}", dropped, *(f"{n:,}" for n in numbers))


def _source_row(name: str, counts: Mapping[str, Any], task: Task) -> tuple[str, ...]:
    licence = task.source.licence
    yes_no = ("no", "yes")
    return (
        name,
        f"[{task.source.title}]({task.source.homepage})",
        ", ".join(counts["splits"]),
        licence.name,
        yes_no[licence.commercial],
        yes_no[licence.derivatives],
    )


def _shortfalls(built: Mapping[str, Any]) -> list[str]:
    short = [f"- {name}: {t['shortfall']}" for name, t in built["tasks"].items() if t["shortfall"]]
    short += [f"- {name}: left out. {reason}" for name, reason in built["skipped"].items()]
    return ["Short of the quota:", "", *short, ""] if short else []
