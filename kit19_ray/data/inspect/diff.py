"""`kit19 data --diff A B`: what two finished builds differ in, from their settings to their rows.

Rows are compared by id and by content, one task at a time, so memory follows the largest task: two 64-bit hashes a row,
and what comparing them takes, in all some 150 MB a million rows. The rows to show are read in a second pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from kit19_ray.artifacts import manifest
from kit19_ray.artifacts.data_manifests import DataManifest, TaskEntry
from kit19_ray.data.export import example_path
from kit19_ray.io import storage
from kit19_ray.utils.console import stdout
from kit19_ray.utils.hashing import hash64
from kit19_ray.utils.json_types import Json

if TYPE_CHECKING:
    from rich.console import Console

UInt64 = npt.NDArray[np.uint64]
SPLITS = ("train", "validation")
_Content = Literal["template", "kind", "instruction", "input", "output", "label", "candidates"]
CONTENT: tuple[_Content, ...] = ("template", "kind", "instruction", "input", "output", "label", "candidates")
"""The columns that make a row's content; where it stands in its source and in the build's order does not count."""
_BATCH = 4096  # rows
_Count = Literal["raw", "records", "unique", "repeated", "truncated", "tokens"]
_COUNTS: tuple[_Count, ...] = ("raw", "records", "unique", "repeated", "truncated", "tokens")
_KINDS = ("added", "removed", "changed")
_SHOWN: tuple[_Content, ...] = ("template", "instruction", "input", "output")
_MISSING = "(none)"
_WIDTH = 200  # columns the table may take


Settings = Json
"""Dotted or nested config keys, with whatever value each has."""


class ContentRow(TypedDict):
    """The columns of an example that are compared or shown."""

    id: str
    source_id: str
    template: str
    kind: str
    instruction: str
    input: str
    output: str
    label: int
    candidates: list[str]


class ShownRow(TypedDict):
    """A row that differs, as each build has it."""

    split: str
    a: ContentRow | None
    b: ContentRow | None


TaskDiff = TypedDict(
    "TaskDiff",
    {
        "in": str,  # the builds that have the task: a, b or ab
        "rows": dict[str, int],
        "examples": dict[str, list[int]],
        "counts": dict[str, list[int]],
        "dropped": dict[str, list[int]],
        "settings": dict[str, list[Any]],
        "shown": dict[str, list[ShownRow]],
    },
)


class BuildName(TypedDict):
    """Which build it is."""

    uri: str
    identity: str


class Diff(TypedDict):
    """What two builds differ in; pairs are [value of a, value of b]."""

    a: BuildName
    b: BuildName
    equal_identity: bool
    config: dict[str, list[Any]]
    rows: dict[str, int]
    tasks: dict[str, TaskDiff]
    num_examples: int


@dataclass(frozen=True)
class _Rows:
    """Rows of one task and split, in the order of the file: hashes of their ids and of their contents."""

    ids: UInt64
    contents: UInt64


def diff(a: str, b: str, num_examples: int) -> Diff:
    """What differs between the builds at the prefixes `a` and `b`, JSON-ready.

    Args:
        num_examples: rows of each kind and task to show.

    Raises:
        StorageError: one is not finished, or is no data prefix.
    """
    uris = [storage.normalise(uri) for uri in (a, b)]
    built = [manifest.require(uri, "data") for uri in uris]
    names = sorted({name for side in built for name in side["tasks"]})
    tasks = {name: _task(uris, [side["tasks"].get(name) for side in built], name, num_examples) for name in names}
    return {
        "a": {"uri": uris[0], "identity": built[0]["identity"]},
        "b": {"uri": uris[1], "identity": built[1]["identity"]},
        "equal_identity": built[0]["identity"] == built[1]["identity"],
        "config": changes(*map(_settings, built)),
        "rows": {key: sum(t["rows"][key] for t in tasks.values()) for key in (*_KINDS, "same")},
        "tasks": tasks,
        "num_examples": num_examples,
    }


def _settings(built: DataManifest) -> Settings:
    """What a build was asked for: its config, and beside it what the manifest says of the run."""
    beside = ("version", "seed", "ablation", "licence_policy", "vocab_size")
    return {key: value for key, value in built.items() if key in beside} | {"data": built["config"]}


def changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Dotted key -> [value of a, value of b], for each leaf that differs; a key one lacks has "(none)" there."""
    left, right = _flat(a), _flat(b)
    return {
        key: [left.get(key, _MISSING), right.get(key, _MISSING)]
        for key in sorted(left.keys() | right.keys())
        if left.get(key, _MISSING) != right.get(key, _MISSING)
    }


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Settings:
    flat: Settings = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _task(uris: list[str], stats: list[TaskEntry | None], name: str, num_examples: int) -> TaskDiff:
    rows = dict.fromkeys((*_KINDS, "same"), 0)
    examples: dict[str, list[ShownRow]] = {kind: [] for kind in _KINDS}
    for split in SPLITS:
        paths = [storage.join(uri, example_path(split, name)) for uri in uris]
        left, right = map(_hashes, paths)
        common, at_left, at_right = np.intersect1d(left.ids, right.ids, assume_unique=True, return_indices=True)
        is_changed = left.contents[at_left] != right.contents[at_right]
        found = {
            "added": np.setdiff1d(right.ids, left.ids, assume_unique=True),
            "removed": np.setdiff1d(left.ids, right.ids, assume_unique=True),
            "changed": common[is_changed],
        }
        for kind, ids in found.items():
            rows[kind] += len(ids)
            wanted = {int(i) for i in ids[: num_examples - len(examples[kind])]}
            at_a, at_b = (_pick(path, wanted) for path in paths)
            examples[kind] += [{"split": split, "a": at_a.get(i), "b": at_b.get(i)} for i in sorted(wanted)]
        rows["same"] += len(common) - int(is_changed.sum())
    numbers = [side["examples"] if side else {} for side in stats]
    dropped = [side["dropped"] if side else {} for side in stats]
    return {
        "in": "".join(side for side, stat in zip("ab", stats) if stat),
        "rows": rows,
        "examples": {split: [side.get(split, 0) for side in numbers] for split in SPLITS},
        "counts": {key: [side.get(key, 0) if side else 0 for side in stats] for key in _COUNTS},
        "dropped": {
            reason: [side.get(reason, 0) for side in dropped]
            for reason in sorted({name for side in dropped for name in side})
        },
        "settings": changes(*map(_task_settings, stats)),
        "shown": examples,
    }


