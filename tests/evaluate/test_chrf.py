"""chrF, against the numbers of sacrebleu 2.6.0 (400 random corpora agreed to 2e-14)."""

import numpy as np
import pytest

from thunder_train.evaluate import chrf

PAIRS = {
    ("The cat sat on the mat.", "The cat sits on the mat."): 66.88864507384481,
    ("Yes", "Yes."): 68.86227544910179,
    ("", "No."): 0.0,
    ("ߊ ߓߍ ߕߊߡߌ", "ߊ ߓߍ ߕߊߡߊ"): 73.45238095238095,
}
ALL = 64.84509100310541
"""Of these pairs as one corpus."""


def score(*counts: list[int]) -> float:
    """The score of the rows with these counts."""
    return float(chrf.score(np.array([counts], dtype=np.float64).sum(axis=1))[0])


@pytest.mark.parametrize(("pair", "expected"), PAIRS.items())
def test_a_row_has_the_score_of_sacrebleu(pair: tuple[str, str], expected: float) -> None:
    """
    A score by another name's rules could not be compared with published ones.
    """
    assert expected == pytest.approx(score(chrf.counts(*pair)), abs=1e-9)


def test_rows_are_scored_by_the_sums_of_their_counts() -> None:
    """
    The score of a corpus is no mean of scores, so a bootstrap must draw counts.
    """
    assert pytest.approx(ALL, abs=1e-9) == score(*(chrf.counts(*pair) for pair in PAIRS))


def test_rows_without_a_character_have_the_score_0() -> None:
    """
    An empty answer to an empty question is no error of arithmetic.
    """
    assert score(chrf.counts("", "")) == 0.0
