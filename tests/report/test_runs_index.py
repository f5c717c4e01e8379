"""runs/index.html: all runs, and the differences between any two."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import recipes
from tests.helpers.audits import Page
from thunder_train.core import files
from thunder_train.report import runs_index


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with two runs."""
    recipes.reported(tmp_path)
    recipes.copied(tmp_path, "warm", learning_rate=1e-3)
    return tmp_path


def embedded(text: str) -> Any:
    """The facts that the page compares."""
    match = re.search(r'<script type="application/json" id="facts">(.*?)</script>', text, re.DOTALL)
    assert match
    return json.loads(match.group(1))


def test_every_run_is_a_line_with_its_decision_and_rates(root: Path) -> None:
    """
    The table shows which run is worth opening. It does not link a report that does not exist.
    """
    text = runs_index.build(root)
    lines = [re.sub(r"<.*?>", " ", line).split() for line in text.splitlines() if line.startswith('<tr><th scope="row')]
    run = files.read_json(root / "runs/smoke/manifest.json")
    rates = {row["condition"]: f"{row['cer']:.4f}" for row in run["metrics"]["conditions"] if row["partition"] == "all"}

    assert ["smoke", "NO-GO", rates["baseline"], rates["adapter_blind"], rates["adapter_gated"], "1.5000"] == lines[0][
        :6
    ]
    assert [run["run_id"], "warm"] == [lines[0][-1], lines[1][0]]
    assert '<a href="smoke/report.html">smoke</a>' in text
    assert '<a href="warm/manifest.json">warm</a>' in text


def test_only_what_differs_is_on_the_page(root: Path) -> None:
    """
    A hundred runs share most of their seven hundred facts; the page has only the number of these.
    """
    facts = embedded(runs_index.build(root))

    assert {"run_id", "recipe.train.learning_rate"} == set(facts["runs"]["smoke"])
    assert ["1e-06", "0.001"] == [facts["runs"][name]["recipe.train.learning_rate"] for name in ("smoke", "warm")]
    assert 500 < facts["same"]


def test_a_manifest_that_cannot_be_read_does_not_hide_the_others(root: Path) -> None:
    """
    A run of another version, or a broken one, is listed below the table.
    """
    files.write_text(root / "runs" / "broken" / "manifest.json", "{")
    files.write_json(root / "runs" / "old" / "manifest.json", {"schema": "thunder.run/0"})
    odd = files.read_json(root / "runs" / "smoke" / "manifest.json") | {"metrics": {"conditions": []}}
    files.write_json(root / "runs" / "odd" / "manifest.json", odd)
    text = Page(runs_index.build(root)).text

    assert "broken: runs/broken/manifest.json: is not the manifest of a run" in text
    assert "old: runs/old/manifest.json: has schema 'thunder.run/0'" in text
    assert "odd: its metrics have another format; run `./doit` to build them again" in text
    assert {"smoke", "warm"} == set(embedded(runs_index.build(root))["runs"])
    assert str(root) not in text


def test_no_manifest_can_end_the_script_or_run_one(root: Path) -> None:
    """
    A manifest may come from anyone, and its texts are inside a script element.
    """
    run = files.read_json(root / "runs" / "smoke" / "manifest.json")
    run["promotion"] |= {"decision": recipes.HOSTILE, "reasons": [recipes.HOSTILE, "a\u202eb\u2028"]}
    files.write_json(root / "runs" / "hostile" / "manifest.json", run)
    text = runs_index.build(root)

    assert 2 == text.count("<script") == text.count("</script>")
    assert "img" not in Page(text).tags
    assert recipes.HOSTILE in Page(text).text
    assert "a\\u202eb\\u2028" in str(embedded(text)["runs"]["hostile"]["promotion.reasons"]).replace("\\\\", "\\")


def test_a_folder_is_a_relative_address_whatever_its_name(root: Path) -> None:
    """
    A folder called javascript:... would be a program for whoever clicks on it.
    """
    run = files.read_json(root / "runs" / "smoke" / "manifest.json")
    for name in ("javascript:alert(1)", 'a\u202e"b', "\udcff", "?x#y"):
        files.write_json(root / "runs" / name / "manifest.json", run)
    text = runs_index.build(root)
    links = set(re.findall(r'href="([^"]*)"', text))

    assert text.encode()
    assert {"javascript%3Aalert%281%29/manifest.json", "%3Fx%23y/manifest.json", "%FF/manifest.json"} < links
    assert not any(":" in link for link in links)


def test_the_page_allows_its_own_script_and_no_other(root: Path) -> None:
    """
    The hash in its policy is that of its only script.
    """
    text = runs_index.build(root)
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()

    assert 1 == len(scripts)
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in text


def test_a_project_without_runs_has_a_page_too(tmp_path: Path) -> None:
    """
    It says which command builds the runs.
    """
    recipe = recipes.finished(tmp_path)

    assert "smoke" == recipe.name
    assert "No run has a manifest yet. ./doit builds the default recipes." in Page(runs_index.build(tmp_path)).text
