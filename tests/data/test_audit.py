"""The audit page: what is in a dataset, in tables, bars and examples."""

import re
from pathlib import Path

import pytest

from tests.helpers.audits import EMPTY, TEMPLATE, Page, example, facts, message, page
from thunder_train import ThunderError
from thunder_train.data import audit

BDI = '<bdi lang="nqo" dir="rtl">'


def test_the_page_says_what_is_in_the_dataset() -> None:
    """
    Splits keep their usual order, decisions without a name are shown, and an unmeasured rate is not shown as zero.
    """
    text = page()
    figures = "".join(f'<td class="n">{each}</td>' for each in ("12", "20.5", "1,024", "4,096"))

    assert [
        '<tr><th scope="row">train</th><td class="n">3</td><td class="n">75.0%</td>'
        f'{figures}<td class="n">0.3125</td></tr>',
        '<tr><th scope="row">valid</th><td class="n">1</td><td class="n">25.0%</td>'
        f'{figures}<td class="n"><i>not measured</i></td></tr>',
    ] == [line for line in text.splitlines() if "%</td>" in line]
    heads = "".join(f'<th scope="col" class="n">{each}</th>' for each in ("train", "valid", "all"))
    assert [
        f'<tr><th scope="col">Decision</th>{heads}</tr>',
        "</thead>",
        "<tbody>",
        _counts("<i>not stated</i>", 2, 1, 3),
        _counts("accepted", 1, "none", 1),
        "</tbody>",
    ] == text[text.index('<tr><th scope="col">Decision') :].splitlines()[:6]
    dropped = [line for line in text.splitlines() if "a.jsonl:7" in line or "exact duplicate" in line]
    assert [
        '<tr><th scope="row">empty target</th><td class="n">2</td><td>'
        '<div><a href="../../a.jsonl#L7">a.jsonl:7</a> a:7</div>'
        "<div>b.jsonl:1 b:1, because of a.jsonl:9</div></td></tr>",
        '<tr><th scope="row">exact duplicate</th><td class="n">1</td><td></td></tr>',
    ] == dropped
    assert '<tr><th scope="row">doubled marks</th><td class="n">1,200</td></tr>' in text
    assert "1 pair of rows in different splits have nearly the same text." in text


def _counts(name: str, *counts: int | str) -> str:
    cells = "".join(f'<td class="n">{count}</td>' for count in counts)
    return f'<tr><th scope="row">{name}</th>{cells}</tr>'


def test_tables_have_captions_and_scopes() -> None:
    """
    A screen reader must be able to tell which number belongs to what.
    """
    text = page()

    assert text.count("<table") == text.count("<caption>") == 6
    assert "<th>" not in text


def test_a_histogram_is_bars_beside_their_numbers() -> None:
    """
    The longest bar fills the column.
    """
    text = page(histograms={"rate": [[0, 9, 8], [10, 19, 2], [20, 29, 0], [0.25, 0.5, 1], [0.5, 0.5, 1]]})

    assert ["100.0", "25.0", "0.0", "12.5", "12.5"] == re.findall(r'<rect width="(.*?)"', text)
    bars = re.findall(r'<th scope="row" class="n">(.*?)</th>.*<td class="n">(.*?)</td>', text)
    assert [("0 to 9", "8"), ("10 to 19", "2"), ("20 to 29", "none"), ("0.25 to 0.5", "1"), ("0.5", "1")] == bars


def test_hypothesis_and_reference_stand_side_by_side_with_their_changes_marked() -> None:
    """
    Struck out and underlined, so that the change is seen without colours too.
    """
    text = page()

    assert f"<div><dt>Hypothesis</dt><dd>{BDI}ߊߟ<del>ߐ</del></bdi></dd></div>" in text
    assert f"<div><dt>Reference</dt><dd>{BDI}ߊߟ<ins>ߎ</ins></bdi></dd></div>" in text
    assert "<div><dt>Answer</dt><dd><i>the reference</i></dd></div>" in text


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"target_text": "ߊߟߐ"}, "<i>the hypothesis, unchanged</i>"),
        ({"target_text": "ߊߟߐ", "reference_text": "ߊߟߐ"}, "<i>the hypothesis, unchanged</i>"),
        ({"target_text": "ߋߟߐ"}, f"{BDI}<ins>ߋ</ins>ߟߐ</bdi>"),
        ({"asr_text": "", "target_text": "text"}, "text"),
        ({"target_text": ""}, "<i>empty</i>"),
    ],
)
def test_the_answer_is_told_by_what_it_changes(changes: dict[str, str], answer: str) -> None:
    """
    What a row teaches is a change of the hypothesis, or none; a plain text has no hypothesis.
    """
    assert f"\n<div><dt>Answer</dt><dd>{answer}</dd></div>\n" in page(examples=[example(**changes)])


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        ("counts", "Rows by source: none."),
        ("histograms", "Characters of the answer: no rows to measure."),
        ("dropped", "No row was dropped."),
        ("orthography_findings", "Nothing unusual was counted."),
        ("near_duplicates", "None: no two rows of different splits have nearly the same text."),
        ("examples", "There is no row to show."),
    ],
)
def test_an_empty_part_is_said_in_words(part: str, sentence: str) -> None:
    """
    A table without rows leaves the reader in doubt.
    """
    assert sentence in Page(page(**{part: EMPTY[part]})).text
    assert sentence in Page(audit.page(EMPTY, TEMPLATE)).text


