"""What a row's targets must be, found without the project's own code: only the template's own rendering as text.

The prompt is what the template renders of the messages before the answer, with its generation prompt and the same
arguments. The row is what it renders of all messages up to the answer. The targets are what follows the prompt in the
row. Where the two part inside the header of the answer (an empty block of thoughts that only the generation prompt
has), the targets are the rest of the row from there on.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from unittest import mock

from thunder_train import ThunderError

TODAY = datetime(2024, 7, 26)
"""The date that our training writes where a template asks for today's."""

Messages = list[dict[str, Any]]
Ours = Callable[[dict[str, Any], dict[str, Any], str], Any]
"""(row, template arguments, train_on) -> an Example of the worker; raises ThunderError."""


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
class Verdict:
    """Whether our targets are the expected ones. sentence: ours, where the row is refused; else what differs."""

    state: str
    sentence: str = ""


EQUAL, REFUSED, IMPOSSIBLE, DIFFERENT = "equal", "refused", "not possible", "DIFFERENT"
"""IMPOSSIBLE: we refuse, and the template itself rejects the row or rewrites history."""


class ImpossibleError(Exception):
    """The template itself cannot render the row as a prompt and its continuation."""


def verdict(tokenizer: Any, case: Case, ours: Ours, stops: set[str]) -> Verdict:
    """Our tokens of a case against the template's own text. stops: texts of the tokens that end a turn."""
    try:
        example = ours(case.row, case.arguments, case.train_on)
    except ThunderError as error:
        return Verdict(IMPOSSIBLE if _is_impossible(tokenizer, case, stops) else REFUSED, error.what)
    except Exception as error:  # an unforeseen error is the finding
        return Verdict(DIFFERENT, f"{type(error).__name__}: {error}")
    try:
        wanted = expected(tokenizer, case, stops)
    except ImpossibleError as error:
        return Verdict(DIFFERENT, f"trained although {error}")
    return _compared(tokenizer, example, wanted, stops)


@dataclass(frozen=True)
class Target:
    """What an answer's targets must be, as text. is_rewritten: the template renders the messages before the answer
    otherwise in the whole row than in the prompt, so a refusal is right too.
    """

    prompt: str
    text: str
    is_rewritten: bool = False


def expected(tokenizer: Any, case: Case, stops: set[str]) -> list[Target]:
    """The targets of each answer that is trained on. Raises ImpossibleError."""
    answers = [i for i, message in enumerate(case.messages) if message["role"] == "assistant"]
    turns = answers if case.train_on == "all" else answers[-1:]
    return [_turn(tokenizer, case, turn, stops) for turn in turns]


def _turn(tokenizer: Any, case: Case, turn: int, stops: set[str]) -> Target:
    render = _renderer(tokenizer, case)
    prompt, row = render(case.messages[:turn], True), render(case.messages[: turn + 1], False)
    content, asked = (case.messages[i]["content"].strip() for i in (turn, turn - 1))
    same = len(prompt) if row.startswith(prompt) else _same(tokenizer, prompt, row)
    if same < len(prompt) and (not content or content not in row):
        raise ImpossibleError("the template does not write the answer's text")
    is_rewritten = same < prompt.rfind(asked) + len(asked)
    start = row.rindex(content) if is_rewritten else min(same, row.rindex(content)) if content else same
    text = _ended(row[start:], stops)
    if _opens_thoughts(prompt) and same < len(prompt) and "</think>" not in text:
        raise ImpossibleError("the generation prompt opens thoughts, which the row does not close")
    if case.train_on == "all" and not render(case.messages, False).startswith(row[:start] + text):
        is_rewritten = True
    return Target(prompt, text, is_rewritten)


def _same(tokenizer: Any, prompt: str, row: str) -> int:
    """Characters of the tokens with which both texts begin."""
    pairs = zip(_encoded(tokenizer, prompt), _encoded(tokenizer, row), strict=False)
    return len(tokenizer.decode([one for one, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)]))


def _opens_thoughts(prompt: str) -> bool:
    return prompt.rfind("<think>") > prompt.rfind("</think>")


def _renderer(tokenizer: Any, case: Case) -> Callable[[Messages, bool], str]:
    given: dict[str, Any] = {"tools": case.tools or None, "tokenize": False, **case.arguments}

    def render(messages: Messages, opens: bool) -> str:
        with mock.patch("transformers.utils.chat_template_utils.datetime") as clock:
            clock.now.return_value = TODAY
            try:
                return str(tokenizer.apply_chat_template(messages, add_generation_prompt=opens, **given))
            except Exception as error:
                raise ImpossibleError(f"the template rejects it: {error}") from error

    return render


def _ended(text: str, stops: set[str]) -> str:
    """The text up to its first end of turn, where generation stops; the whole text if it has none."""
    ends = [text.index(stop) + len(stop) for stop in stops if stop in text]
    return text[: min(ends)] if ends else text


def _is_impossible(tokenizer: Any, case: Case, stops: set[str]) -> bool:
    try:
        return any(target.is_rewritten for target in expected(tokenizer, case, stops))
    except ImpossibleError:
        return True


def _compared(tokenizer: Any, example: Any, wanted: list[Target], stops: set[str]) -> Verdict:
    if len(wanted) != len(example.spans):
        return Verdict(DIFFERENT, f"{len(example.spans)} answers are targets, not {len(wanted)}")
    for (start, end), target in zip(example.spans, wanted, strict=True):
        if problem := _difference(
            tokenizer, list(example.tokens[:start]), list(example.tokens[start:end]), target, stops
        ):
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
