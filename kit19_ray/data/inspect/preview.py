"""`kit19 data --preview N`: rows as a build would draw and render them, straight from the sources, without Ray.

The steps are the build's own (`steps`), over the head of each source, in this process and a folder that is thrown away.
The rows are the first of the hash order, so a build with the same config holds them too, unless one drops out that only
shows beside the rest (a near duplicate, an evaluation item, a copy further down) or the task was read from its head.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, TypedDict, cast, final

from kit19_ray.artifacts import manifest
from kit19_ray.artifacts.schemas import EXAMPLE_SCHEMA, ExampleRow
from kit19_ray.config.schema import Config
from kit19_ray.data import balance, checked_rows, hub_datasets, ray_tasks, record_pool, records, stage
from kit19_ray.data.checked_rows import Reading, Receipt
from kit19_ray.data.encoding import Encoder
from kit19_ray.data.filters import near_duplicates
from kit19_ray.data.inputs import Inputs, collect
from kit19_ray.data.rendering import Rendering, part_path
from kit19_ray.data.rendering import read as read_examples
from kit19_ray.data.source_parts import FilePart
from kit19_ray.data.steps import examples as example_steps
from kit19_ray.data.steps import records as record_steps
from kit19_ray.io import storage
from kit19_ray.lm.prompts import check_prompt, load_prompt, prompt_format, shown
from kit19_ray.lm.text_encoder import TextEncoder
from kit19_ray.utils.console import say, stdout
from kit19_ray.utils.hashing import hash64

if TYPE_CHECKING:
    from rich.console import Console
    from transformers import PreTrainedTokenizerBase

HEAD = 10_000  # rows read of a task at most; the order of a longer source is then that of its head
_HASHED = 1 << 30  # bytes of sources that are hashed to find the build of this config, about a second
_END = "<end of text>"  # stands for the tokenizer's own, which is learned too
_OPEN, _CLOSE = "⟦", "⟧"  # round what is learned, where there is no colour


class _SplitRow(ExampleRow):
    """An example with what is masked and what is learned of it, as text."""

    masked: str
    learned: str


@final
class CountedRow(_SplitRow):
    """The same, with how many characters each has: there is no tokenizer."""

    num_masked: int
    num_learned: int
    cut: bool


@final
class TokenizedRow(_SplitRow):
    """The same, with its tokens and how many there are of each."""

    num_masked: int
    num_learned: int
    cut: bool
    input_ids: list[int]
    labels: list[int]


@final
class LeftOutRow(_SplitRow):
    """An example that is in no shard, and why."""

    left_out: str


PreviewRow = CountedRow | TokenizedRow | LeftOutRow


class Preview(TypedDict):
    """Rows, and what their tokens were counted with; `heads` has how many source rows were looked at, by task."""

    tokenizer: str | None
    seq_len: int
    prompt: str
    heads: dict[str, int]
    rows: list[PreviewRow]


def preview(config: Config, num: int) -> Preview:
    """`num` rows, JSON-ready, and what their tokens were counted with.

    One row of each task in turn, the tasks in the order of a hash, so that few rows still come from many tasks.

    Raises:
        SourceError, TaskError, ConfigError, DataError: as the build would.
    """
    check_prompt(config.data.prompt)
    hub_datasets.fetch(config)
    inputs = collect(config, hashed=False)
    for name, reason in inputs.skipped.items():
        say(f"data: {name} left out: {reason}")
    order = sorted(inputs.tasks, key=lambda name: hash64(config.seed, "preview", name))
    turns = -(-num // len(order))
    drawn: list[list[ExampleRow]] = []
    heads: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="kit19-preview-") as folder, ray_tasks.in_process():
        for name in order[:num]:
            found = _draw(config, inputs, name, turns, storage.join(storage.normalise(folder), name))
            drawn.append(found.rows)
            if found.is_head:
                heads[name] = found.read
                say(f"data: {name}: drawn from the first {found.read:,} rows of the source only; "
                    "a build draws from all of them")  # fmt: skip
    in_turn = [rows[turn] for turn in range(turns) for rows in drawn if turn < len(rows)]
    tokenizer, name = _tokenizer(config, inputs)
    say(f"data: tokens are those of {name}" if tokenizer else f"data: counts are characters: {name}")
    return {
        "tokenizer": name if tokenizer else None,
        "seq_len": config.data.seq_len,
        "prompt": config.data.prompt,
        "heads": heads,
        "rows": list(_encoded(config, in_turn[:num], tokenizer)),
    }


@dataclass(frozen=True)
class _Drawn:
    """A task's first training examples, and how many rows they were drawn from: all of them, or the head."""

    rows: list[ExampleRow]
    read: int
    is_head: bool


def _draw(config: Config, inputs: Inputs, name: str, num: int, out: str) -> _Drawn:
    """The first `num` training examples of a task, drawn below the prefix `out`."""
    task, quota = inputs.tasks[name], inputs.quotas[name]
    # What is near another shows only beside all others, and nothing is held out.
    gates = config.data.gates.model_copy(update={"near_duplicates": 1.0})
    config = config.model_copy(update={"data": config.data.model_copy(update={"gates": gates, "validation": 0})})
    how = balance.of_tasks(config.data, inputs.tasks)[name]
    size = quota if how.caps else min(num, quota)  # a cap is a share of the quota itself
    parts = [FilePart(file, 0, file.size, 0, 0, "") for file in inputs.files[name]]
    # A head fits into one bucket, however large its files are.
    reading = replace(record_steps.reading(config, task, parts, out), num_buckets=1)
    receipt, is_head = _check_head(reading)
    if not receipt.records:
        return _Drawn([], receipt.rows, is_head)
    record_steps.sample(config, [reading], {name: receipt}, {name: out}, {name: size}, {name: how.classes})
    nothing = near_duplicates.removed(near_duplicates.REMOVED.empty_table())
    classes = manifest.require(out, "data", "records")["classes"]
    examples, data = storage.join(out, "examples"), config.data
    rendering = Rendering(task, examples, config.seed, data.repeat, nothing, data.free_uses, how, classes)
    wanted = {"train": size, "validation": 0}
    example_steps.make({name: rendering}, {name: record_pool.files(out, task)}, {name: wanted})
    rows: list[Any] = []
    for number in range(manifest.require(examples, "data", "examples")["splits"]["train"]["parts"]):
        for batch in read_examples(storage.join(examples, part_path("train", number)), quota=min(num, quota)):
            rows += batch.to_pylist()
    rows.sort(key=lambda row: row["rank"])
    made = [cast("ExampleRow", {key: row[key] for key in EXAMPLE_SCHEMA.names}) for row in rows]
    return _Drawn(made, receipt.rows, is_head)


