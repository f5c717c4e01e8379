"""Which part of a row is trained on, under the chat templates of each family."""

import itertools
from typing import Any

import pytest

from tests.helpers.chat_templates import TEMPLATES
from thunder_train import ThunderError

pytestmark = pytest.mark.mlx

END = "<end_of_turn>"
SYSTEM, USER = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "ab"}
ANSWER, AGAIN = {"role": "assistant", "content": "xy"}, {"role": "user", "content": "cd"}
LAST = {"role": "assistant", "content": "zw"}
CALL = {"function": {"name": "look", "arguments": {"at": "ߊ"}}}
CALLING = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "name": "look", "tool_call_id": "1", "content": "seen"}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {}}}


def parts(tokenizer: Any, name: str, messages: list[Any], train_on: str = "last", **more: Any) -> list[list[str]]:
    """The texts between the targets and the targets, in turn, of each passage of a row. more: of the Chat and row."""
    from thunder_train.worker.batching import encoding, targets
    from thunder_train.worker.chat import Chat

    row = {"messages": messages, **{key: more.pop(key) for key in ("tools", "silent") if key in more}}
    chat = Chat(tokenizer, TEMPLATES[name], **more)
    found, _ = targets.passages(row, chat, train_on)
    texts = []
    for ids, spans in encoding.encode(found, chat):
        edges = [0, *(edge for span in spans for edge in span)]
        pairs = itertools.pairwise(edges)
        texts.append([tokenizer.decode(list(ids[start:stop])) for start, stop in pairs])
    return texts


@pytest.mark.parametrize("is_thinking", [False, True])
@pytest.mark.parametrize("name", ["turns", "thoughts in the prompt", "thoughts in the last answer", "channels"])
@pytest.mark.parametrize("before", [[USER], [SYSTEM, USER], [USER, ANSWER, AGAIN]])
def test_what_a_generation_begins_with_is_the_prompt(
    tokenizer: Any, name: str, is_thinking: bool, before: list[Any]
) -> None:
    """
    The model must be trained on exactly the text that it will be asked to continue.
    """
    from thunder_train.worker.chat import Chat

    arguments = {"enable_thinking": is_thinking}
    asked = Chat(tokenizer, TEMPLATES[name], arguments).text(before, is_prompt=True)
    ((prompt, target),) = parts(tokenizer, name, [*before, LAST], arguments=arguments)

    assert asked == prompt
    assert target.endswith(f"zw{END}")


def test_a_blank_that_a_row_has_before_the_header_is_no_target(tokenizer: Any) -> None:
    """
    Hermes 3 writes a newline after the result of a tool unless it is the last message: the header was trained on.
    """
    ((prompt, target),) = parts(tokenizer, "a newline more", [USER, ANSWER])

    assert ("<|user|>ab<end_of_turn><|assistant|>", "xy<end_of_turn>") == (prompt, target)


@pytest.mark.parametrize(
    "start", ["<think>", "<|channel>thought", "[THINK]", "<|START_THINKING|>", "Here are my reasoning steps:"]
)
def test_thoughts_of_every_family_that_a_prompt_leaves_open_are_refused(tokenizer: Any, start: str) -> None:
    """
    An answer in them would be read as a thought. mlx-lm knows the marks of some families only.
    """
    from thunder_train.worker.batching import targets
    from thunder_train.worker.chat import Chat

    chat = Chat(tokenizer, TEMPLATES["open thoughts"].replace("<think>", start))

    with pytest.raises(ThunderError, match="the generation prompt opens thoughts with"):
        targets.passages({"messages": [USER, ANSWER]}, chat, "last")


def test_an_empty_block_of_thoughts_in_the_prompt_is_no_target(tokenizer: Any) -> None:
    """
    With thinking off, Gemma 4's prompt has it and its rows have none: the answer and its end follow the longer prompt.
    """
    name = "thoughts in the prompt"
    head = "<start_of_turn>user\nab<end_of_turn>\n<start_of_turn>assistant\n"

    assert [[f"{head}<think></think>", f"xy{END}"]] == parts(tokenizer, name, [USER, ANSWER])
    assert [[head, f"xy{END}"]] == parts(tokenizer, name, [USER, ANSWER], arguments={"enable_thinking": True})
    # An answer that begins as the header goes on must not move the border.
    thinker = {"role": "assistant", "content": "<think"}
    assert [[f"{head}<think></think>", f"<think{END}"]] == parts(tokenizer, name, [USER, thinker])


def test_a_header_that_the_model_must_write_is_a_target(tokenizer: Any) -> None:
    """
    gpt-oss writes its channel itself, and Qwen 3 the empty block of thoughts where thinking is on.
    """
    (channels,) = parts(tokenizer, "channels", [USER, ANSWER])
    (thoughts,) = parts(tokenizer, "thoughts in the last answer", [USER, ANSWER], arguments={"enable_thinking": True})

    assert f"<|channel|>final<|message|>xy{END}" == channels[1]
    assert f"<think>\n\n</think>\n\nxy{END}" == thoughts[1]


