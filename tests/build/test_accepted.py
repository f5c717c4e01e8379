"""The file of accepted outputs: what it says, and how its entries come and go."""

import json
from pathlib import Path
from typing import Any

import pytest

from thunder_train import ThunderError
from thunder_train.build import accepted

FIRST = {"code": "revision 1", "environment": {"mlx": "0.32.4", "python": "3.11.2"}}
SECOND = {"code": "revision 2", "environment": {"mlx": "0.33.0", "python": "3.11.2"}}
THIRD = {"code": "f" * 64, "environment": {"mlx": "0.33.0", "python": "3.12.0"}}
ONCE = {
    "code": {"recorded": "revision 1", "accepted": "revision 2"},
    "environment": {"mlx": {"recorded": "0.32.4", "accepted": "0.33.0"}},
}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, the current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("stage", "path"),
    [
        ("data:rows", "data/rows/accepted.json"),
        ("model:nano", "runs/models/nano/accepted.json"),
        ("train:smoke", "runs/smoke/accepted.json"),
        ("evaluate:smoke", "runs/smoke/accepted.json"),
    ],
)
def test_the_file_lies_beside_the_outputs(stage: str, path: str) -> None:
    """
    It is committed with the manifest of what it speaks of.
    """
    assert path == str(accepted.file_of(stage))


@pytest.mark.parametrize(
    ("before", "recorded", "now", "expected"),
    [
        pytest.param({}, FIRST, SECOND, ONCE, id="once"),
        pytest.param(
            ONCE,
            SECOND,
            THIRD,
            {
                "code": {"recorded": "revision 1", "accepted": "f" * 64},
                "environment": {
                    "mlx": {"recorded": "0.32.4", "accepted": "0.33.0"},
                    "python": {"recorded": "3.11.2", "accepted": "3.12.0"},
                },
            },
            id="twice",
        ),
        pytest.param(ONCE, SECOND, FIRST, {}, id="and-back"),
        pytest.param({}, FIRST, FIRST, {}, id="nothing"),
    ],
)
def test_an_entry_names_what_made_the_outputs(
    before: dict[str, Any], recorded: dict[str, Any], now: dict[str, Any], expected: dict[str, Any]
) -> None:
    """
    Also when they were accepted before: what made them is not what they were accepted under.
    """
    assert expected == accepted.change(before, recorded, now)


def test_entries_come_and_go() -> None:
    """
    The file goes with its last entry: a run that nobody accepted has none.
    """
    accepted.note("train:smoke", ONCE)
    accepted.note("evaluate:smoke", {"code": ONCE["code"]})
    assert {"train": ONCE, "evaluate": {"code": ONCE["code"]}} == accepted.of_run(
        ["data:rows", "model:nano", "train:smoke", "evaluate:smoke"]
    )

    accepted.withdraw("train:smoke")
    assert {"evaluate": {"code": ONCE["code"]}} == json.loads(Path("runs/smoke/accepted.json").read_text())

    accepted.withdraw("evaluate:smoke")
    assert not Path("runs/smoke/accepted.json").exists()


def test_an_entry_in_words() -> None:
    """
    For a report and for the person who accepts.
    """
    made = {"code": {"recorded": "f" * 64, "accepted": "revision 2"}}
    fact = {"environment": {"blas": {"recorded": "", "accepted": "accelerate"}}}

    assert [
        "made by code ffffffffffff, accepted under revision 2",
        "made with blas -, accepted under blas accelerate",
    ] == [*accepted.sentences({**made, **fact})]


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        '{"train": []}',
        '{"train": {"rows": {}}}',
        '{"train": {"code": "revision 2"}}',
        '{"train": {"code": {"recorded": "revision 1"}}}',
        '{"train": {"code": {"recorded": 1, "accepted": 2}}}',
        '{"train": {"environment": "mlx"}}',
        '{"train": {"environment": {"mlx": null}}}',
    ],
)
def test_a_file_of_another_form_is_refused(content: str) -> None:
    """
    It came with git, and the manifest states what it says.
    """
    Path("runs/smoke").mkdir(parents=True)
    Path("runs/smoke/accepted.json").write_text(content)

    with pytest.raises(ThunderError) as raised:
        accepted.entry_of("train:smoke")

    assert "runs/smoke/accepted.json: says in no known way what was accepted; restore it with git, or delete it" == str(
        raised.value
    )


@pytest.mark.parametrize(("content", "warning"), [("{", "is not JSON; it is replaced"), ("[]", "")])
def test_a_damaged_file_costs_no_training(content: str, warning: str, capsys: pytest.CaptureFixture[str]) -> None:
    """
    A run that ends removes its entry, whatever the file holds.
    """
    Path("runs/smoke").mkdir(parents=True)
    Path("runs/smoke/accepted.json").write_text(content)

    accepted.withdraw("train:smoke")

    assert not Path("runs/smoke/accepted.json").exists()
    assert (f"warning: runs/smoke/accepted.json: {warning}\n" if warning else "") == capsys.readouterr().err
