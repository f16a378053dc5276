"""The peer of `data_build`: `datasets` with the same readers, gates, sampling hash, rendering, encoding and packing."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any


class Peer:
    """The functions that `datasets` maps over one task's rows: ours, so that both sides do the same work."""

    def __init__(self, config: Any, task: Any, index: Any) -> None:
        self.config, self.task, self.index = config, task, index

    def records(self, batch: dict[str, list[Any]]) -> list[Any]:
        from kit19_ray.data.records import Record, to_record
        from kit19_ray.sources.readers.base import SourceRow

        made = [
            to_record(self.task, file, SourceRow(line, json.loads(fields), group or None))
            for file, line, group, fields in zip(*(batch[c] for c in ("file", "line", "group", "fields")), strict=True)
        ]
        return [record for record in made if isinstance(record, Record)]

    def judge(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        from kit19_ray.data.filters.exact_duplicates import content_key
        from kit19_ray.data.filters.ngrams import normalize_letters
        from kit19_ray.utils.hashing import fraction, hash64

        made, answer, config = self.records(batch), self.task.spec.answer, self.config
        texts = [[normalize_letters(text) for name, text in r.fields.items() if name != answer] for r in made]
        return {
            "leaks": [found is not None for found in self.index.match(texts)],
            "key": [str(content_key(self.task, r.fields)) for r in made],
            "answer": [r.fields[answer] for r in made],
            "priority": [hash64(config.seed, "sample", r.id) >> 1 for r in made],
            "validation": [
                fraction(config.seed, "split", self.task.name, r.group) < config.data.validation_fraction for r in made
            ],
        }

    def sign(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        from kit19_ray.data.filters.minhash import signature

        names = self.task.asked_fields
        return {"signature": [signature([r.fields[n] for n in names]) for r in self.records(batch)]}

    def render(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        from kit19_ray.data import examples

        shown = []
        for record, held_out in zip(self.records(batch), batch["validation"], strict=True):
            split = "validation" if held_out else "train"
            template = examples.templates(self.task, record, self.config.seed, split)[0]
            planned = examples.Planned(record, template, 0)
            shown.append(examples.render(self.task, planned, split, self.config.seed))
        return {c: [row[c] for row in shown] for c in ("id", "task", "split", "instruction", "input", "output")}


class Packer:
    """Tokens and packed shards of rendered examples."""

    def __init__(self, config: Any, folder: Path) -> None:
        self.config, self.folder = config, folder

    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(str(self.folder / "tokenizer"))

    def encode(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        from kit19_ray.data.encoding import Encoder
        from kit19_ray.lm.prompts import prompt_format
        from kit19_ray.lm.text_encoder import TextEncoder

        data, tokenizer = self.config.data, self.tokenizer()
        encoder = Encoder(TextEncoder(tokenizer), prompt_format(data.prompt), tokenizer.eos_token_id, data.seq_len)
        rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        encoded = [row for row, _ in encoder.encode(rows) if row is not None]
        return {"input_ids": [r.input_ids for r in encoded], "num_prompt": [r.num_prompt for r in encoded]}

    def pack(self, batch: dict[str, list[Any]], indices: list[int]) -> dict[str, list[Any]]:
        import numpy as np

        from kit19_ray.artifacts import packed_shards
        from kit19_ray.data.packing import TokenRow, pack
        from kit19_ray.io import storage

        pairs = zip(batch["input_ids"], batch["num_prompt"], strict=True)
        made = [TokenRow(np.asarray(ids, np.int32), n) for ids, n in pairs]
        data = packed_shards.to_ipc(*pack(made, self.config.data.seq_len, 0))
        storage.write_bytes(f"file://{self.folder}/hf-out/{indices[0]}.arrow", data)
        return {"rows": [len(made)]}


def run(config: Any, folder: Path, cpus: int) -> tuple[float, int]:
    """Seconds from raw files to packed shards, and how many packed rows came out."""
    import datasets
    import numpy as np

    from kit19_ray.data.filters import decontamination, minhash
    from kit19_ray.data.inputs import collect
    from kit19_ray.sources import evaluation_sets
    from kit19_ray.sources.readers.base import SourceRow
    from kit19_ray.utils.hashing import hash64

    datasets.disable_progress_bars()
    warnings.simplefilter("ignore", FutureWarning)  # datasets 5.2 sorts with a deprecated option of pyarrow
    wanted = {True: config.data.validation, False: config.data.quota}
    start = time.perf_counter()
    inputs = collect(config)
    sets = [(found.name, evaluation_sets.items(found)) for found in inputs.evaluation]
    exact = [found.name for found in inputs.evaluation if found.spec.exact]
    index = decontamination.build(sets, config.data.gates.contained, exact)
    packer = Packer(config, folder)
    drawn: list[tuple[Peer, Any]] = []
    for name, task in inputs.tasks.items():

        def read(task: Any = task, name: str = name) -> Iterator[dict[str, Any]]:
            for file in inputs.files[name]:
                for raw in task.source.read(file):
                    if isinstance(raw, SourceRow):
                        fields = json.dumps(raw.fields)
                        yield {"line": raw.line, "file": file.path, "group": raw.group or "", "fields": fields}

        peer = Peer(config, task, index)
        every = datasets.Dataset.from_generator(read, cache_dir=str(folder / "hf"))
        every = every.map(peer.judge, batched=True, batch_size=1024, num_proc=cpus)
        seen: dict[str, str] = {}
        contradicted: set[str] = set()
        keep = []
        for i, (key, answer, leaks) in enumerate(zip(every["key"], every["answer"], every["leaks"], strict=True)):
            if leaks:
                continue
            if key not in seen:
                seen[key] = answer
                keep.append(i)
            elif seen[key] != answer:
                contradicted.add(key)
        every = every.select(keep).filter(lambda k, c=contradicted: k not in c, input_columns="key", num_proc=cpus)
        for held_out, quota in wanted.items():
            split = every.filter(lambda v, h=held_out: v == h, input_columns="validation", num_proc=cpus)
            split = split.sort("priority").select(range(min(2 * quota + (100 if held_out else 1000), len(split))))
            drawn.append((peer, split.map(peer.sign, batched=True, batch_size=256, num_proc=cpus)))
    sizes = [len(split) for _, split in drawn]
    numbers = {peer.task.name: i for i, (peer, _) in enumerate(drawn)}
    candidates = minhash.BandMates(
        key=np.zeros(sum(sizes), np.uint64),
        signatures=np.concatenate([np.asarray(split["signature"], np.uint32) for _, split in drawn]),
        rank=np.argsort(np.argsort([(i % 2 == 1) * 2**40 + n for i, size in enumerate(sizes) for n in range(size)])),
        task=np.repeat([numbers[peer.task.name] for peer, _ in drawn], sizes),
        source=np.repeat([numbers[peer.task.name] for peer, _ in drawn], sizes),
        answer=np.array([hash64(answer) >> 1 for _, split in drawn for answer in split["answer"]], np.int64),
    )
    gone = set()
    for band in range(minhash.BANDS):
        columns = candidates.signatures[:, band * minhash.ROWS : (band + 1) * minhash.ROWS]
        met = replace(candidates, key=minhash.band_keys(columns))
        gone |= met.near(config.data.gates.near_duplicates).keys()
    parts, offset = [], 0
    for i, (peer, split) in enumerate(drawn):
        stay = [n for n in range(len(split)) if offset + n not in gone][: wanted[i % 2 == 0]]
        offset += len(split)
        shown = split.select(stay)
        parts.append(shown.map(peer.render, batched=True, remove_columns=shown.column_names, num_proc=cpus))
    joined = datasets.concatenate_datasets(parts)

    tokens = joined.map(packer.encode, batched=True, batch_size=4096, num_proc=cpus, remove_columns=joined.column_names)

    packed = tokens.map(
        packer.pack,
        batched=True,
        batch_size=config.data.examples_per_shard,
        with_indices=True,
        num_proc=cpus,
        remove_columns=tokens.column_names,
    )
    seconds = time.perf_counter() - start
    return seconds, sum(packed["rows"])
