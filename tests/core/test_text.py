"""Text that is safe to print, and its letters."""

import pytest

from thunder_train.core.text import QUOTED, clusters, escaped, nfc, printable, printable_lines, quoted


def test_text_of_a_file_cannot_steer_a_terminal() -> None:
    """
    Row ids, error texts and manifests come from anyone.
    """
    hostile = "a ߊ\x1b[31m\n\U000e0001"

    assert "a ߊ\ufffd[31m\ufffd\ufffd" == printable(hostile)
    assert "a ߊ\ufffd[31m\n\ufffd" == printable_lines(hostile)
    assert r"a ߊ\u001b[31m\u000a\U000e0001" == escaped(hostile)


def test_a_letter_and_its_marks_are_one_cluster() -> None:
    """
    A tone is part of its letter, and a mark at the start of a text stands alone.
    """
    assert ["ߊ\u07f2\u07eb", "ߓ\u200d", " ", "ߞ"] == clusters("ߊ\u07f2\u07ebߓ\u200d ߞ")
    assert ["\u07eb", "ߊ"] == clusters("\u07ebߊ")
    assert "".join(clusters("a\r\n\U0001f468\u200d\U0001f469")) == "a\r\n\U0001f468\u200d\U0001f469"


@pytest.mark.parametrize(("text", "composed"), [("ߊ\u07f2\u07eb", "ߊ\u07eb\u07f2"), ("e\u0301", "é"), ("ߊ", "ߊ")])
def test_marks_in_any_order_are_one_text(text: str, composed: str) -> None:
    """
    Two keyboards type the same letter in two ways.
    """
    assert nfc(composed) == nfc(text)


def test_a_quoted_value_is_short() -> None:
    """
    A row of a megabyte must not fill the terminal.
    """
    assert "'a\\n'" == quoted("a\n")
    assert QUOTED + len("...") == len(quoted("a" * 1000))
