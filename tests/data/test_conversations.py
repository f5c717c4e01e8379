"""Conversations as others write them: what is trained, what is carried on, what is refused."""

from collections import Counter
from typing import Any

import pytest

from thunder_train.data import conversations
from thunder_train.data.conversations import CUT, EMPTY, IGNORED_WEIGHT, UNANSWERED, UNASKED, UNTRAINED, Conversation

SYSTEM = {"role": "system", "content": "s"}
QUESTION = {"role": "user", "content": "a"}
ANSWER = {"role": "assistant", "content": "b"}
UNTRAINED_ANSWER = {**ANSWER, "weight": 0}
CALL = {"function": {"arguments": {"x": 1}, "name": "f"}, "id": "c1", "type": "function"}
SCHEMA = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def read(*messages: Any, tools: Any = None) -> Conversation:
    return conversations.read([*messages], tools, Counter(), Counter())


def turns(*messages: Any) -> list[dict[str, Any]]:
    """The messages of a conversation that is used."""
    conversation = read(*messages)
    assert ((), "") == (conversation.problems, conversation.reason)
    return [*conversation.messages]


def problems(*messages: Any, tools: Any = None) -> list[str]:
    """What is wrong with a conversation, as a user reads it."""
    return ["; ".join(each) for each in read(*messages, tools=tools).problems]


@pytest.mark.parametrize(
    ("mark", "kept"),
    [
        ({"weight": 0}, {"weight": 0}),
        ({"weight": 0.0}, {"weight": 0}),
        ({"weight": "0"}, {"weight": 0}),
        ({"train": False}, {"weight": 0}),
        ({"train": "False"}, {"weight": 0}),
        ({"train": 0}, {"weight": 0}),
        ({"train": False, "weight": 0}, {"weight": 0}),
        ({"weight": 1}, {}),
        ({"train": True}, {}),
        ({"weight": None}, {}),
    ],
)
def test_a_weight_says_which_answers_are_trained(mark: dict[str, Any], kept: dict[str, Any]) -> None:
    """OpenAI writes weight, axolotl train; an answer with weight 0 is one that the author found bad."""
    assert [QUESTION, {**ANSWER, **kept}, QUESTION, ANSWER] == turns(QUESTION, {**ANSWER, **mark}, QUESTION, ANSWER)


@pytest.mark.parametrize(
    ("mark", "expected"),
    [
        ({"weight": 0.5}, "weight is 0.5; weight is 0 or 1"),
        ({"weight": ""}, "weight is ''; weight is 0 or 1"),
        ({"train": "no"}, "train is 'no'; train is true or false"),
        ({"train": True, "weight": 0}, "weight and train of an answer contradict each other; keep one of them"),
    ],
)
def test_any_other_weight_is_refused(mark: dict[str, Any], expected: str) -> None:
    """Half a weight cannot be honoured, and to round it would be silent."""
    assert [expected] == problems(QUESTION, {**ANSWER, **mark})


@pytest.mark.parametrize(
    ("role", "expected"),
    [("human", "user"), ("User", "user"), ("gpt", "assistant"), ("model", "assistant"), ("function", "tool")],
)
def test_roles_of_other_names_are_read(role: str, expected: str) -> None:
    """They can mean nothing else, and axolotl reads most of them."""
    assert expected == turns(QUESTION, {"role": role, "content": "c"}, ANSWER)[1]["role"]


@pytest.mark.parametrize(
    ("flags", "weight"),
    [({}, 1), ({"weight": None, "train": True}, 1), ({"train": False}, 0), ({"weight": "0"}, 0), ({"weight": 0.0}, 0)],
)
def test_a_row_that_must_not_be_trained_on_is_known(flags: dict[str, Any], weight: int) -> None:
    """The flag often stands beside the messages; to ignore it would train on what the author took out."""
    assert (weight, []) == conversations.row_weight(flags)


@pytest.mark.parametrize(("mapped", "refused"), [((), 2), (("chosen",), 0), (("prompt",), 2)])
def test_one_of_two_answers_may_be_chosen_by_the_field_map(mapped: tuple[str, ...], refused: int) -> None:
    """The hint says to map the better one, and that must be enough."""
    assert refused == len(conversations.row_problems({"chosen": "a", "rejected": "b"}, mapped))


def test_answers_that_are_labelled_bad_are_not_learnt_unseen() -> None:
    """TRL's unpaired preferences hold good and bad answers, told apart by a label alone."""
    problem = ("has a label of false, for an answer not to learn", 'set fields = { train = "label" }')

    assert [problem] == conversations.row_problems({"label": False})
    assert [] == conversations.row_problems({"label": False, "train": False})
    assert [] == conversations.row_problems({"label": "false"})