def test_what_a_reader_must_know_stands_before_the_figures() -> None:
    """
    Which rows were given to a split, and what is disabled, decide what the figures mean.
    """
    text = page(notes=["test has no row: nothing is scored"], given={"train": 2, "valid": 0})

    assert text.index("nothing is scored") < text.index("<h2>Splits</h2>")
    assert ['<td class="n">3</td><td class="n">2</td>', '<td class="n">1</td><td class="n">none</td>'] == [
        line[line.index("<td") :][: line[line.index("<td") :].index('<td class="n">', 25)]
        for line in text.splitlines()
        if "%</td>" in line
    ]
    assert "<h2>Notes</h2>" not in page()


def test_characters_that_nobody_sees_are_named() -> None:
    """
    By code point and name, with how many there are and a row to look at.
    """
    stray = {"source": "gate", "letter": "\u0301", "name": "U+0301 COMBINING ACUTE ACCENT", "used": 0, "dropped": 3}
    text = page(
        stray_letters=[stray | {"row_id": "gate:4"}],
        invisible_characters={"gate": {"U+200B ZERO WIDTH SPACE": 7}},
        unused_fields={"mood": 9},
    )

    assert (
        '<tr><th scope="row"><bdi>◌\u0301</bdi> <small>U+0301 COMBINING ACUTE ACCENT</small></th><td class="n">3</td>'
        '<td class="n">none</td><td>gate:4</td></tr>'
    ) in text
    assert '<tr><th scope="row">U+200B ZERO WIDTH SPACE</th><td>gate</td><td class="n">7</td></tr>' in text
    assert '<tr><th scope="row">mood</th><td class="n">9</td></tr>' in text


def test_a_conversation_is_shown_with_its_calls_its_masks_and_its_tools() -> None:
    """
    A row of a chat has no hypothesis: what the model reads and what it learns is all there is.
    """
    call = {"name": "weather", "id": "c1", "arguments": {"city": "Ségou"}}
    messages = [
        message("assistant", "", calls=[call]),
        message("tool", "21", name="weather", tool_call_id="c1"),
        message("assistant", "Hm.", is_trained=False),
        message("assistant", "21 °C"),
    ]
    row = example(asr_text="", reference_text="", partition="", decision="", messages=messages, tools=[{"name": "<b>"}])

    text = page(examples=[row | {"more_messages": 2}])

    assert "<p>Split train</p>" in text
    assert "calls weather (c1): <bdi>{&#34;city&#34;: &#34;Ségou&#34;}</bdi>" in text
    assert "<dt>tool weather, answer to call c1</dt>\n<dd><div>21</div></dd>" in text
    assert "<dt>assistant, not trained on (weight 0)</dt>" in text
    assert "… and 2 more messages" in text
    assert "1 tool that the model may call" in text
    assert not re.search("Hypothesis|Reference|edit|<b>", text[text.index("<h2>Examples") :])


def test_of_many_words_the_frequent_ones_are_shown() -> None:
    """
    A partition of its own for each row must not make a page of a million lines.
    """
    words = {f"w{number:03d}": {"train": 1 + (number == 150)} for number in range(200)}

    text = page(counts={"partition": words}, unused_fields=dict.fromkeys(words, 3))

    assert _counts("w150", 2, "none", 2) in text
    assert _counts("w098", 1, "none", 1) in text
    assert _counts("w199", 1, "none", 1) not in text
    assert _counts("100 others", 100, "none", 100) in text
    assert '<tr><th scope="row">100 others</th><td class="n">300</td></tr>' in text


