"""Replay: the same file gives the same verdicts, and an altered one gives differences."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.gates import HYPOTHESIS, LOOP, PROPOSAL, WHERE, WITNESS, external, policy, prediction
from thunder_train import ThunderError
from thunder_train.config.evaluate import Gate
from thunder_train.core import files
from thunder_train.evaluate import gate
from thunder_train.evaluate.replay import replay

ROWS = [
    prediction("a"),
    prediction("b", "ߊ" * 30),
    prediction("c", partition="stable", telemetry={"jerk": 1.5}),
    prediction("d", HYPOTHESIS, partition="twilight"),
]
Lines = list[dict[str, Any]]


def decided(run: Path, settings: Gate) -> Path:
    """A run's folder with the decisions of a gate."""
    files.write_text(run / gate.FILE, gate.as_jsonl(gate.judge(ROWS, settings, WHERE, {"jerk"})))
    return run


def altered(run: Path, change: Callable[[Lines], object]) -> Path:
    """The same folder after a change of its decisions by hand."""
    lines = files.read_jsonl(run / gate.FILE)
    change(lines)
    files.write_text(run / gate.FILE, "".join(map(files.json_line, lines)))
    return run


def rehash(lines: Lines, **numbers: Any) -> None:
    """Change the policy in the header and its hash consistently."""
    lines[0]["gate"] |= numbers
    lines[0]["policy_sha256"] = files.digest(lines[0]["gate"])


def test_an_unchanged_file_has_no_differences(tmp_path: Path) -> None:
    """
    The file alone is enough, without data, predictions or a model.
    """
    assert [] == replay(decided(tmp_path / "run", policy()), policy())
    assert ["decisions.jsonl"] == [path.name for path in (tmp_path / "run").iterdir()]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda lines: lines[2].update(verdict="accept", final="ߊ" * 30),
            [
                f"row 'b': final is {'ߊ' * 30!r}, decided again {HYPOTHESIS!r}",
                "row 'b': verdict is 'accept', decided again 'reject'",
            ],
        ),
        (
            lambda lines: lines[3].update(partition="boundary"),
            [
                f"row 'c': final is {HYPOTHESIS!r}, decided again {PROPOSAL!r}",
                "row 'c': reason is 'partition stable is left unchanged', decided again 'within the edit budget'",
                "row 'c': verdict is 'reject', decided again 'accept'",
            ],
        ),
        (lambda lines: lines[1].update(edits=0), ["row 'a': edits is 0, decided again 1"]),
        (lambda lines: lines[1].update(budget=99), ["row 'a': budget is 99, decided again 2"]),
        (
            lambda lines: lines[1].update(final=HYPOTHESIS),
            [f"row 'a': final is {HYPOTHESIS!r}, decided again {PROPOSAL!r}"],
        ),
        (lambda lines: lines[1].update(witness=WITNESS), [f"row 'a': witness is {WITNESS!r}, decided again None"]),
        (lambda lines: lines[1].update(note="x"), ["row 'a': note is 'x', decided again None"]),
        (
            lambda lines: lines.pop(),
            ["header: rows is 4, counted again 3", "header: unknown_partitions is {'twilight': 1}, counted again {}"],
        ),
        (lambda lines: lines.append(lines.pop(1)), ["the rows are not sorted by id"]),
        (
            lambda lines: lines[0]["gate"].update(floor=1),
            [
                "gate: floor was 1, in the recipe it is 2",
                "header: policy_sha256 is not the hash of the gate beside it",
                "row 'a': budget is 2, decided again 1",
                "row 'b': budget is 2, decided again 1",
                "row 'c': budget is 2, decided again 1",
                "row 'd': budget is 2, decided again 1",
            ],
        ),
        (lambda lines: rehash(lines, blocked=[]), ["gate: blocked was [], in the recipe it is ['novelty']"]),
    ],
)
def test_each_difference_is_a_sentence(tmp_path: Path, change: Callable[[Lines], object], expected: list[str]) -> None:
    """
    Replay finds a verdict, a text, a number, a witness, a row or a policy that was changed by hand.
    """
    assert expected == replay(altered(decided(tmp_path / "run", policy()), change), policy())


def test_another_policy_in_the_recipe_is_a_difference(tmp_path: Path) -> None:
    """
    The verdicts belong to the policy of the file; the recipe now has another.
    """
    run = decided(tmp_path / "run", policy())

    assert ["gate: relative was 0.2, in the recipe it is 0.5"] == replay(run, policy(relative=0.5))


def test_an_external_gate_gets_the_same_requests_again(tmp_path: Path) -> None:
    """
    Telemetry is part of a request; reasons and witnesses may differ each time.
    """
    code = LOOP.replace('"fine"', 'str(time.time_ns()) + str(row.get("telemetry"))').replace("json,", "json, time,")
    code = code.replace('"accept"', '"accept" if "telemetry" in row else "reject"')
    settings = external(tmp_path, code)
    run = decided(tmp_path / "run", settings)

    assert ["reject", "reject", "accept", "reject"] == [
        each["verdict"] for each in gate.read(run / gate.FILE).decisions
    ]
    assert [] == replay(run, settings)


def test_a_changed_external_gate_gives_differences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Its program is part of its policy, and its verdicts are compared as well.
    """
    monkeypatch.chdir(tmp_path)
    settings = policy(command=(external(tmp_path, LOOP).command[0], "gate.py"))
    run = decided(tmp_path / "run", settings)
    before = files.sha256("gate.py")
    external(tmp_path, LOOP.replace('"accept"', '"reject" if row["id"] == "a" else "accept"'))

    assert [
        f"gate: files was {{'gate.py': '{before}'}}, in the recipe it is {{'gate.py': '{files.sha256('gate.py')}'}}",
        f"row 'a': final is {PROPOSAL!r}, decided again {HYPOTHESIS!r}",
        "row 'a': verdict is 'accept', decided again 'reject'",
    ] == replay(run, settings)


def test_a_file_never_chooses_the_command_to_run(tmp_path: Path) -> None:
    """
    Others may replay a run that they were sent: only the recipe's command is run.
    """
    run = decided(tmp_path / "run", external(tmp_path, LOOP))
    altered(run, lambda lines: rehash(lines, command=["touch", str(tmp_path / "trap")]))

    differences = replay(run, policy())

    assert "no row was decided again: the recipe names no external gate" == differences[-1]
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize(
    ("gate_of_file", "expected"),
    [
        ({"relative": float("nan")}, "Expected `float` >= 0.0"),
        ({"floor": -1}, "Expected `int` >= 0"),
        ({"preserved": "stable"}, "Expected `array`, got `str`"),
    ],
)
def test_a_policy_that_no_recipe_may_have_is_an_error(
    tmp_path: Path, gate_of_file: dict[str, Any], expected: str
) -> None:
    """
    The header is untrusted data, and no value in it may cause a traceback.
    """
    run = decided(tmp_path / "run", policy())
    lines = files.read_jsonl(run / gate.FILE)
    lines[0]["gate"] |= gate_of_file
    (run / gate.FILE).write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")

    with pytest.raises(ThunderError) as error:
        replay(run, policy())

    assert f"{run / gate.FILE}:1: gate: {expected}" == str(error.value).partition(" - at")[0]


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """
    The run is not evaluated yet.
    """
    with pytest.raises(ThunderError) as error:
        replay(tmp_path / "smoke", policy())

    assert f"{tmp_path}/smoke/decisions.jsonl: is missing; run `./doit evaluate:smoke`" == str(error.value)
