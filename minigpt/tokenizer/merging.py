"""Apply merges to one pre-token: the pair of lowest rank first, the leftmost of equals first.

The direct way looks for the best of all pairs, merges it, and looks again: n^2 steps for n bytes.
It is the quicker one for words. A megabyte without a space would take it days, so there a heap
holds the pairs that can be merged, and lists of neighbours tell what a merge touches: n log n
steps.
"""

from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise

_DIRECT = 48  # bytes; from about here on the heap is quicker
_NEVER = 1 << 60  # the rank of a pair that no merge joins
_GONE = -1  # in place of the right half of a merged pair, and after the end

Ranks = Mapping[tuple[int, int], int]


def merge(ids: Sequence[int], ranks: Ranks, made: Sequence[int]) -> list[int]:
    """The ids that remain when no merge joins a pair of neighbours any more.

    ranks: the rank of (left, right); made: the id that the merge of a rank makes.
    Shapes: n ids -> at most n ids.
    """
    return (merge_directly if len(ids) <= _DIRECT else merge_by_heap)(ids, ranks, made)


def merge_directly(ids: Sequence[int], ranks: Ranks, made: Sequence[int]) -> list[int]:
    """`merge`, for few ids."""
    ids = list(ids)
    found = [ranks.get(pair, _NEVER) for pair in pairwise(ids)]  # (n - 1,) rank of each pair
    while found and (best := min(found)) != _NEVER:
        i = found.index(best)
        ids[i : i + 2] = [made[best]]
        del found[i]
        if i > 0:
            found[i - 1] = ranks.get((ids[i - 1], ids[i]), _NEVER)
        if i < len(found):
            found[i] = ranks.get((ids[i], ids[i + 1]), _NEVER)
    return ids


def merge_by_heap(ids: Sequence[int], ranks: Ranks, made: Sequence[int]) -> list[int]:
    """`merge`, for any number of ids."""
    n = len(ids)
    ids = [*ids, _GONE]
    after = list(range(1, n + 2))  # position of the right neighbour; n is the end
    before = list(range(-1, n))  # position of the left neighbour; -1 before the first
    heap = [(ranks[pair], i) for i, pair in enumerate(pairwise(ids)) if pair in ranks]
    heapify(heap)
    while heap:
        rank, i = heappop(heap)
        j = after[i]
        if ranks.get((ids[i], ids[j])) != rank:
            continue  # one half went into another merge since
        ids[i], ids[j] = made[rank], _GONE
        after[i] = after[j]
        before[after[j]] = i
        for left in (before[i], i):  # the two pairs that the new token forms
            if left >= 0 and (pair := (ids[left], ids[after[left]])) in ranks:
                heappush(heap, (ranks[pair], left))
    return [token for token in ids if token != _GONE]
