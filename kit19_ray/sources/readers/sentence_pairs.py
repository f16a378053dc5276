"""Sentence pairs out of paraphrase groups: ParaKQC and StyleKQC.

Ten consecutive rows are one group of paraphrases; nothing in the files marks it. Groups of one act and topic that share
many bigrams make a block of four, and within it pairs of different meaning are those most alike, pairs of the same
meaning those least alike: a threshold on the letters two sentences share tells the labels apart as little as may be.
Every sentence opens one pair, and half of each group's are of each label:

    block 0          group 0            groups 1, 2, 3
    positions        0 1 2 ... 9        0 1 2 ... 9
    0 2 4 6 8   ->   same, with an odd position of the group itself
    1 3 5 7 9   ->   different, with an even position of one of the others

Odd blocks swap the parities, so position (and with it StyleKQC's formality) says nothing about the label. No pair
occurs twice, in either order. Pairs never leave their block, so a split by block (`Raw.group`) shares no sentence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from typing import BinaryIO

from pydantic import BaseModel, ConfigDict, Field

from kit19_ray.errors import SourceError
from kit19_ray.sources.readers.base import LocatedFile, Opener, RejectedRow, SourceRow, open_uri
from kit19_ray.sources.readers.delimited import DelimitedOptions, open_table
from kit19_ray.sources.readers.table import Table, TableRow
from kit19_ray.sources.readers.text import normalise

GROUP = 10  # rows of one paraphrase group
# Groups whose sentences meet. With two, one threshold on shared bigrams tells 70 % of ParaKQC's pairs and 82 % of
# StyleKQC's apart, with four 57 % and 79 %; eight gain StyleKQC two points and make the split by block coarse.
BLOCK = 4
WINDOW = 5000  # groups that are matched with one another; more than any of the files has
_USES = 2  # times a sentence of a group comes second in its pairs of one label
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


Slot = Sentence | RejectedRow
Group = list[Slot]


def _slot(line: int, sentence: str, act: str, topic: str) -> Slot:
    text = normalise(sentence)
    if not text:
        return RejectedRow(line, "empty_field", f"{topic} | {act} | ")
    act, topic = act.strip(), topic.strip()
    if act not in _DIGITS or topic not in _DIGITS:
        return RejectedRow.of(line, "unknown_label", f"{topic} | {act} | {text}")
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
        yield [s if isinstance(s, RejectedRow) else RejectedRow.of(s.line, "incomplete_group", s.text) for s in group]


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
    """Blocks of groups of one act and topic, the most alike together; what has no like joins its neighbour.

    Only where a number of groups leaves one over are there blocks of more than `BLOCK`, and of one when there are no
    others.
    """
    grams = [frozenset().union(*(_bigrams(s.text) for s in g if isinstance(s, Sentence))) for g in groups]
    kinds: dict[tuple[str, str], list[int]] = {}
    for number, group in enumerate(groups):
        kinds.setdefault(_kind(group), []).append(number)
    blocks: list[list[int]] = []
    alone: list[int] = []
    for members in kinds.values():
        near = sorted((-jaccard(grams[i], grams[j]), i, j) for n, i in enumerate(members) for j in members[n + 1 :])
        block = {i: [i] for i in members}
        for _, i, j in near:
            if block[i] is not block[j] and len(block[i]) + len(block[j]) <= BLOCK:
                _join(block, i, j)
        for _, i, j in near:
            if block[i] is not block[j] and 1 in (len(block[i]), len(block[j])):
                _join(block, i, j)
        for found in {id(found): found for found in block.values()}.values():
            if len(found) > 1:
                blocks.append(sorted(found))
            else:
                alone += found
    alone.sort()
    blocks += [alone[i : i + 2] for i in range(0, len(alone), 2)]
    if len(blocks) > 1 and len(blocks[-1]) == 1:
        blocks[-2:] = [blocks[-2] + blocks[-1]]
    return [[groups[number] for number in block] for block in sorted(blocks)]


def _join(block: dict[int, list[int]], i: int, j: int) -> None:
    """Makes the blocks of two groups one."""
    joined = block[i] + block[j]
    block.update(dict.fromkeys(joined, joined))


def _tells_all(one: str, other: str, label: str) -> bool:
    """Whether two sentences are one in letters, or for "different" one holds the other: some groups say the same."""
    one, other = ("".join(filter(str.isalnum, text)) for text in (one, other))
    return one == other if label == "same" else one in other or other in one


def _partners(
    openers: dict[int, Sentence], candidates: list[Sentence], label: str, shift: int
) -> dict[int, Sentence | None]:
    """The partner of each sentence that opens a pair of this label, by position: for "same" the least alike, for
    "different" the most alike. Never one that says it all (`_tells_all`), and one of them seldom often (`_USES`)."""
    grams = [_bigrams(candidate.text) for candidate in candidates]
    likeness = 1 if label == "same" else -1
    # Half of them look for their own style first: else the label could be told by whether the styles are one.
    order = sorted(
        (
            (slot.style == candidate.style) == bool((i // 2 + shift) % 2),
            likeness * jaccard(_bigrams(slot.text), grams[place]),
            i,
            place,
        )
        for i, slot in openers.items()
        for place, candidate in enumerate(candidates)
        if not _tells_all(slot.text, candidate.text, label)
    )
    found: dict[int, Sentence | None] = dict.fromkeys(openers)
    uses: Counter[int] = Counter()
    for most in (_USES, len(openers)):
        for _, _, i, place in order:
            if found[i] is None and uses[place] < most:
                found[i] = candidates[place]
                uses[place] += 1
    return found


def _pair(first: Sentence, second: Sentence, label: str, block: str) -> SourceRow:
    fields = {"sentence1": first.text, "sentence2": second.text, "label": label}
    fields |= {"act": first.act, "topic": first.topic}
    if first.style:
        fields |= {"style1": first.style, "style2": second.style}
    return SourceRow(first.line, fields, block)


def make_pairs(slots: Iterator[Slot], name: str) -> Iterator[SourceRow | RejectedRow]:
    """One pair or reject for each row, in the order of the rows; see the module's text.

    Args:
        name: the file's name, the first part of every `Raw.group`.
    """
    groups = _groups(slots)
    first = 0
    while window := list(islice(groups, WINDOW)):
        made: list[SourceRow | RejectedRow] = []
        blocks = _blocks(window)
        for number, block in enumerate(blocks, first):
            made += _block(block, number, f"{name}#{number}")
        first += len(blocks)
        yield from sorted(made, key=lambda row: row.line)


def _block(block: list[Group], number: int, name: str) -> Iterator[SourceRow | RejectedRow]:
    opens_same = number % 2
    for nth, group in enumerate(block):
        others = [other for place, other in enumerate(block) if place != nth]
        partners: dict[str, dict[int, Sentence | None]] = {}
        for label, parity in (("same", opens_same), ("different", 1 - opens_same)):
            openers = {i: slot for i, slot in enumerate(group) if i % 2 == parity and isinstance(slot, Sentence)}
            second = [group] if label == "same" else others
            candidates = [slot for g in second for slot in g[1 - parity :: 2] if isinstance(slot, Sentence)]
            partners[label] = _partners(openers, candidates, label, number + nth)
        for i, slot in enumerate(group):
            if isinstance(slot, RejectedRow):
                yield slot
                continue
            label = "same" if i % 2 == opens_same else "different"
            partner = partners[label][i]
            if partner is None:
                yield RejectedRow.of(slot.line, "no_partner", slot.text)
            else:
                yield _pair(slot, partner, label, name)


def _without_strays(slots: Iterator[Slot], options: PairOptions, file: LocatedFile) -> Iterator[Slot]:
    """The published file's strays as rejects, in their places."""
    strays = set(options.strays) if file.size == file.bytes_expected else set()
    for slot in slots:
        is_stray = isinstance(slot, Sentence) and slot.line in strays
        yield RejectedRow.of(slot.line, "stray", slot.text) if is_stray and isinstance(slot, Sentence) else slot