def test_the_weight_of_a_question_is_counted() -> None:
    """Nothing but answers is trained, whatever a question says of itself."""
    notes: Counter[str] = Counter()

    conversation = conversations.read([{**QUESTION, "weight": 1}, ANSWER], None, Counter(), notes)

    assert ((QUESTION, ANSWER), {IGNORED_WEIGHT: 1}) == (conversation.messages, notes)


@pytest.mark.parametrize("rest", [[QUESTION], [QUESTION, UNTRAINED_ANSWER], [{"role": "tool", "content": "r"}]])
def test_what_follows_the_last_trained_answer_is_cut(rest: list[Any]) -> None:
    """No token of it is a target; that it was there is counted."""
    notes: Counter[str] = Counter()

    conversation = conversations.read([QUESTION, ANSWER, *rest], None, Counter(), notes)

    assert ((QUESTION, ANSWER), {CUT: 1}) == (conversation.messages, notes)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([QUESTION, UNTRAINED_ANSWER], UNTRAINED),
        ([QUESTION], UNANSWERED),
        ([], UNANSWERED),
        ([SYSTEM, ANSWER], UNASKED),
        ([QUESTION, {**ANSWER, "content": " \n"}, QUESTION, ANSWER], EMPTY),
    ],
)
def test_a_conversation_that_teaches_nothing_is_dropped(messages: list[Any], reason: str) -> None:
    """The manifest counts such rows by their reason."""
    assert Conversation(reason=reason) == read(*messages)


def test_an_empty_answer_that_is_not_trained_may_stay() -> None:
    """It is only a part of the prompt."""
    assert 4 == len(turns(QUESTION, {**UNTRAINED_ANSWER, "content": ""}, QUESTION, ANSWER))


def test_tools_and_calls_are_carried_on() -> None:
    """Templates write arguments themselves: given as a JSON text, as OpenAI does, they would be quoted twice."""
    called = {"role": "assistant", "content": None, "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}]}  # fmt: skip
    result = {"role": "tool", "tool_call_id": "c1", "name": "f", "content": "2"}

    conversation = read(QUESTION, called, result, ANSWER, tools=[SCHEMA])

    assert (SCHEMA,) == conversation.tools
    assert [QUESTION, {"role": "assistant", "content": "", "tool_calls": [CALL]}, result, ANSWER] == [
        *conversation.messages
    ]


@pytest.mark.parametrize(
    "call",
    [
        {"name": "f", "arguments": {"x": 1}, "id": "c1"},
        {"function": {"name": "f", "arguments": '{"x":1}'}, "id": "c1"},
    ],
)
def test_a_call_without_its_wrapping_is_wrapped(call: dict[str, Any]) -> None:
    """Templates read call.function."""
    assert [CALL] == turns(QUESTION, {**ANSWER, "tool_calls": [call]})[1]["tool_calls"]


@pytest.mark.parametrize(
    "tools",
    [
        [SCHEMA],
        [{"name": "f", "parameters": {"type": "object"}}],
        '[{"name": "f", "parameters": {"type": "object"}}]',
        ['{"name": "f", "parameters": {"type": "object"}}'],
    ],
    ids=["wrapped", "bare", "JSON of the list", "list of JSON"],
)
def test_tools_are_schemas_or_their_json(tools: Any) -> None:
    """Tables have no nested columns of any shape, so files with tools often hold them as JSON."""
    assert (SCHEMA,) == read(QUESTION, ANSWER, tools=tools).tools


@pytest.mark.parametrize("tools", [None, [], "", " "])
def test_no_tools(tools: Any) -> None:
    """Null, an empty list and an empty cell all mean none."""
    assert ((), ()) == (read(QUESTION, ANSWER, tools=tools).tools, read(QUESTION, ANSWER, tools=tools).problems)


@pytest.mark.parametrize(
    ("tools", "expected"),
    [
        ("{", "tools are not JSON; correct the row"),
        ('{"a": 1, "a": 2}', "tools have the key 'a' twice; keep one of them"),
        ("5", "tools is a number, not a list; write a list of function schemas"),
        ([{"type": "web_search"}], 'a tool is not the schema of a function; write {"type": "function", "function": '
         '{"name", "description", "parameters"}}'),
        ([{"name": "f", "parameters": {"x": [[[[]]]]}}], ""),
        ([{"name": "f", "parameters": eval("[" * 40 + "]" * 40)}],  # noqa: S307
         "tools are nested deeper than 32; shorten the schemas"),
    ],
)  # fmt: skip
def test_wrong_tools_are_refused(tools: Any, expected: str) -> None:
    """A schema that no template can write would fail on every host."""
    assert ([expected] if expected else []) == problems(QUESTION, ANSWER, tools=tools)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"x": ', "the arguments of a tool call are not JSON; correct the row"),
        ("[1]", 'the arguments of a tool call are a list, not an object; write them as {"name": value}'),
        ("[" * 100000, "the arguments of a tool call are nested too deep; correct the row"),
        ('{"x":' + "[" * 40 + "]" * 40 + "}", "the arguments of a tool call are nested deeper than 32; shorten them"),
        ('{"x": 1, "x": 2}', "the arguments of a tool call have the key 'x' twice; keep one of them"),
    ],
    ids=["cut", "list", "endless", "deep", "repeated"],
)
def test_arguments_that_are_no_object_are_refused(arguments: str, expected: str) -> None:
    """They are a target: what is trained must be what a caller can read."""
    call = {"function": {"name": "f", "arguments": arguments}}

    assert [expected] == problems(QUESTION, {**ANSWER, "tool_calls": [call]})


