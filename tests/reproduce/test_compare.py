"""Differences between two manifests, and the verdict if the second is a reproduction of the first."""

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.project_copy import Copy
from thunder_train.cli import commands
from thunder_train.core import files, revisions, terminal
from thunder_train.reproduce import compare
from thunder_train.reproduce.compare import ABSENT, Difference, Verdict, judge

RUN = "runs/smoke/manifest.json"
TOLERANCE = 1e-3


@pytest.fixture
def run(built: Copy) -> dict[str, Any]:
    """The manifest of a real run."""
    content: dict[str, Any] = files.read_json(built.path / RUN)
    return content


@pytest.fixture
def again(run: dict[str, Any]) -> dict[str, Any]:
    """The same run reproduced, for a test to change."""
    return copy.deepcopy(run)


def test_keys_name_items_by_their_content() -> None:
    """
    A file by its path, a score by condition and partition, a loss by its step, not by an index in a list.
    """
    value = {
        "files": [{"path": "a.json", "bytes": 1}],
        "conditions": [{"condition": "base", "partition": "all", "cer": 0.5}],
        "losses": [[10, 6.5]],
        "keys": [],
        "none": None,
    }

    assert {
        "files.a.json.path": "a.json",
        "files.a.json.bytes": 1,
        "conditions.base.all.condition": "base",
        "conditions.base.all.partition": "all",
        "conditions.base.all.cer": 0.5,
        "losses.10": 6.5,
        "keys": [],
        "none": None,
    } == compare.flattened(value)


def test_no_key_replaces_another() -> None:
    """
    A key that contains a dot, or a path listed twice, cannot hide a difference.
    """
    assert {"a.b": 1, "a.b#": 2} == compare.flattened({"a": {"b": 1}, "a.b": 2})
    assert {"x.path": "x", "x#.path": "x"} == compare.flattened([{"path": "x"}, {"path": "x"}])


def test_a_value_on_one_side_only_is_a_difference() -> None:
    """
    None is a value; an absent key has none.
    """
    rows = compare.differences({"metrics": {"cer": None}}, {"metrics": {}})

    assert [Difference("metrics", "cer", None, ABSENT)] == rows
    assert {"section": "metrics", "key": "cer", "a": None} == rows[0].as_json()


