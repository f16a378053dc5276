"""The data card: what a build holds, how it was made, under which licences, in figures and plots.

It is a Hugging Face dataset card, so `datasets.load_dataset` reads the prefix by it. Everything in it follows from the
manifest, the task files and the example rows: equal builds have equal cards, byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import yaml

from kit19_ray import __version__
from kit19_ray.artifacts.data_manifests import DataManifest, Decontamination, TaskEntry
from kit19_ray.data.card import classes, figures, hub_metadata, korean, licence_report, personal_data, plots, statistics
from kit19_ray.data.card.statistics import Statistics
from kit19_ray.data.card.table import table
from kit19_ray.io import storage
from kit19_ray.tasks.task import DEFINITIONS, Task

_PAPER = """\
@inproceedings{jang-etal-2024-kit19,
  title     = {KIT-19: A Comprehensive Korean Instruction Toolkit on 19 Tasks
               for Fine-Tuning Korean Large Language Models},
  author    = {Jang, Dongjun and Byun, Sungjoo and Jo, Hyemi and Shin, Hyopil},
  booktitle = {LREC-COLING 2024},
  note      = {arXiv:2403.16444},
  year      = {2024}
}"""


def write(out: str, built: DataManifest, tasks: Mapping[str, Task]) -> None:
    """Writes the card with its statistics, plots and config below the prefix `out`; the last step before the commit.

    Args:
        built: the manifest that will be committed.
        tasks: the task of each name in it.
    """
    counted = statistics.of_build(out, built, tasks)
    drawn = plots.draw(counted)
    storage.write_text(storage.join(out, "statistics.json"), json.dumps(counted, ensure_ascii=False, indent=1) + "\n")
    for name, png in drawn.items():
        storage.write_bytes(storage.join(out, "plots", name), png)
    storage.write_text(storage.join(out, "config.yaml"), _config(built))
    storage.write_text(storage.join(out, "README.md"), render(built, tasks, counted, list(drawn)))


def summary(built: DataManifest) -> str:
    """A few lines for the terminal: totals, and every task that is short of its quota with the reason."""
    train, held_out = built["splits"]["train"], built["splits"]["validation"]
    lines = [
        f"data: {train['examples']:,} training examples in {train['rows']:,} rows of {built['seq_len']} tokens "
        f"({train['packing_efficiency']:.1%} full), {held_out['examples']:,} validation examples"
    ]
    lines += [f"data: {name} is short: {t['shortfall']}" for name, t in built["tasks"].items() if t.get("shortfall")]
    return "\n".join(lines)


def render(built: DataManifest, tasks: Mapping[str, Task], counted: Statistics, drawn: Sequence[str] = ()) -> str:
    """The card's Markdown, with the metadata block on top.

    Args:
        drawn: file names of the plots that were written.
    """
    tasks = {name: tasks[name] for name in built["tasks"]}
    sections = {
        "Tasks": [*table(_TASK_COLUMNS, [_task_row(*item) for item in built["tasks"].items()]), *_shortfalls(built)],
        "Labels": [
            classes.ABOUT_LABELS,
            "",
            *table(classes.LABELS, list(classes.labels(built, tasks, counted))),
            "",
            *classes.balance(built),
        ],
        "What guessing reaches": [
            classes.ABOUT_GUESSES,
            "",
            *table(classes.GUESSES, list(classes.guesses(built))),
        ],
        "In figures": figures.lines(counted, drawn),
        "Sources and licences": [
            *_licences(built, tasks),
            "",
            *table(*licence_report.licences(tasks)),
            "",
            *licence_report.notes(tasks),
        ],
        "How it was built": _recipe(built, tasks),
        "Limits of use": _limits(built, tasks),
        "Personal data": list(personal_data.notes(tasks)),
        "Citation": _citation(built, tasks),
    }
    parts = ["---", hub_metadata.front_matter(built, tasks), "---", "", "# KIT-19, rebuilt", "", *_opening(built)]
    for title, lines in sections.items():
        parts += ["", f"## {title}", "", *lines]
    return "\n".join([*parts, ""])


def _opening(built: DataManifest) -> list[str]:
    train = built["splits"]["train"]
    example = next((name for name, task in built["tasks"].items() if task["examples"]["train"]), "")
    lines = []
    if built.get("ablation"):
        lines += [f"> **Leaky on purpose** (ablation `{built['ablation']}`): it holds evaluation items. Scores of a "]
        lines += ["> model trained on it say nothing but how much a leak is worth.", ""]
    return [
        *lines,
        f"Korean instructions of {len(built['tasks'])} tasks with their answers: a rebuild of "
        "[KIT-19](https://arxiv.org/abs/2403.16444) from the original files of its sources, with templates of its own. "
        f"Build `{built['identity'][:12]}`, seed {built['seed']}: {train['examples']:,} training examples in "
        f"{train['rows']:,} rows of {built['seq_len']:,} tokens ({train['packing_efficiency']:.1%} full), "
        f"{built['splits']['validation']['examples']:,} validation examples.",
        "",
        "```python",
        "from datasets import load_dataset",
        "",
        'everything = load_dataset("path/to/this/folder")',
        f'one_task = load_dataset("path/to/this/folder", "{example}")',
        "```",
        "",
        _COLUMNS,
        *_too_long(built),
        "",
        korean.paragraph(built),
    ]


def _too_long(built: DataManifest) -> list[str]:
    too_long = sum(task["dropped"].get("too_long", 0) for task in built["tasks"].values())
    if not too_long:
        return []
    where = f"{built['seq_len']:,} tokens; the shards leave them out, the files here hold them"
    return ["", f"{too_long:,} of the rows have prompts and answers too long for {where}."]


_COLUMNS = (
    "A row has `instruction`, `input` and `output`; where it comes from: `task`, `category`, `source`, `source_id` "
    "(file:line) and `licence`; how it was asked: `template` and `kind`, closed where the prompt lists the choices; "
    "for a choice every output it could have been, `candidates`, with the index of the right one, `label`."
)
_IDENTITY = (
    "The last part of the name is a hash over the seed, the data section, the task files and the SHA-256 of every "
    "source file: the same name is the same build, with the same bytes whatever the number of CPUs. `manifest.json` "
    "has the SHA-256 of each shard, `rejects/` every dropped row with its reason, and `kit19 data --diff A B` tells "
    "what two builds differ in."
)
_TASK_COLUMNS = (
    "task", "rows read", "records", "dropped", "unique", "examples", "repeated", "validation", "tokens", "input cut"
)  # fmt: skip


def _task_row(name: str, task: TaskEntry) -> tuple[str, ...]:
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


def _shortfalls(built: DataManifest) -> list[str]:
    short = [f"- {name}: {t['shortfall']}" for name, t in built["tasks"].items() if t.get("shortfall")]
    short += [f"- {name}: left out. {reason}" for name, reason in built["skipped"].items()]
    return ["", "Short of the quota:", "", *short] if short else []


def _licences(built: DataManifest, tasks: Mapping[str, Task]) -> list[str]:
    lines = ["Every source keeps its own licence, and each row names its."]
    lines += [
        f"{use.capitalize()} forbidden: {', '.join(named)}." for use, named in licence_report.restricted(tasks).items()
    ]
    if built["licence_policy"] != "all":
        lines.append(f"Built with `data.licence_policy={built['licence_policy']}`.")
    return [" ".join(lines)]


def _recipe(built: DataManifest, tasks: Mapping[str, Task]) -> list[str]:
    words = ["root=file:///somewhere"]
    words += ["data.verify=false"] if licence_report.is_altered(built, tasks) else []
    own = [name for name in tasks if not (DEFINITIONS / f"{name}.yaml").is_file()]
    words += ["data.tasks_dir=folder/of/its/task/files"] if own else []
    return [
        f"With kit19-ray {__version__}, the `config.yaml` beside this card"
        + (f", the task files {', '.join(f'`{name}.yaml`' for name in own)}" if own else "")
        + " and the files below at `<root>/sources/<source id>/`:",
        "",
        "```console",
        f"$ kit19 data --config path/to/this/folder/config.yaml {' '.join(words)}",
        f"file:///somewhere/data-{built['identity'][:12]}",
        "```",
        "",
        _IDENTITY,
        "",
        *table(*licence_report.files(built, tasks)),
        *_evaluation_files(built),
        "",
        "```yaml",
        _config(built).rstrip(),
        "```",
    ]


def _config(built: DataManifest) -> str:
    """`config.yaml`: the whole config that the build's identity covers."""
    data = {**built["config"], **({"on_missing": "skip"} if built["skipped"] else {})}
    return yaml.safe_dump({"seed": built["seed"], "data": data}, allow_unicode=True, sort_keys=False)


