"""The pages of a run whose rows are silent, a chat, plain text or missing: no figure is wrong, no word out of place."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import evaluations, recipes
from tests.helpers.audits import Page
from thunder_train.config.report import Report
from thunder_train.report import run_report, runs_index

NOTHING = {"loss": None, "perplexity": None, "tokens": 0, "dropped": 0}
SOME = {"loss": 1.25, "perplexity": 3.49, "tokens": 77, "dropped": 0}


def scored(model: str, **ends: float | None) -> dict[str, Any]:
    """A line of the scores of answers."""
    names = [f"{name}{end}" for name in ("exact", "cer", "wer", "chrf") for end in ("_low", "_high")]
    values = {"exact": 0.25, "cer": 0.5, "wer": 0.75, "chrf": 61.5}
    return {"model": model, "n": 3} | dict.fromkeys(names) | values | ends


def answers() -> dict[str, Any]:
    """The part "answers" of eval.json for the rows of recipes.CHAT."""
    names = ("id", "question", "answer", "base", "adapter")
    first, _, last = ({name: row[name] for name in names} for row in recipes.CHAT)
    change = {name: value for name, value in scored("").items() if name not in ("model", "n")}
    return {
        "rows": 3,
        "groups": 3,
        "scores": [scored("base"), scored("adapter", cer_low=0.4, cer_high=0.625)],
        "change": change | {"cer": -12.5, "cer_low": -20.25, "cer_high": -3.5},
        "better": 1,
        "same": 2,
        "worse": 0,
        "examples": {"best": [last], "worst": [first]},
    }


def pages(root: Path, is_chat: bool = False, **given: Any) -> tuple[str, str, dict[str, Any]]:
    """(report.html, report.md, promotion.json) of a run. is_chat: its dataset has no prompt template."""
    recipe = recipes.finished(root, **given)
    results = run_report.gather(recipe, root)
    if is_chat:
        recipe = replace(recipe, dataset=replace(recipe.dataset, templates=()), report=Report())
        results = replace(results, recipe=recipe, evaluation=results.evaluation | {"answers": answers()})
    decision = run_report.decide(results)
    folder = root / "templates"
    html, markdown = (page(results, decision, folder) for page in (run_report.html_page, run_report.markdown_page))
    assert all(f' id="{name}"' in html for name in re.findall(r'<a href="#([\w-]+)">', html))
    assert "None" not in Page(html).text.replace("None.", "")
    return html, markdown, decision


def test_a_chat_has_answers_and_no_word_of_recognisers(tmp_path: Path) -> None:
    """
    Nothing was recognised and no gate was asked: tables of error rates would be empty, and their words misleading.
    """
    html, markdown, _ = pages(tmp_path, is_chat=True, rows=recipes.CHAT)
    page = Page(html)

    assert "3 rows in 3 groups have an expected answer and nothing to correct" in page.text
    assert '<td class="n">0.5000</td><td class="n">0.4000 to 0.6250</td>\n' in html
    assert '<td class="n">-12.50 pp</td><td class="n">-20.25 pp to -3.50 pp</td>' in html
    assert "Change of their CER-12.50 pp -20.25 to -3.50" in page.text
    assert "Change of the answers' chrF, base to adapter+61.50 too few groups" in page.text
    assert re.search(r"\| adapter \| 25.0 % \| too few groups \| 0.5000 \| 0.4000 to 0.6250 \|", markdown)
    assert "copy the question" in page.text
    assert recipes.HOSTILE in page.text
    worst, best = page.text.index("Most worsened by the adapter"), page.text.index("Most improved by the adapter")
    assert worst < page.text.index("chat:0") < best < page.text.index("chat:2")
    for text in (page.text, markdown):
        assert not re.search("recogniser|[Hh]ypothes|gate accepts|proposals", text.partition("Attached")[0])


def test_a_run_without_test_rows_says_so_once(tmp_path: Path) -> None:
    """
    test = 0 is allowed; the reader must not look for the scores.
    """
    html, markdown, decision = pages(
        tmp_path, rows=[], **{model: {"valid": SOME, "test": NOTHING} for model in ("base", "adapter")}
    )

    assert "<p>No test row was scored: the dataset has none. <small>" in html
    assert "\nNo test row was scored: the dataset has none.\n" in markdown
    texts = [reason["text"] for reason in decision["reasons"]]
    assert ["No test row was scored: the dataset has none."] == [text for text in texts if " scored" in text]


def test_a_run_without_validation_rows_shows_the_loss_of_the_test_rows(tmp_path: Path) -> None:
    """
    valid = 0 is allowed; then no figure has a validation loss.
    """
    results = {model: {"valid": NOTHING, "test": SOME} for model in ("base", "adapter")}
    recipe = recipes.finished(tmp_path, **results)
    found = run_report.gather(recipe, tmp_path)
    found.done["losses"]["valid"], found.done["best"] = [], None
    decision = run_report.decide(found)
    html = run_report.html_page(found, decision, tmp_path / "templates")
    markdown = run_report.markdown_page(found, decision, tmp_path / "templates")

    assert "<dt>Test loss, base to adapter</dt>" in html
    assert "The dataset has no validation rows: the adapter is that of the last step" in html
    assert "- validation loss: unknown, the dataset has no validation rows\n" in markdown
    assert "- test loss, base to adapter: 1.2500 to 1.2500\n" in markdown


def test_the_index_shows_a_run_without_losses(tmp_path: Path) -> None:
    """
    One such run must not be called unreadable.
    """
    nothing = {model: {"valid": NOTHING, "test": NOTHING} for model in ("base", "adapter")}
    recipes.reported(tmp_path, rows=[], **nothing)
    text = runs_index.build(tmp_path)

    assert "Unreadable manifests" not in text
    line = next(line for line in text.splitlines() if line.startswith('<tr><th scope="row" data-value="smoke"'))
    assert ["–"] * 4 == re.findall(r'<td class="n" data-value="">(.*?)</td>', line)


def test_silence_has_a_table_of_inventions(tmp_path: Path) -> None:
    """
    The rate alone does not show them.
    """
    row = evaluations.prediction("", "", "ߊߓ", "ߊ") | {"silent": True}
    html, markdown, _ = pages(tmp_path, rows=[row, evaluations.prediction("ߊ", "ߋ", "ߊ", "ߋ")])

    assert "2 of 2 rows have a reference" in html
    assert "; that of 1 is empty, because nothing was said." in html
    assert '<tr><th scope="row">base blind</th><td class="n">1</td><td class="n">2</td></tr>' in html
    assert "Error rates on 2 of 2 test rows, 1 of them silent, profile" in markdown
    head = "\n\n| condition | silent rows with a text, of 1 | invented code points |\n|---|---|---|\n"
    assert f"{head}| baseline | 0 | 0 |\n" in markdown


def test_a_model_that_was_still_thinking_is_named(tmp_path: Path) -> None:
    """
    Its answers are empty for a reason that a recipe can change.
    """
    rows = [row | {"base": "", "base_finish": "thinking"} for row in recipes.predictions(recipes.TEXTS)]
    html, markdown, _ = pages(tmp_path, rows=rows)
    sentence = "6 of 6 answers of the base were still thinking when they ended; set enable_thinking = false in "

    assert f"<p><strong>{sentence}[models.NAME.template] or raise evaluate.max_tokens.</strong></p>" in html
    assert '<th scope="row">were still thinking when they ended</th><td class="n">6</td><td class="n">0</td>' in html
    assert sentence in markdown.replace("\\", "")


def test_rows_of_plain_text_are_named(tmp_path: Path) -> None:
    """
    They are test rows, but nobody answered them.
    """
    html, markdown, _ = pages(tmp_path, rows=[], text_rows=4)

    assert "No test row was scored: all 4 are plain text." in html
    assert "Perplexity of the test rows, base to adapter518.01 to 4.48" in Page(html).text
    assert not re.search("Behaviour|Examples|All rows", Page(html).text)
    assert "- rows of plain text, which have a loss and no answer: 4\n" in markdown


@pytest.mark.parametrize(("profile", "name"), [("wer-nfc-pooled", "WER"), ("cer-codepoint-nfc-pooled", "CER")])
def test_the_rate_has_the_name_of_its_unit(tmp_path: Path, profile: str, name: str) -> None:
    """
    Whoever counts words must not read CER above the column.
    """
    html, markdown, _ = pages(tmp_path, given=evaluations.settings(profile=profile))

    assert f"<dt>Change of the {name} when gated</dt>" in html
    assert f"| condition | {name} | interval |" in markdown
