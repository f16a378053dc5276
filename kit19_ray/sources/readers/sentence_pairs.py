"""Sentence pairs out of paraphrase groups: ParaKQC and StyleKQC.

Ten consecutive rows are one group of paraphrases; nothing in the files marks it. Two groups of one act and topic that
share many bigrams make a block, so that a pair of different meaning is no easier than it has to be: a threshold on the
letters two sentences share tells the labels apart as little as the file allows. Every sentence opens one pair, and half
of each group's are of each label:

    block 0          group 0            group 1
    positions        0 1 2 ... 9        0 1 2 ... 9
    0 2 4 6 8   ->   same, with an odd position of the group itself
    1 3 5 7 9   ->   different, with an even position of the other group, the one most like it that is free

Odd blocks swap the parities, so position (and with it StyleKQC's formality) says nothing about the label. No pair
occurs twice, in either order. Pairs never leave their block, so a split by block (`Raw.group`) shares no sentence.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from typing import BinaryIO

from pydantic import BaseModel, ConfigDict, Field

from kit19_ray.errors import SourceError
from kit19_ray.sources.readers.base import LocatedFile, Opener, Raw, Reject, open_uri
from kit19_ray.sources.readers.delimited import DelimitedOptions, open_table
from kit19_ray.sources.readers.table import Row, Table
from kit19_ray.sources.readers.text import normalise

GROUP = 10  # rows of one paraphrase group
WINDOW = 5000  # groups that are matched with one another; more than any of the files has
FORMAL = GROUP // 2  # rows of a StyleKQC group that come first and are formal
_DIGITS = frozenset("0123456789")


class PairOptions(BaseModel):
    """Options of `parakqc` and `stylekqc`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    strays: list[int] = Field(default_factory=list)
    """Lines of the published file whose sentence is none of its group; without effect on a file of another size."""


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


def _bigrams(text: str) -> frozenset[str]:
    letters = "".join(filter(str.isalnum, text))
    return frozenset(letters[i : i + 2] for i in range(len(letters) - 1))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Bigrams in common, as a share of those of either."""
    return len(one & other) / max(1, len(one | other))


def _kind(group: Group) -> tuple[str, str]:
    first = next((s for s in group if isinstance(s, Sentence)), None)
    return (first.act, first.topic) if first else ("", "")


def _blocks(groups: list[Group]) -> list[list[Group]]:
    """Blocks of two groups of one act and topic, the most alike first; what is left over joins its neighbour.

    Only the last block may have three groups, or one when there are no others.
    """
    grams = [frozenset().union(*(_bigrams(s.text) for s in g if isinstance(s, Sentence))) for g in groups]
    kinds: dict[tuple[str, str], list[int]] = {}
    for number, group in enumerate(groups):
        kinds.setdefault(_kind(group), []).append(number)
    blocks: list[list[int]] = []
    alone: list[int] = []
    for members in kinds.values():
        near = [(-jaccard(grams[i], grams[j]), i, j) for n, i in enumerate(members) for j in members[n + 1 :]]
        free = set(members)
        for _, i, j in sorted(near):
            if i in free and j in free:
                blocks.append([i, j])
                free -= {i, j}
        alone += free
    alone.sort()
    blocks += [alone[i : i + 2] for i in range(0, len(alone), 2)]
    if len(blocks) > 1 and len(blocks[-1]) == 1:
        blocks[-2:] = [blocks[-2] + blocks[-1]]
    return [[groups[number] for number in block] for block in sorted(blocks)]


def _partners(group: Group, other: Group, label: str, opens_same: int, shift: int) -> dict[int, Sentence | None]:
    """The partner of each of the group's sentences of that label, by position.

    For "same" the sentences of the other parity in turn, from `shift` on; for "different" those of the other group, the
    nearest pairs first. A sentence is taken twice only where there are too few, and never by an equal one of another
    group.
    """
    parity = opens_same if label == "same" else 1 - opens_same
    openers = [i for i in range(parity, len(group), 2) if isinstance(group[i], Sentence)]
    places = range(1 - parity, len(group), 2)
    found: dict[int, Sentence | None] = dict.fromkeys(openers)
    if label == "same":
        for i in openers:
            turns = (group[places[(shift + i // 2 + step) % len(places)]] for step in range(len(places)))
            found[i] = next((slot for slot in turns if isinstance(slot, Sentence)), None)
        return found
    candidates = [slot for place in places if place < len(other) and isinstance(slot := other[place], Sentence)]
    texts = {i: slot for i in openers if isinstance(slot := group[i], Sentence)}
    # Half of them look for their own style first, or the nearest would mostly be of it.
    near = sorted(
        (
            (slot.style == candidate.style) == bool((i // 2 + shift) % 2),
            -jaccard(_bigrams(slot.text), _bigrams(candidate.text)),
            i,
            place,
        )
        for i, slot in texts.items()
        for place, candidate in enumerate(candidates)
        if candidate.text != slot.text
    )
    taken: set[int] = set()
    for again in (False, True):
        for _, _, i, place in near:
            if found[i] is None and (again or place not in taken):
                found[i] = candidates[place]
                taken.add(place)
    return found


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
    groups = _groups(slots)
    first = 0
    while window := list(islice(groups, WINDOW)):
        made: list[Raw | Reject] = []
        blocks = _blocks(window)
        for number, block in enumerate(blocks, first):
            made += _block(block, number, f"{name}#{number}")
        first += len(blocks)
        yield from sorted(made, key=lambda row: row.line)


def _block(block: list[Group], number: int, name: str) -> Iterator[Raw | Reject]:
    opens_same = number % 2
    for place, group in enumerate(block):
        other = block[(place + 1) % len(block)] if len(block) > 1 else []
        partners = {
            label: _partners(group, other, label, opens_same, number + place) for label in ("same", "different")
        }
        for i, slot in enumerate(group):
            if isinstance(slot, Reject):
                yield slot
                continue
            label = "same" if i % 2 == opens_same else "different"
            second = partners[label][i]
            if second is None:
                yield Reject.of(slot.line, "no_partner", slot.text)
            else:
                yield _pair(slot, second, label, name)


def _without_strays(slots: Iterator[Slot], options: PairOptions, file: LocatedFile) -> Iterator[Slot]:
    """The published file's strays as rejects, in their places."""
    strays = set(options.strays) if file.size == file.bytes_expected else set()
    for slot in slots:
        is_stray = isinstance(slot, Sentence) and slot.line in strays
        yield Reject.of(slot.line, "stray", slot.text) if is_stray and isinstance(slot, Sentence) else slot


def read_parakqc(
    options: PairOptions, file: LocatedFile, stream: BinaryIO, opener: Opener | None = None
) -> Iterator[Raw | Reject]:
    """sentence1, sentence2, label (same or different), act, topic. Columns of the file: topic, act, sentence."""
    table = open_table(DelimitedOptions(header=["topic", "act", "sentence"]), file, stream)
    slots = (r if isinstance(r, Reject) else _slot(r.line, r.cells[2], r.cells[1], r.cells[0]) for r in table)
    return make_pairs(_without_strays(slots, options, file), file.path)


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
    options: PairOptions, file: LocatedFile, stream: BinaryIO, opener: Opener | None = None
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
        yield from make_pairs(_without_strays(_zipped(acts, topics), options, file), file.path)
