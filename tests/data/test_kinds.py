"""A row of another kind, or with other names, is answered with what to set."""

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.inputs import refusal

CHAT = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
SHARED = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
NEMO = {"audio_filepath": "a.wav", "duration": 1.5, "text": "b", "pred_text": "c"}
ALPACA = {"instruction": "q", "input": "", "output": "a"}
NBEST = {"input": ["a", "b"], "output": "c"}


@pytest.mark.parametrize(
    ("kind", "row", "expected"),
    [
        ("chatml", SHARED, 'lacks messages; its rows have conversations (from/value): set kind = "sharegpt"'),
        ("text", SHARED, 'lacks text; its rows have conversations (from/value): set kind = "sharegpt"'),
        ("sharegpt", CHAT, 'lacks conversations; its rows have messages: set kind = "chatml"'),
        ("text", CHAT, 'lacks text; its rows have messages: set kind = "chatml"'),
        ("completions", ALPACA,
         'lacks prompt, completion; its rows have instruction and output: set kind = "alpaca"'),
        ("chatml", {"prompt": "a", "completion": "b"},
         'lacks messages; its rows have prompt and completion: set kind = "completions"'),
        ("chatml", NEMO, 'lacks messages; its rows have text and pred_text: set kind = "nemo"'),
        ("rows", NEMO, 'lacks asr_text, reference_text; its rows have text and pred_text: set kind = "nemo"'),
        ("alpaca", {"text": "a"}, 'lacks instruction, output; its rows have text: set kind = "text"'),
        ("completions", {"asr_text": "a", "reference_text": "b"},
         'lacks prompt, completion; its rows have asr_text and reference_text: set kind = "rows"'),
        ("completions", {"question": "a", "answer": "b"},
         'lacks prompt, completion; set fields = { prompt = "question", completion = "answer" }'),
        ("chatml", {"question": "a", "answer": "b"},
         'lacks messages; set kind = "completions" and fields = { prompt = "question", completion = "answer" }, '
         "or map messages in fields"),
        ("chatml", {"body": CHAT}, 'lacks messages; set fields = { messages = "body.messages" }'),
        ("chatml", {"contents": [{"role": "user", "parts": [{"text": "a"}]}]},
         "lacks messages; contents holds turns as Gemini writes them: write messages with role and content"),
        ("chatml", {"input": CHAT, "preferred_output": []},
         "lacks messages; its rows compare answers: write messages that end with the one to learn"),
        ("rows", {"hyp": "a", "ref": "b"},
         'lacks asr_text, reference_text; set fields = { asr_text = "hyp", reference_text = "ref" }'),
        ("chatml", {"instruction": "a", "context": "b", "response": "c"},
         'lacks messages; set kind = "alpaca" and fields = { output = "response", input = "context" }, '
         "or map messages in fields"),
        ("alpaca", {"instruction": "a", "context": "b", "response": "c"},
         'lacks output; set fields = { output = "response", input = "context" }'),
        ("rows", {"wav": "a.wav", "hyp": "a", "ref": "b"},
         'lacks asr_text, reference_text; set fields = { asr_text = "hyp", reference_text = "ref", '
         'audio_path = "wav" }'),
        ("rows", {"asr_text": "a", "file": "b"},
         "lacks reference_text; set references to the file that holds them, or map it in fields; the row has file"),
        ("rows", NBEST,
         'lacks asr_text, reference_text; set fields = { hypotheses = "input", reference_text = "output" }'),
        ("completions", NBEST,
         'lacks prompt, completion; set kind = "rows" and fields = { hypotheses = "input", '
         'reference_text = "output" }, or map prompt and completion in fields'),
        ("rows", {"asr_text": "a", "Reference Text": "b"},
         'lacks reference_text; set fields = { reference_text = "Reference Text" }'),
        ("completions", {"promt": "a", "completion": "b"}, 'lacks prompt; set fields = { prompt = "promt" }'),
        ("sharegpt", {"items": SHARED["conversations"]},
         'lacks conversations; set fields = { conversations = "items" }'),
        ("nemo", CHAT, 'lacks asr_text, reference_text; its rows have messages: set kind = "chatml"'),
        ("nemo", {"audio_filepath": "a.wav", "text": "b"}, "lacks asr_text; add pred_text"),
        ("nemo", {"audio_filepath": "a.wav", "text": "b", "duration": 1},
         "lacks asr_text; add pred_text, or map it in fields; the row has duration"),
        ("text", {"a": 1, "b": {"c": 2}},
         "lacks text; add it, or map it in fields; the row has a, b.c"),
        ("text", {"text": None}, "lacks text; add it"),
        ("text", {"a\x1b[31m": 1}, "lacks text; add it, or map it in fields; the row has a\\x1b[31m"),
    ],
)  # fmt: skip
def test_wrong_kind_is_answered_with_what_to_set(tmp_path: Path, kind: str, row: dict[str, Any], expected: str) -> None:
    """In one line, however many rows there are."""
    assert f"in.jsonl:1, 2, 3 and 237 more: {expected}" == refusal(tmp_path, [row] * 240, kind=kind)


def test_join_key_of_another_name_is_suggested(tmp_path: Path) -> None:
    """A NeMo manifest as both sides of a join."""
    expected = (
        'in.jsonl, in.jsonl: share no join key; set fields = { audio_path = "audio_filepath" }, '
        "or give both files one of: audio_path, segment_id, feat_id"
    )

    assert expected == refusal(tmp_path, [NEMO], kind="rows", references="in.jsonl")
