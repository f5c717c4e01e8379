"""The pages in a browser: no error and no request (see `opened`), and everything is visible and usable."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import recipes

LARGE = "large/report.html"
PAGES = (
    *("smoke/report.html", "other/report.html", "index.html"),
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("collapsed/report.html", LARGE)),
)
Open = Callable[..., Any]
ALONE = """pieces => {
  document.getElementById("alone")?.remove();
  const whole = Object.assign(document.createElement("bdi"), { id: "alone", lang: "nqo", dir: "rtl" });
  whole.style.cssText = "position: fixed; inset: 0 auto auto 0; background: white; padding: 1em";
  for (const text of pieces) {
    const piece = Object.assign(document.createElement("span"), { textContent: text });
    piece.style.display = "inline-block";
    whole.append(piece);
  }
  document.body.append(whole);
}"""
LETTERS = """element => {
  const node = document.createTreeWalker(element, NodeFilter.SHOW_TEXT).nextNode();
  return [0, 2].map(at => {
    const range = document.createRange();
    range.setStart(node, at);
    range.setEnd(node, at + 1);
    return range.getBoundingClientRect().x;
  });
}"""


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 360])
def test_axe_finds_no_violation(opened: Open, name: str, scheme: str, width: int) -> None:
    """
    Contrast in light and dark, names of tables, figures and controls, order of headings, scrolling by keyboard.
    """
    axe = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
    page = opened(name, width, scheme, bypass_csp=True)  # axe is a script, which our pages do not allow
    page.evaluate((Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
    result = page.evaluate("axe.run()")

    violations = [(each["id"], [node["html"] for node in each["nodes"]]) for each in result["violations"]]
    assert [] == violations
    assert 20 < len(result["passes"])


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [1100, 360])
def test_a_page_is_no_wider_than_its_window(opened: Open, name: str, width: int) -> None:
    """
    On a phone, only wide tables scroll sideways, each on its own.
    """
    assert width == opened(name, width).evaluate("document.documentElement.scrollWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_figure_is_visible_in_the_colours_of_the_page(opened: Open, scheme: str) -> None:
    """
    Black lines on a black page would be invisible.
    """
    page = opened("smoke/report.html", scheme=scheme)
    figures = page.locator("figure svg")
    ink = page.evaluate("getComputedStyle(document.body).color")

    assert 6 == figures.count()
    for figure in figures.all():
        box = figure.bounding_box()
        assert box["width"] > 200
        assert box["height"] > 100
        assert ink == figure.locator("text").first.evaluate("element => getComputedStyle(element).fill")
        assert "none" != figure.locator(".s0").first.evaluate("element => getComputedStyle(element).stroke")
        for word in figure.locator("text").all():
            inner = word.bounding_box()
            assert box["x"] - 1 <= inner["x"]
            assert inner["x"] + inner["width"] <= box["x"] + box["width"] + 1


@pytest.mark.parametrize("width", [1100, 360])
def test_the_text_of_all_figures_has_one_size_that_a_phone_shows_too(opened: Open, width: int) -> None:
    """
    The text of a figure shrinks and grows with it, so figures of several widths would have as many sizes.
    """
    heights = (
        opened("smoke/report.html", width)
        .locator("figure svg text")
        .evaluate_all("all => all.map(each => Math.round(each.getBoundingClientRect().height))")
    )

    assert 10 < min(heights)
    assert 1 >= max(heights) - min(heights)


def test_nko_runs_from_right_to_left_and_texts_are_side_by_side(opened: Open) -> None:
    """
    The first letter is at the right; hypothesis, answer and reference are in one line.
    """
    page = opened("smoke/report.html")
    texts = page.locator('article bdi[lang="nqo"]')
    first, third = texts.first.evaluate(LETTERS)

    assert "rtl" == texts.first.evaluate("element => getComputedStyle(element).direction")
    assert third < first
    boxes = [side.bounding_box() for side in page.locator("article").first.locator(".side > div").all()]
    assert len({box["y"] for box in boxes}) == 1
    assert [box["x"] for box in boxes] == sorted(box["x"] for box in boxes)


def test_nko_is_shaped(opened: Open) -> None:
    """
    Letters of a word join, so they look different from the same letters in separate boxes.
    """
    page = opened("smoke/report.html")

    def picture(*pieces: str) -> bytes:
        page.evaluate(ALONE, pieces)
        image: bytes = page.locator("#alone").screenshot()
        return image

    if picture("ߞ") == picture("ߟ"):
        pytest.skip("no font shows N'Ko: apt-get install fonts-dejavu-core")
    assert picture("ߞߊߟ") == picture("ߞߊߟ")
    assert picture("ߞߊߟ") != picture("ߞ", "ߊ", "ߟ")


def shown(page: Any) -> list[str]:
    """Numbers of the rows that the table shows."""
    numbers: list[str] = page.locator("#rows-table tbody th button").all_inner_texts()
    return numbers


def test_the_table_of_two_thousand_rows_is_sorted_filtered_and_turned_over_by_keyboard(opened: Open) -> None:
    """
    Fifty rows at a time; what a reader looks for is among the others.
    """
    page = opened(LARGE)
    count, heading = page.locator("#rows-count"), page.get_by_role("button", name="Change", exact=True)

    assert ["1", "50", "Rows 1 to 50 of 2000"] == [shown(page)[0], shown(page)[-1], count.inner_text()]
    page.get_by_role("button", name="Next").press("Enter")
    assert ["51", "Rows 51 to 100 of 2000"] == [shown(page)[0], count.inner_text()]
    heading.press("Enter")
    assert "Rows 1 to 50 of 2000" == count.inner_text()
    assert "ascending" == page.locator("#rows-table th", has=heading).get_attribute("aria-sort")
    page.locator("#rows-verdict").select_option("accepted")
    page.locator("#rows-source").select_option("source 0")
    page.get_by_label("length from").fill("20")
    page.get_by_label("to", exact=True).fill("21")
    lengths = page.locator("#rows-table tbody tr td:nth-child(5)").all_inner_texts()
    assert lengths
    assert {"20", "21"} >= {*lengths}
    page.locator("#rows-group").fill("nobody")
    assert "No row" == count.inner_text()


def test_filters_of_the_table_find_texts_and_partitions(opened: Open) -> None:
    """
    Words of any text of a row, in any order.
    """
    page = opened(LARGE)
    page.get_by_label("text", exact=True).fill("IN:7 ab")
    every = page.locator("#rows-count").inner_text()
    page.locator("#rows-partition").select_option("stable")

    assert re.fullmatch(r"Rows 1 to \d+ of \d+", every)
    assert {"stable"} == {*page.locator("#rows-table tbody tr td:nth-child(2)").all_inner_texts()}


def test_the_number_of_a_row_opens_its_texts_with_the_marks_of_an_alignment(opened: Open) -> None:
    """
    As in the examples: what a text lacks, adds and replaces, from right to left where the script goes so.
    """
    page = opened(LARGE)
    number = page.locator("#rows-table tbody th button").first
    number.press("Enter")
    texts = page.locator("#rows-table tr.texts")

    assert "true" == number.get_attribute("aria-expanded")
    assert ["Reference", "Hypothesis", "Adapter's answer"] == texts.locator("dt").all_inner_texts()
    assert (1, 0) == (texts.locator("del").count(), texts.locator("ins").count())
    assert "rtl" == texts.locator("bdi").nth(1).evaluate("element => getComputedStyle(element).direction")
    number.press("Enter")
    assert 0 == texts.count()
    page.get_by_label("Texts of all").check()
    assert 50 == texts.count()


def test_the_table_of_two_thousand_rows_is_quick(opened: Open) -> None:
    """
    A pause after each letter of a filter would make it useless.
    """
    page = opened(LARGE)
    milliseconds = page.evaluate(
        """() => {
          const start = performance.now();
          for (const head of document.querySelectorAll("#rows-table thead button")) head.click();
          const filter = document.getElementById("rows-text");
          for (const text of ["a", "ab", "abc", ""]) {
            filter.value = text;
            filter.dispatchEvent(new Event("input", { bubbles: true }));
          }
          document.body.getBoundingClientRect();
          return performance.now() - start;
        }"""
    )

    assert 2000 > milliseconds


def test_a_link_to_a_row_opens_the_fold_that_holds_it(opened: Open) -> None:
    """
    Fifty rows behind each reason would stand between the reader and the rest of the page.
    """
    page = opened(LARGE)
    page.evaluate("document.getElementById('behind').nextElementSibling.open = false")
    link = page.locator("#reasons + ol a").first
    link.press("Enter")

    assert page.locator(link.get_attribute("href")).is_visible()


def test_the_flags_are_copied_with_one_press(opened: Open) -> None:
    """
    Where a browser forbids copying, they are selected.
    """
    page = opened("smoke/report.html")
    page.get_by_text("flags of launch.sh").click()
    button = page.locator("button[data-copied]")
    button.press("Enter")

    page.get_by_role("button", name=re.compile("Copied|Selected")).wait_for()
    assert page.evaluate("getSelection().toString()").startswith("--hostfile runs/smoke/hostfile.json")


def test_a_report_without_its_script_has_all_but_the_table_of_all_rows(chromium: Any, project: Path) -> None:
    """
    Mail programs and previews run no script.
    """
    page = chromium.new_context(java_script_enabled=False).new_page()
    page.goto((project / "runs" / LARGE).as_uri())

    assert page.get_by_text("This table needs JavaScript").is_visible()
    assert not page.locator("#rows-part").is_visible()
    assert 5 <= page.locator("article").count()
    page.context.close()


def test_text_of_rows_is_text(opened: Open) -> None:
    """
    A row with a script shows the script and does not run it.
    """
    page = opened("smoke/report.html")

    assert page.title().endswith("NO-GO")
    assert recipes.HOSTILE in page.locator("article", has_text="in:5").first.inner_text().replace("\n", "")
    assert recipes.HOSTILE in page.locator("#rows-table tr", has_text="in:5").inner_text().replace("\n", "")
    assert (2, 0) == (page.locator("script").count(), page.locator("img").count())


@pytest.mark.parametrize(
    ("column", "once", "twice"),
    [
        ("Run", ["run-9", "run-10", "smoke"], ["smoke", "run-10", "run-9"]),
        ("Decision", ["run-10", "run-9", "smoke"], ["run-10", "run-9", "smoke"]),
    ],
)
def test_a_heading_sorts_the_table_by_keyboard_too(
    opened: Open, column: str, once: list[str], twice: list[str]
) -> None:
    """
    Numbers in names sort as numbers; equal rows keep their order; the heading says the direction.
    """
    page = opened("index.html")
    heading, names = page.get_by_role("button", name=column, exact=True), page.locator("#runs tbody th")

    assert ["run-10", "run-9", "smoke"] == names.all_inner_texts()
    heading.press("Enter")
    assert once == names.all_inner_texts()
    assert "ascending" == page.locator("#runs th", has=heading).get_attribute("aria-sort")
    heading.click()
    assert twice == names.all_inner_texts()
    assert 1 == page.locator("#runs th[aria-sort]").count()


def test_any_two_runs_are_compared(opened: Open) -> None:
    """
    The page lists the keys that differ, with both values, and no others.
    """
    page = opened("index.html")
    lines = page.locator("#differences tbody tr")
    page.get_by_label("This run").select_option("smoke")
    page.get_by_label("with").select_option("run-10")

    assert ["recipe.train.learning_rate\t1e-06\t0.001"] == [
        text for text in lines.all_inner_texts() if "recipe" in text
    ]
    assert page.locator("#count").inner_text().startswith("2 of ")
    page.get_by_label("with").select_option("run-9")
    assert "3 of " == page.locator("#count").inner_text()[:5]
    page.get_by_label("with").select_option("smoke")
    assert "0 of " == page.locator("#count").inner_text()[:5]


def test_the_index_works_without_its_script(chromium: Any, project: Path) -> None:
    """
    The table and its links are plain HTML.
    """
    page = chromium.new_context(java_script_enabled=False).new_page()
    page.goto((project / "runs" / "index.html").as_uri())

    assert 3 == page.locator("#runs tbody tr").count()
    assert not page.locator("#comparison").is_visible()
    page.get_by_role("link", name="smoke").click()
    assert page.url.endswith("smoke/report.html")
    page.context.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_prints(opened: Open, name: str) -> None:
    """
    On paper nothing is cut off at the right, even where a screen would scroll.
    """
    page = opened(name, width=718)  # A4 minus the margins of Chromium, in CSS pixels
    page.emulate_media(media="print", color_scheme="dark")

    assert 718 >= page.evaluate("document.documentElement.scrollWidth")
    assert "rgb(255, 255, 255)" == page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_the_index_filters_its_runs_and_draws_their_losses(opened: Open) -> None:
    """
    By name and by any key and value in which runs differ; what is hidden is not drawn.
    """
    page = opened("index.html")
    names, lines = page.locator("#runs tbody tr:visible th"), page.locator("#curves polyline")

    assert (3, 3) == (names.count(), lines.count())
    page.get_by_role("searchbox").fill("learning_rate=0.001 run-10")
    assert ["run-10"] == names.all_inner_texts()
    assert (1, "1 of 3") == (lines.count(), page.locator("#shown").inner_text())
    page.get_by_role("searchbox").fill("nothing")
    assert not page.locator("#curves").is_visible()