def read_parakqc(
    options: PairOptions, file: LocatedFile, stream: BinaryIO, opener: Opener | None = None
) -> Iterator[SourceRow | RejectedRow]:
    """sentence1, sentence2, label (same or different), act, topic. Columns of the file: topic, act, sentence."""
    table = open_table(DelimitedOptions(header=["topic", "act", "sentence"]), file, stream)
    slots = (r if isinstance(r, RejectedRow) else _slot(r.line, r.cells[2], r.cells[1], r.cells[0]) for r in table)
    return make_pairs(_without_strays(slots, options, file), file.path)


def _zipped(acts: Table, topics: Table) -> Iterator[Slot]:
    act, act_text = acts.index("act"), acts.index("sentence")
    topic, topic_text = topics.index("topic"), topics.index("sentence")
    last = 1
    for i, (a, t) in enumerate(zip_longest(acts, topics)):
        if isinstance(a, RejectedRow):
            yield a
        elif not isinstance(a, TableRow):
            yield RejectedRow.of(last + 1, "misaligned", t.row if isinstance(t, RejectedRow) else " | ".join(t.cells))
        elif not isinstance(t, TableRow) or normalise(a.cells[act_text]) != normalise(t.cells[topic_text]):
            yield RejectedRow.of(a.line, "misaligned", " | ".join(a.cells))
        else:
            slot = _slot(a.line, a.cells[act_text], a.cells[act], t.cells[topic])
            style = "formal" if i % GROUP < FORMAL else "informal"
            yield replace(slot, style=style) if isinstance(slot, Sentence) else slot
        last = a.line if a is not None else last + 1


def read_stylekqc(
    options: PairOptions, file: LocatedFile, stream: BinaryIO, opener: Opener | None = None
) -> Iterator[SourceRow | RejectedRow]:
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
