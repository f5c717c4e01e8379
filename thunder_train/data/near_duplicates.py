"""Finds texts of different splits that are nearly the same, which a reader of a score should know.

Input: every text once, in a Sketch.  Output: NearDuplicates.  numpy is imported when the first texts are hashed.

Method: min-hashes (Broder 1997) of the 5-grams of a text's letters. Two texts whose grams overlap by a share J have a
min-hash in common with a probability of 1 - (1 - J)^4; only those are compared letter by letter. So a pair that
differs in many letters may be missed: docs/orthography.md says how many are.

Shapes: R texts.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from thunder_train.core.text import nfc

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GRAM = 5
"""Letters in a gram."""
BASE = 0x9E3779B97F4A7C15
MIXERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F)
"""Odd constants, one for each min-hash of a text."""
NONE = 2**64 - 1
"""Hash of a gram that spans two texts: never the least."""
BATCH = 8192
"""Texts hashed at once: small enough for a processor's cache, large enough to hide the cost of Python."""
BUCKET = 32
"""So many texts with one min-hash are all compared with each other; of more, each with its next ones only."""
CANDIDATES = 500_000
"""Pairs held at once before they are compared letter by letter (8 bytes each)."""
SLACK = 1e-6
"""1 - 0.8 is a little less than 0.2 in floating point; a pair that is just similar enough must still count."""
SHOWN = 20
"""Most pairs listed as examples."""
LEFT_OUT = 255
"""Split of a text that is compared with none."""
_JUNK = re.compile(r"[\W_]")


def normal(text: str) -> str:
    """Letters and digits only, casefolded, NFC: texts with the same normal text are the same text."""
    text = nfc(text)
    folded = text.casefold()
    if folded != text:
        text = nfc(folded)
    text = text.replace(" ", "")
    for _ in range(8):  # a text has few signs, and each often: replacing one everywhere is faster than re.sub
        sign = None if text.isalnum() else _JUNK.search(text)
        if not sign:
            return nfc(text)
        text = text.replace(sign[0], "")
    return nfc(_JUNK.sub("", text))


class Prints(NamedTuple):
    """Fingerprints of R texts: 44 bytes of each."""

    hashes: "NDArray[np.uint64]"
    """(4, R): for each mixer the least hash over the grams of a text; a text shorter than a gram is padded to one."""
    bits: "NDArray[np.uint64]"
    """(R,): one of 64 bits set for each pair of adjacent letters."""
    lengths: "NDArray[np.uint32]"
    """(R,): letters of the normal text."""


class Sketch:
    """Fingerprints of texts, in the order in which they are added; the same on every machine."""

    def __init__(self) -> None:
        self._waiting: list[str] = []
        self._batches: list[Prints] = []

    def add(self, text: str) -> None:
        """Add one more text; its number is the count of those before it."""
        self.add_normal(normal(text))

    def add_normal(self, text: str) -> None:
        """Add one more text, of `normal`."""
        self._waiting.append(text)
        if len(self._waiting) >= BATCH:
            self._hash_waiting()

    def merge(self, other: "Sketch") -> None:
        """Add the texts of another."""
        self._batches = [self.prints(), other.prints()]

    def prints(self) -> Prints:
        """The fingerprints of all texts so far."""
        import numpy as np

        if self._waiting or not self._batches:
            self._hash_waiting()
        if len(self._batches) > 1:
            hashes, bits, lengths = zip(*self._batches, strict=True)
            self._batches = []  # freed first, so that less is in memory twice
            self._batches = [Prints(np.concatenate(hashes, axis=1), np.concatenate(bits), np.concatenate(lengths))]
        return self._batches[0]

    def sort(self, order: "NDArray[np.int64]") -> None:
        """Renumber the texts: order[i] becomes i."""
        hashes, bits, lengths = self.prints()
        self._batches = [Prints(hashes[:, order], bits[order], lengths[order])]

    def _hash_waiting(self) -> None:
        """Hash the waiting texts, all at once."""
        self._batches.append(_prints(self._waiting))
        self._waiting = []


def _prints(texts: list[str]) -> Prints:
    """Fingerprints of normal texts, by arithmetic on all their letters in one array."""
    import numpy as np

    lengths = np.fromiter(map(len, texts), dtype=np.uint32, count=len(texts))
    hashes, bits = np.empty((len(MIXERS), len(texts)), dtype=np.uint64), np.empty(len(texts), dtype=np.uint64)
    if not texts:
        return Prints(hashes, bits, lengths)
    joined = "".join(text.ljust(GRAM, "\0") for text in texts).encode("utf-32-le", "surrogatepass")
    letters = np.frombuffer(joined, dtype="<u4").astype(np.uint64)
    ends = np.cumsum(np.maximum(lengths, GRAM), dtype=np.int64)
    starts = np.concatenate(([0], ends[:-1]))
    twos = (letters[:-1] * np.uint64(BASE) + letters[1:]) * np.uint64(MIXERS[0]) >> np.uint64(58)
    twos = np.uint64(1) << twos
    twos[ends[:-1] - 1] = 0  # the last letter of one text and the first of the next
    np.bitwise_or.reduceat(np.append(twos, np.uint64(0)), starts, out=bits)
    count = len(letters) - GRAM + 1
    # A polynomial in BASE of the letters of a gram, modulo 2^64.
    grams = letters[:count].copy()
    for offset in range(1, GRAM):
        grams = grams * np.uint64(BASE) + letters[offset : offset + count]
    grams ^= grams >> np.uint64(31)
    across = (ends[:-1, None] - np.arange(1, GRAM)).ravel()  # grams that begin in one text and end in the next
    for row, mixer in zip(hashes, MIXERS, strict=True):
        mixed = grams * np.uint64(mixer)
        mixed[across] = NONE
        np.minimum.reduceat(mixed, starts, out=row)
    return Prints(hashes, bits, lengths)


