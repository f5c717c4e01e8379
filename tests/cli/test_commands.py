"""What `doit why` and `doit status` print."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.project_copy import Copy
from thunder_train.cli import commands

pytestmark = pytest.mark.ranks


@pytest.mark.parametrize(
    "run",
    [
        [],
        None,
        {"metrics": 1},
        {"run_id": [], "metrics": {"losses": {"valid": [[1]]}}},
        {"run_id": ["\x1b"], "metrics": {"losses": {"valid": [[1, "x"]]}}, "promotion": {"decision": {"a": 1}}},
        {"run_id": "7", "metrics": {"losses": {"valid": [[1, 10**400]]}}, "promotion": {"decision": "GO"}},
        {"run_id": 7, "metrics": {"losses": {"valid": [[1, float("nan")]]}}, "promotion": {"decision": None}},
    ],
)
def test_the_table_survives_any_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run: Any
) -> None:
    """
    A manifest that was pulled may hold anything; the table of all recipes must still come.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/x").mkdir(parents=True)
    (tmp_path / "runs/x/manifest.json").write_text(json.dumps(run))
    row = {"recipe": "x", **dict.fromkeys(commands.COLUMNS, "fresh"), **commands._manifest_facts("x")}

    commands._print_status([row])
    commands.console.print_json([row])

    assert "fresh" in capsys.readouterr().out


def test_a_fresh_stage_names_the_run_that_made_it(project: Copy) -> None:
    """
    The run id is that of the manifest.
    """
    run_id = json.loads((project.path / "runs/smoke/manifest.json").read_text())["run_id"]

    assert f"train:smoke: up to date, made by run {run_id}\n" in project.doit("why", "train:smoke").output


def test_a_key_that_changes_no_number_is_named(project: Copy) -> None:
    """
    Whoever raises a timeout reads that nothing trains again.
    """
    project.edit("recipes/smoke.toml", "[train]", "[train]\nstall_timeout_s = 900\nmax_restarts = 7")

    output = project.doit("why", "train:smoke").output

    line = next(line for line in output.splitlines() if line.startswith("train:smoke: up to date, made by run "))
    assert line.endswith(" (train.max_restarts 0 -> 7, train.stall_timeout_s 600 -> 900 change no number)")


def test_the_table_shows_each_recipe_by_stage(project: Copy) -> None:
    """
    Fresh, stale, waiting, never built and failed, with the run's id, loss and decision.
    """
    project.edit("recipes/smoke.toml", "max_seq_len = 512", "max_seq_len = 16")
    project.doit("train:smoke")
    rows = {row["recipe"]: row for row in json.loads(project.doit("status", "--json").output)}
    smoke, remote = rows["smoke"], rows["agp-nko-correction"]

    assert ("fresh", "fresh", "failed", "stale") == tuple(smoke[key] for key in ("data", "scripts", "train", "report"))
    assert ("never built", None) == (remote["train"], remote["run_id"])
    assert ("NO-GO", 12) == (smoke["decision"], len(smoke["run_id"]))
    table = project.doit("status").output
    assert "failed" in table
    assert 80 >= max(map(len, table.splitlines()))
