"""Which part of a row's text is trained on: each answer, from the end of its prompt to the end of its turn.

All positions are characters of text; encoding.py finds their tokens. Templates do not mark answers, so each answer is
located by rendering the messages before it with the generation prompt: what the whole row has after that is the target.
"""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thunder_train import ThunderError
from thunder_train.core.text import escaped
from thunder_train.worker.chat import Chat

PROBE = "Answer7f3a91"
"""Stands for an answer where the template's header before it is looked for."""
REWRITTEN = "the chat template does not render the prompt as a prefix of the whole row"
ANSWER = "assistant"
ABSENT = object()
TRANSLATED = ("tool_calls", "weight")
"""Members of a message that are not passed to a template as they are."""


@dataclass(frozen=True)
class Passage:
    """A text and its targets. targets: (start, end) of each, in characters, in order, none empty but the last.

    adds_end: the end-of-sequence token follows the text, as the end of the last target. is_plain: no template made it,
    so that it begins with the tokenizer's first token.
    """

    text: str
    targets: tuple[tuple[int, int], ...]
    adds_end: bool
    is_plain: bool = False


class Conversation:
    """Messages in the form that a chat template takes, each text of them rendered once."""

    def __init__(self, messages: Sequence[Mapping[str, Any]], tools: Any, chat: Chat) -> None:
        self.messages, self.tools, self.chat = list(messages), tools, chat
        self._whole: dict[int, str] = {}

    def prompt(self, turn: int) -> str:
        """The messages before an answer, with the generation prompt."""
        return self.chat.text(self.messages[:turn], is_prompt=True, tools=self.tools)

    def whole(self, turn: int) -> str:
        """The messages up to an answer, the answer included."""
        if turn not in self._whole:
            answer = self.messages[turn]
            is_empty = not answer.get("content") and not answer.get("tool_calls")
            # Some templates leave a turn out, or refuse it, if nothing is said in it.
            self._whole[turn] = "".join(self.around(turn)) if is_empty else self._text(self.messages[: turn + 1])
        return self._whole[turn]

    def around(self, turn: int) -> tuple[str, str]:
        """What is rendered before and after the text of an answer without tool calls."""
        text = self._text([*self.messages[:turn], {"role": ANSWER, "content": PROBE}])
        before, _, after = text.rpartition(PROBE)
        return before, after

    def _text(self, messages: Sequence[Mapping[str, Any]]) -> str:
        return self.chat.text(messages, is_prompt=False, tools=self.tools)


def passages(row: Any, chat: Chat, train_on: str) -> tuple[list[Passage], list[str]]:
    """(a row's passages, notes on what the template leaves out of its prompt). The last one ends with the last answer.

    train_on: "last" or "all" answers. There are several passages only where the template writes an earlier answer
    otherwise than the generation prompt lets the model write it: then each answer follows its own prompt.
    Raises ThunderError, without a place, if the row has no answer or the chat template does not fit it.
    """
    if isinstance(row, dict) and "text" in row:
        return [_plain(row["text"], chat)], []
    messages, turns = _checked(row)
    talk, notes = fitted(messages[: turns[-1] + 1], row.get("tools") or None, chat)
    last = turns[-1]
    answer = messages[last]
    _check_content(answer, chat, is_silent=row.get("silent") is True)
    prompt = talk.prompt(last)
    notes += [*chat.unread, *left_out(talk, last, prompt)]
    target, adds_end = _target(talk, last, prompt)
    _check_written(answer, target)
    _check_thoughts(prompt, target, chat)
    text, span = prompt + target, (len(prompt), len(prompt) + len(target))
    earlier = _earlier(messages, turns, chat) if train_on == "all" else []
    if not earlier:
        return [Passage(text, (span,), adds_end)], notes
    spans = [_span_within(talk, turn, text) for turn in earlier]
    if all(spans):
        return [Passage(text, (*(each for each in spans if each), span), adds_end)], notes
    return [*(_separate(talk, turn) for turn in earlier), Passage(text, (span,), adds_end)], notes


def _plain(text: Any, chat: Chat) -> Passage:
    if not isinstance(text, str) or not text.strip():
        raise ThunderError("has no text", hint="give `text` some, or leave the row out")
    return Passage(text, ((0, len(text)),), adds_end=chat.end_answers, is_plain=True)


