"""What a row's targets must be, found without the project's own code: only the template's own rendering as text.

The prompt is what the template renders of the messages before the answer, with its generation prompt and the same
arguments. The row is what it renders of all messages up to the answer. The targets are what follows the prompt in the
row. Where the two part inside the header of the answer (an empty block of thoughts that only the generation prompt
has), the targets are the rest of the row from there on.
"""

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from unittest import mock

from transformers.utils.chat_template_utils import _compile_jinja_template

from thunder_train import ThunderError

TODAY = datetime(2024, 7, 26)
THOUGHTS = (("<think>", "</think>"), ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"))
"""The date that our training writes where a template asks for today's."""

Messages = list[dict[str, Any]]
Ours = Callable[[dict[str, Any], dict[str, Any], str], Sequence[Any]]
"""(row, template arguments, train_on) -> the worker's Examples of it; raises ThunderError."""


@dataclass(frozen=True)
class Case:
    """A column of the matrix: a row, the template's arguments, and which answers are targets."""

    name: str
    messages: Messages
    tools: list[dict[str, Any]] = field(default_factory=list)
    arguments: dict[str, Any] = field(default_factory=lambda: {"enable_thinking": False, "thinking": False})
    train_on: str = "last"

    @property
    def row(self) -> dict[str, Any]:
        """The row as the data stage writes it."""
        return {"id": self.name, "messages": self.messages} | ({"tools": self.tools} if self.tools else {})


@dataclass(frozen=True)
class Target:
    """What an answer's targets must be, as text. is_rewritten: the template renders the messages before the answer
    otherwise in the whole row than in the prompt, so a refusal is right too.
    """

    prompt: str
    text: str
    is_rewritten: bool = False


@dataclass(frozen=True)
class Verdict:
    """Whether our targets are the expected ones. sentence: ours, where the row is refused; else what differs."""

    state: str
    sentence: str = ""


EQUAL, REFUSED, IMPOSSIBLE, DIFFERENT = "equal", "refused", "not possible", "DIFFERENT"
"""IMPOSSIBLE: we refuse, and the template itself rejects the row or rewrites history."""


class ImpossibleError(Exception):
    """The template itself cannot render the row as a prompt and its continuation."""


def verdict(tokenizer: Any, case: Case, ours: Ours, stops: set[str]) -> Verdict:
    """Our tokens of a case against the template's own text. stops: texts of the tokens that end a turn.

    Tool calls have several forms in real rows, and templates know one or another: any may be the one that was trained.
    """
    try:
        examples = ours(case.row, case.arguments, case.train_on)
    except ThunderError as error:
        is_possible = any(_is_possible(tokenizer, each, stops) for each in forms(case))
        return Verdict(REFUSED if is_possible else IMPOSSIBLE, error.what)
    except Exception as error:  # an unforeseen error is the finding
        return Verdict(DIFFERENT, f"{type(error).__name__}: {error}")
    verdicts = [_compared(tokenizer, examples, each, stops) for each in forms(case)]
    return next((each for each in verdicts if each.state == EQUAL), verdicts[0])


def forms(case: Case) -> list[Case]:
    """The case with empty content beside tool calls as text, as null, left out; arguments as an object or as JSON."""
    if not any("tool_calls" in message for message in case.messages):
        return [case]
    choices = itertools.product(("", None, "absent"), (False, True))
    return [replace(case, messages=[_form(each, *choice) for each in case.messages]) for choice in choices]


def _form(message: dict[str, Any], blank: str | None, is_json: bool) -> dict[str, Any]:
    if "tool_calls" not in message:
        return message
    calls = [{**call, "function": dict(call["function"])} for call in message["tool_calls"]]
    for call in calls if is_json else ():
        call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
    content = {} if blank == "absent" else {"content": blank}
    return {"role": message["role"], **content, "tool_calls": calls}


def expected(tokenizer: Any, case: Case, stops: set[str]) -> list[Target]:
    """The targets of each answer that is trained on. Raises ImpossibleError."""
    answers = [i for i, message in enumerate(case.messages) if message["role"] == "assistant"]
    turns = answers if case.train_on == "all" else answers[-1:]
    return [_turn(tokenizer, case, turn, stops) for turn in turns]


def _turn(tokenizer: Any, case: Case, turn: int, stops: set[str]) -> Target:
    render = _renderer(tokenizer, case)
    prompt, row = render(case.messages[:turn], True), render(case.messages[: turn + 1], False)
    content, asked = ((case.messages[i].get("content") or "").strip() for i in (turn, turn - 1))
    if content not in row or asked not in prompt:
        raise ImpossibleError("the template does not write the answer, or what it answers")
    answer = row.rindex(content) if content else len(row)
    same = _same(prompt, row)
    is_rewritten = same < len(prompt) and same < prompt.rfind(asked) + len(asked)
    start = answer if is_rewritten else same
    if same < len(prompt) and not is_rewritten:
        start += _overlap(prompt[same:], row[same:answer])
    if any(prompt.rfind(begin) > prompt.rfind(end) and end not in row[start:] for begin, end in THOUGHTS):
        raise ImpossibleError("the generation prompt opens thoughts, which the row does not close")
    if any(call["function"]["name"] not in row[start:] for call in case.messages[turn].get("tool_calls", ())):
        raise ImpossibleError("the template does not write the call")
    return Target(prompt, _ended(row[start:], stops), is_rewritten)


def _overlap(prompt: str, header: str) -> int:
    """Characters at the beginning of a header that a prompt ends with; all of a header of blanks."""
    if not header.strip() or prompt.endswith(header.lstrip()):
        return len(header)
    return next(size for size in range(len(header), -1, -1) if prompt.rstrip().endswith(header[:size]))


def _same(prompt: str, row: str) -> int:
    """Characters with which both texts begin, without a special word that is cut there."""
    size = next((i for i, pair in enumerate(zip(prompt, row, strict=False)) if pair[0] != pair[1]), len(prompt))
    word = prompt.rfind("<", 0, size)
    return word if size < len(prompt) and word > prompt.rfind(">", 0, size) else size


def _renderer(tokenizer: Any, case: Case) -> Callable[[Messages, bool], str]:
    """(messages, whether the answer is opened) -> text. Not apply_chat_template: it drops content that is null."""
    try:
        template = _compile_jinja_template(tokenizer.get_chat_template(None, case.tools or None))
    except ValueError as error:
        raise ImpossibleError("there is no template") from error
    given = {**tokenizer.special_tokens_map, "tools": case.tools or None, "documents": None, **case.arguments}

    def render(messages: Messages, opens: bool) -> str:
        with mock.patch("transformers.utils.chat_template_utils.datetime") as clock:
            clock.now.return_value = TODAY
            try:
                return str(template.render(messages=messages, add_generation_prompt=opens, **given))
            except Exception as error:
                raise ImpossibleError(f"the template rejects it: {error}") from error

    return render


def _ended(text: str, stops: set[str]) -> str:
    """The text up to its first end of turn, where generation stops; the whole text if it has none."""
    ends = [text.index(stop) + len(stop) for stop in stops if stop in text]
    return text[: min(ends)] if ends else text


def _is_possible(tokenizer: Any, case: Case, stops: set[str]) -> bool:
    try:
        return not any(target.is_rewritten for target in expected(tokenizer, case, stops))
    except ImpossibleError:
        return False


def _compared(tokenizer: Any, examples: Sequence[Any], case: Case, stops: set[str]) -> Verdict:
    try:
        wanted = expected(tokenizer, case, stops)
    except ImpossibleError as error:
        return Verdict(DIFFERENT, f"trained although {error}")
    spans = [(each.tokens[:start], each.tokens[start:end]) for each in examples for start, end in each.spans]
    if len(wanted) != len(spans):
        return Verdict(DIFFERENT, f"{len(spans)} answers are targets, not {len(wanted)}")
    for (head, tail), target in zip(spans, wanted, strict=True):
        if problem := _difference(tokenizer, list(head), list(tail), target, stops):
            return Verdict(DIFFERENT, problem)
    return Verdict(EQUAL)


def _difference(tokenizer: Any, head: list[int], tail: list[int], target: Target, stops: set[str]) -> str:
    """What differs between our tokens and the expected text; "" if nothing does."""
    end = str(tokenizer.convert_ids_to_tokens(tail[-1]))
    if end not in stops:
        return f"the last target is {end!r}, which ends no turn"
    # A template that ends no turn: the end-of-sequence token after the answer is ours.
    texts = [target.text] if target.text.endswith(end) else [target.text + end, target.text.rstrip() + end]
    if head != _encoded(tokenizer, target.prompt):
        return f"the prompt is {tokenizer.decode(head)[-90:]!r}, not {target.prompt[-90:]!r}"
    if not any(tail in _possible(tokenizer, target.prompt, text) for text in texts):
        return f"the targets are {tokenizer.decode(tail)!r}, not {texts[0]!r}"
    return ""


def _possible(tokenizer: Any, prompt: str, targets: str) -> list[list[int]]:
    """Tokens of the targets alone, and those after the prompt where its tokens stay the same."""
    head, whole = _encoded(tokenizer, prompt), _encoded(tokenizer, prompt + targets)
    alone = [_encoded(tokenizer, targets)]
    return [*alone, whole[len(head) :]] if whole[: len(head)] == head else alone


def _encoded(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))
