"""What a record is held against by itself: the evaluation items, and the other half of its pair; and the hashes that
send it where its likes are.

The answer to "is it a copy" needs company: `filters.exact_duplicates` gives it, bucket by bucket of `key`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from kit19_ray.config.schema import GatesConfig
from kit19_ray.data import sampling
from kit19_ray.data.filters.decontamination import EvaluationIndex
from kit19_ray.data.filters.exact_duplicates import content_key, plain
from kit19_ray.data.filters.ngrams import normalize_letters
from kit19_ray.tasks.task import Task
from kit19_ray.utils.hashing import fraction

IDENTICAL = "identical_pair"
CHECKED = pa.schema(
    [
        ("part", pa.int32()),
        ("nth", pa.int64()),
        ("place", pa.string()),
        ("id", pa.string()),
        ("fields", pa.string()),
        ("dropped", pa.string()),
        ("key", pa.uint64()),  # of what the record asks: equal ones are copies, and meet in one bucket
        ("answer", pa.string()),
        ("validation", pa.bool_()),
        ("priority", pa.uint64()),  # of the sample: the smaller is drawn first
    ]
)


@dataclass(frozen=True)
class Checker:
    """The checks of one task's rows."""

    task: Task
    seed: int
    validation_fraction: float
    gates: GatesConfig

    def check(self, table: pa.Table, index: EvaluationIndex | None) -> pa.Table:
        """Rows of `records.ROWS` as rows of `CHECKED`, the dropped ones among them.

        Args:
            index: the evaluation items that no record may hold; None lets all pass.
        """
        dropped: list[str | None] = table["dropped"].to_pylist()
        going = [i for i, reason in enumerate(dropped) if reason is None]
        kept = table.select(["id", "group", "fields"]).filter(pc.is_null(table["dropped"])).to_pydict()
        fields = [json.loads(text) for text in kept["fields"]]
        for i, leak in zip(going, self._leaks(fields, index), strict=True):
            dropped[i] = f"contaminated_{leak}" if leak else None
        if self.gates.identical_pairs and (pair := self.task.spec.pair):
            for i, row in zip(going, fields, strict=True):
                if dropped[i] is None and plain(row[pair[0]]) == plain(row[pair[1]]):
                    dropped[i] = IDENTICAL
        answer, name = self.task.spec.answer, self.task.name
        # With the gate off, only equal records (equal ids) are one.
        keys = [
            content_key(self.task, row) if self.gates.duplicates else int(id_[:16], 16)
            for row, id_ in zip(fields, kept["id"], strict=True)
        ]
        made = {
            "key": keys,
            "answer": [row[answer] if answer else "" for row in fields],
            "validation": [
                fraction(self.seed, "split", name, group) < self.validation_fraction for group in kept["group"]
            ],
            "priority": [
                sampling.priority(self.task, self.seed, id_, row) for id_, row in zip(kept["id"], fields, strict=True)
            ],
        }
        columns = {name: table[name] for name in ("part", "nth", "place", "id", "fields")}
        columns["dropped"] = pa.array(dropped, pa.string())
        place = _places(len(dropped), going)
        for name, values in made.items():
            columns[name] = pa.array(values, CHECKED.field(name).type).take(place)
        return pa.table(columns, CHECKED)

    def _leaks(self, fields: list[dict[str, str]], index: EvaluationIndex | None) -> list[str | None]:
        if index is None:
            return [None] * len(fields)
        answer = self.task.spec.answer
        return index.match(
            [[normalize_letters(text) for name, text in row.items() if name != answer] for row in fields]
        )


def _places(length: int, going: list[int]) -> pa.Array:
    """Where each row's value stands among those of the rows that keep going; null for the others."""
    places: list[int | None] = [None] * length
    for place, row in enumerate(going):
        places[row] = place
    return pa.array(places, pa.int64())
