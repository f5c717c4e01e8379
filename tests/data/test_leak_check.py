"""The leak check: a prompt that holds its reference, and texts that only look like one."""

import pytest

from thunder_train.data.leak_check import holds_reference


@pytest.mark.parametrize(
    ("prompt", "reference", "hypothesis", "holds"),
    [
        (["Correct: ab cd", "say ab ce"], "ab ce", "ab cd", True),
        (["Correct: ab cd"], "ab ce", "ab cd", False),
        (["Correct: ab cd"], "ab cd", "ab cd", False),
        (["ab cd means ab cd. Correct: ab cd"], "ab cd", "ab cd", False),
        (["The answer is cd"], "cd", "ab", True),
        (["The answer is cde"], "cd", "ab", False),
        (["Repeat it"], "  ", "ab", False),
        (["cd"], " cd ", "", True),
    ],
    ids=["system", "other text", "no error", "hypothesis twice", "whole word", "part of a word", "empty", "stripped"],
)
def test_only_a_whole_reference_outside_the_hypothesis_is_a_leak(
    prompt: list[str], reference: str, hypothesis: str, holds: bool
) -> None:
    """
    A hypothesis without an error equals the reference, and that is no leak.
    """
    assert holds == holds_reference(prompt, reference, hypothesis)
