"""Rows of a source -> the records of its pool, by the build's own steps in this process."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.config.schema import Config
from kit19_ray.data import checked_rows, ray_tasks, record_pool, records
from kit19_ray.data.checked_rows import Receipt
from kit19_ray.data.source_parts import FilePart
from kit19_ray.data.steps import records as record_steps
from kit19_ray.io import storage
from kit19_ray.sources.readers.base import LocatedFile, SourceRow
from kit19_ray.tasks.task import load_tasks
from kit19_ray.utils.hashing import fraction, hash64, hex_id

NSMC = load_tasks(["nsmc"])["nsmc"]
LABELS = ("positive", "negative")
Rows = Sequence[tuple[str, str | None]]  # text, group


def drawn(
    files: Sequence[Rows],
    buckets: int = 1,
    *,
    examples: int = 10_000,
    share: float = 0.3,
    seed: int = 19,
    copies: bool = True,
) -> dict[str, list[str]]:
    """The texts of each split's sample, in the order of their files."""
    gates = {"near_duplicates": 1.0, "duplicates": copies}
    data = {"validation": examples, "validation_fraction": share, "gates": gates}
    config = Config.model_validate({"seed": seed, "data": data})
    with tempfile.TemporaryDirectory() as folder, ray_tasks.in_process():
        out = storage.normalise(Path(folder))
        located = [LocatedFile("file:///none", f"{n}.tsv", "train", 1) for n in range(len(files))]
        parts = [FilePart(file, 0, 1, 0, 0, "") for file in located]
        reading = replace(record_steps.reading(config, NSMC, parts, out), num_buckets=buckets)
        receipt = Receipt()
        for number, rows in enumerate(files):
            raws = [SourceRow(n + 1, {"text": t, "label": LABELS[hash64(t) % 2]}, g) for n, (t, g) in enumerate(rows)]
            for table in records.tables(NSMC, number, f"{number}.tsv", raws):
                made = checked_rows.write(
                    checked_rows.check(table, {"nsmc": reading.checker}, None), {"nsmc": (reading.uri, buckets)}
                )
                receipt.add(made.to_pylist()[0])
        checked_rows.close(reading, receipt)
        record_steps.sample(config, [reading], {"nsmc": receipt}, {"nsmc": out}, {"nsmc": examples}, {"nsmc": ()})
        found: dict[str, list[str]] = {"train": [], "validation": []}
        for file in record_pool.files(out, NSMC):
            with storage.open_input(file.uri) as stream:
                found[file.split] += pq.read_table(stream)["id"].to_pylist()
    texts = {hex_id("nsmc", t, LABELS[hash64(t) % 2]): t for rows in files for t, _ in rows}
    return {split: [texts[id_] for id_ in ids] for split, ids in found.items()}


def alone(texts: Sequence[str]) -> Rows:
    return [(text, None) for text in texts]


words = st.lists(st.text("abcdef", min_size=1, max_size=3), min_size=1, max_size=40)


@given(words, words, st.integers(1, 3), st.booleans(), st.randoms(use_true_random=False))
def test_the_sample_is_a_set_of_texts_whatever_their_order_files_and_buckets(
    one: list[str], other: list[str], buckets: int, copies: bool, shuffler: random.Random
) -> None:
    first = drawn([alone(one), alone(other)], buckets, copies=copies)
    mixed = one + other
    shuffler.shuffle(mixed)
    assert drawn([alone(mixed)], copies=copies) == first
    assert sorted(first["train"] + first["validation"]) == sorted({*one, *other})
    for texts in first.values():
        ranks = [hash64(19, "sample", hex_id("nsmc", text, LABELS[hash64(text) % 2])) for text in texts]
        assert ranks == sorted(ranks)


@given(words)
def test_a_group_is_never_on_both_sides(texts: list[str]) -> None:
    found = drawn([[(text, text[0]) for text in texts]], share=0.5)
    sides = {split: {text[0] for text in kept} for split, kept in found.items()}
    assert not sides["train"] & sides["validation"]
    assert sides["validation"] == {t[0] for t in texts if fraction(19, "split", "nsmc", t[0]) < 0.5}


def test_the_smallest_hashes_are_drawn_and_as_many_as_are_wanted() -> None:
    texts = [f"{n}번째 영화" for n in range(3000)]
    every = drawn([alone(texts)], 3, share=0.1)
    few = drawn([alone(texts)], 3, share=0.1, examples=5)
    assert 200 <= len(every["validation"]) <= 400 and len(every["train"]) + len(every["validation"]) == 3000
    assert few == {"train": every["train"][:1010], "validation": every["validation"][:110]}  # twice 5, and spares


def test_another_seed_draws_others() -> None:
    texts = [f"{n}번째 영화" for n in range(2000)]
    one, other = (drawn([alone(texts)], examples=1, seed=seed)["train"] for seed in (19, 20))
    assert len(one) == len(other) == 1002 and set(one) != set(other)
