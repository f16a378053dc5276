"""Which log-likelihoods share work: requests into token trees, trees into padded batches. No torch here.

The requests (context, continuation) of one context make one tree. The context is computed once, and so is every prefix
that continuations have in common. For context `c d` with the continuations `x y` and `x z`:

    tokens      c  d  x        a continuation's last token is only asked for, never read
    positions   0  1  2
    parent      .  0  1        each token attends to its ancestors and itself
    targets     d -> x,  x -> y,  x -> z
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Request = tuple[Sequence[int], Sequence[int]]
"""Context ids and continuation ids, both non-empty."""

IntArray = npt.NDArray[np.int64]
# A mask has length^2 cells a row, so it outgrows the tokens of a batch long before memory for the tokens is short.
_MAX_MASK = 1 << 27  # cells of a batch's attention mask
_MAX_LOGITS = 1 << 27  # cells of a batch's logits: 512 MiB of float32


@dataclass
class Tree:
    """The requests of one context."""

    tokens: list[int]
    """The context, then the continuations' tokens that are read."""
    context: int
    """Tokens of the context."""
    parents: list[int] = field(default_factory=list)
    """Of each token after the context, the place of the one before it."""
    targets: list[tuple[int, int, int]] = field(default_factory=list)
    """(request, place, token): the log-probability of `token` after the token at `place` counts for the request."""

    @property
    def is_chain(self) -> bool:
        """Whether it is one plain sequence."""
        return all(parent == self.context + i - 1 for i, parent in enumerate(self.parents))

    @property
    def logit_columns(self) -> int:
        """Places from the first one that is asked to the end."""
        return len(self.tokens) - self.context + 1


def truncate(request: Request, max_length: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The request with its context cut from the left until the model can read it, as lm-evaluation-harness cuts it.

    The last token is not read, so `max_length + 1` tokens fit.

    Raises:
        ValueError: context or continuation is empty, or the continuation alone is too long.
    """
    context, continuation = request
    if not context or not continuation:
        raise ValueError("a log-likelihood needs a context and a continuation of at least one token each")
    if len(continuation) > max_length:
        raise ValueError(f"a continuation of {len(continuation)} tokens, the model reads at most {max_length}")
    return tuple(context[-(max_length + 1 - len(continuation)) :]), tuple(continuation)


def build(requests: Sequence[Request], max_length: int, max_tokens: int, share: bool = True) -> list[Tree]:
    """Every request in exactly one tree; the longest trees first.

    Args:
        max_length: tokens the model can read.
        max_tokens: a context's requests are spread over several trees rather than make one longer than this.
        share: False makes one chain a request.
    """
    trees: list[Tree] = []
    # By the tokens of the CUT context: two contexts that differ only in what is cut off share a tree, as they share
    # every number the model gives.
    latest: dict[tuple[int, ...], tuple[Tree, dict[tuple[int, int], int]]] = {}
    for number, request in enumerate(requests):
        context, continuation = truncate(request, max_length)
        held = latest.get(context) if share else None
        # The bound counts the continuation as if it shared nothing, which can only spread a context over more trees
        # than need be.
        if held is None or len(held[0].tokens) + len(continuation) - 1 > max_tokens:
            # The full tree stays in `trees`; only the newest one of a context still grows.
            held = Tree(list(context), len(context)), {}
            trees.append(held[0])
            latest[context] = held
        _grow(*held, number, continuation)
    return sorted(trees, key=lambda tree: (-len(tree.tokens), -tree.logit_columns))


def _grow(tree: Tree, children: dict[tuple[int, int], int], number: int, continuation: tuple[int, ...]) -> None:
    # Logits after the context's last token are what every continuation begins with.
    place = tree.context - 1
    for i, token in enumerate(continuation):
        # Asked at the PARENT of the token: logits at a place say what comes after it.
        tree.targets.append((number, place, token))
        if i == len(continuation) - 1:
            # The last token is never read by anything, so it gets no place: one token less a continuation, which for
            # choices of one token each leaves nothing but the context.
            return
        child = children.get((place, token))
        if child is None:
            child = children[place, token] = len(tree.tokens)
            tree.tokens.append(token)
            tree.parents.append(place)
        place = child


def batches(trees: Sequence[Tree], max_tokens: int, vocab_size: int) -> Iterator[list[Tree]]:
    """Trees, longest first, in batches of at most `max_tokens` padded tokens; one tree at least."""
    batch: list[Tree] = []
    length = columns = 0
    for tree in trees:
        rows = len(batch) + 1
        longest, most = max(length, len(tree.tokens)), max(columns, tree.logit_columns)
        if batch and (
            rows * longest > max_tokens or rows * longest**2 > _MAX_MASK or rows * most * vocab_size > _MAX_LOGITS
        ):
            yield batch
            batch, longest, most = [], len(tree.tokens), tree.logit_columns
        batch.append(tree)
        length, columns = longest, most
    if batch:
        yield batch


@dataclass(frozen=True)
class Layout:
    """A batch as arrays. Chains are padded on the right, trees on the left."""

    input_ids: IntArray
    """int64[rows, length]"""
    positions: IntArray | None
    """int64[rows, length]; None for chains: they count from 0."""
    mask: npt.NDArray[np.bool_] | None
    """bool[rows, length, length], which token attends to which; None for chains: all before."""
    first: int
    """Logits before this column are not asked for."""
    rows: IntArray
    """int64[targets], the row of each asked log-probability."""
    columns: IntArray
    """int64[targets], its column."""
    tokens: IntArray
    """int64[targets], its token."""
    requests: IntArray
    """int64[targets], the request it counts for."""


def layout(batch: Sequence[Tree]) -> Layout:
    """The arrays of a batch."""
    length = max(len(tree.tokens) for tree in batch)
    chains = all(tree.is_chain for tree in batch)
    # Token 0 as padding: nothing attends to it, so any id within the vocabulary does.
    ids = np.zeros((len(batch), length), np.int64)
    positions = None if chains else np.zeros((len(batch), length), np.int64)
    # Padding attends to itself: a row of the mask without a single True makes a NaN.
    mask = None if chains else np.broadcast_to(np.eye(length, dtype=bool), (len(batch), length, length)).copy()
    targets: list[tuple[int, int, int, int]] = []
    first = length
    for row, tree in enumerate(batch):
        size, context = len(tree.tokens), tree.context
        # Chains are padded on the right, where a causal model cannot see the padding and needs neither mask nor
        # positions. Trees bring both, and on the left their asked places end in one column: `logits_to_keep` cuts
        # from the right, so less is computed for the shorter ones.
        start = 0 if chains else length - size
        ids[row, start : start + size] = tree.tokens
        if positions is not None and mask is not None:
            positions[row, start : start + context] = np.arange(context)
            mask[row, start : start + context, start : start + context] = np.tri(context, dtype=bool)
            # Parents stand before their children, so one pass in order fills each row from a finished one.
            for place, parent in enumerate(tree.parents, start + context):
                positions[row, place] = positions[row, start + parent] + 1
                # Siblings have the same position and do not see each other: to the model each branch is the one text.
                mask[row, place] |= mask[row, start + parent]
        targets += [(row, start + place, token, request) for request, place, token in tree.targets]
        first = min(first, start + context - 1)
    columns = np.asarray(targets, np.int64).reshape(-1, 4)
    return Layout(ids, positions, mask, first, columns[:, 0], columns[:, 1], columns[:, 2], columns[:, 3])
