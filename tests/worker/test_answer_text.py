"""What is scored of the tokens that a model wrote, with a real tokenizer of bytes and the marks of each family."""

from functools import cache
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from thunder_train.worker.answer_text import LENGTH, STOP, THINKING, Answer, marks_of, read

pytestmark = pytest.mark.mlx

CONTROL = (
    *("<pad>", "<eos>", "<|im_start|>", "<|im_end|>", "<|channel|>", "<|message|>", "<|end|>", "<|start|>"),
    *("<|channel>", "<channel|>", "<|open|>", "<|close|>", "<|sep|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    *("<|tool_call>", "<tool_call|>", "<|call|>"),
)
"""Tokens that decoding leaves out."""
NAMED = {"eos_token": "<eos>", "pad_token": "<pad>"}
PLAIN = ("<think>", "</think>")
"""Tokens that decoding keeps, as Qwen3's: they were left in the text."""
QWEN = "<|im_start|>user\nThe ct<|im_end|>\n<|im_start|>assistant\n"
OFF = QWEN + "<think>\n\n</think>\n\n"
HARMONY = "<|start|>user<|message|>The ct<|end|><|start|>assistant"


@cache
def tokenizer() -> Any:
    """A tokenizer of bytes that knows these tokens, as mlx-lm wraps it."""
    from mlx_lm.tokenizer_utils import TokenizerWrapper
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_tokens([AddedToken(mark, special=mark in CONTROL, normalized=False) for mark in (*CONTROL, *PLAIN)])
    return TokenizerWrapper(PreTrainedTokenizerFast(tokenizer_object=core, **NAMED))


def encoded(text: str) -> list[int]:
    """The tokens of a text."""
    tokens: list[int] = tokenizer().encode(text, add_special_tokens=False)
    return tokens


def answer(text: str, prompt: str = QWEN, reference: str = "the cat", is_cut: bool = False, target: str = "") -> Answer:
    """The answer in a text that a model wrote after a prompt. target: "the cat" as a row's chat template renders it."""
    marks = marks_of(tokenizer(), [(encoded(target), "the cat")] if target else [])
    return read(encoded(text), encoded(prompt), reference, marks, is_cut)


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("the cat", QWEN),
        ("the cat", OFF),
        ("<think>\n\n</think>\n\nthe cat", QWEN),
        ("<think>A typo.</think>\n\nthe cat", QWEN),
        ("\n<think>A typo.</think>\nthe cat\n", QWEN),
        ("A typo.\n</think>\n\nthe cat", QWEN + "<think>\n"),
        ("A typo.</think>the cat", QWEN),
        ("<think>one</think><think>two</think>the cat", QWEN),
        ("<think>one</think>the<think>two</think> cat", QWEN),
        ("<think>one <think>two</think> three</think>the cat", QWEN),
        ("<|channel|>final<|message|>the cat<|end|>", HARMONY),
        ("<|channel|>final<|message|>the cat", HARMONY),
        ("<|channel|>analysis<|message|>A typo.<|end|><|start|>assistant<|channel|>final<|message|>the cat", HARMONY),
        ("final<|message|>the cat", HARMONY + "<|channel|>"),
        ("the cat", HARMONY + "<|channel|>final<|message|>"),
        ("<|channel>thought\nA typo.\n<channel|>the cat", QWEN),
        ("A typo.<channel|>the cat", QWEN + "<|channel>thought\n"),
        ("the cat", QWEN + "<|channel>thought\n<channel|>"),
        ("<|open|>think<|sep|>A typo.<|close|>think<|sep|><|open|>response<|sep|>the cat<|close|>response<|sep|>", ""),
        ("the cat<|close|>response<|sep|><|close|>message<|sep|>", "<|open|>response<|sep|>"),
        ("A typo.<|close|>think<|sep|><|open|>response<|sep|>the cat", "<|open|>think<|sep|>"),
        ("<|START_RESPONSE|>the cat<|END_RESPONSE|>", QWEN),
    ],
)
def test_thoughts_and_headers_are_no_part_of_the_answer(text: str, prompt: str) -> None:
    """
    They were scored as text: "finalthe cat", or an empty block of thoughts before each answer.
    """
    got = answer(text, prompt)

    assert ("the cat", STOP, 0) == (got.text, got.finish, got.special)


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("<think>Let me see", QWEN),
        ("Let me see", QWEN + "<think>\n"),
        ("<think>one</think><think>Let me", QWEN),
        ("<thi", QWEN),
        ("[THI", QWEN),
        ("<think>A typo.</think>", QWEN),
        ("<|channel|>analysis<|message|>Let me see", HARMONY),
        ("<|channel|>anal", HARMONY),
        ("<|channel|>analysis<|message|>A typo.<|end|><|start|>assistant<|channel|>ana", HARMONY),
        ("<|channel>thought\nLet me see", QWEN),
        ("<|open|>think<|sep|>Let me see", ""),
    ],
)
def test_an_answer_that_did_not_begin_by_the_cap_was_thinking(text: str, prompt: str) -> None:
    """
    Its thoughts are no answer. Counted apart, it says why every answer is empty.
    """
    assert Answer("", THINKING, 0) == answer(text, prompt, is_cut=True)


