"""Untrusted texts on an HTML page: no text can disturb the page, and N'Ko stays readable. The page is the audit's."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.audits import Page, example, message, page
from thunder_train.core import html
from thunder_train.core.html import Shown
from thunder_train.core.text import UNSEEN_IN_LINES

HOSTILE = "</bdi><script>alert('x')</script> |a| `b` *c* _d_ [e](f) \\| &amp; $g$"


def text_of(shown: Shown) -> str:
    """The characters that a page shows of a text."""
    return "".join(part.text for run in shown.runs for part in run.parts)


def test_a_changed_mark_is_shown_with_the_letter_that_bears_it() -> None:
    """
    A mark alone would be drawn on whatever comes before it.
    """
    before, after = html.compared("ߒ ߞߊ߲߬ ߡߊ", "ߒ ߞߊ߲ ߡߊ")

    assert [("ߒ ߞ", ""), ("ߊ߲߬", "del"), (" ߡߊ", "")] == [(part.text, part.mark) for part in before.runs[0].parts]
    assert [("ߒ ߞ", ""), ("ߊ߲", "ins"), (" ߡߊ", "")] == [(part.text, part.mark) for part in after.runs[0].parts]


def test_no_row_can_add_markup() -> None:
    """
    Rows are untrusted, wherever the page shows them.
    """
    row = example(id=HOSTILE, partition=HOSTILE, asr_text=HOSTILE, messages=[message(HOSTILE, HOSTILE)])
    plain, hostile = Page(page()), Page(page(examples=[row], counts={"source": {HOSTILE: {"train": 4}}}))

    assert plain.tags >= hostile.tags
    assert 4 <= hostile.text.count(HOSTILE)


def test_characters_that_hide_or_reorder_are_spelled_out() -> None:
    """
    An override in one row would turn the rest of the page round; a lone surrogate could not even be written.
    """
    text = Page(page(examples=[example(id="a\u202eb\ud800", asr_text="ߊ\u200f\x07\n\t\ufeff")])).text

    assert "a\\u202eb\\ud800" in text
    assert "\\u200f\\x07\\n\\t\\ufeff" in text
    assert not UNSEEN_IN_LINES.search(text)
    assert r"a\u202eb\x07" == html.visible("a\u202eb\x07")


def test_a_message_keeps_its_lines_and_each_stretch_of_nko_its_direction() -> None:
    """
    A prompt mixes languages. Bridged words hold U+0294, which Unicode counts as Latin.
    """
    shown = html.shown_lines("Mend this: ߣʔߊ ߦߍ, please.\nߊ ߞߊ߫.\nThe end é")

    assert [
        ("", "Mend this: "),
        ("nko", "ߣʔߊ ߦߍ"),
        ("", ", please.\n"),
        ("nko", "ߊ ߞߊ߫."),
        ("other", "\nThe end é"),
    ] == [(run.kind, "".join(part.text for part in run.parts)) for run in shown.runs]


@pytest.mark.parametrize("marks", ["", "\u07eb", "\u07f2\u07eb"])
def test_a_long_text_is_cut_and_says_so(marks: str) -> None:
    """
    One row of a megabyte must not make the page unreadable; a letter at the cut keeps its marks.
    """
    text = "ߊ" * html.LONGEST + marks + "ߊ" * 1234

    assert (html.LONGEST + len(marks), 1234) == (len(html.shown(text).runs[0].parts[0].text), html.shown(text).more)
    assert "… and 1,234 more characters" in page(examples=[example(asr_text=text)])


TEXTS = st.text(st.characters(), max_size=30) | st.text("\u07ca\u07eb\u07f2ʔ a_\\|*`<&\n\u202e", max_size=30)


@settings(max_examples=15)
@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS, TEXTS), max_size=8))
def test_any_text_leaves_the_page_whole(rows: list[tuple[str, str, str, str]]) -> None:
    """
    Tags stay balanced, each text reads as it is written, N'Ko keeps its direction, and the page can be written.
    """
    examples = [
        example(id=name, asr_text=old, reference_text=new, messages=[message("user", content)])
        for name, old, new, content in rows
    ]
    read = Page(page(dropped={name: 1 for name, *_ in rows}, examples=examples).encode().decode())

    assert not read.loose
    for text in (text for name, old, new, _ in rows for text in (name, old, new)):
        assert text_of(html.shown(text)).strip() in read.text
    for line in (line for *_, content in rows for line in content.split("\n")):
        assert text_of(html.shown_lines(line)).strip() in read.text