def _checked(row: Any) -> tuple[list[dict[str, Any]], list[int]]:
    """(messages, positions of the answers to train on)."""
    messages = row.get("messages") if isinstance(row, dict) else None
    if not messages or not is_chat(messages):
        raise ThunderError("has no `messages` with role and content", hint="write ChatML rows")
    if not _are_tools(row.get("tools") or []):
        raise ThunderError("has `tools` that are no list of functions", hint="write them as OpenAI's format does")
    turns = [i for i, each in enumerate(messages) if each["role"] == ANSWER and each.get("weight") != 0]
    if not turns or messages[-1]["role"] != ANSWER:
        raise ThunderError("has no target: the last message is not an answer", hint="end it with an answer")
    if turns[-1] == 0:
        raise ThunderError("has an answer and no prompt", hint="begin with a question")
    return messages, turns


def is_chat(messages: Any) -> bool:
    """Whether these are messages with the members that a chat template needs, each of its type."""
    return isinstance(messages, list) and all(
        isinstance(each, dict)
        and isinstance(each.get("role"), str)
        and isinstance(each.get("content"), str)
        and _are_calls(each.get("tool_calls", []))
        for each in messages
    )


def _are_tools(tools: Any) -> bool:
    return isinstance(tools, list) and all(
        isinstance(each, dict) and isinstance(each.get("function", each), dict) for each in tools
    )


def _are_calls(calls: Any) -> bool:
    return isinstance(calls, list) and all(
        isinstance(call, dict)
        and isinstance(call.get("function"), dict)
        and isinstance(call["function"].get("name"), str)
        for call in calls
    )


def _check_content(answer: Mapping[str, Any], chat: Chat, is_silent: bool) -> None:
    content = answer["content"]
    if not content.strip() and not answer.get("tool_calls") and not is_silent:
        raise ThunderError("has no target: the last message is not an answer", hint="end it with an answer")
    if ends := [end for end in chat.ends if end in content]:
        what = f"has an answer that holds {escaped(ends[0])}, at which the model stops"
        raise ThunderError(what, hint="take it out of the answer")


def _check_written(answer: Mapping[str, Any], target: str) -> None:
    """Templates may cut blanks around an answer, and nothing else."""
    if (answer.get("content") or "").strip() not in target:
        hint = "take out what it cuts, as <think> blocks, or give another template"
        raise ThunderError("the chat template leaves out a part of the answer", hint=hint)
    if any(call["function"]["name"] not in target for call in answer.get("tool_calls", [])):
        hint = "give a template that writes them"
        raise ThunderError("the chat template leaves out the tool calls of the answer", hint=hint)


def _check_thoughts(prompt: str, target: str, chat: Chat) -> None:
    """An answer inside of thoughts that nothing ends would be read as a thought."""
    for start, end in chat.thoughts:
        if re.search(rf"{re.escape(start)}\w*\s*$", prompt) and end not in target:  # Gemma 4 names the channel
            what = f"the generation prompt opens thoughts with {escaped(start)}, and the row ends none"
            hint = (
                "turn thinking off (enable_thinking = false in [models.NAME.template], or what the model's card says), "
                "or give another template"
            )
            raise ThunderError(what, hint=hint)


def _earlier(messages: Sequence[Mapping[str, Any]], turns: Sequence[int], chat: Chat) -> list[int]:
    """The answers before the last one that can be trained on; what stands before any question cannot."""
    earlier = [turn for turn in turns[:-1] if turn > 0]
    for turn in earlier:
        if not messages[turn]["content"].strip() and not messages[turn].get("tool_calls"):
            raise ThunderError("has an answer without text", hint="fill it, or set train_on to last")
        _check_content(messages[turn], chat, is_silent=False)
    return earlier


def _target(talk: Conversation, turn: int, prompt: str) -> tuple[str, bool]:
    """(what the model is to write after a prompt, whether the end-of-sequence token must follow)."""
    written = _after(prompt, talk, turn)
    if end := _first_end(written, talk.chat.ends):
        return written[:end], False  # the template's text after it (a newline in Gemma's) is never generated
    if not talk.chat.end_answers:
        if not written:
            raise ThunderError("has no target: the template writes nothing for it", hint="set end_answers to true")
        return written, False
    return _without_blanks(written, (talk.messages[turn].get("content") or "")), True