def test_a_model_that_stops_inside_its_thoughts_was_thinking_too() -> None:
    """
    It gave no answer, and more tokens would not have helped; the cure is the same.
    """
    assert THINKING == answer("<think>Let me see").finish


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the cat sat", Answer("the cat sat", LENGTH, 0)),
        ("<think>A typo.</think>\n\nthe ca", Answer("the ca", LENGTH, 0)),
        ("the cat<think>Wait", Answer("the cat", LENGTH, 0)),
        ("<|channel|>final", Answer("", LENGTH, 0)),
        ("<|channel|>fin", Answer("", LENGTH, 0)),
        ("<", Answer("<", LENGTH, 0)),
        ("", Answer("", LENGTH, 0)),
    ],
)
def test_an_answer_that_began_is_cut_like_any_other(text: str, expected: Answer) -> None:
    """
    It does not end, which the probe counts; but its model does not think too long.
    """
    assert expected == answer(text, is_cut=True)


def test_marks_that_the_reference_holds_are_text() -> None:
    """
    A row about prompts may quote them: then cutting would harm a right answer.
    """
    quote = "Write <think> before </think> thoughts."

    assert Answer(quote, STOP, 0) == answer(quote, reference=quote)
    assert "<think>" == answer("<think>", QWEN, "<think>", is_cut=True).text
    assert Answer("the cat", STOP, 0) == answer("the cat", QWEN + "<think>\n", reference="the <think> cat")
    assert quote == answer(f"</think>{quote}", QWEN + "<think>", quote, target="</think>the cat<eos>").text
    assert f"{quote} END" == answer(f"{quote} END", reference=f"{quote} END", target="the cat END<eos>").text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<pad><pad>", Answer("", STOP, 2)),
        ("the <pad>cat", Answer("the cat", STOP, 1)),
        ("<think></think>the <pad>cat<pad>", Answer("the cat", STOP, 2)),
        ("<|im_start|>assistant\nthe cat", Answer("assistant\nthe cat", STOP, 1)),
        ("<think><pad></think>the cat", Answer("the cat", STOP, 0)),
    ],
)
def test_other_control_tokens_are_counted(text: str, expected: Answer) -> None:
    """
    An adapter that writes padding looks clean without it. Control tokens among thoughts are not in the answer.
    """
    assert expected == answer(text)


def test_an_answer_ends_where_the_rows_end_their_turn() -> None:
    """
    Under a recipe's own template a turn may end before the token at which generation stops.
    """
    target = "the cat<|im_end|>\n<eos>"

    assert Answer("the cat", STOP, 0) == answer("the cat<|im_end|>\n", target=target)
    assert Answer("the cat", LENGTH, 0) == answer("the cat<|im_end|>\n<|im_start|>user", is_cut=True, target=target)
    assert Answer("the cat\n<", STOP, 1) == answer("the cat<|im_end|>\n<", target="the cat<eos>")


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("</mm:think>the cat[e~[\n", "A typo.</mm:think>the cat[e~["),
        (" to=user<|message|>the cat<|eot|><eos>", " to=user<|message|>the cat<|eot|>"),
        ("<|content|>the cat<|end|>", "<|content|>the cat<|end|>\n<|begin|>user"),
        ("all\nthe cat<eos>", "all\nthe cat"),
        ("\nthe cat\n</assistant>\n<eos>", "the cat\n</assistant>\n"),
        ("the cat END<eos>", "the cat END"),
        ("the cat END<eos>", "the cat"),
        ("<think>\n\n</think>\n\nthe cat<eos>", "<think>A typo.</think>the cat"),
    ],
)
def test_what_the_template_writes_around_the_rows_answers_is_no_part_of_one(target: str, text: str) -> None:
    """
    No table knows every template; the rows show what theirs writes.
    """
    assert Answer("the cat", STOP, 0) == answer(text, target=target)