def _check_head(reading: Reading) -> tuple[Receipt, bool]:
    """Reads, checks and writes the first rows of a task's files; whether there are more of them."""
    receipt, is_head = Receipt(), False
    task, checkers = reading.task, {reading.task.name: reading.checker}
    targets = {task.name: (reading.uri, reading.num_buckets)}
    for number, part in enumerate(reading.parts):
        rows = task.source.read(part.file)
        for table in records.tables(task, number, part.file.path, islice(rows, HEAD - receipt.rows)):
            written = checked_rows.write(checked_rows.check(table, checkers, None), targets)
            for row in written.to_pylist():
                receipt.add(row)
        if receipt.rows >= HEAD and next(rows, None) is not None:
            is_head = True
            break
    receipt.files.sort()
    return receipt, is_head


def _tokenizer(config: Config, inputs: Inputs) -> tuple[PreTrainedTokenizerBase | None, str]:
    """What the rows are tokenized with and its name; or None and why there is none."""
    named = config.data.tokenizer.name
    if named:
        from kit19_ray.data import tokenizer

        return tokenizer.published(named), named
    hint = "data.tokenizer.name=<prefix>/tokenizer names one"
    size = sum(f.size for files in inputs.files.values() for f in files)
    if size > _HASHED:
        return None, f"the sources have {size / 2**30:.0f} GiB, so no finished build was looked for; {hint}"
    uri = stage.uri(config)
    built = manifest.read(uri)
    if built is None:
        return None, f"the BPE is trained by a build, and this config has none; {hint}"
    from kit19_ray.lm.pretrained import load_tokenizer

    return load_tokenizer(storage.join(uri, "tokenizer")), uri


def _encoded(config: Config, rows: list[ExampleRow], tokenizer: PreTrainedTokenizerBase | None) -> Iterator[PreviewRow]:
    """The rows with the text that is masked, the text that is learned, and how many tokens or characters each has."""
    if tokenizer is None:
        wrapper = prompt_format(config.data.prompt)
        for row in rows:
            asked = wrapper.render(row["instruction"], row["input"])
            yield {
                **row,
                "masked": asked,
                "learned": row["output"] + _END,
                "num_masked": len(asked),
                "num_learned": len(row["output"]) + 1,
                "cut": False,
            }
        return
    prompt = load_prompt(config.data.prompt, tokenizer)
    encoder = Encoder(TextEncoder(tokenizer), prompt, int(tokenizer.eos_token_id), config.data.seq_len)
    for row, (tokens, cut) in zip(rows, encoder.encode(rows), strict=True):
        if tokens is None:
            asked = shown(prompt, prompt.render(row["instruction"], row["input"]))
            yield {**row, "masked": asked, "learned": row["output"], "left_out": "too_long"}
            continue
        ids = tokens.input_ids.tolist()
        masked, learned = ids[: tokens.num_prompt], ids[tokens.num_prompt :]
        yield {
            **row,
            "masked": str(tokenizer.decode(masked, skip_special_tokens=False)),
            "learned": str(tokenizer.decode(learned, skip_special_tokens=False)),
            "num_masked": len(ids) - tokens.num_learned,
            "num_learned": tokens.num_learned,
            "cut": cut,
            "input_ids": ids,
            "labels": tokens.labels().tolist(),
        }


def show(found: Preview) -> None:
    """Prints the rows to stdout, what is learned in green; in brackets where there is no colour."""
    console = stdout()
    coloured = console.color_system is not None and not console.no_color
    legend = "green: learned, dim: masked" if coloured else f"{_OPEN}learned{_CLOSE}, all else is masked"
    console.print(f"{legend}; prompt format {found['prompt']}, rows of {found['seq_len']:,} tokens\n")
    unit = "tokens" if found["tokenizer"] else "characters"
    for number, row in enumerate(found["rows"], 1):
        _show_row(console, f"{number}/{len(found['rows'])}", row, unit, coloured)


def _show_row(console: Console, place: str, row: PreviewRow, unit: str, coloured: bool) -> None:
    from rich.text import Text

    if "left_out" in row:
        counts = f"left out: prompt and answer have too many {unit}"
    else:
        total = row["num_masked"] + row["num_learned"]
        cut = ", input cut" if row["cut"] else ""
        counts = f"{row['num_masked']:,} masked + {row['num_learned']:,} learned = {total:,} {unit}{cut}"
    head = f"[{place}] {row['task']}, {row['category']}: {row['template']} ({row['kind']}), {counts}"
    console.print(Text(head, "bold"))
    console.print(Text(f"{row['id']} from {row['source']}/{row['source_id']}", "dim"))
    learned = row["learned"] if coloured else f"{_OPEN}{row['learned']}{_CLOSE}"
    console.print(Text.assemble((row["masked"], "dim"), (learned, "green")))
    console.print()