def _limits(built: DataManifest, tasks: Mapping[str, Task]) -> list[str]:
    lines = ["- The rows are not the paper's: it published neither its templates nor which records it drew."]
    for use, named in licence_report.restricted(tasks).items():
        lines.append(
            f"- No {use} of {', '.join(named)}: leave them out with `data.tasks`, or do not use the build for it."
        )
    if any(task.spec.category == "hate_speech" for task in tasks.values()):
        lines.append("- The hate-speech tasks hold insults and slurs, as their sources do.")
    tested = [name for name, task in built["tasks"].items() if "test" in task["splits"]]
    if tested:
        lines.append(f"- Built from a published **test** split: {', '.join(tested)}. No score on that split counts.")
    lines += _decontamination(built["decontamination"])
    leaks = sum(n for t in built["tasks"].values() for r, n in t["dropped"].items() if r.startswith("contaminated"))
    if leaks:
        lines.append(f"- {leaks:,} rows that hold or nearly equal an evaluation item were removed; others may be left.")
    repeated = sum(task["repeated"] for task in built["tasks"].values())
    if repeated:
        lines.append(f"- {repeated:,} training examples use a record again under another template, to reach the quota.")
    lines.append("- Labels are the sources' own, and uneven in some tasks: see above before quoting an accuracy.")
    return lines


def _decontamination(found: Decontamination) -> list[str]:
    checked, absent = ", ".join(found["sets"]), ", ".join(found["absent"])
    lines = [f"- No row holds an item of these evaluation sets, as far as letters tell: {checked}."] if checked else []
    if absent:
        lines.append(f"- Not checked, because their files were not at hand: {absent}.")
    return lines


def _evaluation_files(built: DataManifest) -> list[str]:
    rows = [
        (name, f"`{path}`", f"`{sha256}`")
        for name, files in built["decontamination"]["sets"].items()
        for path, sha256 in files.items()
    ]
    if not rows:
        return []
    return ["", "And these, which no row may hold an item of:", "", *table(("set", "file", "SHA-256"), rows)]


def _citation(built: DataManifest, tasks: Mapping[str, Task]) -> list[str]:
    identity = built["identity"]
    return [
        "Cite the build by its hash, the paper, and the sources that were used.",
        "",
        "```bibtex",
        f"@misc{{kit19-rebuilt-{identity[:12]},",
        f"  title = {{KIT-19, rebuilt: build {identity[:12]}}},",
        f"  note  = {{SHA-256 of the recipe: {identity}; made with kit19-ray {__version__}}}",
        "}",
        _PAPER,
        "```",
        "",
        *licence_report.citations(tasks),
    ]
