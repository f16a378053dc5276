"""What flows between the stages, and its conventions, said once.

    Example    one instruction with its answer               parquet, `examples/`
    PackedRow  several tokenized examples in seq_len tokens   Arrow IPC, `train/`, `validation/`

A packed row of two examples, seq_len 10 (p prompt, o output, e end of text, . padding):

    input_ids      p  p  o  e  p  o  o  e  .  .
    labels        -1 -1  o  e -1  o  o  e -1 -1      (-1 stands for -100 here)
    position_ids   0  1  2  3  0  1  2  3  0  1

Labels stand at the token they name; THE MODEL SHIFTS. Every example opens with a prompt token, whose label is -100, so
the shift never asks one example's last token for the next example's first. Positions that restart are what keeps
examples from attending to one another, and the padding is one more such run.
"""

from __future__ import annotations

from typing import TypedDict

import pyarrow as pa

IGNORE = -100  # the label of a token that is not learned
TEXT = "text"  # the kind of an example that is no question: its output is learned from the first token on

EXAMPLE_SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # stable: hash of task, record and repeat
        ("task", pa.string()),
        ("category", pa.string()),
        ("source", pa.string()),  # source id
        ("source_id", pa.string()),  # file:line in the source
        ("licence", pa.string()),
        ("split", pa.string()),  # train or validation
        ("template", pa.string()),
        ("kind", pa.string()),  # closed, open, or text: the output is learned whole, there is no prompt
        ("instruction", pa.string()),
        ("input", pa.string()),
        ("output", pa.string()),
        ("messages", pa.string()),  # JSON of the turns of a longer conversation, else null; `output` is the last answer
        ("label", pa.int32()),  # index of the gold candidate; -1 for a generated answer
        ("candidates", pa.list_(pa.string())),  # the output as each label would have it
        ("answer", pa.string()),  # the answer alone, without its phrasing; null where the task does not say
        ("answer_type", pa.string()),  # choice, number, phrase, set, text or code: how answers compare; null likewise
        ("order", pa.int64()),  # 63-bit hash of the id: files are sorted by it, and a range of it makes a shard
        ("num_tokens", pa.int32()),  # of prompt, answer and end of text; 0: too many, the example is in no shard
    ]
)


class ExampleTexts(TypedDict):
    """What of an example is tokenized, by the columns of `EXAMPLE_SCHEMA`."""

    kind: str
    instruction: str
    input: str
    output: str
    messages: str | None


class ExampleRow(ExampleTexts):
    """An example as a row of `EXAMPLE_SCHEMA`, before its tokens are counted."""

    id: str
    task: str
    category: str
    source: str
    source_id: str
    licence: str
    split: str
    template: str
    order: int
    label: int
    candidates: list[str]
    answer: str | None
    answer_type: str | None


def packed_schema(seq_len: int) -> pa.Schema:
    """The columns of a shard; `num_labels` counts the labels that are learned, so a loss can be normalised unread."""
    row = pa.list_(pa.int32(), seq_len)
    return pa.schema([("input_ids", row), ("labels", row), ("position_ids", row), ("num_labels", pa.int32())])