def _first_end(written: str, ends: Sequence[str]) -> int:
    """The position after the first end of turn, where a generation stops; 0 if there is none."""
    return min((written.find(each) + len(each) for each in ends if each in written), default=0)


def _without_blanks(written: str, content: str) -> str:
    """What a template writes, without the blanks at its end that are not the answer's: they end no turn."""
    content = content if content and content in written else content.strip()
    end = written.rfind(content) + len(content) if content else 0
    return written[:end] + written[end:].rstrip()


def _after(prompt: str, talk: Conversation, turn: int) -> str:
    """What the row has after the prompt. Raises ThunderError if the template writes the prompt otherwise in the row.

    A generation prompt may be longer than the header of an answer in a row: Gemma 4's and GLM's hold an empty block of
    thoughts where thinking is off. Then the answer follows the longer one, as it will in a generation.
    """
    whole, openings = talk.whole(turn), talk.chat.openings
    if whole.startswith(prompt):
        return whole[len(prompt) :]
    for opening in openings:
        if prompt.endswith(opening) and whole.startswith(prompt.removesuffix(opening)):
            return whole[len(prompt) - len(opening) :]
    before, _ = talk.around(turn)
    header = _other_header(prompt, before, (talk.messages[turn - 1].get("content") or "").strip())
    if header is None or not before or not whole.startswith(before):
        _check_thoughts(prompt, "", talk.chat)
        hint = "set chat_template to one that only adds to what it wrote, or split the conversation"
        raise ThunderError(REWRITTEN, hint=hint)
    if prompt.startswith(before):
        openings.append(prompt[len(before) :])
    return header + whole[len(before) :]


def _other_header(prompt: str, before: str, asked: str) -> str | None:
    """What the model must write before an answer, where a row has another header than the generation prompt.

    before: what the row has before the answer. asked: the last message of the prompt; None if the two differ in it. The
    prompt of DeepSeek V3.2 ends with <think></think> where the row has </think>: nothing is left to write. That of
    Command R7B ends with an empty block of thoughts where the row has <|START_RESPONSE|>: it is to be written.
    """
    same = next((i for i, pair in enumerate(zip(prompt, before, strict=False)) if pair[0] != pair[1]), None)
    if same is None:
        return "" if prompt.startswith(before) else None
    word = prompt.rfind("<", 0, same)
    same = word if word > prompt.rfind(">", 0, same) else same  # not within a control token
    if not asked or prompt.rfind(asked) < 0 or prompt.rfind(asked) + len(asked) > same:
        return None
    opened, header = prompt[same:].rstrip(), before[same:]
    if not header.strip() or prompt[same:].endswith(header.lstrip()):  # Hermes 3 writes a newline before it in a row
        return ""
    return next(header[size:] for size in range(len(header), -1, -1) if opened.endswith(header[:size]))


def _span_within(talk: Conversation, turn: int, text: str) -> tuple[int, int] | None:
    """The span of an earlier answer in the text of the row, if it follows its generation prompt there and is ended."""
    prompt, so_far = talk.prompt(turn), talk.whole(turn)
    if not text.startswith(prompt):
        return None
    start = len(prompt)
    same = next((i for i, pair in enumerate(zip(so_far, text, strict=False)) if pair[0] != pair[1]), len(so_far))
    ends = talk.chat.ends
    end = start + size if (size := _first_end(text[start:same], ends)) else 0
    if not end and same == len(so_far):
        # GLM ends no turn, but stops at the token that begins the next one.
        end = next((same + len(each) for each in ends if text.startswith(each, same)), 0)
    if not end or (talk.messages[turn].get("content") or "").strip() not in text[start:end]:
        return None
    return start, end


def _separate(talk: Conversation, turn: int) -> Passage:
    prompt = talk.prompt(turn)
    target, adds_end = _target(talk, turn, prompt)
    _check_written(talk.messages[turn], target)
    return Passage(prompt + target, ((len(prompt), len(prompt) + len(target)),), adds_end)


