"""Near-duplicates between splits: which pairs are found, and that the search ends."""

import random
import subprocess
import sys
import unicodedata
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rapidfuzz.distance.Levenshtein import normalized_similarity

from thunder_train.data import near_duplicates
from thunder_train.data.near_duplicates import LEFT_OUT, NearDuplicates, Prints, Sketch, normal, pairs

EXPECTED = "[8363265255261131485, 14316786417124267, 3245665183618191519, 1291743958862747819] [5500779626496]\n"
"""Fingerprints of a small text, which must never change."""
SENTENCE = "\u07db\u07cb\u07dc\u07ca \u07de\u07cb \u07ca\u07e3 \u07e6\u07cd \u07d5\u07ca\u07ca \u07db\u07ce\u07dc\u07ce"
OTHER = (
    "\u07df\u07ce\u07e1\u07ca \u07de\u07ca\u07df\u07ca \u07d3\u07d0 \u07df\u07ca \u07e1\u07ce\u07db\u07cb \u07d6\u07cc"
)


def sketched(texts: list[str]) -> Sketch:
    """A sketch of some texts."""
    sketch = Sketch()
    for text in texts:
        sketch.add(text)
    return sketch


def near_pairs(texts: list[str], split: list[int], **given: Any) -> NearDuplicates:
    """The near-duplicates of texts in these splits."""
    return pairs(sketched(texts), np.array(split, dtype=np.uint8), texts.__getitem__, **given)


def is_same(one: Prints, other: Prints) -> bool:
    """Whether two sets of fingerprints are equal."""
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in Prints._fields)


def sentences(count: int, seed: int = 170) -> list[str]:
    """Distinct texts of 40 letters out of 20."""
    draw = random.Random(seed)  # noqa: S311
    letters = [chr(0x7CA + number) for number in range(20)]
    return ["".join(draw.choices(letters, k=40)) for _ in range(count)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\u07de\u07cb \u07ca\u07e3\u060c!", "\u07de\u07cb\u07ca\u07e3"),
        ("\u07de\u07cf\u07eb", "\u07de\u07cf"),
        ("Na_n 12", "nan12"),
        ("E\u0301TE\u0301", "\u00e9t\u00e9"),
        ("Stra\u00dfe", "strasse"),
        (" \u00a0\n.", ""),
        ("1 2_3-4.5,6;7:8!9?a(b)c=d_-", "123456789abcd"),
    ],
)
def test_normal_text_is_letters_and_digits(text: str, expected: str) -> None:
    """
    Spaces, tones, case and punctuation make no other sentence.
    """
    assert expected == normal(text)


@given(st.text())
def test_normal_text_is_normal(text: str) -> None:
    """
    Twice is once, in whatever form the text was typed, and a sketch bears it.
    """
    assert normal(text) == normal(normal(text)) == normal(unicodedata.normalize("NFD", text))
    assert unicodedata.is_normalized("NFC", normal(text))
    assert is_same(sketched([text]).prints(), sketched([normal(text)]).prints())


def test_texts_that_differ_in_a_letter_are_found_across_splits() -> None:
    """
    A model that has learned one of them has seen the answer to the other.
    """
    texts = [SENTENCE, OTHER, SENTENCE[:-1] + "\u07cb", SENTENCE + "\u07ca"]

    near = near_pairs(texts, [0, 0, 1, 0], least=0.8)

    examples = [(0, 2, 16 / 17), (2, 3, 16 / 18)]
    assert NearDuplicates(count=2, rows=4, examples=examples, is_complete=True, between={(0, 1): 2}) == near


def test_pairs_of_one_split_and_equal_texts_are_left_alone() -> None:
    """
    Within a split nothing leaks, and grouping already keeps equal texts together.
    """
    texts = [SENTENCE, SENTENCE[:-1] + "\u07cb", SENTENCE.replace(" ", "")]

    assert [] == near_pairs(texts, [0, 0, 0], least=0.5).examples
    assert [(1, 2)] == [pair[:2] for pair in near_pairs(texts, [0, 0, 1], least=0.5).examples]


def test_a_text_that_is_left_out_has_no_neighbour() -> None:
    """
    A dropped row is in no split.
    """
    texts = [SENTENCE, SENTENCE[:-1] + "\u07cb", SENTENCE + "\u07ca"]

    assert [(0, 2)] == [pair[:2] for pair in near_pairs(texts, [0, LEFT_OUT, 1]).examples]


def test_empty_and_short_texts_are_no_trouble() -> None:
    """
    A text without a letter is like no other; one shorter than a gram is a gram.
    """
    texts = ["", " ", ".", "\u07ca", "\u07ca\u07cb", "\u07ca\u07cb\u07cc\u07cd"]

    assert NearDuplicates(0, 6, [], True) == near_pairs(texts, [0, 1, 0, 1, 0, 1], least=0.9)
    assert NearDuplicates(0, 200, [], True) == near_pairs([""] * 200, [0, 1] * 100, least=0.0)
    assert NearDuplicates(0, 0, [], True) == near_pairs([], [])


