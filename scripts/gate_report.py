"""Writes docs/reference/gates.md: what decontamination takes from each task, and how much of that is right by hand.

    python scripts/gate_report.py --sources FOLDER > docs/reference/gates.md   the page: counts, and verdicts by hand
    python scripts/gate_report.py --sources FOLDER --show kmhas --rows 50      the rows themselves beside their items
                                  --tasks '[nsmc, unsmile]'                    of these tasks alone

Verdicts stand in gate_verdicts.yaml, task -> set -> [rows read, rows that hold the item]: numbers only, since most
sources may not be passed on. The rows to read are the first by hash, so everyone reads the same ones.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import yaml

from kit19_ray.config import loading
from kit19_ray.config.schema import Config
from kit19_ray.data import inputs
from kit19_ray.data.filters import decontamination
from kit19_ray.data.filters.ngrams import normalize_letters
from kit19_ray.data.records import Record, to_record
from kit19_ray.sources import evaluation_sets
from kit19_ray.sources.readers.base import SourceRow
from kit19_ray.tasks.task import Task
from kit19_ray.utils.hashing import hash64

VERDICTS = Path(__file__).with_name("gate_verdicts.yaml")
READ = 50  # rows of a task and set that are read by hand, where there are so many
HEAD = """\
# What decontamination removes

Made by `python scripts/gate_report.py --sources FOLDER > docs/reference/gates.md` from the published files that may be
had without a form. A row leaves when it holds an item of an evaluation set, whole or but for one changed word
(`kit19_ray/data/filters/decontamination.py` says what that means; `kit19_ray/sources/evaluation_sets.yaml` lists the
sets). *read*: of these rows the first by hash, at most 50, were compared with their items by hand; *right*: so many of
them hold the item. `--show SET` prints the rows.
"""


@dataclass(frozen=True)
class Removed:
    """A record that holds an item."""

    task: str
    set: str
    record: Record
    item: tuple[str, ...]


def removed(config: Config) -> Iterator[Removed]:
    """Every record of every task that decontamination takes, by task in the order of its files."""
    found = inputs.collect(config)
    sets = [(located.name, evaluation_sets.items(located)) for located in found.evaluation]
    exact = [located.name for located in found.evaluation if located.spec.exact]
    index = decontamination.build(sets, config.data.gates.contained, exact)
    for name, task in found.tasks.items():
        records = (
            record
            for file in found.files[name]
            for raw in task.source.read(file)
            if isinstance(raw, SourceRow) and isinstance(record := to_record(task, file.path, raw), Record)
        )
        while batch := list(islice(records, 1024)):
            items = index.items([asked(task, record) for record in batch])
            for record, item in zip(batch, items, strict=True):
                if item is not None:
                    yield Removed(name, index.names[int(index.sets[item])], record, index.texts[item])


def asked(task: Task, record: Record) -> list[str]:
    """A record's fields in letters, but for its label."""
    return [normalize_letters(text) for name, text in record.fields.items() if name != task.spec.answer]


def page(rows: list[Removed]) -> Iterator[str]:
    """The document."""
    verdicts = yaml.safe_load(VERDICTS.read_text(encoding="utf-8"))
    counts: dict[tuple[str, str], int] = {}
    for row in rows:
        counts[row.task, row.set] = counts.get((row.task, row.set), 0) + 1
    yield HEAD
    yield "\n| task | evaluation set | rows removed | read | right |\n|---|---|---:|---:|---:|\n"
    for (task, name), count in sorted(counts.items()):
        read, right = verdicts.get(task, {}).get(name, (0, 0))
        yield f"| {task} | {name} | {count:,} | {read} | {right} |\n"
    read = sum(read for sets in verdicts.values() for read, _ in sets.values())
    right = sum(right for sets in verdicts.values() for _, right in sets.values())
    yield f"| | | **{len(rows):,}** | **{read}** | **{right}** |\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sources", required=True, help="folder with the original files")
    parser.add_argument("--splits", default="{nsmc: [test], kornli: [validation], pawsx: [validation]}")
    parser.add_argument("--show", nargs="+", metavar="SET", help="print the rows that these sets made leave")
    parser.add_argument("--tasks", help="look at these tasks alone, as data.tasks has them; with --show")
    parser.add_argument("--rows", type=int, default=READ, help="rows of a task to print")
    options = parser.parse_args()
    words = [f"data.sources={options.sources}", f"data.splits={options.splits}", "data.on_missing=skip", "root=unused"]
    words += [f"data.tasks={options.tasks}"] if options.tasks and options.show else []
    rows = list(removed(loading.load(None, words)))
    if not options.show:
        sys.stdout.writelines(page(rows))
        return
    shown: dict[tuple[str, str], int] = {}
    for row in sorted(rows, key=lambda r: hash64(r.record.id)):
        if row.set in options.show and shown.setdefault((row.task, row.set), 0) < options.rows:
            shown[row.task, row.set] += 1
            print(row.task, row.set, row.record.place, *row.record.fields.values(), sep=" | ")
            print("   =", " + ".join(row.item))


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    main()