def _task_settings(entry: TaskEntry | None) -> Settings:
    """What a task was built from."""
    if entry is None:
        return dict.fromkeys(("licence", "splits", "sha256"), _MISSING)
    return {"licence": entry["licence"], "splits": entry["splits"], "sha256": entry["sha256"]}


def _batches(path: str, columns: list[str]) -> Iterator[list[ContentRow]]:
    if storage.exists(path):
        with storage.open_input(path) as file:
            for batch in pq.ParquetFile(file).iter_batches(batch_size=_BATCH, columns=columns):
                yield batch.to_pylist()


def _hashes(path: str) -> _Rows:
    pairs = [
        np.array([(hash64(r["id"]), hash64(manifest.digest([r[c] for c in CONTENT]))) for r in rows], np.uint64)
        for rows in _batches(path, ["id", *CONTENT])
    ]
    both = np.concatenate(pairs) if pairs else np.zeros((0, 2), np.uint64)
    return _Rows(both[:, 0], both[:, 1])


def _pick(path: str, wanted: set[int]) -> dict[int, ContentRow]:
    """The rows whose ids have one of the hashes `wanted`, reading no further than the last of them."""
    found: dict[int, ContentRow] = {}
    for rows in _batches(path, ["id", "source_id", *CONTENT]) if wanted else ():
        found |= {key: row for row in rows if (key := hash64(row["id"])) in wanted}
        if len(found) == len(wanted):
            break
    return found


def show(found: Diff) -> None:
    """Prints the differences to stdout: settings, a table of the tasks, drops that differ and example rows."""
    from rich.text import Text

    console = stdout()
    for side, built in (("A", found["a"]), ("B", found["b"])):
        console.print(f"{side} {built['uri']}  {built['identity'][:12]}")
    if found["equal_identity"]:
        console.print("same identity: built from the same files with the same settings")
    console.print()
    settings = [*found["config"].items()]
    settings += [
        (f"{n}: {k}", v) for n, t in found["tasks"].items() if t["in"] == "ab" for k, v in t["settings"].items()
    ]
    for key, (left, right) in settings:
        console.print(f"{key}: {_short(left)} -> {_short(right)}")
    if not settings:
        console.print("no setting and no source file differs" + ("" if found["equal_identity"] else "; task files may"))
    console.print()
    _show_tasks(console, found)
    for kind in _KINDS:
        for name, row in _in_turn(found["tasks"], kind)[: found["num_examples"]]:
            console.print(Text(f"\n{kind} {name} ({row['split']})", "bold"))
            for line, style in _example(row):
                console.print(Text(line, style))


def _in_turn(tasks: Mapping[str, TaskDiff], kind: str) -> list[tuple[str, ShownRow]]:
    """The example rows of a kind with their tasks: the first of each task, then the second of each.

    Tasks that both builds have come first.
    """
    rows = [(i, t["in"] != "ab", name, row) for name, t in tasks.items() for i, row in enumerate(t["shown"][kind])]
    return [(name, row) for *_, name, row in sorted(rows, key=lambda r: r[:3])]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _show_tasks(console: Console, found: Diff) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("task", "train", "validation", *_KINDS, "same", "tokens", "dropped"):
        table.add_column(column, justify="left" if column in ("task", "dropped") else "right", no_wrap=True)
    for name, task in found["tasks"].items():
        where = "" if task["in"] == "ab" else f" (only {task['in'].upper()})"
        drops = ", ".join(f"{reason} {_arrow(pair)}" for reason, pair in task["dropped"].items() if pair[0] != pair[1])
        counts = [_arrow(task["examples"][split]) for split in SPLITS]
        counts += [f"{task['rows'][kind]:,}" for kind in (*_KINDS, "same")]
        table.add_row(name + where, *counts, _arrow(task["counts"]["tokens"]), drops)
    console.width = max(console.width, _WIDTH)  # a narrow terminal wraps lines; cells stay whole
    console.print(table)
    rows = ", ".join(f"{found['rows'][kind]:,} {kind}" for kind in _KINDS)
    console.print(f"\nrows: {rows}, {found['rows']['same']:,} the same")


def _arrow(pair: list[int]) -> str:
    return f"{pair[0]:,}" if pair[0] == pair[1] else f"{pair[0]:,} -> {pair[1]:,}"


def _example(row: ShownRow) -> Iterator[tuple[str, str]]:
    """(line, style) pairs; of a changed row what differs."""
    for held, other, mark, style in ((row["a"], row["b"], "-", "red"), (row["b"], row["a"], "+", "green")):
        if held:
            yield f"{held['id']} {held['source_id']}", "dim"
            for column in _SHOWN:
                if held[column] and (other is None or other[column] != held[column]):
                    yield f"{mark} {column}: {held[column]}", style
