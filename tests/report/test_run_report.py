"""The report as one HTML file: what it tells, and that no row can disturb it."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import recipes
from tests.helpers.audits import NKO, Page
from thunder_train import ThunderError
from thunder_train.core import files, html
from thunder_train.report import run_report

RUN = "runs/smoke"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """report.html of a run with a hostile row."""
    return recipes.reported(tmp_path_factory.mktemp("run"))


def values_of(root: Path, **given: Any) -> dict[str, Any]:
    """What the pages of such a run tell."""
    recipe = recipes.finished(root, **given)
    return run_report.gather(recipe, root, recipes.decided(recipe, root))


def test_the_page_tells_decision_and_scores(shown: Path) -> None:
    """
    The numbers are those of eval.json, and each has its interval beside it.
    """
    text = shown.read_text(encoding="utf-8")
    line = next(
        each
        for each in files.read_json(shown.parent / "eval.json")["conditions"]
        if (each["condition"], each["partition"]) == ("adapter_gated", "all")
    )

    assert re.search(r"<title>smoke, run [0-9a-f]{12}: NO-GO</title>", text)
    assert f"{line['cer_low']:.4f} to {line['cer_high']:.4f}" in text
    assert '<th scope="row">adapter_gated</th><td class="n">6</td>' in text
    assert "only real evidence can promote an adapter." in text
    assert all(f'<h2 id="{name}">' in text for name in re.findall(r'<a href="#(\w+)">', text))


def test_every_table_figure_and_number_of_the_head_leads_to_its_file(shown: Path) -> None:
    """
    A number that cannot be checked is not worth much. One link a table: a link a cell would bury the keyboard user.
    """
    text = shown.read_text(encoding="utf-8")
    links = set(re.findall(r'<a href="([^#"]+)">', text))

    assert {"../index.html"} == {link for link in links if not (shown.parent / link).is_file()}
    captions = re.findall(r"<(?:fig)?caption.*?</(?:fig)?caption>", text, re.DOTALL)
    assert len(captions) == text.count("<table") + text.count("<svg") > 10
    assert all("<a href=" in caption for caption in captions)
    facts = re.findall(r"<dt>(?!Hypothesis|Adapter's answer|Reference|Environment).*?</dd>", text)
    assert len(facts) == 15
    assert all("<a href=" in fact for fact in facts)


def test_every_table_names_its_columns_and_rows(shown: Path) -> None:
    """
    A screen reader must be able to tell which number belongs to what.
    """
    text = shown.read_text(encoding="utf-8")

    assert text.count("<table") == text.count("<caption") == text.count("<thead>")
    assert "<th>" not in text
    assert text.count("<svg role=") == text.count("<desc id=") == 6
    assert len(re.findall(r' id="', text)) == len(set(re.findall(r' id="(.*?)"', text)))


def test_no_row_can_add_markup_and_nko_runs_from_right_to_left(shown: Path) -> None:
    """
    Rows are untrusted wherever the page shows them; a direction override would turn the rest of the page round.
    """
    read = Page(shown.read_text(encoding="utf-8"))

    assert {"script", "img"}.isdisjoint(read.tags)
    assert recipes.HOSTILE in read.text
    assert NKO.search(read.text)
    assert "" == read.loose
    assert "\\u202e" in read.text
    assert not html.UNSEEN_IN_LINES.search(read.text)


def test_the_page_needs_nothing_else(shown: Path) -> None:
    """
    One file, no script, no network: it can be mailed, and opened years later.
    """
    text = shown.read_text(encoding="utf-8")

    assert "default-src 'none'; style-src 'unsafe-inline'" in text
    assert not re.search(r"\ssrc=|url\(|@import|<link|https?://", text.replace("src=x", ""))


def test_the_same_run_is_the_same_pages(tmp_path: Path, shown: Path) -> None:
    """
    No time, host or path is in them.
    """
    again = recipes.reported(tmp_path)

    for name in ("report.html", "report.md"):
        assert (shown.parent / name).read_bytes() == (again.parent / name).read_bytes()
    assert str(tmp_path).encode() not in again.read_bytes()


def test_lone_marks_and_spaces_among_confusions_are_named(tmp_path: Path) -> None:
    """
    A mark without a letter, or a space, cannot be seen.
    """
    found = values_of(tmp_path)
    found["evaluation"]["confusions"] = [["߲", "", 3], [" ", "ߊ", 2]]
    text = run_report.build_html(found, tmp_path / "templates")

    assert '<bdi lang="nqo" dir="rtl">߲</bdi> <small>U+07F2</small></td><td><i>nothing</i></td>' in text
    assert '<td><i>space</i></td><td><bdi lang="nqo" dir="rtl">ߊ</bdi> <small>U+07CA</small></td>' in text


def test_a_run_without_references_has_pages_too(tmp_path: Path) -> None:
    """
    Predictions may come without references; then there is no rate, and no figure of it.
    """
    blind = [(partition, asr, "", base, adapter) for partition, asr, _, base, adapter in recipes.TEXTS]
    text = recipes.reported(tmp_path, texts=blind).read_text(encoding="utf-8")

    assert "<p>No row could be scored.</p>" in text
    assert 'id="cer-title"' not in text
    assert "No row could be scored." in (tmp_path / RUN / "report.md").read_text(encoding="utf-8")


def test_a_collapse_is_said_in_words(tmp_path: Path) -> None:
    """
    It must not hide in a table.
    """
    texts = [(partition, asr, reference, base, "") for partition, asr, reference, base, _ in recipes.TEXTS]
    told = "6 of 6 answers (100.0%) are empty; the limit is "

    assert f"<li>{told}" in recipes.reported(tmp_path, texts=texts).read_text(encoding="utf-8")
    assert f"- **collapsed**: {told}" in (tmp_path / RUN / "report.md").read_text(encoding="utf-8")


def test_a_long_training_has_a_small_page(tmp_path: Path) -> None:
    """
    Each step is in metrics.jsonl; the figure of 20,000 steps needs a few hundred of them.
    """
    found = values_of(tmp_path, steps=4)
    found["metrics"] = recipes.metrics(20_000)
    found["done"]["losses"]["train"] = [[step, 1 / step] for step in range(1, 20_001)]

    assert 100_000 > len("".join(run_report.figures(found).values()))


def test_the_markdown_page_has_the_sections_of_the_first_status_page(shown: Path) -> None:
    """
    Readers of the first Thunder Train's page find what they know, and the conditions with their intervals.
    """
    text = (shown.parent / "report.md").read_text(encoding="utf-8")
    gated = [line for line in text.splitlines() if line.startswith("| adapter_gated | all |")]

    assert [
        "Verified cluster state",
        "Dataset",
        "Command shape",
        "Result",
        "Architecture boundary",
        "Promotion decision",
    ] == re.findall(r"(?m)^## (.*)$", text)
    assert [12] == [line.count("|") for line in gated]
    assert "| reproduction | `./doit reproduce:smoke` |" in text
    assert "<script" not in text


@pytest.mark.parametrize(
    ("gone", "hint"),
    [("decisions.jsonl", "; run `./doit evaluate:smoke`"), ("predictions.jsonl", ""), ("metrics.jsonl", "")],
)
def test_a_missing_file_is_told_by_name(tmp_path: Path, gone: str, hint: str) -> None:
    """
    A report of half a run would mislead.
    """
    recipe = recipes.finished(tmp_path)
    decision = recipes.decided(recipe, tmp_path)
    (tmp_path / RUN / gone).unlink()

    with pytest.raises(ThunderError) as caught:
        run_report.gather(recipe, tmp_path, decision)
    assert f"{tmp_path}/{RUN}/{gone}: is missing{hint}" == str(caught.value)


def test_a_missing_style_is_told_by_name(tmp_path: Path) -> None:
    """
    The templates are files of the project, so they can be lost.
    """
    found = values_of(tmp_path)
    (tmp_path / "templates" / "style.css.j2").unlink()

    with pytest.raises(ThunderError) as caught:
        run_report.build_html(found, tmp_path / "templates")
    assert f"{tmp_path}/templates/style.css.j2: is missing; git checkout it" == str(caught.value)
