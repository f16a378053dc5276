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
_MAX_LOGITS = 1 << 27  # cells of a batch's logits where they are asked for: 512 MiB of float32


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
    """Every request in exactly one tree; first the trees that branch, then the plain chains, the longest first of each.

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
    # Chains apart: a single tree among them would cost the whole batch a mask, and the kernel that needs none.
    return sorted(trees, key=lambda tree: (tree.is_chain, -len(tree.tokens), -len(tree.targets)))


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
    """Trees in the order of `build`, in batches of at most `max_tokens` padded tokens; one tree at least."""
    batch: list[Tree] = []
    length = targets = 0
    for tree in trees:
        rows, asked = len(batch) + 1, targets + len(tree.targets)
        longest = max(length, len(tree.tokens))
        if batch and (
            rows * longest > max_tokens
            or rows * longest**2 > _MAX_MASK
            or asked * vocab_size > _MAX_LOGITS
            or tree.is_chain != batch[0].is_chain
        ):
            yield batch
            batch, longest, asked = [], len(tree.tokens), len(tree.targets)
        batch.append(tree)
        length, targets = longest, asked
    if batch:
        yield batch


@dataclass(frozen=True)
class Layout:
    """A batch as arrays, padded on the right."""

    input_ids: IntArray
    """int64[rows, length]"""
    positions: IntArray | None
    """int64[rows, length]; None for chains: they count from 0."""
    mask: npt.NDArray[np.bool_] | None
    """bool[rows, length, length], which token attends to which; None for chains: all before."""
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
    for row, tree in enumerate(batch):
        size, context = len(tree.tokens), tree.context
        ids[row, :size] = tree.tokens
        # A causal model cannot see padding on the right: chains need neither mask nor positions.
        if positions is not None and mask is not None:
            positions[row, :context] = np.arange(context)
            mask[row, :context, :context] = np.tri(context, dtype=bool)
            # Parents stand before their children, so one pass in order fills each row from a finished one.
            for place, parent in enumerate(tree.parents, context):
                positions[row, place] = positions[row, parent] + 1
                # Siblings have the same position and do not see each other: to the model each branch is the one text.
                mask[row, place] |= mask[row, parent]
        targets += [(row, place, token, request) for request, place, token in tree.targets]
    columns = np.asarray(targets, np.int64).reshape(-1, 4)
    return Layout(ids, positions, mask, columns[:, 0], columns[:, 1], columns[:, 2], columns[:, 3])