@pytest.mark.parametrize(
    ("name", "opening", "target"),
    [
        ("ended thoughts", "<think>", "</think>xy"),
        ("thoughts closed in the prompt", "<think></think>", "xy"),
        ("another header", "<|none|>", "<|answer|>xy"),
    ],
)
def test_a_header_that_differs_from_that_of_the_prompt(tokenizer: Any, name: str, opening: str, target: str) -> None:
    """
    The model writes what the row's header has and the generation prompt has not.
    """
    assert [[f"<|user|>ab<|assistant|>{opening}", f"{target}{END}"]] == parts(tokenizer, name, [USER, ANSWER])


def test_an_answer_ends_at_its_first_end_of_turn(tokenizer: Any) -> None:
    """
    A generation stops there; Apriel's template writes another one after each answer.
    """
    (last,) = parts(tokenizer, "ended twice", [USER, ANSWER])
    (both,) = parts(tokenizer, "ended twice", [USER, ANSWER, AGAIN, LAST], "all")

    assert f"xy{END}" == last[1]
    assert [f"xy{END}", f"zw{END}"] == both[1::2]


def test_the_end_of_sequence_is_added_where_the_template_ends_no_turn(tokenizer: Any) -> None:
    """
    A model trained on answers without an end writes on until the cap.
    """
    head = "<|user|>\nab<|assistant|>\n<think></think>"

    assert [[head, f"\nxy{END}"]] == parts(tokenizer, "never ended", [USER, ANSWER])
    assert [[head, "\nxy"]] == parts(tokenizer, "never ended", [USER, ANSWER], end_answers=False)


def test_every_answer_is_ended_where_the_template_ends_none(tokenizer: Any) -> None:
    """
    An earlier answer has no end in the row's own text, so it follows its prompt in a row of its own.
    """
    first, second = parts(tokenizer, "never ended", [USER, ANSWER, AGAIN, LAST], "all")

    assert f"\nxy{END}" == first[1]
    assert f"\nzw{END}" == second[1]
    assert "<|user|>\nab<|assistant|>\n<think></think>\nxy<|user|>\ncd<|assistant|>\n<think></think>" == second[0]


@pytest.mark.parametrize(
    ("name", "together"),
    [("turns", True), ("thoughts in the prompt", False), ("thoughts in the last answer", False), ("channels", False)],
)
def test_all_answers_share_a_row_where_each_follows_its_own_prompt_there(
    tokenizer: Any, name: str, together: bool
) -> None:
    """
    Otherwise an answer would be trained behind a text that no generation begins with.
    """
    found = parts(tokenizer, name, [USER, ANSWER, AGAIN, LAST], "all")

    assert together == (len(found) == 1)
    answers = [text for passage in found for text in passage[1::2]]
    assert [True, True] == [text.endswith(f"{each}{END}") for text, each in zip(answers, ["xy", "zw"], strict=True)]


def test_an_answer_of_weight_0_is_no_target(tokenizer: Any) -> None:
    """
    OpenAI's format masks bad answers so; they are context only.
    """
    masked = ANSWER | {"weight": 0}
    (passage,) = parts(tokenizer, "turns", [USER, masked, AGAIN, LAST], "all")
    (earlier,) = parts(tokenizer, "turns", [USER, ANSWER, AGAIN, LAST | {"weight": 0}])

    assert [f"zw{END}"] == passage[1::2]
    assert "xy" in passage[0]
    assert [f"xy{END}"] == earlier[1::2]
    with pytest.raises(ThunderError, match="has no target: the last message is not an answer"):
        parts(tokenizer, "turns", [USER, masked])


@pytest.mark.parametrize("name", ["tools", "calls as text", "calls without content"])
def test_tools_calls_and_results_reach_the_template(tokenizer: Any, name: str) -> None:
    """
    As each template wants them: arguments as an object or as JSON, content absent or empty beside calls.
    """
    talk = [USER, CALLING, RESULT, LAST]
    (calling,) = parts(tokenizer, name, talk[:2], tools=[TOOL] if name == "tools" else None)
    (answering,) = parts(tokenizer, name, talk)

    assert "look" in calling[1]
    assert '{"at": "ߊ"}' in calling[1]
    assert "None" not in calling[1]
    assert "{'at'" not in calling[1]
    assert ("tools: [" in calling[0]) == (name == "tools")
    assert "seen" in answering[0]
    assert f"zw{END}" == answering[1]


