"""Learn merges from text: join the most frequent pair of neighbours, again and again.

Counting all pairs afresh before each merge would read the whole text a thousand times. Here each
distinct pre-token is kept once, with how often it occurs, and a merge changes the counts of its own
neighbours only: a thousand merges read the text about twice.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from heapq import heappop, heappush

from tqdm import tqdm

from minigpt.tokenizer.bpe import BPETokenizer
from minigpt.tokenizer.pretokens import split, without_surrogates

_GONE = -1  # in place of the right half of a merged pair, and between pre-tokens

Pair = tuple[int, int]


def train_bpe(
    text: str | Iterable[str], vocab_size: int, special: Iterable[str] = ()
) -> BPETokenizer:
    """The byte-pair tokenizer of `vocab_size` tokens: 256 bytes, then merges, then `special`.

    A pair is as frequent as it stands side by side: in "aaa" twice, though only one can be joined.
    Of pairs that are equally frequent, the one with the smaller left id is joined first, then the
    one with the smaller right id. So the same text always gives the same merges.
    Special tokens have no meaning inside `text`; give documents as several texts instead.
    Raises: ValueError if vocab_size is too small, or so large that a pair would be joined that
            occurs once, which teaches nothing.
    """
    special = _distinct(special)
    if type(vocab_size) is not int or vocab_size < 256 + len(special):
        raise ValueError(
            f"vocab_size must be an integer of at least {256 + len(special)}: 256 bytes and"
            f" {len(special)} special tokens; got {vocab_size!r}"
        )
    first_special = vocab_size - len(special)
    pairs = _Pairs(_count_pieces([text] if isinstance(text, str) else text))
    merges: list[tuple[int, int, int]] = []
    for new in tqdm(range(256, first_special), desc="merges", disable=None, leave=False):
        pair = pairs.most_frequent()
        if pair is None:
            most = new + len(special)
            raise ValueError(
                f"vocab_size {vocab_size} is too large for this text: with {most} tokens no pair"
                f" occurs twice any more. Take at most {most}, or more text"
            )
        pairs.join(pair, new)
        merges.append((*pair, new))
    return BPETokenizer(range(256), merges, {t: first_special + i for i, t in enumerate(special)})


def _distinct(special: Iterable[str]) -> list[str]:
    """The special tokens as a list. Raises ValueError if one occurs twice, or they are one text."""
    texts = [*special]
    if isinstance(special, str) or len({*texts}) != len(texts):
        raise ValueError(f"special must be a list of distinct texts, got {special!r}")
    return texts


def _count_pieces(texts: Iterable[str]) -> Counter[str]:
    """How often each pre-token occurs in all the texts."""
    counts: Counter[str] = Counter()
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"expected a text or several, got {type(text).__name__} among them")
        counts.update(split(without_surrogates(text)))
    return counts


class _Pairs:
    """All distinct pre-tokens in one row of ids, and the count of each pair of neighbours."""

    def __init__(self, pieces: Counter[str]):
        self.ids: list[int] = [_GONE]
        self.weight: list[int] = [0]  # how often the pre-token at this position occurs
        for piece, count in pieces.items():
            data = piece.encode("utf-8")
            self.ids += [*data, _GONE]
            self.weight += [count] * (len(data) + 1)
        self.after = list(range(1, len(self.ids) + 1))  # position of the right neighbour
        self.before = list(range(-1, len(self.ids) - 1))  # position of the left neighbour
        self.counts: defaultdict[Pair, int] = defaultdict(int)
        self.places: defaultdict[Pair, list[int]] = defaultdict(list)  # of the left half
        self.grown: set[Pair] = set()  # pairs that the heap does not know yet
        for i in range(len(self.ids) - 1):
            self._add(i)
        # Negative counts, since the heap gives the smallest first; then the pair breaks ties.
        self.heap: list[tuple[int, Pair]] = []

    def most_frequent(self) -> Pair | None:
        """The pair that occurs most often; None if none occurs twice."""
        for pair in self.grown:
            heappush(self.heap, (-self.counts[pair], pair))
        self.grown.clear()
        while self.heap:
            count, pair = heappop(self.heap)
            now = self.counts.get(pair, 0)
            if now == -count and now >= 2:
                return pair
            if 2 <= now < -count:
                heappush(self.heap, (-now, pair))  # it has become rarer since
        return None

    def join(self, pair: Pair, new: int) -> None:
        """Replace the pair by `new` wherever it stands, from left to right."""
        ids, after, before = self.ids, self.after, self.before
        for i in self.places.pop(pair):  # increasing
            j = after[i]
            if (ids[i], ids[j]) != pair:
                continue  # in "aaa", the second pair went with the first
            k = after[j]
            self._remove(before[i])
            self._remove(j)
            ids[i], ids[j] = new, _GONE
            after[i], before[k] = k, i
            self._add(before[i])
            self._add(i)
        del self.counts[pair]

    def _add(self, i: int) -> None:
        """Count the pair whose left half is at i, if both halves are in one pre-token."""
        pair = self.ids[i], self.ids[self.after[i]]
        if _GONE not in pair:
            self.counts[pair] += self.weight[i]
            self.places[pair].append(i)
            self.grown.add(pair)

    def _remove(self, i: int) -> None:
        """Take back what `_add` counted. Its place stays, and is seen to be stale by `join`."""
        pair = self.ids[i], self.ids[self.after[i]]
        if _GONE not in pair:
            self.counts[pair] -= self.weight[i]
