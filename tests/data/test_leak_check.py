"""The leak check: a prompt that holds its reference, and texts that only look like one."""

import pytest

from thunder_train.data.leak_check import Shown, texts_of


@pytest.mark.parametrize(
    ("texts", "reference", "heard", "holds"),
    [
        (["Correct: ab cd", "say ab ce"], "ab ce", ["ab cd"], True),
        (["Correct: ab cd"], "ab ce", ["ab cd"], False),
        (["Correct: ab cd"], "ab cd", ["ab cd"], False),
        (["ab cd means ab cd. Correct: ab cd"], "ab cd", ["ab cd"], False),
        (["The answer is cd"], "cd", ["ab"], True),
        (["The answer is cde"], "cd", ["ab"], False),
        (["Repeat it"], "  ", ["ab"], False),
        (["cd"], " cd ", [""], True),
        (["1. ab cd 2. ab ce"], "ab ce", ["ab cd", "ab ce"], False),
        (["1. ab 2. ab cd. cd"], "ab cd", ["ab", "ab cd"], False),
        (["Correct: ab cd (ab cde)"], "ab cde", ["ab cd"], True),
        (["Correct: ab cd (ab cd ef)"], "ab cd ef", ["ab cd"], True),
        (["1. ab 2. ab cd. ab ce"], "ab ce", ["ab", "ab cd"], True),
        (["ab ce"], "ab ce", ["ab cd", ""], True),
    ],
    ids=["another text", "other words", "no error", "hypothesis twice", "whole word", "part of a word", "empty",
         "stripped", "second of two", "longest first", "a start is heard", "a word is heard", "a part is heard",
         "none of two"],
)  # fmt: skip
def test_only_a_whole_reference_outside_what_was_heard_is_a_leak(
    texts: list[str], reference: str, heard: list[str], holds: bool
) -> None:
    """
    A hypothesis without an error equals the reference, and so may any of an n-best list: that is no leak.
    """
    shown = Shown()
    shown.add("in:1", texts, reference, heard)

    assert (["in:1"] if holds else []) == shown.leaks()


def test_texts_of_telemetry_are_found_at_any_depth() -> None:
    """
    A reference may stand in a list of an object; a number never is one.
    """
    assert ["a", "b", "c"] == [*texts_of({"x": "a", "y": {"z": [1, "b", {"u": "c"}]}, "v": 2.5})]


def leaks(*rows: tuple[str, str, list[str]]) -> list[str]:
    """Ids of the rows that leak, of rows with a prompt, a reference and what was heard."""
    prompts = Shown()
    for number, (prompt, reference, heard) in enumerate(rows):
        prompts.add(str(number), [prompt], reference, heard)
    return prompts.leaks()


def test_a_reference_in_a_given_prompt_is_a_leak() -> None:
    """
    People who write a conversation themselves may write the answer into the question.
    """
    assert ["1"] == leaks(("Correct: ab", "abc", ["ab"]), ("Correct: cd (cde)", "cde", ["cd"]))


def test_a_text_that_rows_with_other_references_share_is_static() -> None:
    """
    A row whose reference is a word of the instruction stopped whole datasets.
    """
    assert [] == leaks(("Correct it: hit", "it", ["hit"]), ("Correct it: cat", "cats", ["cat"]))
    assert ["0", "1"] == leaks(("ab (abs)", "abs", ["ab"]), ("cd (cds)", "cds", ["cd"]))
    assert ["0"] == leaks(("Correct it: hit", "it", ["hit"]))


def test_the_same_reference_twice_proves_nothing_static() -> None:
    """
    Two recordings of one sentence have one reference, and may both show it.
    """
    assert ["0", "1"] == leaks(("Correct: ab (cd)", "cd", ["ab"]), ("Correct: ac (cd)", "cd", ["ac"]))


def test_a_reference_that_was_heard_is_no_leak_in_a_given_prompt() -> None:
    """
    An alternative of the recogniser may be the right one.
    """
    assert [] == leaks(("1. ab 2. cd", "cd", ["ab", "cd"]))
