"""The card's part on labels: what each says, how many rows have it, and what guessing them reaches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kit19_ray.artifacts.data_manifests import DataManifest
from kit19_ray.data.card.statistics import Statistics
from kit19_ray.tasks.task import Task

Row = tuple[str, ...]
LABELS: Row = (
    "task",
    "label",
    "word in the prompts",
    "meaning",
    "rows of the source",
    "training rows",
    "held-out rows",
)
GUESSES: Row = ("task", "held-out rows", "majority", "lexical")
ABOUT_LABELS = (
    "Rows of the source: without copies and what the gates dropped. Training and held-out rows: examples with this "
    "label to choose; those of the same records that ask for a text of its own are not counted."
)
ABOUT_GUESSES = (
    "What answers reach that understand nothing, in percent of the held-out rows. Majority: their most frequent label, "
    "always. Lexical: a logistic regression over runs of one to three letters (of a pair also how many bigrams are "
    "shared), trained on the training rows; its answers are in `lexical.json`. A model has to be better than both."
)


def labels(built: DataManifest, tasks: Mapping[str, Task], counted: Statistics) -> Iterator[Row]:
    """A row a task and label: rows of the source without copies and leaks, and examples of each split."""
    for name, made in built["tasks"].items():
        task, found = tasks[name], counted["tasks"].get(name)
        for number, label in enumerate(task.labels):
            word = (task.spec.choices or {}).get(label, "")
            means = task.spec.meanings.get(label, "")
            if task.spec.choice_fields:
                means = f"the text of `{task.spec.choice_fields[number]}` is right"
            splits = [f"{split['labels'][label]:,}" for split in (found["train"], found["validation"])] if found else []
            yield (name, f"`{label}`", word, means, f"{made['source_classes'].get(label, 0):,}", *(splits or ("", "")))


def balance(built: DataManifest) -> Iterator[str]:
    """A line for each way in which classes were balanced, and for each class that was too short for it."""
    drawn: dict[str, list[str]] = {}
    for name, made in built["tasks"].items():
        if made["balance"] != "source":
            drawn.setdefault(made["balance"], []).append(name)
    for mode, names in sorted(drawn.items()):
        yield f"- Balanced by `{mode}` (`data.balance`), the training rows alone: {', '.join(names)}."
    yield from (f"- {name}: {made['unbalanced']}." for name, made in built["tasks"].items() if made["unbalanced"])


def guesses(built: DataManifest) -> Iterator[Row]:
    """A row for each task with labels and held-out rows."""
    for name, made in built["tasks"].items():
        if found := made.get("baseline"):
            yield (name, f"{found['rows']:,}", f"{100 * found['majority']:.1f}", f"{100 * found['lexical']:.1f}")