def test_the_hash_of_code_that_was_recorded_since_is_its_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A manifest of before holds the hash, one of now the revision of the same code. Another hash stays a difference.
    """
    monkeypatch.setattr(revisions, "recorded", lambda: {"train": {"revision": 1, "code": "a" * 64}})
    then = {"code": {"train": "a" * 64, "evaluate": "b" * 64}}
    now = {"code": {"train": "revision 1", "evaluate": "revision 1"}}

    assert [Difference("code", "evaluate", "b" * 64, "revision 1")] == compare.differences(then, now)


def test_what_was_accepted_is_a_difference() -> None:
    """
    Of two equal runs one may have been made by the code that it names, and one by an earlier one.
    """
    accepted = {"train": {"code": {"recorded": "revision 1", "accepted": "revision 2"}}}

    assert ["train.code.accepted", "train.code.recorded"] == [
        difference.key for difference in compare.differences({"accepted": accepted}, {})
    ]


def test_the_verdict_names_both_revisions() -> None:
    """
    Under another revision other numbers are expected.
    """
    changed = Difference("code", "train", "revision 1", "revision 2")
    verdict = Verdict("different", "smoke", "0" * 12, why="code", first="adapter", differences=(changed,))

    assert "different, because of code (train: revision 1 -> revision 2); first: adapter" == commands.headline(verdict)


def test_equal_manifests_are_identical(run: dict[str, Any], again: dict[str, Any]) -> None:
    """
    Even if the code changed and its outputs did not.
    """
    again["code"]["train"] = "0" * 64

    assert ("identical", "", "") == _summary(judge(run, again, TOLERANCE))


def test_another_environment_within_the_tolerance_is_equivalent(run: dict[str, Any], again: dict[str, Any]) -> None:
    """
    Other last bits, and a loss that differs by less than the recipe allows.
    """
    again["environment"]["mlx"] = "0.33.0"
    again["outputs"][1]["sha256"] = again["outputs"][2]["sha256"] = "0" * 64
    again["metrics"]["losses"]["train"][0][1] *= 1 + TOLERANCE / 2
    verdict = judge(run, again, TOLERANCE)

    assert ("equivalent", "environment", "runs/smoke/adapter/adapters.safetensors") == _summary(verdict)
    assert verdict.is_reproduced


def test_another_environment_beyond_the_tolerance_is_different(run: dict[str, Any], again: dict[str, Any]) -> None:
    """
    The recipe's tolerance is the limit.
    """
    again["environment"]["mlx"] = "0.33.0"
    again["outputs"][1]["sha256"] = "0" * 64
    again["metrics"]["losses"]["train"][0][1] *= 1 + TOLERANCE * 2

    assert ("different", "environment", "runs/smoke/adapter/adapters.safetensors") == _summary(
        judge(run, again, TOLERANCE)
    )


def test_another_environment_does_not_excuse_another_decision(run: dict[str, Any], again: dict[str, Any]) -> None:
    """
    GO instead of NO-GO is not a rounding error.
    """
    again["environment"]["mlx"] = "0.33.0"
    again["promotion"]["decision"] = "GO"

    assert ("different", "environment", "environment.mlx") == _summary(judge(run, again, TOLERANCE))


def test_another_environment_does_not_excuse_other_code(run: dict[str, Any], again: dict[str, Any]) -> None:
    """
    Either of the two may be the cause.
    """
    again["environment"]["mlx"] = "0.33.0"
    again["outputs"][1]["sha256"] = again["code"]["train"] = "0" * 64

    assert ("different", "code or environment") == _summary(judge(run, again, TOLERANCE))[:2]


def test_code_after_the_first_file_that_differs_is_no_cause(run: dict[str, Any], again: dict[str, Any]) -> None:
    """
    The evaluation cannot have changed the adapter.
    """
    again["outputs"][1]["sha256"] = again["code"]["evaluate"] = "0" * 64

    assert ("different", "nondeterminism") == _summary(judge(run, again, TOLERANCE))[:2]


@pytest.mark.parametrize(
    ("name", "why"),
    [("promotion.json", "code"), ("eval.json", "nondeterminism")],
)
def test_computed_and_decided_files_have_their_own_causes(
    run: dict[str, Any], again: dict[str, Any], name: str, why: str
) -> None:
    """
    A decision follows from the evaluation and the code; only what MLX computes may come out otherwise by itself.
    """
    next(file for file in again["outputs"] if file["path"] == name)["sha256"] = "0" * 64

    assert ("different", why, f"runs/smoke/{name}") == _summary(judge(run, again, TOLERANCE))


def test_what_a_template_added_is_part_of_the_code(run: dict[str, Any], again: dict[str, Any]) -> None:
    """
    The templates are the current project's, as the code is.
    """
    run["additions"] = {"launch.sh": {"--seed": "7"}}

    verdict = judge(run, again, TOLERANCE)

    assert ("different", "code", "additions.launch.sh.--seed") == _summary(verdict)


def test_the_first_file_is_the_first_in_order_of_writing(run: dict[str, Any], again: dict[str, Any]) -> None:
    """
    Rows come before the adapter, in spite of the alphabet.
    """
    for file in again["outputs"]:
        file["sha256"] = "0" * 64
    again["inputs"]["splits"]["valid"]["sha256"] = "0" * 64
    again["code"]["data"] = "0" * 64
    verdict = judge(run, again, TOLERANCE)

    assert ("different", "code", "data/agp-nko-corrections/valid.jsonl") == _summary(verdict)
    assert [
        "adapter/adapter_config.json",
        "adapter/adapters.safetensors",
        "adapter/done.json",
        "predictions.jsonl",
        "decisions.jsonl",
        "eval.json",
        "promotion.json",
    ] == [file.path.removeprefix("runs/smoke/") for file in verdict.files if file.path.startswith("runs/smoke/")]


def test_metrics_that_do_not_match_their_files_are_reported(run: dict[str, Any], again: dict[str, Any]) -> None:
    """
    A manifest with the right hashes and a better loss is false.
    """
    run["metrics"]["losses"]["valid"][0][1] = 0.1

    assert ("different", "a manifest that contradicts itself", "metrics.losses.valid.0") == _summary(
        judge(run, again, TOLERANCE)
    )


def test_an_output_that_the_manifest_leaves_out_is_a_difference(run: dict[str, Any], again: dict[str, Any]) -> None:
    """
    Otherwise a manifest without outputs would always be reproduced.
    """
    run["outputs"] = []

    assert "different" == judge(run, again, TOLERANCE).word


def test_a_verdict_cannot_control_the_terminal(
    run: dict[str, Any],
    again: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    A manifest may come from anyone; its control characters are replaced.
    """
    run["environment"]["mlx"] = "\x1b[2J"
    monkeypatch.setattr(sys, "stdout", terminal.safe(sys.stdout))

    commands.show(judge(run, again, TOLERANCE), as_json=False)

    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.ranks
def test_two_recipes_side_by_side(project: Copy) -> None:
    """
    Different settings and different results, as a table and as JSON.
    """
    run = files.read_json(project.path / RUN)
    run["metrics"]["losses"]["valid"][0][1] = 0.5
    run["code"]["train"] = "0" * 64
    files.write_json(project.path / "other.json", run)

    table = project.doit("compare", "smoke", "other.json")
    line = project.doit("compare", "smoke", "other.json", "--json")

    assert (0, 0) == (table.status, line.status)
    headline, titles, *rows = table.output.splitlines()
    assert headline.startswith("both are equally good: adapter_gated ")
    assert "A: smoke  B: other.json  B is" == " ".join(titles.split()).replace(" B", "  B")
    assert ["code.train", "and"] == [row.split()[0] for row in rows]
    assert "and 1 more metric; --all shows it" == rows[-1]
    report = json.loads(line.output)
    assert ["code.train", "metrics.losses.valid.0"] == [
        f"{one['section']}.{one['key']}" for one in report["differences"]
    ]
    assert 0.5 == report["differences"][1]["b"]
    assert "the two runs are the same\n" == project.doit("compare", "smoke", "smoke").output


@pytest.mark.ranks
def test_a_run_that_was_never_built_is_reported(fresh: Copy) -> None:
    """
    The message is one line and says how to build it.
    """
    done = fresh.doit("compare", "smoke", "smoke")

    assert (3, f"{Path(RUN)}: is missing; run `./doit manifest:smoke`\n") == (done.status, done.output)
    assert "doit compare: needs two runs; `doit compare A B`, recipes or manifests\n" == fresh.doit("compare").output


def _summary(verdict: compare.Verdict) -> tuple[str, str, str]:
    return verdict.word, verdict.why, verdict.first