def test_four_in_five_pairs_of_three_edits_in_forty_letters_are_found() -> None:
    """
    Min-hashes find by chance; the chance is known: grams overlap by 21 of 51 or more, so 1 - (1 - 0.41)^4 = 0.88.
    """
    draw = random.Random(1)  # noqa: S311
    texts = sentences(500)
    changed = []
    for text in texts:
        letters = list(text)
        for place in draw.sample(range(40), 3):
            letters[place] = "\u07e3"
        changed.append("".join(letters))

    near = near_pairs(texts + changed, [0] * 500 + [1] * 500)

    assert near.is_complete
    assert 400 < near.count <= 500
    assert all(other == one + 500 and similarity >= 0.925 for one, other, similarity in near.examples)


@given(
    st.lists(st.text("\u07ca\u07cb\u07cc\u07cdab", max_size=12), max_size=4),
    st.randoms(use_true_random=False),
    st.sampled_from((0.0, 0.5, 0.6, 0.75, 0.8, 0.9)),
)
@example(["\u07ca\u07cb\u07cc\u07cd\u07cea\u07d0\u07d1\u07d2\u07d3" * 2], random.Random(7), 0.9)  # noqa: S311
def test_only_pairs_that_share_a_hash_are_found(seeds: list[str], draw: random.Random, least: float) -> None:
    """
    What is left out before letters are compared, by length and by pairs of letters, could not have been similar enough.
    """
    texts = [*seeds]
    for text in seeds * 4:
        place = draw.randrange(len(text) + 1)
        texts.append(text[:place] + draw.choice(("", "\u07ca", "c", "cb")) + text[place + draw.randrange(3) :])
    split = [draw.randrange(3) for _ in texts]
    hashes = sketched(texts).prints().hashes
    alike = [
        (-normalized_similarity(texts[i], texts[j]), i, j)
        for j in range(len(texts))
        for i in range(j)
        if texts[i] and texts[j] and texts[i] != texts[j] and split[i] != split[j]
        if (hashes[:, i] == hashes[:, j]).any()
    ]
    expected = [(i, j, -distance) for distance, i, j in sorted(alike) if -distance >= least]

    near = near_pairs(texts, split, least=least)

    assert NearDuplicates(len(expected), len(texts), expected[:20], True, near.between) == near
    assert len(expected) == sum(near.between.values())


def test_what_is_just_similar_enough_is_found() -> None:
    """
    0.1 of 40 letters is 4, though 1 - 0.9 is a little less than 0.1 in floating point.
    """
    text = sentences(1)[0]

    assert [(0, 1, 0.9)] == near_pairs([text, "abcd" + text[4:]], [0, 1], least=0.9).examples
    assert [] == near_pairs([text, "abcde" + text[5:]], [0, 1], least=0.9).examples
    assert [(0, 1, 0.8)] == near_pairs(["aaaaaaaaa", "cbaaaaaaaa"], [0, 1], least=0.8).examples


def test_the_likeliest_pairs_are_compared_first() -> None:
    """
    Where the work must end early, pairs that differ in fewer pairs of letters are the better bet.
    """
    far, near = sentences(2)
    texts = [far, far[:18] + "abc" + far[21:], near, near[:-1] + "a"]

    assert [(2, 3)] == [pair[:2] for pair in near_pairs(texts, [0, 1, 0, 1], most=1).examples]
    assert not near_pairs(texts, [0, 1, 0, 1], most=1).is_complete
    assert near_pairs(texts, [0, 1, 0, 1], most=2).is_complete


def test_batches_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    How many texts are hashed at once is a matter of speed.
    """
    texts = ["", "\u07ca", *sentences(50), SENTENCE]
    whole = sketched(texts).prints()
    monkeypatch.setattr(near_duplicates, "BATCH", 7)
    parts = sketched(texts).prints()

    assert is_same(whole, parts)


def test_large_buckets_and_many_pairs_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A million rows of one phrase would make 10^12 pairs; the result says that some were left out.
    """
    texts = [SENTENCE * 4 + chr(0x7CA + number % 30) * (number // 30 + 1) for number in range(90)]
    split = [number % 2 for number in range(90)]

    assert not near_pairs(texts, split).is_complete
    assert (5, False) == ((near := near_pairs(texts, split, most=5)).count, near.is_complete)
    monkeypatch.setattr(near_duplicates, "CANDIDATES", 0)
    assert (5, False) == ((near := near_pairs(texts[:20], split[:20], most=5)).count, near.is_complete)


def test_hashes_are_the_same_in_every_process() -> None:
    """
    Python salts its own hashes; a data set made twice must be the same twice.
    """
    code = (
        "from thunder_train.data.near_duplicates import Sketch;"
        "s = Sketch(); s.add('\u07de\u07cb \u07ca\u07e3 \u07e6\u07cd');"
        "print(s.prints().hashes[:, 0].tolist(), s.prints().bits.tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert EXPECTED == done.stdout


def test_the_module_costs_nothing_until_it_is_used() -> None:
    """
    `import dodo` must not load numpy.
    """
    code = (
        "import sys, thunder_train.data.near_duplicates, thunder_train.data.orthography; print('numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "False" == done.stdout.strip()
