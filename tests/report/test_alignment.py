"""Alignments: which words are the same, replaced, missing and added, in any script."""

import pytest

from thunder_train.report.alignment import LONGEST, aligned, codes, spelled


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("a b c", "a b c", "==="),
        ("a x c", "a b c", "=s="),
        ("a c", "a b c", "=d="),
        ("a b b c", "a b c", "==i="),
        ("", "a b", "dd"),
        ("a", "", "i"),
        ("", "", ""),
        ("e\u0301", "\u00e9", "="),
        ("ߊߓ ߋ", "ߊߓ ߌ", "=s"),
        ("x y", "a", "is"),
    ],
)
def test_words_are_aligned_with_the_fewest_edits(text: str, reference: str, expected: str) -> None:
    """
    A reader sees which words are wrong; equal letters of another Unicode form are no error.
    """
    assert expected == codes(text, reference)


def test_the_codes_give_both_texts_back() -> None:
    """
    The script of the page has nothing but the two texts and the codes.
    """
    text, reference = "the  quick brown fox\njumps", "a quick fox jumps over"
    steps = aligned(text, reference).words

    assert codes(text, reference) == "".join(step.code for step in steps)
    sides = ([step.text for step in steps], [step.reference for step in steps])
    words = [[run.parts for shown in side if shown for run in shown.runs] for side in sides]
    assert [spelled(text).split(" "), spelled(reference).split(" ")] == [
        ["".join(part.text for part in parts) for parts in side] for side in words
    ]


def test_a_replaced_word_shows_which_letters_differ() -> None:
    """
    In N'Ko two words may differ in one mark, which nobody finds by eye.
    """
    step = aligned("ߊߓߋ", "ߊߓߌ").words[0]

    assert step.reference
    assert step.text
    assert [("ߊߓ", ""), ("ߌ", "del")] == [(part.text, part.mark) for part in step.reference.runs[0].parts]
    assert [("ߊߓ", ""), ("ߋ", "ins")] == [(part.text, part.mark) for part in step.text.runs[0].parts]


def test_words_are_counted_by_kind_and_the_script_gives_the_direction() -> None:
    """
    The counts say in words what marks show, for those who see none.
    """
    line = aligned("ߊ x ߌ", "ߊ ߋ ߌ ߍ")

    assert ({"sub": 1, "del": 1, "ins": 0}, "nko") == (line.counts, line.kind)
    assert ["", "other"] == [aligned(text, "ߊ").kind for text in ("ab", "é")]
    assert "nko" == aligned(" ", "ߊ").kind


def test_unseen_characters_are_spelled_out_and_separate_no_words() -> None:
    """
    They could turn around the rest of a line.
    """
    assert "a\\u202eb c" == spelled("a\u202eb\tc")


def test_a_text_of_any_length_is_aligned_up_to_a_limit() -> None:
    """
    A page of long texts must open; what is left out is counted.
    """
    line = aligned("ab " * 1000, "ab " * 1000)

    assert LONGEST // 3 == len(line.words)
    assert 1000 == len(line.words) + line.more
    assert 1 == len(aligned("a" * 5000, "").words)
