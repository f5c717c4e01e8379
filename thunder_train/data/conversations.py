"""Conversations as OpenAI and axolotl write them -> canonical messages.

Input: `messages` and `tools` of a row, decoded but not checked.  Output: `Conversation`. A content is always a text,
the arguments of a call are an object, an answer that must not be trained on has weight 0, the last message is an
answer that is trained. A member that would change what is trained is a problem; any other unknown one is counted.
"""

from collections import Counter
from collections.abc import Collection
from typing import Any, NamedTuple

from thunder_train.core.text import quoted
from thunder_train.data.chat_shapes import SPEAKERS
from thunder_train.data.json_rows import DECODE, first_repeated
from thunder_train.data.rows import DEEPEST, depth

ROLES = ("system", "user", "assistant", "tool", "developer")
INSTRUCTIONS = ("system", "developer")
"""Roles that say how to answer; a row with one of them gets no system message of the dataset."""
TEXT_PARTS = ("text", "input_text", "output_text")
"""Types of the parts of a content that are text."""
MOST_MESSAGES = 2000
"""A template is rendered for every answer of a conversation, so much longer ones would take hours."""
KNOWN = frozenset({"role", "content", "weight", "train", "tool_calls", "tool_call_id", "name"})
THOUGHTS = "take it out, or write it into content as the model's template does"
NOT_TEXT = "a model of texts cannot learn from it: leave it out, or leave out the row"
MASKS = "mark an answer that must not be trained on with weight 0"
REFUSED = {
    "function_call": "write it as tool_calls, with the result in a message of role tool",
    "reasoning_content": THOUGHTS,
    "reasoning": THOUGHTS,
    "thinking": THOUGHTS,
    "thinking_blocks": THOUGHTS,
    "thought": THOUGHTS,
    "thoughts": THOUGHTS,
    "audio": NOT_TEXT,
    "image": NOT_TEXT,
    "images": NOT_TEXT,
    "video": NOT_TEXT,
    "videos": NOT_TEXT,
    "refusal": "write the refusal as content",
    "loss": MASKS,
    "loss_mask": MASKS,
    "loss_weight": MASKS,
    "mask": MASKS,
    "masked": MASKS,
    "trainable": MASKS,
    "training": MASKS,
    "train_detail": "a part of an answer cannot be trained alone; leave it out",
    "train_on_turn": MASKS,
    "prefix": "the start of an answer cannot be given alone; leave it out",
}
"""Members of a message that would change what is trained -> what to do."""
FLAGS = {"weight": "weight is 0 or 1", "train": "train is true or false"}
"""Members that say whether an answer is trained on -> what they may be."""
WEIGHTS = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1}
"""Their values as texts in small letters, which cells of a table are -> weight."""
NEUTRAL = frozenset(
    {("loss", True), ("trainable", True), ("training", True), ("train_on_turn", True)}
    | {("mask", False), ("masked", False), ("prefix", False)}
)
"""Values of such members that change nothing."""
PREFERENCE = "answers are not compared here: write the one to learn as the last message, and take out the other"
REFUSED_BESIDE = {
    "functions": "write them as tools",
    "function_call": "write it as tool_calls of a message",
    "images": NOT_TEXT,
    "image": NOT_TEXT,
    "audios": NOT_TEXT,
    "videos": NOT_TEXT,
    "chosen": PREFERENCE,
    "rejected": PREFERENCE,
    "rejected_response": PREFERENCE,
}
"""Members of a row that would change what is trained -> what to do."""
CUT = "left out: turns after the last answer that is trained"
IGNORED_WEIGHT = "not used: weight or train of a message that is no answer"
UNANSWERED, UNTRAINED = "no answer in the conversation", "no answer with a weight of 1"
UNTRAINED_ROW = "a row with a weight of 0"
UNASKED, EMPTY = "an answer without a question", "empty answer in the conversation"
Problem = tuple[str, str]
"""What is wrong, and a hint."""


