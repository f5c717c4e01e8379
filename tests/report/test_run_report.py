"""The pages of a run: what they show, and that no row can disturb them."""

import base64
import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers import evaluations, recipes
from tests.helpers.audits import NKO, Page
from thunder_train import ThunderError
from thunder_train.config.report import Report
from thunder_train.core import files, shipped
from thunder_train.core.text import UNSEEN_IN_LINES
from thunder_train.report import figures, run_report

RUN = "runs/smoke"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """report.html of a run with a hostile row."""
    return recipes.reported(tmp_path_factory.mktemp("run"))


def html_page(root: Path, results: run_report.Results) -> str:
    """report.html of changed results."""
    return run_report.html_page(results, run_report.decide(results), root / "templates")


def test_the_page_shows_decision_and_scores(shown: Path) -> None:
    """
    The numbers are those of eval.json; six rows are too few for an interval.
    """
    text = shown.read_text(encoding="utf-8")
    line = next(
        each
        for each in files.read_json(shown.parent / "eval.json")["conditions"]
        if (each["condition"], each["partition"]) == ("adapter_gated", "all")
    )

    assert re.search(r"<title>smoke, run [0-9a-f]{12}: NO-GO</title>", text)
    assert line["too_few_groups"]
    assert f'<td class="n">{line["cer"]:.4f}</td><td class="n">too few groups</td>' in text
    assert '<th scope="row" class="letter">adapter gated</th><td class="n">6</td>' in text
    assert "only real evidence can promote an adapter." in text
    assert all(f' id="{name}"' in text for name in re.findall(r'<a href="#([\w-]+)">', text))


def test_every_table_figure_and_headline_number_links_its_file(shown: Path) -> None:
    """
    Readers can check every number. One link per table: a link per cell would be hard to use by keyboard.
    """
    text = shown.read_text(encoding="utf-8")
    links = set(re.findall(r'<a href="([^#"]+)">', text))

    assert {"../index.html"} == {link for link in links if not (shown.parent / link).is_file()}
    captions = re.findall(r"<(?:fig)?caption.*?</(?:fig)?caption>", text, re.DOTALL)
    assert len({*captions}) == len(captions)
    assert len(captions) == text.count("<table") + text.count("<svg") > 10
    assert all("<a href=" in caption for caption in captions)
    facts = re.findall(
        r"<div(?: class=\"main\")?><dt>(?!Hypothesis|Adapter's answer|Reference|Environment).*?</dd>", text
    )
    assert len(facts) == 17
    assert all("<a href=" in fact for fact in facts)


def test_every_table_names_its_columns_and_rows(shown: Path) -> None:
    """
    A screen reader must be able to say what each number belongs to.
    """
    text = shown.read_text(encoding="utf-8")

    assert text.count("<table") == text.count("<caption") == text.count("<thead>")
    assert "<th>" not in text
    assert text.count("<svg role=") == text.count("<desc id=") == 6
    assert len(re.findall(r' id="', text)) == len(set(re.findall(r' id="(.*?)"', text)))


def test_no_row_can_add_markup_and_nko_runs_from_right_to_left(shown: Path) -> None:
    """
    Rows are untrusted wherever the page shows them; a direction override would reverse the rest of the page.
    """
    text = shown.read_text(encoding="utf-8")
    read = Page(text)

    assert "img" not in read.tags
    assert 2 == text.count("</script>")
    assert recipes.HOSTILE in read.text
    assert NKO.search(read.text)
    assert "" == read.loose
    assert "\\u202e" in read.text
    assert not UNSEEN_IN_LINES.search(read.text)


def test_the_page_needs_nothing_else(shown: Path) -> None:
    """
    One file, no network, no script but its own: it can be sent by mail and opened years later.
    """
    text = shown.read_text(encoding="utf-8")
    script = re.search("<script>(.*?)</script>", text, re.DOTALL)

    assert script
    digest = base64.b64encode(hashlib.sha256(script.group(1).encode()).digest()).decode()
    assert f"content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'\"" in text
    outside = text.replace("src=x", "").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"\ssrc=|url\(|@import|<link|https?://", outside)


def test_the_same_run_is_the_same_pages(tmp_path: Path, shown: Path) -> None:
    """
    What they say of time and hosts is read from files; no absolute path is on them.
    """
    again = recipes.reported(tmp_path)

    for name in ("report.html", "report.md"):
        assert (shown.parent / name).read_bytes() == (again.parent / name).read_bytes()
    assert str(tmp_path).encode() not in again.read_bytes()


