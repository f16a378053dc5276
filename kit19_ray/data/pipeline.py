"""A build from top to bottom: what is done to the rows, in order.

Here stands what each step's output is made of, and so is named by; how it is made stands in `steps`.

    read and check   file parts -> rows -> checked rows -> buckets of what they ask      rows stream, on Ray Data
    copies           a bucket holds all copies of a text: the first stays                a Ray task a bucket
    sample           the bottom k of a hash, over all buckets                            a Ray task a run of ranks
    near             records that nearly equal another, of any task                      a Ray task a band
    render           records under templates, into ranges of `order`                     a Ray task a run of records
    tokenize         the same, as tokens                                                 a Ray task a range
    export           each task's share of the mixture, its rejects                       a Ray task a task
    lexical          what letters alone tell of the held-out rows                        a Ray task a task
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
from collections import Counter
from collections.abc import Callable, Mapping

from kit19_ray.artifacts import manifest
from kit19_ray.artifacts.data_manifests import BuildOutput, Identity, TaskCounts, TaskEntry, TokenizerInfo
from kit19_ray.config.schema import Config
from kit19_ray.data import balance, export, mixture, ray_tasks, record_pool, shards
from kit19_ray.data.export import MixtureEntry
from kit19_ray.data.filters import near_duplicates
from kit19_ray.data.filters.near_duplicates import NearDuplicates, RecordFile
from kit19_ray.data.inputs import Inputs
from kit19_ray.data.ray_tasks import MIB
from kit19_ray.data.record_pool import SPLITS
from kit19_ray.data.rendering import FREE_USES, Rendering
from kit19_ray.data.steps import evaluation_index, lexical, near
from kit19_ray.data.steps import examples as example_steps
from kit19_ray.data.steps import records as record_steps
from kit19_ray.data.steps import tokens as token_steps
from kit19_ray.data.tokenize import Tokenizing
from kit19_ray.errors import DataError
from kit19_ray.io import storage
from kit19_ray.utils.console import say

VERSION = 5  # of what these steps write; raise it when equal inputs would give other bytes


class Build:
    """One build's steps, in order; needs a Ray connection."""

    def __init__(self, config: Config, inputs: Inputs, out: str) -> None:
        self._config, self._data, self._inputs, self._out = config, config.data, inputs, out
        self._balances = balance.of_tasks(config.data, inputs.tasks)
        self._sizes = {  # a cap is a share of the quota itself, so what is prepared for one is not enough for another
            name: quota if self._balances[name].caps else mixture.pool_size(quota)
            for name, quota in inputs.quotas.items()
        }

    def run(self) -> BuildOutput:
        """Builds everything but the card and the commit marker; what the manifest says of it."""
        records = self._records()
        removed = self._near(records)
        examples = self._examples(records, removed)
        info, tokenizer = self._tokenizer(self._entries(records, removed, examples))
        tokens = self.tokens(examples, info, tokenizer)
        entries = self._entries(records, removed, examples, tokens)
        tasks = self._export(entries)
        for name, figure in lexical.make(self._out, entries, self._inputs.tasks).items():
            tasks[name]["baseline"] = {
                "rows": figure.rows, "majority": figure.majority, "lexical": figure.lexical
            }  # fmt: skip
        packed = self._pack(entries, tasks, info)
        toolkit = export.export_toolkit(self._out, sorted(tasks), sum(t["examples"]["train"] for t in tasks.values()))
        return {**info, "tasks": tasks, "splits": shards.split_totals(packed, self._data.seq_len), "toolkit": toolkit}

    # -- what a task's records, examples and tokens depend on -----------------------------------------------------

    def _records(self) -> dict[str, str]:
        """Each task's records prefix, those that were not there made now: read, checked, without copies, sampled."""
        data, inputs = self._data, self._inputs
        evaluation = inputs.evaluation_hashes()

        def identity(name: str) -> Identity:
            return {
                "version": VERSION,
                "seed": self._config.seed,
                "task": inputs.tasks[name].model_dump(mode="json"),
                "files": inputs.hashes(name),
                "size": self._sizes[name],
                "classes": list(self._balances[name].classes),
                "validation": [data.validation, data.validation_fraction],
                "gates": data.gates.identity(),
                "evaluation": evaluation,
            }

        prefixes, missing = self._prefixes("records", identity)
        if missing:
            say(f"data: reading the sources of {len(missing)} tasks")
            index = evaluation_index.make(self._config.root, VERSION, inputs.evaluation, data.gates.contained)
            classes = {name: found.classes for name, found in self._balances.items()}
            record_steps.make(self._config, inputs, missing, self._sizes, classes, index)
        return prefixes

    def _near(self, records: Mapping[str, str]) -> dict[str, NearDuplicates]:
        """Per task, what leaves because another record is near."""
        nothing = near_duplicates.removed(near_duplicates.REMOVED.empty_table())
        threshold = self._data.gates.near_duplicates
        if threshold >= 1:
            return dict.fromkeys(records, nothing)
        say("data: looking for near duplicates")
        found = near.find([file for files in self._files(records).values() for file in files], threshold)
        return {name: found.get(name, nothing) for name in records}

    def _examples(self, records: Mapping[str, str], removed: Mapping[str, NearDuplicates]) -> dict[str, str]:
        """Each task's examples prefix, those that were not there made now."""
        data, seed = self._data, self._config.seed

        def identity(name: str) -> Identity:
            return {
                "version": VERSION,
                "records": _name(records[name]),
                "removed": removed[name].digest,
                "repeat": data.repeat,
                "free_uses": data.free_uses,
                "balance": self._balances[name].identity(),
            }

        prefixes, missing = self._prefixes("examples", identity)
        making = {
            name: Rendering(
                self._inputs.tasks[name],
                prefix,
                seed,
                data.repeat,
                removed[name],
                data.free_uses,
                self._balances[name],
                manifest.require(records[name], "data", "records")["classes"],
            )
            for name, prefix in missing.items()
        }
        wanted = {name: {"train": self._sizes[name], "validation": data.validation} for name in missing}
        example_steps.make(making, self._files(records), wanted)
        return prefixes

    def _tokenizer(self, entries: Mapping[str, MixtureEntry]) -> tuple[TokenizerInfo, str]:
        """Writes the tokenizer's files below the data prefix; its ids and size, and where its JSON is."""
        data, named = self._data, self._data.tokenizer.name
        if not named:
            say(f"data: training a byte-level BPE of {data.tokenizer.vocab_size} entries")
        every = [entries[name] for name in sorted(entries)]
        size = data.tokenizer.vocab_size
        info = token_steps.make_tokenizer(every, named, data.prompt, size, data.seq_len, self._out)
        return info, storage.join(self._out, "tokenizer")

    def tokens(self, examples: Mapping[str, str], info: TokenizerInfo, tokenizer: str) -> dict[str, str]:
        """Each task's tokens prefix, those that were not there made now."""
        data = self._data
        sha256 = manifest.digest(
            {f.path: hashlib.sha256(storage.read_bytes(storage.join(tokenizer, f.path))).hexdigest()
             for f in storage.list_files(tokenizer)}
        )  # fmt: skip

        def identity(name: str) -> Identity:
            return {
                "version": VERSION,
                "examples": _name(examples[name]),
                "tokenizer": sha256,
                "prompt": data.prompt,
                "seq_len": data.seq_len,
                "eos": info["eos_token_id"],
            }

        prefixes, missing = self._prefixes("tokens", identity)
        if missing:
            say(f"data: tokenizing {len(missing)} tasks")
        token_steps.make(missing, examples, Tokenizing(tokenizer, data.prompt, info["eos_token_id"], data.seq_len))
        return prefixes

    def _prefixes(self, kind: str, identity: Callable[[str], Identity]) -> tuple[dict[str, str], dict[str, str]]:
        """Each task's prefix, named by what it depends on; and those that are not finished, or lack a file."""
        root = storage.join(self._config.root, "tasks")
        prefixes = {
            name: storage.join(root, name, f"{kind}-{manifest.digest(identity(name))[:12]}")
            for name in self._inputs.tasks
        }
        return prefixes, {name: uri for name, uri in prefixes.items() if manifest.finished(uri, kind) is None}

    # -- the mixture ----------------------------------------------------------------------------------------------

    def _entries(
        self,
        records: Mapping[str, str],
        removed: Mapping[str, NearDuplicates],
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

    def _export(self, entries: Mapping[str, MixtureEntry]) -> dict[str, TaskEntry]:
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
        self, entries: Mapping[str, MixtureEntry], tasks: Mapping[str, TaskEntry], info: TokenizerInfo
    ) -> list[shards.ShardCounts]:
        counts = {split: sum(t["examples"][split] for t in tasks.values()) for split in SPLITS}
        numbers = {s: -(-counts[s] // self._data.examples_per_shard) for s in SPLITS if counts[s]}
        packing = shards.Packing(self._out, list(entries.values()), self._data.seq_len, info["pad_token_id"], numbers)
        runs = shards.runs(numbers, ray_tasks.num_cpus())
        items = [(f"{split} {first}", (split, first, end)) for split, first, end in runs]
        return [shard for found in ray_tasks.run("pack", shards.build, items, packing, 512 * MIB) for shard in found]

    def _task(self, name: str, entry: MixtureEntry, counts: TaskCounts) -> TaskEntry:
        """A task's entry of the manifest."""
        task, quota = self._inputs.tasks[name], entry.quotas["train"]
        made = manifest.require(entry.records, "data", "records")
        rendered = manifest.require(entry.examples, "data", "examples")
        dropped = Counter(made["dropped"]) + Counter(counts["dropped"])
        train = rendered["splits"]["train"]
        records, examples = train["records"], counts["examples"]["train"]
        # What the quota would have taken without the limit, and does not.
        withheld = min(quota, train["available"] + train["withheld"]) - min(quota, train["available"])
        dropped += Counter({FREE_USES: withheld})
        how = f"under {len(task.spec.templates)} templates" if self._data.repeat else "used once each"
        how += f", at most {self._data.free_uses} with an answer of its own words," if withheld else ""
        short = f"{records:,} training records {how} give {examples:,} of {quota:,} examples"
        balanced = self._balances[name]
        classes = balance.given(balanced, train["classes"], quota)
        return {
            **counts,
            "balance": balanced.mode,
            "classes": classes,
            "unbalanced": balance.short(balanced, classes),
            "source_classes": made["classes"],
            "baseline": None,
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


def _name(prefix: str) -> str:
    """The last part of a prefix: what it depends on, wherever the root is."""
    return prefix.rpartition("/")[2]