@dataclass(frozen=True)
class NearDuplicates:
    """Near-duplicates between splits."""

    count: int
    """Number of pairs."""
    rows: int
    """Number of texts."""
    examples: list[tuple[int, int, float]]
    """(text, text, similarity), the most similar first, SHOWN at most."""
    is_complete: bool
    """False if a limit was reached: there may be more pairs than `count`."""
    between: Mapping[tuple[int, int], int] = field(default_factory=dict)
    """(split, split), the lesser first -> number of pairs."""


def pairs(
    sketch: Sketch, split: "NDArray[np.uint8]", text_of: Callable[[int], str], least: float = 0.9, most: int = 200_000
) -> NearDuplicates:
    """The pairs of texts of different splits whose normal texts are similar, but not equal.

    split: (R,) number of each text's split, or LEFT_OUT.  text_of: the text of a number, called at most 2 * most times.
    least: similarity from 0 to 1: 1 - edits / letters of the longer one.  most: pairs compared letter by letter, the
    likeliest first.  Texts with equal normal text do not count: grouping by text keeps them together.
    """
    from rapidfuzz.distance.Levenshtein import normalized_similarity

    candidates, is_complete = _candidates(sketch.prints(), split, least, most)
    near = []
    last, left = -1, ""
    for i, j in candidates:
        if i != last:
            last, left = i, normal(text_of(i))
        right = normal(text_of(j))
        similarity = normalized_similarity(left, right, score_cutoff=max(0.0, least - SLACK))
        if similarity >= least and left != right:
            near.append((-similarity, i, j))
    examples = [(i, j, -similarity) for similarity, i, j in sorted(near)[:SHOWN]]
    sides = (sorted((int(split[i]), int(split[j]))) for _, i, j in near)
    return NearDuplicates(len(near), len(split), examples, is_complete, Counter((one, other) for one, other in sides))


def _candidates(
    prints: Prints, split: "NDArray[np.uint8]", least: float, most: int
) -> tuple[list[tuple[int, int]], bool]:
    """At most `most` pairs i < j, sorted, that share a min-hash and could be similar; whether these are all."""
    import numpy as np

    codes, is_complete = np.empty(0, dtype=np.uint64), True
    for number in range(len(MIXERS) if len(np.unique(split)) > 1 else 0):
        for more in _sharing(prints, number, split, least):
            if more is None:
                is_complete = False
                continue
            codes = np.concatenate((codes, more))
            if len(codes) > CANDIDATES:
                codes, are_all = _best(codes, prints.bits, most)
                is_complete &= are_all
    codes, are_all = _best(codes, prints.bits, most)
    ordered, rows = np.sort(codes), np.uint64(max(1, len(split)))
    listed = zip((ordered // rows).tolist(), (ordered % rows).tolist(), strict=True)
    return list(listed), is_complete and are_all


def _sharing(
    prints: Prints, number: int, split: "NDArray[np.uint8]", least: float
) -> Iterator["NDArray[np.uint64] | None"]:
    """Pairs with min-hash `number` in common, as i * R + j; None when a bucket is too large to compare all its pairs.

    Texts are sorted by that hash and then by the next, so that the likeliest pairs of a large bucket are adjacent;
    each text is compared with the BUCKET - 1 that follow it.
    """
    import numpy as np

    order = np.lexsort((prints.hashes[(number + 1) % len(MIXERS)], prints.hashes[number]))
    order = order[(prints.lengths[order] > 0) & (split[order] != LEFT_OUT)]
    key, side, size = prints.hashes[number][order], split[order], prints.lengths[order].astype(np.int32)
    edits = np.floor(size * (1 - least) + SLACK).astype(np.int32)
    for step in range(1, BUCKET + 1):
        is_shared = key[step:] == key[:-step]
        if step == BUCKET:
            if is_shared.any():
                yield None
            return
        may = np.flatnonzero(is_shared & (side[step:] != side[:-step]))
        allowed = np.maximum(edits[may], edits[may + step])
        close = np.abs(size[may] - size[may + step]) <= allowed
        may, allowed = may[close], allowed[close]
        one, other = order[may], order[may + step]
        # An edit removes at most two pairs of adjacent letters and adds at most two, also in a padded text.
        alike = np.bitwise_count(prints.bits[one] ^ prints.bits[other]) <= 4 * allowed
        one, other = one[alike].astype(np.uint64), other[alike].astype(np.uint64)
        yield np.minimum(one, other) * np.uint64(len(split)) + np.maximum(one, other)


def _best(codes: "NDArray[np.uint64]", bits: "NDArray[np.uint64]", most: int) -> tuple["NDArray[np.uint64]", bool]:
    """The pairs once each, of too many those whose bits differ least; whether all were kept."""
    import numpy as np

    codes = np.unique(codes)
    if len(codes) <= most:
        return codes, True
    rows = np.uint64(len(bits))
    unlike = np.bitwise_count(bits[codes // rows] ^ bits[codes % rows])
    return codes[np.argsort(unlike, kind="stable")[:most]], False