def test_plain_text_is_shown_as_text() -> None:
    """
    It has no prompt and no roles.
    """
    text = page(examples=[example(asr_text="", reference_text="", target_text="a\nb", messages=[], is_text=True)])

    assert '<dl class="talk"><dt>Text</dt><dd><div>a</div><div>b</div></dd></dl>' in text
    assert "The conversation" not in text


def test_each_line_and_cell_has_the_direction_of_its_text() -> None:
    """
    Arabic, Hebrew and N'Ko begin at the right, in tables and in conversations that mix languages.
    """
    lines = "שלום\nhello\nߊߟ\n\n12 سلام"
    text = page(
        counts={"partition": {"سلام": {"train": 4}}},
        dropped_examples={"empty target": [{"file": "أ.jsonl", "line": 7, "id": "a:7", "also_at": "", "href": ""}]},
        examples=[example(id="ߊ:1", messages=[message("user", lines)])],
    )

    rtl = '<div dir="rtl">'
    assert f"<dd>{rtl}<bdi>שלום</bdi></div><div>hello</div>{rtl}{BDI}ߊߟ</bdi></div><div></div>{rtl}" in text
    assert '<th scope="row" dir="rtl"><bdi>سلام</bdi></th>' in text
    assert f"{rtl}<bdi>أ.jsonl</bdi>:7" in text
    assert f'<h3 dir="rtl">{BDI}ߊ:1</bdi></h3>' in text


def test_a_split_without_rows_is_said_to_have_none() -> None:
    """
    A row of zeros would read as lengths that were measured.
    """
    splits = facts()["splits"] | {"test": {"rows": 0, "characters": {"min": 0, "median": 0, "max": 0, "total": 0}}}

    assert '<th scope="row">test</th><td class="n">none</td><td colspan="6"></td></tr>' in page(splits=splits)


def test_without_a_recogniser_there_are_no_words_of_one() -> None:
    """
    In a dataset of conversations nothing has a hypothesis, a decision or an error rate.
    """
    counts = {"source": {"chat": {"train": 4}}, "partition": {"": {"train": 4}}, "decision": {"": {"train": 4}}}
    row = example(asr_text="", reference_text="", partition="", decision="")

    text = page(cer={"train": None, "valid": None}, counts=counts, examples=[row])

    assert not re.search("CER|ypothes|Rows by decision|Rows by partition|Decision", text)


def test_a_search_that_stopped_early_says_so() -> None:
    """
    A count that is a lower bound must not read as the whole truth.
    """
    near = {"count": 20, "is_complete": False, "examples": []}
    sentence = "At least 20 pairs of rows in different splits have nearly the same text; "

    assert f"{sentence}the search stops at a limit, so there may be more." in page(near_duplicates=near)


def test_the_same_facts_are_the_same_page_whatever_their_order() -> None:
    """
    The page is part of a dataset, which is the same bytes every time.
    """
    turned = facts(
        splits=dict(reversed(facts()["splits"].items())),
        dropped=dict(reversed(facts()["dropped"].items())),
        counts={name: dict(reversed(table.items())) for name, table in facts()["counts"].items()},
    )

    assert audit.page(facts(), TEMPLATE) == audit.page(turned, TEMPLATE)


def test_the_page_needs_nothing_else() -> None:
    """
    One file, no script, no network: it can be mailed, and opened years later.
    """
    text = page()

    assert not re.search(r"https?:|src=|url\(|@import|<script|<link", text)
    links = re.findall('href="(.*?)"', text)
    assert ["manifest.json", "dropped.jsonl", "dropped.jsonl", "../../a.jsonl#L7"] == links


def test_a_template_that_is_gone_or_wrong_is_told_by_its_name(tmp_path: Path) -> None:
    """
    Templates are files of the project, so they can be lost or mistyped.
    """
    template = tmp_path / "audit.html.j2"
    with pytest.raises(ThunderError) as caught:
        audit.page(facts(), template)
    assert f"{template}: is missing; git checkout it" == str(caught.value)

    template.write_text("\n{% if %}", encoding="utf-8")
    with pytest.raises(ThunderError, match=r"audit\.html\.j2:2: .*; correct that line"):
        audit.page(facts(), template)

    template.write_text("{{ nothing }}", encoding="utf-8")
    with pytest.raises(ThunderError) as caught:
        audit.page(facts(), template)
    assert f"{template}: 'nothing' is undefined; use only the names it is given" == str(caught.value)
