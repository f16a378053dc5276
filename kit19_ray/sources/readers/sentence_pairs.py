"""Sentence pairs out of paraphrase groups: ParaKQC and StyleKQC.

Ten consecutive rows are one group of paraphrases; nothing in the files marks it. Two consecutive groups, which nearly
always share act and topic, make a block. Every sentence opens one pair, and half of each group's are of each label:

    block 0          group 0            group 1
    positions        0 1 2 ... 9        0 1 2 ... 9
    0 2 4 6 8   ->   same, with an odd position of the group itself
    1 3 5 7 9   ->   different, with an even position of the other group

Odd blocks swap the parities, so position (and with it StyleKQC's formality) says nothing about the label. No pair
occurs twice, in either order. Pairs never leave their block, so a split by block (`Raw.group`) shares no sentence.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import BinaryIO

from kit19_ray.errors import SourceError
from kit19_ray.sources.readers.base import LocatedFile, NoOptions, Opener, Raw, Reject, open_uri
from kit19_ray.sources.readers.delimited import DelimitedOptions, open_table
from kit19_ray.sources.readers.table import Row, Table
from kit19_ray.sources.readers.text import normalise

GROUP = 10  # rows of one paraphrase group
FORMAL = GROUP // 2  # rows of a StyleKQC group that come first and are formal
_DIGITS = frozenset("0123456789")


@dataclass(frozen=True, slots=True)
class Sentence:
    """One row of a paraphrase file."""

    line: int
    text: str
    act: str
    topic: str
    style: str = ""


Slot = Sentence | Reject
Group = list[Slot]


def _slot(line: int, sentence: str, act: str, topic: str) -> Slot:
    text = normalise(sentence)
    if not text:
        return Reject(line, "empty_field", f"{topic} | {act} | ")
    act, topic = act.strip(), topic.strip()
    if act not in _DIGITS or topic not in _DIGITS:
        return Reject.of(line, "unknown_label", f"{topic} | {act} | {text}")
    return Sentence(line, text, act, topic)


def _groups(slots: Iterator[Slot]) -> Iterator[Group]:
    group: Group = []
    for slot in slots:
        group.append(slot)
        if len(group) == GROUP:
            yield group
            group = []
    if group:
        # Which rows are missing cannot be known, so what the others mean cannot be known either.
        yield [s if isinstance(s, Reject) else Reject.of(s.line, "incomplete_group", s.text) for s in group]


def _blocks(groups: Iterator[Group]) -> Iterator[list[Group]]:
    """Blocks of two groups; the last has three when their number is odd."""
    held: list[Group] = []
    for group in groups:
        if len(held) == 4:
            yield held[:2]
            held = held[2:]
        held.append(group)
    if len(held) == 4:
        yield held[:2]
        held = held[2:]
    if held:
        yield held


def _partner(first: Sentence, group: Group, parity: int, shift: int, label: str) -> Sentence | None:
    """The sentence at a position of `parity`, `shift` steps on; the next one when that is a reject or the same text."""
    places = range(parity, len(group), 2)
    for step in range(len(places)):
        slot = group[places[(shift + step) % len(places)]]
        if isinstance(slot, Sentence) and (label == "same" or slot.text != first.text):
            return slot
    return None


def _pair(first: Sentence, second: Sentence, label: str, block: str) -> Raw:
    fields = {"sentence1": first.text, "sentence2": second.text, "label": label}
    fields |= {"act": first.act, "topic": first.topic}
    if first.style:
        fields |= {"style1": first.style, "style2": second.style}
    return Raw(first.line, fields, block)


def make_pairs(slots: Iterator[Slot], name: str) -> Iterator[Raw | Reject]:
    """One pair or reject for each row, in the order of the rows; see the module's text.

    Args:
        name: the file's name, the first part of every `Raw.group`.
    """
    for number, block in enumerate(_blocks(_groups(slots))):
        opens_same = number % 2
        for place, group in enumerate(block):
            other = block[(place + 1) % len(block)] if len(block) > 1 else []
            for i, slot in enumerate(group):
                if isinstance(slot, Reject):
                    yield slot
                    continue
                label = "same" if i % 2 == opens_same else "different"
                within, parity = (group, 1 - opens_same) if label == "same" else (other, opens_same)
                second = _partner(slot, within, parity, i // 2 + number + place, label)
                if second is None:
                    yield Reject.of(slot.line, "no_partner", slot.text)
                else:
                    yield _pair(slot, second, label, f"{name}#{number}")


def read_parakqc(
    options: NoOptions, file: LocatedFile, stream: BinaryIO, opener: Opener | None = None
) -> Iterator[Raw | Reject]:
    """sentence1, sentence2, label (same or different), act, topic. Columns of the file: topic, act, sentence."""
    table = open_table(DelimitedOptions(header=["topic", "act", "sentence"]), file, stream)
    slots = (r if isinstance(r, Reject) else _slot(r.line, r.cells[2], r.cells[1], r.cells[0]) for r in table)
    return make_pairs(slots, file.path)


def _zipped(acts: Table, topics: Table) -> Iterator[Slot]:
    act, act_text = acts.index("act"), acts.index("sentence")
    topic, topic_text = topics.index("topic"), topics.index("sentence")
    last = 1
    for i, (a, t) in enumerate(zip_longest(acts, topics)):
        if isinstance(a, Reject):
            yield a
        elif not isinstance(a, Row):
            yield Reject.of(last + 1, "misaligned", t.row if isinstance(t, Reject) else " | ".join(t.cells))
        elif not isinstance(t, Row) or normalise(a.cells[act_text]) != normalise(t.cells[topic_text]):
            yield Reject.of(a.line, "misaligned", " | ".join(a.cells))
        else:
            slot = _slot(a.line, a.cells[act_text], a.cells[act], t.cells[topic])
            style = "formal" if i % GROUP < FORMAL else "informal"
            yield replace(slot, style=style) if isinstance(slot, Sentence) else slot
        last = a.line if a is not None else last + 1


def read_stylekqc(
    options: NoOptions, file: LocatedFile, stream: BinaryIO, opener: Opener | None = None
) -> Iterator[Raw | Reject]:
    """sentence1, sentence2, label (same or different), act, topic, style1, style2 (formal or informal).

    `file` is an `act/` file; its companion, the `topic/` file of the same name, is read in step.

    Raises:
        SourceError: the companion is not given.
    """
    if len(file.companions) != 1:
        raise SourceError(f"{file.path}: stylekqc needs the topic/ file of the same name beside it, as `companion`")
    (companion,) = file.companions
    with closing(open_uri(companion.uri, opener)) as beside:
        acts = open_table(DelimitedOptions(), file, stream)
        topics = open_table(DelimitedOptions(), companion, beside)
        yield from make_pairs(_zipped(acts, topics), file.path)
