"""Headless Chromium, and pages to open in it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import evaluations, recipes
from thunder_train.report import runs_index

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A running browser; skips the test if none is installed."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'"
    )
    if not CHROMIUM:
        pytest.skip("chromium is not installed: apt-get install --no-install-recommends chromium")
    with playwright.sync_playwright() as started:
        # --no-sandbox: otherwise Chromium does not run as root; it opens files of these tests only.
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with an index of three runs, and reports of one of them and of other rows: PAGES of test_pages.py."""
    root = tmp_path_factory.mktemp("project")
    recipes.reported(root, steps=40)
    texts = [(*each[:4], "") for each in recipes.TEXTS]
    others: dict[str, dict[str, Any]] = {
        "other": {"rows": [*recipes.CHAT, *recipes.SILENT]},
        "collapsed": {"texts": texts},
        "large": {"rows": recipes.many(2000), "given": evaluations.settings()},
    }
    for name, given in others.items():
        (root / "runs" / name).mkdir()
        shutil.copy(recipes.reported(tmp_path_factory.mktemp(name), **given), root / "runs" / name)
    recipes.copied(root, "run-10", learning_rate=1e-3)
    recipes.copied(root, "run-9", learning_rate=1e-4, num_iters=9)
    (root / "runs" / "index.html").write_text(runs_index.build(root), encoding="utf-8")
    return root


@pytest.fixture
def opened(chromium: Any, project: Path) -> Iterator[Callable[..., Any]]:
    """Opens a page of the project. Afterwards the page must have had no error and fetched no other file."""
    pages, problems = [], []

    def at(name: str, width: int = 1100, scheme: str = "light", **given: Any) -> Any:
        page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, **given)
        pages.append(page)
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        target = (project / "runs" / name).as_uri()
        page.on("request", lambda request: request.url == target or problems.append(request.url))
        page.goto(target)
        return page

    yield at
    for page in pages:
        page.close()
    assert [] == problems
