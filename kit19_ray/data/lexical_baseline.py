"""What letters alone tell of a label: a linear classifier that knows no word, trained on a build's own training rows.

    one text          TF-IDF of its runs of 1 to 3 letters                         -> logistic regression
    two to compare    that of each, and what of the one's bigrams the other has     -> logistic regression
    alternatives      that of each alternative and what it shares with the rest     -> the one likeliest to be right

A model that is no better than this has read no sentence. The figure stands beside the majority's wherever held-out rows
are scored (`artifacts.lexical`). One thread and no draw of chance: the same answers on any machine of a kind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kit19_ray.data.export import MixtureEntry, example_path
from kit19_ray.io import storage
from kit19_ray.tasks import templates
from kit19_ray.tasks.task import Task

Fields = Mapping[str, str]
MOST = 20_000  # training records that are looked at, the first drawn
_CHARACTERS = 500  # of a text
_FEATURES = 50_000  # of a field


@dataclass(frozen=True)
class Figure:
    """A task's guesses on its held-out rows: shares of right ones, and the classifier's answer by row id."""

    rows: int
    majority: float
    lexical: float
    answers: dict[str, int]


def of_task(out: str, entry: MixtureEntry, task: Task) -> Figure | None:
    """The figure of one task of a build; None where no held-out row has a choice to make, or nothing was trained on.

    Args:
        out: the data prefix, its examples written.
    """
    used = {split: _labelled(storage.join(out, example_path(split, entry.task))) for split in ("train", "validation")}
    wanted = {split: {id_.rpartition("-")[0] for id_ in rows} for split, rows in used.items()}
    records = _records(entry, wanted)
    golds = used["validation"]
    if not golds or not records["train"]:
        return None
    train = list(records["train"].values())[:MOST]
    held_out = records["validation"]
    said = dict(zip(held_out, answer(task, train, list(held_out.values())), strict=True))
    answers = {id_: said[id_.rpartition("-")[0]] for id_ in golds}
    counts = np.bincount(list(golds.values()))
    return Figure(
        rows=len(golds),
        majority=float(counts.max() / len(golds)),
        lexical=sum(answers[id_] == gold for id_, gold in golds.items()) / len(golds),
        answers=answers,
    )


def _labelled(uri: str) -> dict[str, int]:
    """The label of every example that has one to choose, by id."""
    if not storage.exists(uri):
        return {}
    with storage.open_input(uri) as file:
        table = pq.read_table(file, columns=["id", "label"])
    chosen = table.filter(pc.greater_equal(table["label"], 0))
    return dict(zip(chosen["id"].to_pylist(), chosen["label"].to_pylist(), strict=True))


def _records(entry: MixtureEntry, wanted: Mapping[str, set[str]]) -> dict[str, dict[str, Fields]]:
    """The fields of the records in `wanted`, by split and id, in the order they were drawn."""
    found: dict[str, dict[str, Fields]] = {split: {} for split in wanted}
    for file in entry.record_files:
        with storage.open_input(file.uri) as stream:
            table = pq.read_table(stream, columns=["id", "fields"])
        for id_, fields in zip(table["id"].to_pylist(), table["fields"].to_pylist(), strict=True):
            if id_ in wanted[file.split]:
                found[file.split][id_] = json.loads(fields)
    return found


def answer(task: Task, train: Sequence[Fields], asked: Sequence[Fields]) -> list[int]:
    """The label, by its place in the task's order, of each record that is asked."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # sums in another order would be other sums
        if task.spec.choice_fields:
            return _alternatives(task, train, asked)
        names = shown(task)
        features = _Features([[row[name] for name in names] for row in train], task.spec.pair is not None)
        labels = np.array([task.labels.index(row[task.spec.answer or ""]) for row in train])
        model = _fit(features.of_train, labels)
        return [int(label) for label in model.predict(features.of([[row[name] for name in names] for row in asked]))]


def shown(task: Task) -> list[str]:
    """The fields that some prompt with choices shows; of a pair, the pair."""
    if task.spec.pair:
        return task.spec.pair
    names = {
        name
        for template in task.spec.templates
        if not task.is_free(template)
        for text in (template.instruction, template.input)
        for name in templates.undeclared(text)
    }
    return [name for name in task.spec.fields if name in names and name != task.spec.answer]


def _alternatives(task: Task, train: Sequence[Fields], asked: Sequence[Fields]) -> list[int]:
    choices = task.spec.choice_fields or []
    rest = [name for name in shown(task) if name not in choices]

    def rows(records: Sequence[Fields]) -> list[list[str]]:
        return [[record[choice], " ".join(record[name] for name in rest)] for record in records for choice in choices]

    features = _Features(rows(train), overlap=True)
    right = np.array([label == row[task.spec.answer or ""] for row in train for label in task.labels])
    model = _fit(features.of_train, right.astype(np.int64))
    likely = model.decision_function(features.of(rows(asked))).reshape(len(asked), len(choices))
    return [int(best) for best in likely.argmax(axis=1)]


def _fit(features: Any, labels: npt.NDArray[np.int64]) -> Any:
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    if len(set(labels.tolist())) < 2:
        return DummyClassifier(strategy="most_frequent").fit(features, labels)
    model = LogisticRegression(solver="liblinear", C=4.0, max_iter=1000, random_state=0)
    several = len(set(labels.tolist())) > 2
    return (OneVsRestClassifier(model) if several else model).fit(features, labels)


class _Features:
    """Rows of texts as a sparse matrix, the vocabulary that of the training rows."""

    def __init__(self, train: Sequence[Sequence[str]], overlap: bool) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._overlap = overlap
        self._columns = [
            TfidfVectorizer(
                analyzer="char_wb",
                ngram_range=(1, 3),
                sublinear_tf=True,
                min_df=2 if len(train) > 100 else 1,
                max_features=_FEATURES,
                dtype=np.float64,
            )
            for _ in train[0]
        ]
        self.of_train = self._matrix(train, [column.fit_transform for column in self._columns])

    def of(self, rows: Sequence[Sequence[str]]) -> Any:
        return self._matrix(rows, [column.transform for column in self._columns])

    def _matrix(self, rows: Sequence[Sequence[str]], transforms: Sequence[Any]) -> Any:
        from scipy import sparse

        parts = [transform([row[n][:_CHARACTERS] or "-" for row in rows]) for n, transform in enumerate(transforms)]
        if self._overlap:
            parts.append(sparse.csr_matrix(np.array([_shared(row[0], row[1]) for row in rows])))
        return sparse.hstack(parts, format="csr")


def _shared(one: str, other: str) -> list[float]:
    """Of the bigrams of two texts: those in common among all, and among each one's own."""
    first, second = (_bigrams(text[:_CHARACTERS]) for text in (one, other))
    common = len(first & second)
    return [4 * common / max(1, size) for size in (len(first | second), len(first), len(second))]


def _bigrams(text: str) -> set[str]:
    letters = "".join(filter(str.isalnum, text))
    return {letters[i : i + 2] for i in range(len(letters) - 1)}