def test_lone_marks_and_spaces_among_confusions_are_named(tmp_path: Path) -> None:
    """
    A space is invisible, and a mark without a letter nearly so.
    """
    rows = [evaluations.prediction("ߊߊ", "ߊ ߊ", "", "ߊ߲ߋߊ"), evaluations.prediction("ߊ", "߲", "", "")]
    text = recipes.reported(tmp_path, rows=rows).read_text(encoding="utf-8")
    nko = '<td class="letter"><bdi lang="nqo" dir="rtl">{}</bdi> <small>{}</small></td>'.format

    assert f'{nko("߲", "U+07F2")}{nko("ߊ", "U+07CA")}<td class="n">1</td>' in text
    assert '<td class="letter"><i>space</i></td><td class="letter"><i>nothing</i></td><td class="n">1</td>' in text
    assert f'<td class="letter"><i>space</i></td>{nko("ߋ", "U+07CB")}<td class="n">1</td><td class="n">0</td>' in text


def test_a_run_without_references_has_pages_too(tmp_path: Path) -> None:
    """
    Without references there is no error rate and no figure of it.
    """
    blind = [(partition, asr, "", base, adapter) for partition, asr, _, base, adapter in recipes.TEXTS]
    text = recipes.reported(tmp_path, texts=blind).read_text(encoding="utf-8")

    assert "<p>No test row was scored: all 6 are rows without a reference. <small>" in text
    assert 'id="cer-title"' not in text
    sentence = "\nNo test row was scored: all 6 are rows without a reference.\n"
    assert sentence in (tmp_path / RUN / "report.md").read_text(encoding="utf-8")


def test_a_collapse_is_reported_in_words(tmp_path: Path) -> None:
    """
    A collapse is the first thing said, before the verdict and its reasons.
    """
    texts = [(partition, asr, reference, base, "") for partition, asr, reference, base, _ in recipes.TEXTS]
    sentence = "6 of 6 answers (61.0% to 100.0% of all) are empty; the limit is "

    page = Page(recipes.reported(tmp_path, texts=texts).read_text(encoding="utf-8")).text
    markdown = (tmp_path / RUN / "report.md").read_text(encoding="utf-8")

    for text in (page, markdown):
        assert 0 < text.index("The adapter has collapsed") < text.index(sentence) < text.index("The evidence is smoke")


def test_a_long_training_has_a_small_page(tmp_path: Path) -> None:
    """
    Every step is in metrics.jsonl; a figure of 20,000 steps needs only a few hundred points.
    """
    results = run_report.gather(recipes.finished(tmp_path, steps=4), tmp_path)
    results.done["losses"]["train"] = [[step, 1 / step] for step in range(1, 20_001)]
    drawn = figures.all_of(results.done, recipes.metrics(20_000), results.evaluation, [])

    assert 100_000 > len("".join(drawn.values()))


def test_a_page_says_only_what_its_project_says(tmp_path: Path) -> None:
    """
    A chat project has no recogniser and no bridge; its own texts are shown as they are, and are no markup.
    """
    recipe = recipes.finished(tmp_path)
    own = Report(title="My <b>run</b>", date="2026-04-21", applies_to=("Chats & more.",), do_not=("[a](b)",))
    results = run_report.gather(replace(recipe, report=own), tmp_path)
    bare = run_report.gather(replace(recipe, report=Report()), tmp_path)
    decision = run_report.decide(results)

    page, text = html_page(tmp_path, results), run_report.markdown_page(results, decision, tmp_path / "templates")

    assert "<h1>My &lt;b&gt;run&lt;/b&gt;: run " in page
    assert all("2026-04-21" in each for each in (page, text))
    assert "<p>Chats &amp; more.</p>" in page
    assert "- \\[a\\](b)" in text
    for each in (html_page(tmp_path, bare), run_report.markdown_page(bare, decision, tmp_path / "templates")):
        assert "Architecture boundary" not in each
        assert "PyTorch" not in each


def test_the_head_says_what_the_training_took_as_far_as_it_is_known(tmp_path: Path) -> None:
    """
    An adapter from elsewhere has no training here, and a training of an earlier version no commit.
    """
    results = run_report.gather(recipes.finished(tmp_path), tmp_path)
    text = Page(html_page(tmp_path, results)).text

    for fact in ("Trained2026-04-21 09:30 UTC", "Training took90 min", "Hostslocalhost", "Commit0123456789ab"):
        assert text.index(fact) < text.index("against GO") < text.index("Scores on the test rows")
    assert {"hosts": "localhost"} == run_report.cost(replace(results, timing={}))
    assert ["47 s", "2 min", "3 h 05 min"] == [run_report.duration(seconds) for seconds in (47.05, 124.0, 11_110.0)]


def test_flags_that_differ_from_their_default_are_marked(shown: Path) -> None:
    """
    Of fifty flags, these are what makes this run.
    """
    flags = shown.read_text(encoding="utf-8").partition('<pre id="flags">')[2].partition("</pre>")[0].splitlines()

    assert "<strong>--num-iters 4</strong>" in flags
    assert "--lora-rank 8" in flags
    assert "--hostfile runs/smoke/hostfile.json" in flags


