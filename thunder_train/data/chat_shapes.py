"""Rows of conversations as ShareGPT, Alpaca and TRL write them -> messages as OpenAI writes them.

Input: a row as a struct.  Output: messages that data/conversations.py reads, and the row's tools.
"""

from typing import Any

import msgspec

from thunder_train.data.json_rows import DECODE
from thunder_train.data.rows import Listed

SPEAKERS = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "observation": "tool",
    "function": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "tool_result": "tool",
}
"""ShareGPT's speakers -> roles; any other word stands for itself."""
CALLS = ("function_call", "tool_call")
"""Speakers whose text is a call as JSON, or a list of calls."""
INPUT_AFTER = "\n"
"""Between instruction and input of an Alpaca row, as LLaMA-Factory and axolotl write it."""


class SimpleRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a row of every simple kind may carry besides its texts."""

    id: str | int | float = ""
    group: str | int | float = ""
    """As video_id, for files that have one kind of group only."""
    video_id: str | int | float = ""
    audio_path: str = ""
    segment_id: str | int | float = ""
    feat_id: str | int | float = ""
    split: str | int = ""
    partition: str = ""
    asr_text: str = ""
    hypotheses: Listed = None
    reference_text: str = ""
    weight: Any = None
    train: Any = None
    """Whether the row is trained on, as in a message."""


class ChatMl(SimpleRow, frozen=True, kw_only=True, omit_defaults=True):
    """One ChatML row."""

    messages: list[Any] | dict[str, Any]
    tools: Any = None


class ShareGpt(SimpleRow, frozen=True, kw_only=True, omit_defaults=True):
    """One ShareGPT row: turns with from and value, or with role and content."""

    conversations: list[Any] | dict[str, Any]
    system: str = ""
    tools: Any = None


class Alpaca(SimpleRow, frozen=True, kw_only=True, omit_defaults=True):
    """An instruction, perhaps with an input, and the output to learn. history: earlier pairs of the two."""

    instruction: str
    output: str
    input: str = ""
    system: str = ""
    history: list[tuple[str, str]] = []


class Completion(SimpleRow, frozen=True, kw_only=True, omit_defaults=True):
    """A question and its answer, each a text or messages."""

    prompt: str | list[Any]
    completion: str | list[Any]
    tools: Any = None


class Text(SimpleRow, frozen=True, kw_only=True, omit_defaults=True):
    """Text without a prompt."""

    text: str


Shape = ChatMl | ShareGpt | Alpaca | Completion | Text
SHAPES: dict[str, type[ChatMl] | type[ShareGpt] | type[Alpaca] | type[Completion] | type[Text]] = {
    "chatml": ChatMl,
    "sharegpt": ShareGpt,
    "alpaca": Alpaca,
    "completions": Completion,
    "text": Text,
}
"""Kind of a source -> its rows."""


def messages(row: Shape) -> list[Any]:
    """The messages of a row, not yet checked; [] for plain text."""
    if isinstance(row, ChatMl):
        turns = _listed(row.messages)
        return [_turn(turn) if isinstance(turn, dict) and _is_share_gpt(turn) else turn for turn in turns]
    if isinstance(row, ShareGpt):
        return _instructed(row.system, [_turn(turn) for turn in _listed(row.conversations)])
    if isinstance(row, Alpaca):
        question = f"{row.instruction}{INPUT_AFTER}{row.input}" if row.input else row.instruction
        pairs = [*row.history, (question, row.output)]
        return _instructed(row.system, [turn for asked, answered in pairs for turn in _pair(asked, answered)])
    if isinstance(row, Completion):
        return [*_side("user", row.prompt), *_side("assistant", row.completion)]
    return []


def problems(row: Shape) -> list[tuple[str, str]]:
    """(what is wrong, hint) of a row that has two different system texts."""
    if not (isinstance(row, ShareGpt) and row.system):
        return []
    first = [_turn(turn) for turn in _listed(row.conversations)[:1]]
    is_system = bool(first) and isinstance(first[0], dict) and first[0].get("role") == "system"
    is_other = is_system and len(_instructed(row.system, first)) > 1
    return [("has system beside another system message", "keep one of them")] if is_other else []


def _side(role: str, content: str | list[Any]) -> list[Any]:
    return [{"role": role, "content": content}] if isinstance(content, str) else content


def _pair(question: str, answer: str) -> list[dict[str, Any]]:
    return [*_side("user", question), *_side("assistant", answer)]


def _instructed(system: str, turns: list[Any]) -> list[Any]:
    """The turns after a row's own system text, unless they begin with that text."""
    if not system:
        return turns
    message = {"role": "system", "content": system}
    return turns if turns[:1] == [message] else [message, *turns]


def _listed(turns: list[Any] | dict[str, Any]) -> list[Any]:
    """Turns as a list. Hugging Face's `Sequence` writes a list of objects as an object of lists."""
    if isinstance(turns, list):
        return turns
    columns = [column for column in turns.values() if isinstance(column, list)]
    if len(columns) < len(turns) or len({len(column) for column in columns}) != 1:
        return [turns]
    return [dict(zip(turns, values, strict=True)) for values in zip(*columns, strict=True)]


def _is_share_gpt(turn: dict[str, Any]) -> bool:
    return "from" in turn and "role" not in turn


def _turn(turn: Any) -> Any:
    """A turn of ShareGPT as a message; anything else as it is."""
    if not isinstance(turn, dict):
        return turn
    speaker, said = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
    message = {name: value for name, value in turn.items() if name not in ("from", "value", "role", "content")}
    if speaker in CALLS and isinstance(said, str):
        return message | {"role": "assistant", "content": None, "tool_calls": _calls(said)}
    role = SPEAKERS.get(speaker, speaker) if isinstance(speaker, str) else speaker
    return message | {"role": role, "content": said}


def _calls(said: str) -> Any:
    """The calls in a text of JSON; the text itself, which is refused later, if it is none."""
    try:
        calls = DECODE(said)
    except (ValueError, RecursionError):
        return said
    return [calls] if isinstance(calls, dict) else said
