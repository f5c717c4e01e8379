"""The texts of audit pages: no row can disturb the page, and N'Ko stays readable."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.audits import TEMPLATES, Page, as_html, example, facts, page
from thunder_train.data import audit

HOSTILE = "</bdi><script>alert('x')</script> |a| `b` *c* _d_ [e](f) \\| &amp; $g$"


def test_a_changed_mark_is_shown_with_the_letter_that_bears_it() -> None:
    """
    A mark alone would be drawn on whatever comes before it.
    """
    before, after = audit.compared("ߒ ߞߊ߲߬ ߡߊ", "ߒ ߞߊ߲ ߡߊ")

    assert [("ߒ ߞ", ""), ("ߊ߲߬", "del"), (" ߡߊ", "")] == [(part.text, part.mark) for part in before.runs[0].parts]
    assert [("ߒ ߞ", ""), ("ߊ߲", "ins"), (" ߡߊ", "")] == [(part.text, part.mark) for part in after.runs[0].parts]


@pytest.mark.parametrize("kind", ["html", "md"])
def test_no_row_can_add_markup(kind: str) -> None:
    """
    Rows are untrusted, wherever the page shows them.
    """
    row = example(id=HOSTILE, partition=HOSTILE, asr_text=HOSTILE, messages=[{"role": HOSTILE, "content": HOSTILE}])
    plain, hostile = page(kind), page(kind, examples=[row], counts={"source": {HOSTILE: {"train": 4}}})
    if kind == "md":
        plain, hostile = as_html(plain), as_html(hostile)

    assert Page(plain).tags >= Page(hostile).tags
    assert 4 <= Page(hostile).text.count(HOSTILE)


@pytest.mark.parametrize("kind", ["html", "md"])
def test_characters_that_hide_or_reorder_are_spelled_out(kind: str) -> None:
    """
    An override in one row would turn the rest of the page round; a lone surrogate could not even be written.
    """
    text = page(kind, examples=[example(id="a\u202eb\ud800", asr_text="ߊ\u200f\x07\n\t\ufeff")])
    text = Page(as_html(text) if kind == "md" else text).text

    assert "a\\u202eb\\ud800" in text
    assert "\\u200f\\x07\\n\\t\\ufeff" in text
    assert not audit.UNSEEN_IN_LINES.search(text)


def test_a_message_keeps_its_lines_and_each_stretch_of_nko_its_direction() -> None:
    """
    A prompt mixes languages. Bridged words hold U+0294, which Unicode counts as Latin.
    """
    shown = audit.spoken("Mend this: ߣʔߊ ߦߍ, please.\nߊ ߞߊ߫.\nThe end é")

    assert [
        ("", "Mend this: "),
        ("nko", "ߣʔߊ ߦߍ"),
        ("", ", please.\n"),
        ("nko", "ߊ ߞߊ߫."),
        ("other", "\nThe end é"),
    ] == [(run.kind, "".join(part.text for part in run.parts)) for run in shown.runs]


def test_a_long_text_is_cut_and_says_so() -> None:
    """
    One row of a megabyte must not make the page unreadable; a letter at the cut keeps its marks.
    """
    text = "ߊ" * audit.LONGEST + "\u07eb" + "ߊ" * 1234

    assert (audit.LONGEST + 1, 1234) == (len(audit.shown(text).runs[0].parts[0].text), audit.shown(text).more)
    assert "… and 1,234 more characters" in page("html", examples=[example(asr_text=text)])


def test_the_html_page_needs_nothing_else() -> None:
    """
    One file, no script, no network: it can be mailed, and opened years later.
    """
    text = page("html")

    assert not re.search(r"https?:|src=|url\(|@import|<script|<link", text)
    assert ["manifest.json", "dropped.jsonl", "audit.md", "dropped.jsonl"] == re.findall('href="(.*?)"', text)


TEXTS = st.text(st.characters(), max_size=30) | st.text("\u07ca\u07eb\u07f2ʔ a_\\|*`<&\n\u202e", max_size=30)


@settings(max_examples=15)
@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS, TEXTS), max_size=8))
def test_any_text_leaves_both_pages_whole(rows: list[tuple[str, str, str, str]]) -> None:
    """
    Tags stay balanced, each text reads as it is written, N'Ko keeps its direction, and the pages can be written.
    """
    examples = [
        example(id=name, asr_text=old, reference_text=new, messages=[{"role": "user", "content": content}])
        for name, old, new, content in rows
    ]
    found = audit.pages(facts(dropped={name: 1 for name, *_ in rows}, examples=examples), TEMPLATES)

    for each in (Page(found["audit.html"].encode().decode()), Page(as_html(found["audit.md"].encode().decode()))):
        assert not each.loose
        for text in (text for name, old, new, _ in rows for text in (name, old, new)):
            assert "".join(part.text for run in audit.shown(text).runs for part in run.parts).strip() in each.text
        for line in (line for *_, content in rows for line in content.split("\n")):
            assert "".join(part.text for run in audit.spoken(line).runs for part in run.parts).strip() in each.text