def test_one_rank_is_not_compared_with_itself(tmp_path: Path) -> None:
    """
    Its world size, skew and all-sums say nothing.
    """
    results = run_report.gather(recipes.finished(tmp_path), tmp_path)
    results.done["world_size"] = 1
    results.preflight["ranks"] = results.preflight["ranks"][:1]
    results.preflight["links"] = []
    decision = run_report.decide(results)
    pages = [html_page(tmp_path, results), run_report.markdown_page(results, decision, tmp_path / "templates")]

    for text in (Page(pages[0]).text, pages[1]):
        assert not re.search(
            "skew|all-sum|world size|size=|1 rank\\b", text.partition("Command shape")[0], re.IGNORECASE
        )


def test_the_rows_behind_a_reason_are_linked_and_on_the_page(tmp_path: Path) -> None:
    """
    Whoever doubts a reason reads its rows.
    """
    results = run_report.gather(recipes.finished(tmp_path), tmp_path)
    reasons = [{"text": "Two rows.", "rows": ["in:3", "in:1", "gone"]}]
    decision = run_report.decide(results) | {"reasons": reasons, "decision": "RELAXED"}
    text = run_report.html_page(results, decision, tmp_path / "templates")

    assert '<strong class="decision relaxed">RELAXED</strong>' in text
    assert 'Rows <a href="#row-4">4</a>, <a href="#row-2">2</a>' in text
    assert "Not among the test rows: gone" in Page(text).text
    assert ["2", "4"] == re.findall(r'<article id="row-(\d+)">', text)


def test_the_markdown_page_has_the_sections_of_the_first_status_page(shown: Path) -> None:
    """
    Readers of the first Thunder Train's page find the same sections, and the conditions with their intervals.
    """
    text = (shown.parent / "report.md").read_text(encoding="utf-8")
    gated = [line for line in text.splitlines() if line.startswith("| adapter_gated |")]

    assert [
        "What this run applies to",
        "Verified cluster state",
        "Training run",
        "Result",
        "Architecture boundary",
        "Promotion decision",
    ] == re.findall(r"(?m)^## (.*)$", text)
    assert [7] == [line.count("|") for line in gated]
    assert "- test rows: 6\n- train rows: 16\n- valid rows: 4\n- source: data/sources/a.json, 26 rows, smoke\n" in text
    assert "- rank 1 on 127.0.0.1: `size=2`, all-sum passed, MLX 0.32.4, MLX-LM 0.32.2\n" in text
    assert "- mac4 -> mac5: 0.52 ms, 2.4e+03 MB/s over bridge0, Thunderbolt Bridge\n" in text
    assert "- validation loss: 6.6000 at step 0, 1.6250 at step 4; best at step 4\n" in text
    assert "| reproduction | `./doit reproduce:smoke` |" in text
    assert "<script" not in text


@pytest.mark.parametrize(
    ("gone", "hint"),
    [("decisions.jsonl", "; run `./doit evaluate:smoke`"), ("predictions.jsonl", ""), ("metrics.jsonl", "")],
)
def test_an_error_names_a_missing_file(tmp_path: Path, gone: str, hint: str) -> None:
    """
    A report of half a run would mislead.
    """
    recipe = recipes.finished(tmp_path)
    (tmp_path / RUN / gone).unlink()

    with pytest.raises(ThunderError) as caught:
        run_report.gather(recipe, tmp_path)
    assert f"{tmp_path}/{RUN}/{gone}: is missing{hint}" == str(caught.value)


def test_an_error_names_a_missing_style(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The templates may be files of the project, so a user can delete them; the package has its own beside that.
    """
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "nothing")
    results = run_report.gather(recipes.finished(tmp_path), tmp_path)
    (tmp_path / "templates" / "style.css.j2").unlink()

    with pytest.raises(ThunderError) as caught:
        html_page(tmp_path, results)
    assert f"{tmp_path}/templates/style.css.j2: is missing; git checkout it" == str(caught.value)


@pytest.mark.parametrize(
    ("first", "is_known"),
    [
        ({"rows_sha256": {"train": "a"}}, True),
        ({"rows_sha256": {"train": "b"}}, False),
        ({"imported": {}, "rows": {}}, False),
        ({"rows_sha256": {"train": "a"}, "start": {"path": "adapters/x", "sha256": "1"}}, False),
        ({"rows_sha256": {"train": "a"}, "start": {"path": "runs/smoke/adapter", "sha256": "1"}}, False),
        (None, False),
    ],
    ids=["same rows", "other rows", "elsewhere", "unknown before", "circle", "missing"],
)
def test_rows_are_known_where_every_training_behind_the_adapter_read_them(
    tmp_path: Path, first: dict[str, object] | None, is_known: bool
) -> None:
    """
    done.json of each run that the training began with says which rows it read; a folder's says nothing to rely on.
    """
    recipe = recipes.finished(tmp_path)
    own = tmp_path / RUN / "adapter/done.json"
    begun = {"rows_sha256": {"train": "a"}, "start": {"path": "runs/first/adapter", "sha256": "1"}}
    files.write_json(own, files.read_json(own) | begun)
    if first is not None:
        files.write_json(tmp_path / "runs/first/adapter/done.json", first)

    assert is_known == run_report.gather(recipe, tmp_path).has_known_rows