class Conversation(NamedTuple):
    """A conversation that was read: its messages and the schemas of its tools, or why it is not used.

    reason: why the row is dropped; problems: for which its file is refused. Both are empty if the row is used.
    """

    messages: tuple[dict[str, Any], ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    reason: str = ""
    problems: tuple[Problem, ...] = ()


def read(messages: Any, tools: Any, unused: Counter[str], notes: Counter[str]) -> Conversation:
    """A row's conversation.

    unused: counts unknown members, as `messages[].member`; notes: counts what was left out, by what it was.
    """
    if not isinstance(messages, list):
        return Conversation(problems=((f"messages is {_kind(messages)}, not a list", "write a list of messages"),))
    if len(messages) > MOST_MESSAGES:
        return Conversation(problems=((f"has {len(messages)} messages", f"give at most {MOST_MESSAGES}"),))
    reader = _Turns(unused, notes)
    turns = [reader.turn(message) for message in messages]
    schemas = reader.schemas(tools)
    if reader.problems:
        return Conversation(problems=tuple(dict.fromkeys(reader.problems)))
    end = next((end for end in range(len(turns), 0, -1) if _is_trained(turns[end - 1])), 0)
    reason = _reason(turns, end)
    if reason:
        return Conversation(reason=reason)
    if end < len(turns):
        notes[CUT] += 1
    return Conversation(tuple(turns[:end]), tuple(schemas))


def row_problems(row: dict[str, Any], mapped: Collection[str] = ()) -> list[Problem]:
    """Members of a row, beside its messages, that would change what is trained.

    mapped: members that the source's field map reads. One of two answers there is the choice to learn it.
    """
    is_chosen = any(REFUSED_BESIDE.get(name) == PREFERENCE for name in mapped)
    allowed = {name for name, hint in REFUSED_BESIDE.items() if name in mapped or (is_chosen and hint == PREFERENCE)}
    refused = [name for name in REFUSED_BESIDE if name not in allowed and row.get(name) not in (None, "", [], {})]
    problems = [(f"has {name}", REFUSED_BESIDE[name]) for name in refused]
    if row.get("label") is False and row.get("train") is None:
        problems.append(("has a label of false, for an answer not to learn", 'set fields = { train = "label" }'))
    return problems


def row_weight(flags: dict[str, Any]) -> tuple[int, list[Problem]]:
    """0 for a row that must not be trained on, else 1; and what is wrong. flags: FLAGS beside its messages."""
    reader = _Turns(Counter(), Counter())
    return reader.weight(flags, "assistant"), reader.problems


def is_instructed(messages: tuple[dict[str, Any], ...]) -> bool:
    """Whether a conversation says itself how to answer, so that the dataset's system message is not added."""
    return any(message["role"] in INSTRUCTIONS for message in messages)


def _is_trained(turn: dict[str, Any]) -> bool:
    return turn["role"] == "assistant" and turn.get("weight") != 0


def _reason(turns: list[dict[str, Any]], end: int) -> str:
    """Why a conversation teaches nothing, or "". end: the number of turns up to the last answer that is trained."""
    if not end:
        return UNTRAINED if any(turn["role"] == "assistant" for turn in turns) else UNANSWERED
    if not any(turn["role"] in ("user", "tool") for turn in turns[:end]):
        return UNASKED
    if any(_is_trained(turn) and not turn["content"].strip() and "tool_calls" not in turn for turn in turns[:end]):
        return EMPTY
    return ""


class _Turns:
    """Reads the messages of one row, and collects what is wrong with them."""

    def __init__(self, unused: Counter[str], notes: Counter[str]) -> None:
        self.problems: list[Problem] = []
        self._unused, self._notes = unused, notes

    def turn(self, message: Any) -> dict[str, Any]:
        """A message in canonical members; of a wrong one only what is right."""
        if not isinstance(message, dict):
            self._add(f"a message is {_kind(message)}, not an object", "write it as role and content")
            return {"role": "", "content": ""}
        role, content = message.get("role"), message.get("content")
        if len(message) == 2 and role in ROLES and content.__class__ is str:  # nearly all
            return message
        given = {name: value for name, value in message.items() if value is not None}
        turn: dict[str, Any] = {"role": self._role(role), "content": ""}
        if calls := given.get("tool_calls"):
            turn["tool_calls"] = self._calls(calls, turn["role"])
        turn["content"] = self._content(content, turn["role"], is_needed=not (calls or given.keys() & REFUSED.keys()))
        for name in ("tool_call_id", "name"):
            if given.get(name, "") != "":
                turn[name] = self._word(name, given[name])
        if self.weight(given, turn["role"]) == 0:
            turn["weight"] = 0
        for name in given.keys() - KNOWN:
            value = given[name]
            is_neutral = value in ("", [], {}) or (value.__class__ is bool and (name, value) in NEUTRAL)
            if name in REFUSED and not is_neutral:
                self._add(f"a message has {name}", REFUSED[name])
            elif not is_neutral:
                self._unused[f"messages[].{name}"] += 1
        return turn

    def schemas(self, tools: Any) -> list[dict[str, Any]]:
        """The schemas of a row's tools, given as a list or as its JSON."""
        if isinstance(tools, str) and tools.strip():
            tools = self._decoded(tools, "tools")
        if tools is None or tools == [] or isinstance(tools, str):
            return []
        if not isinstance(tools, list):
            self._add(f"tools is {_kind(tools)}, not a list", "write a list of function schemas")
            return []
        return [schema for each in tools if (schema := self._schema(each))]

    def _schema(self, tool: Any) -> dict[str, Any]:
        """A function's schema as {"type": "function", "function": {...}}; {} for a wrong one."""
        if isinstance(tool, str) and tool.strip():
            tool = self._decoded(tool, "tools")
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        is_function = isinstance(function, dict) and isinstance(function.get("name"), str)
        if not is_function or tool.get("type", "function") != "function":
            hint = 'write {"type": "function", "function": {"name", "description", "parameters"}}'
            self._add("a tool is not the schema of a function", hint)
            return {}
        if depth(tool) > DEEPEST:
            self._add(f"tools are nested deeper than {DEEPEST}", "shorten the schemas")
            return {}
        return tool if "function" in tool else {"type": "function", "function": tool}

    def _role(self, role: Any) -> str:
        word = role.strip().lower() if isinstance(role, str) else ""
        known = SPEAKERS.get(word, word)
        if known in ROLES:
            return known
        what = "a message lacks role" if role is None else f"unknown role {quoted(role)}"
        self._add(what, f"use one of: {', '.join(ROLES)}")
        return ""

    def _content(self, content: Any, role: str, is_needed: bool) -> str:
        """The text of a message; its parts are joined as they stand. is_needed: False beside tool_calls."""
        if isinstance(content, str):
            return content
        if content is None:
            if is_needed:
                self._add(f"{_article(role)} message lacks content", "add it, or leave out the row")
            return ""
        if not isinstance(content, list):
            hint = "write it as a text" + (", as its JSON" if isinstance(content, dict) else "")
            self._add(f"the content of {_article(role)} message is {_kind(content)}", hint)
            return ""
        return "".join(map(self._part, content))

    def _part(self, part: Any) -> str:
        if isinstance(part, str):
            return part
        if not isinstance(part, dict):
            self._add(f"a part of a content is {_kind(part)}", 'write it as {"type": "text", "text": "..."}')
            return ""
        kind, text = part.get("type", "text"), part.get("text")
        others = [name for name, value in part.items() if name not in ("type", "text") and value is not None]
        if kind not in TEXT_PARTS or (text is None and others):
            name = kind if kind not in TEXT_PARTS else others[0]
            hint = THOUGHTS if name in ("thinking", "reasoning") else NOT_TEXT
            self._add(f"a content has a part of type {quoted(name)}", hint)
            return ""
        if not isinstance(text, str):
            self._add("a part of a content lacks text", 'write it as {"type": "text", "text": "..."}')
            return ""
        self._unused.update(f"messages[].content[].{name}" for name in others)
        return text

    def _word(self, name: str, value: Any) -> str:
        if isinstance(value, str | int) and not isinstance(value, bool):
            return str(value)
        self._add(f"{name} is {_kind(value)}", "write it as a text")
        return ""

    def weight(self, given: dict[str, Any], role: str) -> int:
        """0 for an answer that must not be trained on, else 1."""
        weights = []
        for name, hint in FLAGS.items():
            if (value := given.get(name)) is not None:
                weight = WEIGHTS.get(str(value).strip().lower())
                if weight is None:
                    self._add(f"{name} is {quoted(value)}", hint)
                else:
                    weights.append(weight)
        if role != "assistant":
            if weights:
                self._notes[IGNORED_WEIGHT] += 1
            return 1
        if len({*weights}) > 1:
            self._add("weight and train of an answer contradict each other", "keep one of them")
        return min(weights, default=1)

    def _calls(self, calls: Any, role: str) -> list[dict[str, Any]]:
        if role not in ("assistant", ""):
            self._add(f"{_article(role)} message has tool_calls", "only an assistant calls tools")
            return []
        if isinstance(calls, str):
            calls = self._decoded(calls, "tool_calls")
        if not isinstance(calls, list):
            if calls is not None:
                self._add(f"tool_calls is {_kind(calls)}, not a list", "write a list of calls")
            return []
        return [self._call(call) for call in calls]

    def _call(self, call: Any) -> dict[str, Any]:
        """A call as {"function": {"arguments", "name"}, "type": "function"}, with its id if it has one."""
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            self._add("a tool call lacks the name of its function", 'write {"function": {"name", "arguments"}}')
            return {}
        if call.get("type", "function") != "function":
            self._add(f"a tool call is of type {quoted(call['type'])}", "only functions can be called")
        called = {"function": {"arguments": self._arguments(function.get("arguments")), "name": function["name"]}}
        names = {"id", "type", "function"} if function is not call else {"id", "type", "name", "arguments"}
        self._unused.update(f"messages[].tool_calls[].{name}" for name in call.keys() - names)
        identity = call.get("id")
        return {**called, **({} if identity is None else {"id": self._word("id", identity)}), "type": "function"}

    def _arguments(self, arguments: Any) -> dict[str, Any]:
        """The arguments of a call as an object: templates write them themselves, and would quote a JSON text again."""
        if arguments is None:
            return {}
        if isinstance(arguments, str):
            arguments = self._decoded(arguments, "the arguments of a tool call")
            if arguments is None:
                return {}
        if not isinstance(arguments, dict):
            hint = 'write them as {"name": value}'
            self._add(f"the arguments of a tool call are {_kind(arguments)}, not an object", hint)
            return {}
        if depth(arguments) > DEEPEST:
            self._add(f"the arguments of a tool call are nested deeper than {DEEPEST}", "shorten them")
            return {}
        return arguments

    def _decoded(self, text: str, name: str) -> Any:
        """A member that holds its value as JSON; None, and a problem, if it does not."""
        try:
            value = DECODE(text)
            repeated = first_repeated(text.encode()) if ":" in text else None
        except (ValueError, RecursionError) as error:
            reason = "nested too deep" if isinstance(error, RecursionError) else "not JSON"
            self._add(f"{name} are {reason}", "correct the row")
            return None
        if repeated is not None:
            self._add(f"{name} have the key {quoted(repeated)} twice", "keep one of them")
            return None
        return value

    def _add(self, what: str, hint: str) -> None:
        self.problems.append((what, hint))


def _kind(value: Any) -> str:
    """A value's type in words."""
    if value is None:
        return "null"
    words = {str: "a text", bool: "true or false", int: "a number", float: "a number", list: "a list"}
    return words.get(type(value), "an object")


def _article(role: str) -> str:
    return f"{'an' if role == 'assistant' else 'a'} {role}".strip()