@pytest.mark.parametrize(
    "content", [["a", "b"], [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b", "extra": None}]]
)
def test_parts_of_text_are_joined(content: Any) -> None:
    """As templates of models that also read images do."""
    assert [{"role": "user", "content": "ab"}, ANSWER] == turns({"role": "user", "content": content}, ANSWER)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("hi", "a message is a text, not an object; write it as role and content"),
        (None, "a message is null, not an object; write it as role and content"),
        ({"content": "a"}, "a message lacks role; use one of: system, user, assistant, tool, developer"),
        ({"role": "assistant"}, "an assistant message lacks content; add it, or leave out the row"),
        ({"role": "user", "content": 5}, "the content of a user message is a number; write it as a text"),
        ({"role": "tool", "content": {"a": 1}}, "the content of a tool message is an object; write it as a text, "
         "as its JSON"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "a content has a part of "
         "type 'image_url'; a model of texts cannot learn from it: leave it out, or leave out the row"),
        ({"role": "user", "content": [{"type": "text", "text": None, "image": "x"}]}, "a content has a part of type "
         "'image'; a model of texts cannot learn from it: leave it out, or leave out the row"),
        ({"role": "user", "content": [{"type": "text"}]}, "a part of a content lacks text; "
         'write it as {"type": "text", "text": "..."}'),
        ({**ANSWER, "reasoning_content": "hm"}, "a message has reasoning_content; take it out, or write it into "
         "content as the model's template does"),
        ({**ANSWER, "content": None, "function_call": {"name": "f"}}, "a message has function_call; "
         "write it as tool_calls, with the result in a message of role tool"),
        ({**ANSWER, "train_detail": [{}]}, "a message has train_detail; a part of an answer cannot be trained alone; "
         "leave it out"),
        ({**QUESTION, "tool_calls": [CALL]}, "a user message has tool_calls; only an assistant calls tools"),
        ({**ANSWER, "tool_calls": [{"id": "x"}]}, "a tool call lacks the name of its function; "
         'write {"function": {"name", "arguments"}}'),
        ({**QUESTION, "name": ["x"]}, "name is a list; write it as a text"),
    ],
)  # fmt: skip
def test_what_would_change_the_training_is_refused(message: Any, expected: str) -> None:
    """It was dropped in silence once, and the rest trained as if it were all."""
    assert [expected] == problems(message, QUESTION, ANSWER)


@pytest.mark.parametrize(
    "harmless", [{"function_call": None, "audio": None, "refusal": ""}, {"loss": True, "masked": False}, {"images": []}]
)
def test_members_that_say_nothing_are_no_reason(harmless: dict[str, Any]) -> None:
    """Exports of OpenAI's own client write every member, most of them null."""
    assert [QUESTION, ANSWER] == turns(QUESTION, {**ANSWER, **harmless})


def test_unknown_members_are_counted() -> None:
    """The audit names them, so that nobody believes that they were used."""
    unused: Counter[str] = Counter()
    part = {"type": "text", "text": "a", "cache_control": {}}

    conversations.read([{"role": "user", "content": [part], "date": 1}, {**ANSWER, "date": 2}], None, unused, Counter())

    assert {"messages[].date": 2, "messages[].content[].cache_control": 1} == unused


def test_a_conversation_without_end_is_refused() -> None:
    """A template is rendered once for each answer, so that time grows with the square of the length."""
    assert ["has 2001 messages; give at most 2000"] == problems(*[QUESTION] * 2001)
