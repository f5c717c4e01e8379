"""The audit page in a browser: visible and usable in light and dark, on a phone, in scripts from right to left."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.audits import TEMPLATE
from tests.helpers.inputs import PREDICTION, source
from tests.helpers.material import CODE
from thunder_train.config.dataset import Dataset
from thunder_train.core import files, paths
from thunder_train.data import audit, builder

Open = Callable[..., Any]
HELLO, PEACE = "\u0645\u0631\u062d\u0628\u0627", "\u05e9\u05dc\u05d5\u05dd"
"""In Arabic and in Hebrew."""
TURNS = [
    {"role": "user", "content": f"What is this?\n{HELLO}\nBye."},
    {"role": "assistant", "content": "A greeting."},
]


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a dataset with Hebrew speech, an Arabic line in a conversation, and dropped rows."""
    root = tmp_path_factory.mktemp("project")
    words = [f"{PEACE} {chr(0x5D0 + number)}{chr(0x5D0 + number % 5)}" for number in range(20)]
    words[3] += " v\u0301"
    heard = [{"audio_path": f"{n}.wav", "asr_text": f"{word}\u05d0\u200b"} for n, word in enumerate(words)]
    _write(root / "p.jsonl", [PREDICTION | each for each in heard])
    _write(root / "r.jsonl", [{"audio_path": f"{n}.wav", "reference_text": word} for n, word in enumerate(words)])
    _write(root / "c.jsonl", [{"id": "c", "mood": "x", "messages": TURNS}])
    (root / "prompt.j2").write_text("Correct:\n{{ asr_text }}", encoding="utf-8")
    dataset = Dataset(
        name="tiny",
        sources=(
            source(kind="rows", path="p.jsonl", references="r.jsonl"),
            source(kind="chatml", path="c.jsonl", split="train"),
        ),
        templates=("prompt.j2",),
        orthography="hebrew",
        orthography_table={"letters": "\\u05d0-\\u05ea", "shared": "0-9?.A-z\\u0600-\\u06ff"},
    )
    out = root / paths.dataset("tiny")
    builder.build(dataset, root, out, CODE, audit.build)
    facts = files.read_json(out / paths.AUDITED)
    (out / paths.AUDIT).write_text(audit.page(facts, TEMPLATE), encoding="utf-8")
    return out


@pytest.fixture
def audited(chromium: Any, folder: Path) -> Iterator[Open]:
    """Opens the page. Afterwards it must have had no error and fetched no other file."""
    pages: list[Any] = []
    problems: list[str] = []

    def at(width: int = 1100, scheme: str = "light", **given: Any) -> Any:
        page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, **given)
        pages.append(page)
        page.on("console", lambda message: problems.append(message.text))
        target = (folder / paths.AUDIT).as_uri()
        page.on("request", lambda request: problems.extend({request.url} - {target}))
        page.goto(target)
        return page

    yield at
    for page in pages:
        page.close()
    assert [] == problems


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 360])
def test_axe_finds_no_violation(audited: Open, scheme: str, width: int) -> None:
    """
    Contrast in light and dark, names of tables, scrolling by keyboard.
    """
    axe = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
    page = audited(width, scheme, bypass_csp=True)  # axe is a script, which our pages do not allow
    page.evaluate((Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
    result = page.evaluate("axe.run()")

    violations = [(each["id"], [node["html"] for node in each["nodes"]]) for each in result["violations"]]
    assert [] == violations
    assert width == page.evaluate("document.documentElement.scrollWidth")


def test_text_from_right_to_left_is_at_the_right(audited: Open) -> None:
    """
    Of hypotheses, of answers, and of one line in an English conversation.
    """
    page = audited()

    def gaps(text: str) -> tuple[float, float]:
        """Pixels to the left and to the right of a text inside its block."""
        found: list[float] = page.get_by_text(text, exact=True).last.evaluate(
            """element => {
              const block = element.closest("dd > div") ?? element.closest("dd, th");
              const range = document.createRange();
              range.selectNodeContents(element);
              const [inner, outer] = [range.getBoundingClientRect(), block.getBoundingClientRect()];
              return [inner.left - outer.left, outer.right - inner.right];
            }"""
        )
        return found[0], found[1]

    for text in (HELLO, f"{PEACE} \u05d0\u05d0"):
        left, right = gaps(text)
        assert left > 100 > 1 > right >= 0
    assert gaps("Bye.")[0] < 1


def test_a_dropped_row_links_to_its_file(audited: Open, folder: Path) -> None:
    """
    The link holds from the folder of the page, wherever the project lies.
    """
    links = audited().locator("td a").evaluate_all("all => all.map(each => each.href)")

    assert [(folder.parent.parent / "p.jsonl").as_uri() + "#L4"] == links