def test_words_of_a_template_are_cut_at_the_ends_only() -> None:
    """
    A template that ends answers with a word must not cut that word out of a text.
    """
    assert "THE END of all cats" == answer("THE END of all cats END", target="the cat END<eos>").text
    assert "one for all\ncats" == answer("all\none for all\ncats", target="all\nthe cat<eos>").text


def test_control_tokens_of_calls_of_tools_are_right() -> None:
    """
    Gemma 4 writes calls with control tokens; an adapter that learned to do so has not collapsed.
    """
    call = "<|tool_call>call:look{at:cat}<tool_call|>"
    marks = marks_of(tokenizer(), [(encoded(f"{call}<eos>"), ""), (encoded("the cat<eos>"), "the cat")])

    assert Answer("call:look{at:cat}", STOP, 0) == read(encoded(call), encoded(QWEN), "", marks)
    assert 2 == answer(call).special


def test_a_call_of_a_tool_in_a_channel_names_the_tool() -> None:
    """
    Else calls of two tools with the same arguments would be equal.
    """
    call = '<|channel|>commentary to=functions.look <|message|>{"at": "cat"}<|end|>'

    assert 'to=functions.look {"at": "cat"}' == answer(call, HARMONY).text
    call = ' to=functions.look<|channel|>commentary json<|message|>{"at": "cat"}<|call|>'
    assert 'to=functions.look json {"at": "cat"}' == answer(call, HARMONY).text


def test_one_row_shows_nothing_about_a_template() -> None:
    """
    What follows a single answer may be a part of it, as a call of a tool.
    """
    rows = [("a first cat<eos>", "first"), ("the second dog<eos>", "second"), ("</think>third <|end|><eos>", "third")]
    marks = marks_of(tokenizer(), [(encoded(target), text) for target, text in rows])

    assert ("", "") == (marks.header, marks.trailer)
    assert ("", "") == ((unknown := marks_of(tokenizer(), [(encoded("cat"), "dog")])).header, unknown.trailer)


def test_thoughts_that_the_prompt_opens_but_no_row_closes_are_answers() -> None:
    """
    Such a template teaches to answer there; read as thoughts, every answer of the adapter would be empty.
    """
    prompt = QWEN + "<think>\n\n"

    assert Answer("the cat", STOP, 0) == answer("the cat\n<|im_end|>\n", prompt, target="the cat\n<|im_end|>\n")
    assert Answer("the cat", STOP, 0) == answer("A typo.</think>the cat", prompt, target="the cat\n<|im_end|>\n")
    assert THINKING == answer("A typo.", prompt, target="</think>the cat<|im_end|>").finish


@pytest.mark.parametrize(
    ("text", "raw"),
    [("the cat", None), (" the cat\n", " the cat\n"), ("<think></think>\n\n the cat ", "the cat "), (" ", " ")],
)
def test_blanks_around_an_answer_are_kept_apart(text: str, raw: str | None) -> None:
    """
    They are no part of what was said, but raw error rates count them. The template's line breaks are not the answer's.
    """
    assert Answer(text.removeprefix("<think></think>").strip(), STOP, 0, raw) == answer(text)


PIECES = st.lists(st.sampled_from([*CONTROL, *PLAIN, "analysis", "final", "thought", "the cat", " ", "\n", "<", "ߊ"]))


@hypothesis.settings(max_examples=300)
@hypothesis.given(PIECES, PIECES, st.booleans())
def test_whatever_a_model_writes_has_an_answer(text: list[str], prompt: list[str], is_cut: bool) -> None:
    """
    A model may write marks in any order and number: no answer holds one, or blanks around it, and thinkers have none.
    """
    got = answer("".join(text), "".join(prompt), is_cut=is_cut)

    assert got.text == got.text.strip() == (got.raw or got.text).strip()
    assert not [mark for mark in (*PLAIN, *CONTROL) if mark in got.text]
    assert got.finish in ({LENGTH, THINKING} if is_cut else {STOP, THINKING})
    assert got.finish != THINKING or Answer("", THINKING, got.special) == got


def test_an_endless_loop_of_marks_is_read_in_time() -> None:
    """
    An answer has up to 65,536 tokens, and a collapsed model may write nothing else.
    """
    from thunder_train.worker import answer_text

    assert "the cat" == answer_text._without_thoughts("<think></think>" * 60_000 + "the cat", *PLAIN).text