def fitted(messages: Sequence[dict[str, Any]], tools: Any, chat: Chat) -> tuple[Conversation, list[str]]:
    """(the messages in the first form that the template takes, notes). Raises the error of the first form."""
    first: ThunderError | None = None
    for note, form in _forms(messages):
        talk = Conversation(form, tools, chat)
        try:
            text = talk.whole(len(form) - 1)
        except ThunderError as error:
            if error.where:
                raise
            first = first or error
            continue
        if _is_taken(form, text):
            return talk, [note] if note else []
    if first:
        raise first
    return Conversation(_passed(messages), tools, chat), []


def _forms(messages: Sequence[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """(what to say of it, messages) of each form. Most rows have one: the messages as they are."""
    forms = [("", _passed(messages))]
    if any("tool_calls" in each for each in messages):
        forms = [("", _passed(messages, *form)) for form in itertools.product((ABSENT, None, ""), (False, True))]
    if any(each["role"] == "developer" for each in messages):
        note = "the chat template does not know the role developer: these messages are given to it as system"
        forms += [(note, [_as_system(each) for each in form]) for _, form in forms]
    return forms


def _as_system(message: dict[str, Any]) -> dict[str, Any]:
    return message | {"role": "system"} if message["role"] == "developer" else message


def _passed(messages: Sequence[dict[str, Any]], blank: Any = ABSENT, is_json: bool = False) -> list[dict[str, Any]]:
    """Messages as they are passed to a template. blank: what stands for empty content beside tool calls; templates
    would write it otherwise. is_json: arguments of tool calls as a text of JSON.
    """
    return [
        _one_passed(each, blank, is_json) if any(name in each for name in TRANSLATED) else each for each in messages
    ]


def _one_passed(message: dict[str, Any], blank: Any, is_json: bool) -> dict[str, Any]:
    passed = {name: value for name, value in message.items() if name != "weight"}
    if not passed.get("tool_calls"):
        passed.pop("tool_calls", None)
        return passed
    if not passed["content"]:
        passed["content"] = blank
        if blank is ABSENT:
            del passed["content"]
    if is_json:
        passed["tool_calls"] = [_with_json(call) for call in passed["tool_calls"]]
    return passed


def _with_json(call: dict[str, Any]) -> dict[str, Any]:
    arguments = call["function"].get("arguments", {})
    return call | {"function": call["function"] | {"arguments": json.dumps(arguments, ensure_ascii=False)}}


def _is_taken(messages: Sequence[Mapping[str, Any]], text: str) -> bool:
    """Whether a template wrote the developers' messages and the calls, these not as Python writes them."""
    functions = [call["function"] for each in messages for call in each.get("tool_calls", ())]
    arguments = [each.get("arguments") for each in functions]
    return (
        all(each["name"] in text for each in functions)
        and not any(isinstance(each, dict) and each and repr(each) in text for each in arguments)
        and all(is_written(each.get("content") or "", text) for each in messages if each["role"] == "developer")
    )


def left_out(talk: Conversation, last: int, prompt: str) -> list[str]:
    """Notes on what a template leaves out of the prompt of the last answer.

    Raises ThunderError where that is a question or the result of a tool: the answer would be learned without it.
    """
    notes = []
    for message in talk.messages[:last]:
        role, content = message["role"], message.get("content") or ""
        if not is_written(content, prompt):
            if role in ("user", "tool"):
                hint = "give a template that writes it, or take the message out"
                raise ThunderError(f"the chat template leaves out a message of role {role}", hint=hint)
            if role != ANSWER or not is_written(content.rpartition("</think>")[2], prompt):
                notes.append(f"the chat template leaves out a message of role {escaped(role)}")
        if message.get("name") and str(message["name"]) not in prompt:
            notes.append("the chat template leaves out the name of a message")
        if any(call["function"]["name"] not in prompt for call in message.get("tool_calls", ())):
            notes.append("the chat template leaves out tool calls of an earlier answer")
    if any(str(each.get("function", each).get("name", "")) not in prompt for each in talk.tools or ()):
        notes.append("the chat template leaves out the tools")
    return notes


def is_written(content: str, text: str) -> bool:
    """Whether a rendered text holds a message's content: as it is, as a JSON string, or with other blanks."""
    content = content.strip()
    if content in text or json.dumps(content, ensure_ascii=False)[1:-1] in text or json.dumps(content)[1:-1] in text:
        return True
    return " ".join(content.split()) in " ".join(text.split())
