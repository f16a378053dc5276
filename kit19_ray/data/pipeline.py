"""The steps of a build on Ray Data, each a map over tasks, bands or shards; see `stage` for what they are.

Pools, examples and tokens lie below `<root>/tasks/<task>/`, each named by what it depends on, so another mixture or
quota uses them again.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kit19_ray.artifacts import manifest
from kit19_ray.config.schema import Config
from kit19_ray.data import build, mixture, pool, prepare, tokenization
from kit19_ray.data import tokenizer as tokenizers
from kit19_ray.data.build import Share
from kit19_ray.data.filters import decontamination, minhash
from kit19_ray.data.inputs import Inputs
from kit19_ray.data.prepare import SPLITS, ExamplesJob, Removed
from kit19_ray.errors import DataError
from kit19_ray.io import storage
from kit19_ray.sources import evaluation_sets
from kit19_ray.utils.console import say

VERSION = 2  # of what these steps write; raise it when equal inputs would give other bytes

Row = dict[str, Any]


def _fill(row: Row, jobs: Mapping[str, pool.PoolJob], index: Any) -> Row:
    """Maps over tasks; `index` is None or a reference, so that a node holds one copy."""
    import ray

    pool.fill(jobs[row["task"]], ray.get(index) if index is not None else None)
    return row


def _search(row: Row, candidates: Any, threshold: float) -> Row:
    """Maps over bands; the pairs come back as JSON."""
    import ray

    found = ray.get(candidates).in_band(row["band"], threshold)
    return {"pairs": json.dumps(sorted(found.items()))}


def _map(step: Callable[[Row], Row], rows: list[Row]) -> list[Row]:
    """A Ray Data map with a Ray task a row, started in this order; the results in any."""
    import ray

    if not rows:
        return []
    return list(ray.data.from_items(rows, override_num_blocks=len(rows)).map(step).iter_rows())


class Build:
    """One build's steps, in order."""

    def __init__(self, config: Config, inputs: Inputs, out: str) -> None:
        self._config, self._data, self._inputs, self._out = config, config.data, inputs, out
        self._sizes = {name: mixture.pool_size(quota) for name, quota in inputs.quotas.items()}

    def run(self) -> Row:
        pools = self._pools()
        removed = self._near(pools)
        examples = self._examples(pools, removed)
        info, tokenizer_uri = self._tokenizer(self._shares(pools, removed, examples))
        tokens = self.tokens(examples, info, tokenizer_uri)
        shares = self._shares(pools, removed, examples, tokens)
        exported = self._each_task(partial(build.export, shares=shares, out=self._out), shares)
        counted = {row["task"]: json.loads(row["stats"]) for row in exported}
        tasks = {name: self._task(name, shares[name], counted[name]) for name in self._inputs.tasks}
        counts = {split: sum(t["examples"][split] for t in tasks.values()) for split in SPLITS}
        if not counts["train"]:
            raise DataError("no training example was built: every row of every source was dropped; see the files "
                            f"below {self._out}/rejects")  # fmt: skip
        say(f"data: {counts['train']:,} training and {counts['validation']:,} validation examples; packing")
        packed = self._shards(list(shares.values()), counts, info)
        toolkit = build.export_toolkit(self._out, sorted(tasks), counts["train"])
        return {**info, "tasks": tasks, "splits": build.split_totals(packed, self._data.seq_len), "toolkit": toolkit}

    def _each_task(self, step: Callable[[Row], Row], tasks: Iterable[str]) -> list[Row]:
        """Maps a step over tasks, the largest first, so that none starts when the other CPUs are done."""
        sizes = {name: sum(f.size for f in self._inputs.files[name]) for name in tasks}
        return _map(step, [{"task": name} for name in sorted(sizes, key=lambda name: (-sizes[name], name))])

    def _prefix(self, task: str, kind: str, identity: Row) -> str:
        return storage.join(self._config.root, "tasks", task, f"{kind}-{manifest.digest(identity)[:12]}")

    def _pools(self) -> dict[str, str]:
        import ray

        data, inputs = self._data, self._inputs
        jobs: dict[str, pool.PoolJob] = {}
        for name, task in inputs.tasks.items():
            identity = {
                "version": VERSION,
                "seed": self._config.seed,
                "task": task.model_dump(mode="json"),
                "files": inputs.hashes(name),
                "size": self._sizes[name],
                "validation": [data.validation, data.validation_fraction],
                "gates": data.gates.identity(),
                "evaluation": inputs.evaluation_hashes(),
            }
            jobs[name] = pool.PoolJob(
                task=task,
                files=inputs.files[name],
                out=self._prefix(name, "pool", identity),
                seed=self._config.seed,
                train=self._sizes[name],
                validation=data.validation,
                validation_fraction=data.validation_fraction,
                gates=data.gates,
            )
        missing = _missing({name: job.out for name, job in jobs.items()})
        if missing:
            say(f"data: reading the sources of {len(missing)} tasks")
            sets = [(found.name, evaluation_sets.items(found)) for found in inputs.evaluation]
            exact = [found.name for found in inputs.evaluation if found.spec.exact]
            index = ray.put(decontamination.build(sets, data.gates.contained, exact)) if sets else None
            self._each_task(partial(_fill, jobs={name: jobs[name] for name in missing}, index=index), missing)
        return {name: job.out for name, job in jobs.items()}

    def _near(self, pools: Mapping[str, str]) -> dict[str, Removed]:
        threshold = self._data.gates.near_duplicates
        nothing = Removed({})
        if threshold >= 1:
            return dict.fromkeys(pools, nothing)
        import ray

        say("data: looking for near duplicates")
        candidates, about = prepare.candidates(pools, self._inputs.tasks)
        step = partial(_search, candidates=ray.put(candidates), threshold=threshold)
        bands = _map(step, [{"band": i} for i in range(minhash.BANDS)])
        pairs = [dict(json.loads(row["pairs"])) for row in bands]
        found = prepare.removed(minhash.merged(pairs, candidates.rank), about)
        return {name: found.get(name, nothing) for name in pools}

    def _examples(self, pools: Mapping[str, str], removed: Mapping[str, Removed]) -> dict[str, str]:
        data = self._data
        jobs: dict[str, ExamplesJob] = {}
        for name, task in self._inputs.tasks.items():
            identity = {
                "version": VERSION,
                "pool": _name(pools[name]),
                "removed": removed[name].digest(),
                "repeat": data.repeat,
            }
            jobs[name] = ExamplesJob(
                task=task,
                pool=pools[name],
                out=self._prefix(name, "examples", identity),
                seed=self._config.seed,
                quota=self._sizes[name],
                validation=data.validation,
                repeat=data.repeat,
                removed=frozenset(removed[name].reasons),
            )
        missing = _missing({name: job.out for name, job in jobs.items()})
        self._each_task(partial(prepare.render, jobs={name: jobs[name] for name in missing}), missing)
        return {name: job.out for name, job in jobs.items()}

    def _tokenizer(self, shares: Mapping[str, Share]) -> tuple[Row, str]:
        """Writes the tokenizer's files below the data prefix; its ids and size, and where its JSON is."""
        named, data = self._data.tokenizer.name, self._data
        with tempfile.TemporaryDirectory() as folder:
            if named:
                loaded = tokenizers.published(named)
            else:
                say(f"data: training a byte-level BPE of {data.tokenizer.vocab_size} entries")
                texts = build.texts((shares[name] for name in sorted(shares)), data.prompt)
                loaded = tokenizers.train_bpe(texts, data.tokenizer.vocab_size, data.seq_len)
            tokenizers.save(loaded, Path(folder))
            storage.upload_dir(Path(folder), storage.join(self._out, "tokenizer"))
        pad = loaded.pad_token_id if loaded.pad_token_id is not None else loaded.eos_token_id
        info = {"eos_token_id": loaded.eos_token_id, "pad_token_id": pad, "vocab_size": len(loaded)}
        return info, storage.join(self._out, "tokenizer", "tokenizer.json")

    def tokens(self, examples: Mapping[str, str], info: Row, tokenizer_uri: str) -> dict[str, str]:
        """Each task's tokens prefix, those that were not there made now."""
        data = self._data
        sha256 = hashlib.sha256(storage.read_bytes(tokenizer_uri)).hexdigest()
        jobs: dict[str, tokenization.TokensJob] = {}
        for name, prefix in examples.items():
            identity = {
                "version": VERSION,
                "examples": _name(prefix),
                "tokenizer": sha256,
                "prompt": data.prompt,
                "seq_len": data.seq_len,
                "eos": info["eos_token_id"],
                "part": tokenization.PART,
            }
            jobs[name] = tokenization.TokensJob(
                examples=prefix,
                out=self._prefix(name, "tokens", identity),
                tokenizer=tokenizer_uri,
                prompt=data.prompt,
                eos_id=info["eos_token_id"],
                seq_len=data.seq_len,
            )
        missing = _missing({name: job.out for name, job in jobs.items()})
        if missing:
            say(f"data: tokenizing {len(missing)} tasks")
        parts: list[Row] = [{"task": name, **part} for name in missing for part in jobs[name].begin()]
        parts.sort(key=lambda part: -int(part["rows"]))
        _map(partial(tokenization.tokenize, jobs={name: jobs[name] for name in missing}), parts)
        for name in missing:
            jobs[name].commit()
        return {name: job.out for name, job in jobs.items()}

    def _shares(
        self,
        pools: Mapping[str, str],
        removed: Mapping[str, Removed],
        examples: Mapping[str, str],
        tokens: Mapping[str, str] | None = None,
    ) -> dict[str, Share]:
        return {
            name: Share(
                task=name,
                pool=pools[name],
                examples=examples[name],
                tokens=tokens[name] if tokens else "",
                quotas={"train": self._inputs.quotas[name], "validation": self._data.validation},
                removed=removed[name],
            )
            for name in pools
        }

    def _shards(self, shares: list[Share], counts: dict[str, int], info: Row) -> list[Row]:
        numbers = {s: -(-counts[s] // self._data.examples_per_shard) for s in SPLITS if counts[s]}
        job = build.ShardJob(self._out, shares, self._data.seq_len, info["pad_token_id"], numbers)
        rows = [{"split": split, "number": n} for split, shards in numbers.items() for n in range(shards)]
        return sorted(_map(partial(build.build_shard, job=job), rows), key=lambda row: str(row["path"]))

    def _task(self, name: str, share: Share, counts: Row) -> Row:
        """A task's entry of the manifest."""
        task, quota = self._inputs.tasks[name], share.quotas["train"]
        filled, rendered = (
            manifest.require(share.pool, "data", "pool"),
            manifest.require(share.examples, "data", "examples"),
        )
        dropped = {**filled["dropped"]}
        for reason, number in counts["dropped"].items():
            dropped[reason] = dropped.get(reason, 0) + number
        records, examples = rendered["splits"]["train"]["records"], counts["examples"]["train"]
        how = f"under {len(task.spec.templates)} templates" if self._data.repeat else "used once each"
        short = f"{records:,} training records {how} give {examples:,} of {quota:,} examples"
        return {
            **counts,
            "raw": filled["raw"],
            "records": filled["records"],
            "unique": filled["unique"] - len(share.removed.reasons),
            "dropped": dict(sorted(dropped.items())),
            "quota": quota,
            "shortfall": short if examples < quota else "",
            "category": task.spec.category,
            "source": task.source_id,
            "licence": task.source.licence.name,
            "splits": self._inputs.splits[name],
            "sha256": self._inputs.hashes(name),
        }


def _missing(prefixes: Mapping[str, str]) -> list[str]:
    """The names whose prefix has no manifest."""
    return [name for name, prefix in prefixes.items() if manifest.read(prefix) is None]


def _name(prefix: str) -> str:
    """The last part of a prefix: what it depends on, wherever the root is."""
    return prefix.rpartition("/")[2]
