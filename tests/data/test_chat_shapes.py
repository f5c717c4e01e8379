"""ShareGPT, Alpaca and TRL become messages."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.inputs import read, refusal

SYSTEM = {"role": "system", "content": "s"}
QUESTION, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


def turns(folder: Path, row: dict[str, Any], kind: str, **given: Any) -> list[dict[str, Any]]:
    """The messages of a row."""
    return list(read(folder, [row], kind=kind, **given)[0][0].messages)


def said(*pairs: tuple[str, Any]) -> list[dict[str, Any]]:
    """Turns of ShareGPT."""
    return [{"from": speaker, "value": value} for speaker, value in pairs]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"conversations": said(("human", "q"), ("gpt", "a"))}, [QUESTION, ANSWER]),
        ({"conversations": said(("system", "s"), ("user", "q"), ("assistant", "a"))}, [SYSTEM, QUESTION, ANSWER]),
        ({"conversations": [QUESTION, ANSWER]}, [QUESTION, ANSWER]),
        ({"system": "s", "conversations": said(("human", "q"), ("gpt", "a"))}, [SYSTEM, QUESTION, ANSWER]),
        (
            {"system": "s", "conversations": said(("system", "s"), ("human", "q"), ("gpt", "a"))},
            [SYSTEM, QUESTION, ANSWER],
        ),
        (
            {
                "conversations": [
                    {"from": "human", "value": "q"},
                    {"from": "gpt", "value": "b", "weight": 0},
                    QUESTION,
                    ANSWER,
                ]
            },
            [QUESTION, {"role": "assistant", "content": "b", "weight": 0}, QUESTION, ANSWER],
        ),
    ],
)
def test_turns_of_sharegpt_are_messages(tmp_path: Path, row: dict[str, Any], expected: list[Any]) -> None:
    """Its two spellings, its own system text, and a weight that must not be lost."""
    assert expected == turns(tmp_path, row, "sharegpt")


def test_calls_of_sharegpt_are_tool_calls(tmp_path: Path) -> None:
    """A call is JSON in a text; the model must learn it as its template writes calls."""
    call = {"name": "f", "arguments": {"x": 1}}
    talk = said(("human", "q"), ("function_call", json.dumps(call)), ("observation", "42"), ("gpt", "a"))
    tools = [{"name": "f", "parameters": {}}]

    rows, _ = read(tmp_path, [{"conversations": talk, "tools": json.dumps(tools)}], kind="sharegpt")

    assert ["user", "assistant", "tool", "assistant"] == [message["role"] for message in rows[0].messages]
    assert [{"function": {"arguments": {"x": 1}, "name": "f"}, "type": "function"}] == rows[0].messages[1]["tool_calls"]
    assert ({"type": "function", "function": tools[0]},) == rows[0].tools


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"instruction": "q", "output": "a"}, [QUESTION, ANSWER]),
        ({"instruction": "q", "input": "", "output": "a", "system": "s"}, [SYSTEM, QUESTION, ANSWER]),
        ({"instruction": "Fix:", "input": "teh", "output": "a"}, [{"role": "user", "content": "Fix:\nteh"}, ANSWER]),
        ({"instruction": "q", "output": "a", "history": [["q", "a"]]}, [QUESTION, ANSWER, QUESTION, ANSWER]),
    ],
)
def test_rows_of_alpaca_are_messages(tmp_path: Path, row: dict[str, Any], expected: list[Any]) -> None:
    """The input follows the instruction on a line of its own; earlier turns come first."""
    assert expected == turns(tmp_path, row, "alpaca")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "completion": "a"},
        {"prompt": [QUESTION], "completion": [ANSWER]},
        {"prompt": [QUESTION], "completion": "a"},
    ],
)
def test_both_sides_of_a_completion_may_be_messages(tmp_path: Path, row: dict[str, Any]) -> None:
    """As TRL writes conversational rows."""
    assert [QUESTION, ANSWER] == turns(tmp_path, row, "completions")


@pytest.mark.parametrize(
    ("kind", "row", "expected"),
    [
        ("sharegpt", {"conversations": said(("alien", "q"), ("gpt", "a"))}, "unknown role 'alien'; "
         "use one of: system, user, assistant, tool, developer"),
        ("sharegpt", {"conversations": said(("human", "q"), ("function_call", "f(x)"), ("gpt", "a"))},
         "tool_calls are not JSON; correct the row"),
        ("sharegpt", {"system": "s", "conversations": said(("system", "t"), ("human", "q"), ("gpt", "a"))},
         "has system beside another system message; keep one of them"),
        ("sharegpt", {"conversations": "q"}, "conversations is a text, not an object or a list; "
         "correct the row"),
        ("alpaca", {"instruction": "q", "output": "a", "history": [["q"]]}, "Expected `array` of length 2, got 1 - at "
         "`$.history[0]`; correct the row"),
        ("completions", {"prompt": "q", "chosen": "a", "rejected": "b"}, "lacks completion; its rows compare answers: "
         'set fields = { completion = "chosen" } to learn those'),
    ],
)  # fmt: skip
def test_row_that_is_no_conversation_is_refused(tmp_path: Path, kind: str, row: Any, expected: str) -> None:
    """Never trained on as something else."""
    assert f"in.jsonl:1: {expected}" == refusal(tmp_path, [row], kind=kind)


def test_turns_of_sharegpt_may_be_called_messages(tmp_path: Path) -> None:
    """A file of mixed conventions is as clear as either."""
    assert [QUESTION, ANSWER] == turns(tmp_path, {"messages": said(("human", "q"), ("gpt", "a"))}, "chatml")
