"""Equal problems of a file are one line."""

import pytest

from thunder_train import SHOWN_PROBLEMS, ThunderError
from thunder_train.data.problems import Problems


def listed(problems: Problems) -> list[str]:
    """The lines of the error."""
    with pytest.raises(ThunderError) as error:
        problems.raise_all()
    return str(error.value).splitlines()


def test_equal_problems_name_their_first_places_and_count_the_others() -> None:
    """240 lines that say the same hide the one that says something else."""
    problems = Problems("x.jsonl")
    for line in range(1, 241):
        problems.add("lacks text", f"x.jsonl:{line}", "add it")
    problems.add("is not UTF-8", "x.jsonl:241", "save it")

    expected = ["x.jsonl:1, 2, 3 and 237 more: lacks text; add it", "x.jsonl:241: is not UTF-8; save it"]
    assert expected == listed(problems)


def test_places_of_any_form_are_shown_without_repeating_the_file() -> None:
    """Rows have numbers, indices of a list, or columns."""
    problems = Problems("x.json")
    for place in ("row 1", "row 2", "row 3", "row 4"):
        problems.add("is wrong", f"x.json: {place}", "")
    for place in ("a.b[0]", "a.b[2]"):
        problems.add("is deep", f"x.json: {place}", "")
    for place in ("1:2", "3:4"):
        problems.add("is odd", f"x.json:{place}", "")

    assert [
        "x.json: row 1, 2, 3 and 1 more: is wrong",
        "x.json: a.b[0], a.b[2]: is deep",
        "x.json:1:2, 3:4: is odd",
    ] == listed(problems)


def test_one_place_counts_once() -> None:
    """A row may have the same fault in two of its messages."""
    problems = Problems("x.json")
    for _ in range(2):
        problems.add("is wrong", "x.json:1", "")

    assert ["x.json:1: is wrong"] == listed(problems)


def test_different_problems_beyond_a_screen_are_counted() -> None:
    """A million of them must fit the memory."""
    problems = Problems("x.json")
    for number in range(SHOWN_PROBLEMS + 5):
        problems.add(f"is wrong in way {number}", "x.json:1", "")

    lines = listed(problems)
    assert (SHOWN_PROBLEMS + 1, "... and 5 more") == (len(lines), lines[-1])


def test_no_problem_raises_nothing() -> None:
    """A file without problems is read on."""
    Problems("x.json").raise_all()
