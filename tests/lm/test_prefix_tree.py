"""Trees of requests, and the batches that they make; the numbers are `test_generator`'s matter."""

from __future__ import annotations

from kit19_ray.lm import prefix_tree

CHAINS = [([1, 2, 3], [4]), ([1, 2], [3, 4]), ([5], [6, 7, 8])]
BRANCHES = [([9, 2, 3], [4, 5]), ([9, 2, 3], [6, 5]), ([8, 2], [4, 5, 6]), ([8, 2], [7, 5, 6])]


def test_each_request_is_in_one_tree_and_plain_chains_are_in_batches_of_their_own() -> None:
    trees = prefix_tree.build([*CHAINS, *BRANCHES], max_length=16, max_tokens=64)
    found = list(prefix_tree.batches(trees, max_tokens=64, vocab_size=10))
    assert [[tree.is_chain for tree in batch] for batch in found] == [[False] * 2, [True] * 3]
    assert {number for tree in trees for number, _, _ in tree.targets} == set(range(7))
    branching, chains = map(prefix_tree.layout, found)
    assert branching.mask is not None and branching.positions is not None
    assert chains.mask is None and chains.positions is None


def test_a_batch_is_bounded_by_padded_tokens_and_by_the_logits_that_are_asked() -> None:
    trees = prefix_tree.build(CHAINS, max_length=16, max_tokens=64)
    assert [len(batch) for batch in prefix_tree.batches(trees, max_tokens=6, vocab_size=10)] == [2, 1]
    half = prefix_tree._MAX_LOGITS // 3  # room for the logits of three places
    assert [len(batch) for batch in prefix_tree.batches(trees, max_tokens=64, vocab_size=half)] == [1, 2]
