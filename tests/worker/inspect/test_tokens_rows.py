"""The report and the preview of rows other than a question with an answer."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.chat_templates import TEMPLATES
from tests.worker.conftest import flags, write_rows
from thunder_train.worker.args import parse

pytestmark = pytest.mark.mlx

USER, ANSWER = {"role": "user", "content": "ab"}, {"role": "assistant", "content": "xy"}
CALL = {"function": {"name": "look", "arguments": {"at": "c"}}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {}}}
ROWS: list[dict[str, Any]] = [
    {"id": "text", "text": "plain"},
    {"id": "weight", "messages": [USER, ANSWER | {"weight": 0}, USER, ANSWER]},
    {"id": "silent", "messages": [USER, ANSWER | {"content": ""}], "silent": True},
    {"id": "tools", "tools": [TOOL], "messages": [USER, {"role": "assistant", "content": "", "tool_calls": [CALL]}]},
]


def report(folder: Path, tmp_path: Path, rows: list[dict[str, Any]], template: str = "tools", **more: Any) -> Any:
    """The report of training rows, without validation rows."""
    from thunder_train.worker.inspect import tokens

    (tmp_path / "t.jinja").write_text(TEMPLATES[template])
    data = {"train_data": write_rows(tmp_path / "train.jsonl", rows), "valid_data": tmp_path / "valid.jsonl"}
    data["valid_data"].touch()
    chosen = parse(flags(Path("adapter"), model=folder / "nano", chat_template=tmp_path / "t.jinja", **data, **more))
    settings = replace(chosen, token_cache=tmp_path / "tokens")
    return tokens.report(settings, tokens.load(settings), 1, len(rows))


def trained(row: dict[str, Any]) -> str:
    """The text of a previewed row that is trained on, with | before each target."""
    pieces, before = "", False
    for piece in row["pieces"]:
        pieces += ("|" if piece["is_trained"] and not before else "") + piece["text"] * piece["is_trained"]
        before = piece["is_trained"]
    return pieces


@pytest.mark.parametrize("train_on", ["last", "all"])
def test_rows_of_every_kind_are_previewed(folder: Path, tmp_path: Path, train_on: str) -> None:
    """
    What is in brackets is what is trained on: no masked answer, no prompt of a text that has none.
    """
    result = report(folder, tmp_path, ROWS, train_on=train_on)

    expected = {
        "text": "|lain<end_of_turn>",
        "weight": "|xy<end_of_turn>",
        "silent": "|<end_of_turn>",
        "tools": '|<call>{"name": "look", "arguments": {"at": "c"}}</call><end_of_turn>',
    }
    assert expected == {row["id"]: trained(row) for row in result["preview"]}
    train = result["splits"]["train"]
    assert (4, [], [], []) == tuple(train[key] for key in ("rows", "unusable", "answers_lost", "notes"))
    assert "" == train["stop"]


def test_no_validation_rows_are_no_reason_to_stop(folder: Path, tmp_path: Path) -> None:
    """
    valid = 0 in a dataset leaves the file empty.
    """
    from thunder_train.worker.inspect import tokens

    result = report(folder, tmp_path, ROWS)

    assert (0, "", None) == tuple(result["splits"]["valid"][key] for key in ("rows", "stop", "training"))
    lines = list(tokens.lines(result))
    assert any(line.split() == ["answers", "read", "back", "equal", "-"] for line in lines)


def test_lost_letters_and_what_the_template_leaves_out_are_shown(folder: Path, tmp_path: Path) -> None:
    """
    Before a training refuses them on eight machines.
    """
    from thunder_train.worker.inspect import tokens

    named = {"id": "named", "messages": [USER | {"name": "Ada"}, ANSWER]}
    result = report(folder, tmp_path, [named])
    assert "\n" + f"{tmp_path}/train.jsonl: the chat template leaves out the name of a message (1 row)" in list(
        tokens.lines(result)
    )

    lost = {"answers_lost": ["it loses ɛ; use another"], "stop": "the tokens of some answers are not the answers"}
    result["splits"]["train"] |= lost
    lines = list(tokens.lines(result))
    assert "  it loses ɛ; use another" in lines
    assert any("some are lost" in line for line in lines)


def test_a_row_of_several_prompts_counts_once(folder: Path, tmp_path: Path) -> None:
    """
    Each of its answers is an example, but its characters are those of one row.
    """
    from thunder_train.worker.inspect import token_statistics

    talk = {"id": "talk", "messages": [USER, ANSWER, USER, ANSWER]}
    result = report(folder, tmp_path, [talk], template="thoughts in the last answer", train_on="all")
    train = result["splits"]["train"]

    assert (1, 2) == (train["rows"], train["training"]["rows"])
    assert 8 == sum(len(text) for text in token_statistics._texts(talk))
    assert train["tokens"]["total"] / 8 == pytest.approx(train["tokens_per_character"], abs=1e-3)
