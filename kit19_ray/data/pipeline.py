"""A build from top to bottom: what is done to the rows, in order.

    read and check   file parts -> rows -> checked rows -> buckets of what they ask      rows stream, on Ray Data
    copies           a bucket holds all copies of a text: the first stays                a Ray task a bucket
    sample           the bottom k of a hash, over all buckets                            a Ray task a run of ranks
    near             records that nearly equal another, of any task                      a Ray task a band
    render           records under templates, into ranges of `order`                     a Ray task a run of records
    tokenize         the same, as tokens                                                 a Ray task a range
    export           each task's share of the mixture, its rejects                       a Ray task a task
    pack             ranges of `order` over all tasks, packed                            a Ray task a run of shards

Rows meet in three places: copies by their text, examples of a task by `order`, examples of all tasks by `order`. Each
time they are written into buckets of a hash and a bucket is read as a whole (`shuffle`), so no process holds more than
a bucket and the driver holds none. What a step decides follows from hashes and places, never from who ran first: the
bytes are the same for any number of CPUs, nodes and tries.

Records, examples and tokens lie below `<root>/tasks/<task>/`, each named by what it depends on, so another mixture or
quota uses them again. Two builds on one root write the same files under the same names.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kit19_ray.artifacts import manifest
from kit19_ray.config.schema import Config
from kit19_ray.data import export, mixture, ray_tasks, record_pool, rendering, sampling, shards, tokenize
from kit19_ray.data import tokenizer as tokenizers
from kit19_ray.data.checks import Checker
from kit19_ray.data.export import MixtureEntry
from kit19_ray.data.filters import index_store, minhash, near_duplicates
from kit19_ray.data.filters.near_duplicates import RecordFile, Removed
from kit19_ray.data.inputs import Inputs
from kit19_ray.data.progress import StreamProgress
from kit19_ray.data.ray_tasks import MIB
from kit19_ray.data.record_pool import SPLITS, Pool
from kit19_ray.data.rendering import Rendering, RunShare
from kit19_ray.data.sampling import Run
from kit19_ray.data.tokenize import Tokenizing
from kit19_ray.errors import DataError
from kit19_ray.io import storage
from kit19_ray.lm.prompts import chat_template, load_prompt
from kit19_ray.utils.console import say

VERSION = 4  # of what these steps write; raise it when equal inputs would give other bytes
_BUCKET = 64 << 20  # bytes of a task's files to a bucket
_ALL = Run(0, 2**64 - 1, record_pool.RUN)

Row = dict[str, Any]


class Build:
    """One build's steps, in order; needs a Ray connection."""

    def __init__(self, config: Config, inputs: Inputs, out: str) -> None:
        self._config, self._data, self._inputs, self._out = config, config.data, inputs, out
        self._sizes = {name: mixture.pool_size(quota) for name, quota in inputs.quotas.items()}

    def run(self) -> Row:
        """Builds everything but the card and the commit marker; what the manifest says of it."""
        records = self._records()
        removed = self._near(records)
        examples = self._examples(records, removed)
        info, tokenizer = self._tokenizer(self._entries(records, removed, examples))
        tokens = self.tokens(examples, info, tokenizer)
        entries = self._entries(records, removed, examples, tokens)
        tasks = self._export(entries)
        packed = self._pack(entries, tasks, info)
        toolkit = export.export_toolkit(self._out, sorted(tasks), sum(t["examples"]["train"] for t in tasks.values()))
        return {**info, "tasks": tasks, "splits": shards.split_totals(packed, self._data.seq_len), "toolkit": toolkit}

    # -- read, check, copies, sample ------------------------------------------------------------------------------

    def _records(self) -> dict[str, str]:
        """Each task's records prefix, those that were not there made now."""
        data, inputs = self._data, self._inputs
        identity = {
            name: {
                "version": VERSION,
                "seed": self._config.seed,
                "task": task.model_dump(mode="json"),
                "files": inputs.hashes(name),
                "size": self._sizes[name],
                "validation": [data.validation, data.validation_fraction],
                "gates": data.gates.identity(),
                "evaluation": inputs.evaluation_hashes(),
            }
            for name, task in inputs.tasks.items()
        }
        prefixes = {name: self._prefix(name, "records", identity[name]) for name in inputs.tasks}
        missing = _missing(prefixes, "records")
        if missing:
            say(f"data: reading the sources of {len(missing)} tasks")
            self._make_records({name: prefixes[name] for name in missing})
        return prefixes

    def _make_records(self, prefixes: Mapping[str, str]) -> None:
        # Imported here: it is the one module that needs Ray Data when it is loaded.
        from kit19_ray.data import read_sources

        data, tasks = self._data, self._inputs.tasks
        readings = [
            read_sources.Reading(
                checker=Checker(tasks[name], self._config.seed, data.validation_fraction, data.gates),
                parts=self._inputs.parts[name],
                uri=storage.join(prefix, "rows"),
                num_buckets=max(1, sum(f.size for f in self._inputs.files[name]) // _BUCKET),
            )
            for name, prefix in prefixes.items()
        ]
        index = self._index()
        progress = StreamProgress(sum(part.end - part.start for r in readings for part in r.parts))
        receipts = read_sources.read_and_check(readings, index, progress)
        progress.end()
        pools = {
            r.task.name: Pool(
                task=r.task,
                rows=r.uri,
                files=receipts[r.task.name].files,
                num_buckets=r.num_buckets,
                num_parts=len(r.parts),
                out=prefixes[r.task.name],
                wanted={
                    "train": sampling.wanted("train", self._sizes[r.task.name]),
                    "validation": sampling.wanted("validation", data.validation),
                },
                gates=data.gates,
            )
            for r in readings
        }
        buckets = _grouped(
            ray_tasks.run(
                "copies",
                _copies,
                [(n, (n, b)) for n, p in pools.items() for b in range(p.num_buckets)],
                pools,
                512 * MIB,
            )
        )
        kept = {(name, split): sum(b.kept[split] for b in buckets[name]) for name in pools for split in SPLITS}
        many = [key for key in kept if kept[key] > record_pool.RUN]
        ranged = ray_tasks.run("ranks", _ranges, [(f"{n} {s}", (n, s)) for n, s in many], pools, 512 * MIB)
        runs = {(n, s): [replace(_ALL, take=min(_ALL.take, pools[n].wanted[s]))] for n, s in kept} | dict(
            zip(many, ranged, strict=True)
        )
        sampled = ray_tasks.run(
            "sample",
            _sample,
            [(f"{n} {s} {i}", (n, s, i, run)) for (n, s), every in runs.items() for i, run in enumerate(every)],
            pools,
            320 * MIB,
        )
        done = []
        for name in pools:
            dropped = receipts[name].dropped + sum((b.dropped for b in buckets[name]), Counter[str]())
            counts = {
                "raw": receipts[name].rows,
                "records": receipts[name].records,
                "unique": sum(b.unique for b in buckets[name]),
                "dropped": dict(sorted(dropped.items())),
            }
            done.append((name, (name, counts, [file for file in sampled if file.task == name])))
        ray_tasks.run("rejects", _finish, done, pools, 512 * MIB)
        for pool in pools.values():
            storage.delete(pool.rows)

    def _index(self) -> str | None:
        """Prefix of the index of evaluation items; None when there is nothing to hold rows against."""
        sets, contained = self._inputs.evaluation, self._data.gates.contained
        if not sets:
            return None
        uri = index_store.prefix(self._config.root, VERSION, sets, contained)
        if manifest.finished(uri, "index") is None:
            ray_tasks.run("index", _build_index, [("of evaluation items", (uri, contained))], sets, 1024 * MIB)
        return uri

    # -- near duplicates ------------------------------------------------------------------------------------------

    def _near(self, records: Mapping[str, str]) -> dict[str, Removed]:
        """Per task, what leaves because another record is near."""
        nothing = near_duplicates.removed(near_duplicates.REMOVED.empty_table())
        threshold = self._data.gates.near_duplicates
        if threshold >= 1:
            return dict.fromkeys(records, nothing)
        say("data: looking for near duplicates")
        files = [file for found in self._files(records).values() for file in found]
        bands = [(f"in band {band}", (band, threshold)) for band in range(minhash.BANDS)]
        memory = 64 * MIB + 64 * sum(file.rows for file in files)
        pairs = ray_tasks.run("near duplicates", _pairs, bands, files, memory)
        found = near_duplicates.merge(pairs)
        return {name: found.get(name, nothing) for name in records}

    # -- examples, tokens -----------------------------------------------------------------------------------------

    def _examples(self, records: Mapping[str, str], removed: Mapping[str, Removed]) -> dict[str, str]:
        """Each task's examples prefix, those that were not there made now."""
        data, tasks = self._data, self._inputs.tasks
        prefixes = {
            name: self._prefix(
                name,
                "examples",
                {
                    "version": VERSION,
                    "records": _name(records[name]),
                    "removed": removed[name].digest,
                    "repeat": data.repeat,
                },
            )
            for name in tasks
        }
        missing = _missing(prefixes, "examples")
        making = {n: Rendering(tasks[n], prefixes[n], self._config.seed, data.repeat, removed[n]) for n in missing}
        runs = [(f.task, f.split, f.uri) for n in missing for f in self._files(records)[n]]
        counted = ray_tasks.run("count", _count, [(f"{t} {s}", (t, s, uri)) for t, s, uri in runs], making, 320 * MIB)
        shares: list[tuple[str, RunShare]] = []
        built: dict[str, dict[str, Row]] = {name: {} for name in missing}
        for name in missing:
            for split, quota in (("train", self._sizes[name]), ("validation", data.validation)):
                mine = [(uri, c) for (t, s, uri), c in zip(runs, counted, strict=True) if (t, s) == (name, split)]
                total, starts = rendering.turns([turns for _, (_, turns) in mine])
                parts = rendering.num_parts(min(total, quota))
                alone = len(mine) == 1 and parts == 1
                shares += [
                    (name, RunShare(split, -1 if alone else run, uri, starts[run], quota, parts))
                    for run, (uri, _) in enumerate(mine)
                ]
                records_left = sum(number for _, (number, _) in mine)
                built[name][split] = {"records": records_left, "examples": min(total, quota), "parts": parts}
        rendered = ray_tasks.run("render", _render, [(f"{n} {s.split}", (n, s)) for n, s in shares], making, 320 * MIB)
        paths: dict[tuple[str, str], list[str]] = {}
        hashes: dict[str, dict[str, str]] = {name: {} for name in missing}
        for (name, share), (path, sha256) in zip(shares, rendered, strict=True):
            if sha256 is None:
                paths.setdefault((name, share.split), []).append(path)
            else:
                hashes[name][path] = sha256
        gathered = [
            (f"{n} {s}", (n, s, number, found))
            for (n, s), found in paths.items()
            for number in range(built[n][s]["parts"])
        ]
        written = ray_tasks.run("gather", _gather, gathered, making, 320 * MIB)
        for (_, (name, *_)), (path, sha256) in zip(gathered, written, strict=True):
            hashes[name][path] = sha256
        for name in missing:
            made = {"stage": "examples", "task": name, "splits": built[name]}
            manifest.commit(prefixes[name], made, known=hashes[name], without=["parts/"])
            storage.delete(storage.join(prefixes[name], "parts"))
        return prefixes

    def _tokenizer(self, entries: Mapping[str, MixtureEntry]) -> tuple[Row, str]:
        """Writes the tokenizer's files below the data prefix; its ids and size, and where its JSON is."""
        named, data = self._data.tokenizer.name, self._data
        if not named:
            say(f"data: training a byte-level BPE of {data.tokenizer.vocab_size} entries")
        making = (named, data.prompt, data.tokenizer.vocab_size, data.seq_len, self._out)
        every = [entries[name] for name in sorted(entries)]
        (info,) = ray_tasks.run("tokenizer", _make_tokenizer, [("of the build", making)], every, 1024 * MIB)
        return info, storage.join(self._out, "tokenizer")

    def tokens(self, examples: Mapping[str, str], info: Row, tokenizer: str) -> dict[str, str]:
        """Each task's tokens prefix, those that were not there made now."""
        data = self._data
        sha256 = manifest.digest(
            {f.path: hashlib.sha256(storage.read_bytes(storage.join(tokenizer, f.path))).hexdigest()
             for f in storage.list_files(tokenizer)}
        )  # fmt: skip
        prefixes = {
            name: self._prefix(
                name,
                "tokens",
                {
                    "version": VERSION,
                    "examples": _name(prefix),
                    "tokenizer": sha256,
                    "prompt": data.prompt,
                    "seq_len": data.seq_len,
                    "eos": info["eos_token_id"],
                },
            )
            for name, prefix in examples.items()
        }
        missing = _missing(prefixes, "tokens")
        if missing:
            say(f"data: tokenizing {len(missing)} tasks")
        how = Tokenizing(tokenizer, data.prompt, info["eos_token_id"], data.seq_len)
        parts = []
        for name in missing:
            for split, counts in manifest.require(examples[name], "data", "examples")["splits"].items():
                for number in range(counts["parts"]):
                    path = rendering.part_path(split, number)
                    pair = (storage.join(examples[name], path), storage.join(prefixes[name], path))
                    parts.append((counts["examples"] // counts["parts"], f"{name} {path}", pair))
        parts.sort(key=lambda part: (-part[0], part[1]))  # the largest first, so that none starts last
        hashes = ray_tasks.run("tokenize", tokenize.tokenize, [(n, pair) for _, n, pair in parts], how, 320 * MIB)
        written = {target: sha256 for (_, _, (_, target)), sha256 in zip(parts, hashes, strict=True)}
        for name in missing:
            mine = {_name(uri): sha256 for uri, sha256 in written.items() if uri.startswith(prefixes[name] + "/")}
            manifest.commit(prefixes[name], {"stage": "tokens", "examples": _name(examples[name])}, known=mine)
        return prefixes

    # -- the mixture ----------------------------------------------------------------------------------------------

    def _entries(
        self,
        records: Mapping[str, str],
        removed: Mapping[str, Removed],
        examples: Mapping[str, str],
        tokens: Mapping[str, str] | None = None,
    ) -> dict[str, MixtureEntry]:
        files = self._files(records)
        splits = {name: manifest.require(uri, "data", "examples")["splits"] for name, uri in examples.items()}
        return {
            name: MixtureEntry(
                task=name,
                records=records[name],
                record_files=tuple(files[name]),
                examples=examples[name],
                tokens=tokens[name] if tokens else "",
                parts={split: counts["parts"] for split, counts in splits[name].items()},
                quotas={"train": self._inputs.quotas[name], "validation": self._data.validation},
                removed=removed[name],
            )
            for name in records
        }

    def _export(self, entries: Mapping[str, MixtureEntry]) -> dict[str, Row]:
        """Writes each task's examples and rejects; its entry of the manifest."""
        largest = sorted(entries, key=lambda name: (-entries[name].quotas["train"], name))
        items = [(name, entries[name]) for name in largest]
        counted = dict(zip(largest, ray_tasks.run("export", export.export, items, self._out, 512 * MIB), strict=True))
        tasks = {name: self._task(name, entries[name], counted[name]) for name in self._inputs.tasks}
        counts = {split: sum(t["examples"][split] for t in tasks.values()) for split in SPLITS}
        if not counts["train"]:
            raise DataError("no training example was built: every row of every source was dropped; see the files "
                            f"below {self._out}/rejects")  # fmt: skip
        say(f"data: {counts['train']:,} training and {counts['validation']:,} validation examples; packing")
        return tasks

    def _pack(
        self, entries: Mapping[str, MixtureEntry], tasks: Mapping[str, Row], info: Row
    ) -> list[shards.ShardCounts]:
        counts = {split: sum(t["examples"][split] for t in tasks.values()) for split in SPLITS}
        numbers = {s: -(-counts[s] // self._data.examples_per_shard) for s in SPLITS if counts[s]}
        packing = shards.Packing(self._out, list(entries.values()), self._data.seq_len, info["pad_token_id"], numbers)
        runs = shards.runs(numbers, ray_tasks.num_cpus())
        items = [(f"{split} {first}", (split, first, end)) for split, first, end in runs]
        return [shard for found in ray_tasks.run("pack", shards.build, items, packing, 512 * MIB) for shard in found]

    def _task(self, name: str, entry: MixtureEntry, counts: export.TaskCounts) -> Row:
        """A task's entry of the manifest."""
        task, quota = self._inputs.tasks[name], entry.quotas["train"]
        made = manifest.require(entry.records, "data", "records")
        rendered = manifest.require(entry.examples, "data", "examples")
        dropped = Counter(made["dropped"]) + Counter(counts["dropped"])
        records, examples = rendered["splits"]["train"]["records"], counts["examples"]["train"]
        how = f"under {len(task.spec.templates)} templates" if self._data.repeat else "used once each"
        short = f"{records:,} training records {how} give {examples:,} of {quota:,} examples"
        return {
            **counts,
            "raw": made["raw"],
            "records": made["records"],
            "unique": made["unique"] - len(entry.removed.table),
            "dropped": dict(sorted(dropped.items())),
            "quota": quota,
            "shortfall": short if examples < quota else "",
            "category": task.spec.category,
            "source": task.source_id,
            "licence": task.source.licence.name,
            "splits": self._inputs.splits[name],
            "sha256": self._inputs.hashes(name),
        }

    def _files(self, records: Mapping[str, str]) -> dict[str, list[RecordFile]]:
        return {name: record_pool.files(uri, self._inputs.tasks[name]) for name, uri in records.items()}

    def _prefix(self, task: str, kind: str, identity: Row) -> str:
        return storage.join(self._config.root, "tasks", task, f"{kind}-{manifest.digest(identity)[:12]}")


# What the Ray tasks call: the shared argument first, then the item.


def _build_index(sets: Sequence[Any], item: tuple[str, float]) -> None:
    index_store.build(item[0], sets, item[1])


def _copies(pools: Mapping[str, Pool], item: tuple[str, int]) -> tuple[str, record_pool.Bucket]:
    return item[0], record_pool.copies(pools[item[0]], item[1])


def _ranges(pools: Mapping[str, Pool], item: tuple[str, str]) -> list[Run]:
    return record_pool.ranges(pools[item[0]], item[1])


def _sample(pools: Mapping[str, Pool], item: tuple[str, str, int, Run]) -> RecordFile:
    return record_pool.sample(pools[item[0]], *item[1:])


def _finish(pools: Mapping[str, Pool], item: tuple[str, Row, Sequence[RecordFile]]) -> None:
    record_pool.finish(pools[item[0]], *item[1:])


def _pairs(files: Sequence[RecordFile], item: tuple[int, float]) -> Any:
    return near_duplicates.pairs(files, *item)


def _count(making: Mapping[str, Rendering], item: tuple[str, str, str]) -> tuple[int, list[int]]:
    return rendering.count(making[item[0]], item[1], item[2])


def _render(making: Mapping[str, Rendering], item: tuple[str, RunShare]) -> tuple[str, str | None]:
    return rendering.render(making[item[0]], item[1])


def _gather(making: Mapping[str, Rendering], item: tuple[str, str, int, list[str]]) -> tuple[str, str]:
    return rendering.gather(making[item[0]], *item[1:])


def _make_tokenizer(entries: Sequence[MixtureEntry], item: tuple[str | None, str, int, int, str]) -> Row:
    named, prompt, vocab_size, seq_len, out = item
    if named:
        loaded = tokenizers.published(named)
    else:
        loaded = tokenizers.train_bpe(export.texts(entries, prompt), vocab_size, seq_len)
    load_prompt(prompt, loaded)  # a chat template that cannot be learned from is said here, not row by row
    loaded.chat_template = chat_template(prompt) or loaded.chat_template
    with tempfile.TemporaryDirectory() as folder:
        tokenizers.save(loaded, Path(folder))
        storage.upload_dir(Path(folder), storage.join(out, "tokenizer"))
    pad = loaded.pad_token_id if loaded.pad_token_id is not None else loaded.eos_token_id
    return {"eos_token_id": loaded.eos_token_id, "pad_token_id": pad, "vocab_size": len(loaded)}


def _grouped(buckets: Sequence[tuple[str, record_pool.Bucket]]) -> dict[str, list[record_pool.Bucket]]:
    found: dict[str, list[record_pool.Bucket]] = {}
    for name, bucket in buckets:
        found.setdefault(name, []).append(bucket)
    return found


def _missing(prefixes: Mapping[str, str], stage: str) -> list[str]:
    """The names whose prefix is not finished, or is and lacks a file."""
    return [name for name, prefix in prefixes.items() if manifest.finished(prefix, stage) is None]


def _name(prefix: str) -> str:
    """The last part of a prefix: what it depends on, wherever the root is."""
    return prefix.rpartition("/")[2]