def test_silence_is_the_end_of_the_turn(tokenizer: Any) -> None:
    """
    Where nothing was said, the model learns to write nothing, and only where the row says so.
    """
    silent = {"role": "assistant", "content": ""}

    assert END == parts(tokenizer, "turns", [USER, silent], silent=True)[0][1]
    assert END == parts(tokenizer, "never ended", [USER, silent], silent=True)[0][1]
    assert END == parts(tokenizer, "nothing for nothing", [USER, silent], silent=True)[0][1]
    with pytest.raises(ThunderError, match="has no target"):
        parts(tokenizer, "turns", [USER, silent])


def notes(tokenizer: Any, name: str, messages: list[Any], **more: Any) -> list[str]:
    """What is said of a row."""
    from thunder_train.worker.batching import targets
    from thunder_train.worker.chat import Chat

    return targets.passages({"messages": messages, **more}, Chat(tokenizer, TEMPLATES[name]), "last")[1]


def test_what_a_template_leaves_out_is_said(tokenizer: Any) -> None:
    """
    A prompt that the model never sees helps nobody, and nobody would notice.
    """
    named = USER | {"name": "Ada"}

    assert ["the chat template leaves out a message of role system"] == notes(
        tokenizer, "no system", [SYSTEM, USER, ANSWER]
    )
    assert ["the chat template leaves out the name of a message"] == notes(tokenizer, "turns", [named, ANSWER])
    assert ["the chat template leaves out the tools"] == notes(tokenizer, "turns", [USER, ANSWER], tools=[TOOL])
    assert [] == notes(tokenizer, "tools", [SYSTEM, USER, ANSWER], tools=[TOOL])


def test_a_developer_is_a_system_where_the_template_knows_none(tokenizer: Any) -> None:
    """
    OpenAI renamed the role; most templates raise for it or leave it out.
    """
    developer = SYSTEM | {"role": "developer"}
    said = "the chat template does not know the role developer: these messages are given to it as system"

    assert [said] == notes(tokenizer, "known roles", [developer, USER, ANSWER])
    assert [] == notes(tokenizer, "turns", [developer, USER, ANSWER])
    assert "system\nBe brief." in parts(tokenizer, "known roles", [developer, USER, ANSWER])[0][0]


@pytest.mark.parametrize(
    ("name", "messages", "what"),
    [
        ("counting", [USER, ANSWER], "the chat template does not render the prompt as a prefix of the whole row"),
        ("open thoughts", [USER, ANSWER], "the generation prompt opens thoughts with <think>, and the row ends none"),
        (
            "thoughts in the last answer",
            [USER, {"role": "assistant", "content": "hm</think>yes"}],
            "the chat template leaves out a part of the answer",
        ),
        ("turns", [USER, CALLING], "the chat template leaves out the tool calls of the answer"),
        (
            "turns",
            [USER, {"role": "assistant", "content": f"a{END}b"}],
            f"has an answer that holds {END}, at which the",
        ),
        ("turns", [ANSWER], "has an answer and no prompt"),
        ("known roles", [USER, RESULT, ANSWER], "the chat template rejects it: no role tool"),
        ("turns", [{"role": "user", "content": "\ud800"}, ANSWER], "holds half of a character"),
        ("turns", [USER, {"role": "assistant", "content": "x", "tool_calls": [1]}], "has no `messages` with role and"),
    ],
)
def test_a_row_that_cannot_be_trained_on_as_it_is_is_refused(
    tokenizer: Any, name: str, messages: list[Any], what: str
) -> None:
    """
    One sentence for each, and no traceback.
    """
    from thunder_train.worker.batching import tokens
    from thunder_train.worker.chat import Chat

    with pytest.raises(ThunderError) as caught:
        tokens.example({"messages": messages}, Chat(tokenizer, TEMPLATES[name]), "x:1")

    assert str(caught.value).startswith(f"x:1: {what}")


def test_plain_text_is_a_target_from_its_first_token(tokenizer: Any) -> None:
    """
    There is no prompt and no template: the whole text and its end. The first token has nothing before it.
    """
    from thunder_train.worker.batching import tokens
    from thunder_train.worker.chat import Chat

    made = tokens.example({"text": "ߊߋ x"}, Chat(tokenizer), "x:1")

    assert f"ߊߋ x{END}" == tokenizer.decode(list(made.tokens))
    assert ((1, 5),) == made.spans
    open_ended = tokens.example({"text": "ߊߋ x"}, Chat(tokenizer, end_answers=False), "x:1")
    assert ("ߊߋ x", ((1, 4),)) == (tokenizer.decode(list(open_ended.tokens)), open_ended.spans)


@pytest.mark.parametrize("tools", [1, "look", [1], [{"function": "look"}]])
def test_tools_of_another_form_are_refused(tokenizer: Any, tools: Any) -> None:
    """
    A template would fail on them, or write nothing.
    """
    with pytest.raises(ThunderError, match="has `tools` that are no list of functions; write them as OpenAI's format"):
        parts(tokenizer, "tools", [USER, ANSWER], tools=tools)
