"""The audit pages: what is in a dataset, in tables, bars and examples."""

import re
from pathlib import Path

import pytest

from tests.helpers.audits import EMPTY, TEMPLATES, Page, example, facts, page
from thunder_train import ThunderError
from thunder_train.data import audit


def test_the_pages_say_what_is_in_the_dataset() -> None:
    """
    Splits in their usual order whatever the facts' order, unnamed decisions told, unmeasured rates not shown as zero.
    """
    lines = page("md").splitlines()

    assert [
        "| train | 3 | 75.0% | 12 | 20.5 | 1,024 | 4,096 | 0.3125 |",
        "| valid | 1 | 25.0% | 12 | 20.5 | 1,024 | 4,096 | *not measured* |",
    ] == [line for line in lines if line.startswith(("| train", "| valid")) and "%" in line]
    assert ["| Decision | train | valid | all |", "|---|--:|--:|--:|"] == lines[21:23]
    assert ["| *not stated* | 2 | 1 | 3 |", "| accepted | 1 | 0 | 1 |"] == lines[23:25]
    assert ["| empty target | 2 | a.jsonl:7 a:7 |", "| exact duplicate | 1 |  |"] == lines[38:40]
    assert "| doubled marks | 1,200 |" in lines
    assert "1 pair of rows in different splits say nearly the same." in lines


def test_the_html_page_has_the_same_facts_in_tables_with_captions_and_scopes() -> None:
    """
    A screen reader must be able to tell which number belongs to what.
    """
    text = page("html")

    assert '<tr><th scope="row">accepted</th><td class="n">1</td><td class="n">0</td><td class="n">1</td></tr>' in text
    assert '<tr><th scope="row">empty target</th><td class="n">2</td><td>a.jsonl:7 a:7</td></tr>' in text
    assert text.count("<table") == text.count("<caption>") == 6
    assert "<th>" not in text


def test_a_histogram_is_bars_beside_their_numbers() -> None:
    """
    The longest bar fills the column, and a count that is not zero is never invisible.
    """
    assert ["100.0", "25.0", "0.0"] == re.findall(r'<rect width="(.*?)"', page("html"))
    bars = [line for line in page("md").splitlines() if " to " in line and line.startswith("|")]
    assert [f"| 0 to 9 | {'█' * 30} | 8 |", f"| 10 to 19 | {'█' * 8} | 2 |", "| 20 to 29 |  | 0 |"] == bars
    assert "| 0.5 | █ | 1 |" in page("md", histograms={"rate": [[0.25, 0.5, 900], [0.5, 0.5, 1]]})


def test_hypothesis_and_reference_stand_side_by_side_with_their_changes_marked() -> None:
    """
    Struck out and underlined, so that the change is seen without colours too.
    """
    old, new = "ߊߟ<del>ߐ</del></bdi>", "ߊߟ<ins>ߎ</ins></bdi>"
    bdi = '<bdi lang="nqo" dir="rtl">'

    assert f"<div><dt>Hypothesis</dt><dd>{bdi}{old}</dd></div>" in page("html")
    assert f"<div><dt>Reference</dt><dd>{bdi}{new}</dd></div>" in page("html")
    assert f"| Hypothesis | {bdi}{old} |\n| Reference | {bdi}{new} |\n| Answer | *the reference* |" in page("md")


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"target_text": "ߊߟߐ"}, "*the hypothesis, unchanged*"),
        ({"target_text": "ߊߟߐ", "reference_text": "ߊߟߐ"}, "*the hypothesis, unchanged*"),
        ({"target_text": "ߋߟߐ"}, '<bdi lang="nqo" dir="rtl"><ins>ߋ</ins>ߟߐ</bdi>'),
        ({"asr_text": "", "reference_text": "", "target_text": "text"}, "text"),
        ({"target_text": ""}, "*empty*"),
    ],
)
def test_the_answer_is_told_by_what_it_changes(changes: dict[str, str], answer: str) -> None:
    """
    What a row teaches is a change of the hypothesis, or none; a plain text has no hypothesis.
    """
    assert f"\n| Answer | {answer} |\n" in page("md", examples=[example(**changes)])


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("counts", "Rows by source: none."),
        ("histograms", "Characters of the answer: no rows to measure."),
        ("dropped", "No row was dropped."),
        ("orthography_findings", "Nothing was found."),
        ("near_duplicates", "0 pairs of rows in different splits say nearly the same."),
        ("examples", "There is no row to show."),
    ],
)
def test_an_empty_part_is_said_in_words(part: str, said: str) -> None:
    """
    A table without rows leaves the reader in doubt.
    """
    assert said in audit.pages(facts(**{part: EMPTY[part]}), TEMPLATES)["audit.md"]
    assert said in Page(audit.pages(EMPTY, TEMPLATES)["audit.html"]).text


def test_a_search_that_stopped_early_says_so() -> None:
    """
    A count that is a lower bound must not read as the whole truth.
    """
    near = {"count": 20, "is_complete": False, "examples": []}
    said = "At least 20 pairs of rows in different splits say nearly the same; "

    assert f"{said}the search stops at a limit, so there may be more." in page("md", near_duplicates=near)


def test_the_same_facts_are_the_same_pages_whatever_their_order() -> None:
    """
    The pages are part of a dataset, which is the same bytes every time.
    """
    turned = facts(
        splits=dict(reversed(facts()["splits"].items())),
        dropped=dict(reversed(facts()["dropped"].items())),
        counts={name: dict(reversed(table.items())) for name, table in facts()["counts"].items()},
    )

    assert audit.pages(facts(), TEMPLATES) == audit.pages(turned, TEMPLATES)


def test_a_template_that_is_gone_or_wrong_is_told_by_its_name(tmp_path: Path) -> None:
    """
    Templates are files of the project, so they can be lost or mistyped.
    """
    with pytest.raises(ThunderError) as caught:
        audit.pages(facts(), tmp_path)
    assert f"{tmp_path}/audit.html.j2: is missing; git checkout it" == str(caught.value)

    (tmp_path / "audit.html.j2").write_text("\n{% if %}", encoding="utf-8")
    with pytest.raises(ThunderError, match=r"audit\.html\.j2:2: .*; mend that line"):
        audit.pages(facts(), tmp_path)

    (tmp_path / "audit.html.j2").write_text("{{ nothing }}", encoding="utf-8")
    with pytest.raises(ThunderError) as caught:
        audit.pages(facts(), tmp_path)
    assert f"{tmp_path}/audit.html.j2: 'nothing' is undefined; use only the names it is given" == str(caught.value)
