"""The chat templates that are shipped, rendered as transformers renders any other."""

from typing import Any

import jinja2
import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from tests.helpers.project_copy import PROJECT

SYSTEM, USER = {"role": "system", "content": "Correct."}, {"role": "user", "content": "ߒߞߏ a"}
ANSWER, AGAIN = {"role": "assistant", "content": "ߒߞߏ"}, {"role": "user", "content": "b\nc"}
TOOL_CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
GEMMA = {"bos_token": "<bos>", "eos_token": "<eos>"}
QWEN = {"eos_token": "<|im_end|>"}
SMOLLM2 = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
GPT2 = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
LLAMA2 = {"bos_token": "<s>", "eos_token": "</s>"}


def rendered(name: str, messages: list[dict[str, Any]], is_prompt: bool = False, **values: Any) -> str:
    """The text of messages."""
    template = (PROJECT / f"templates/chat/{name}.jinja").read_text(encoding="utf-8")
    texts, _ = render_jinja_template(
        conversations=[messages], chat_template=template, add_generation_prompt=is_prompt, **values
    )
    return str(texts[0])


def test_plain_needs_no_special_word() -> None:
    """
    A base model such as Gemma's knows no <|im_start|>; its first and last tokens are all it needs.
    """
    text = "<bos>Correct.\n\nPrompt:\nߒߞߏ a\n\nAnswer:\nߒߞߏ<eos>\n\nPrompt:\nb\nc\n\nAnswer:\n"

    assert text == rendered("plain", [SYSTEM, USER, ANSWER, AGAIN], is_prompt=True, **GEMMA)
    assert "Prompt:\nߒߞߏ a\n\nAnswer:\nߒߞߏ" == rendered("plain", [USER, ANSWER])


def test_chatml_writes_each_message_as_a_turn() -> None:
    """
    No first token is added where the vocabulary has none of its own for it, as in Qwen's and SmolLM2's.
    """
    text = "<|im_start|>system\nCorrect.<|im_end|>\n<|im_start|>user\nߒߞߏ a<|im_end|>\n<|im_start|>assistant\n"

    assert text == rendered("chatml", [SYSTEM, USER], is_prompt=True, **QWEN)
    assert text == rendered("chatml", [SYSTEM, USER], is_prompt=True, **SMOLLM2)
    assert text == rendered("chatml", [SYSTEM, USER], is_prompt=True, **GPT2)
    assert f"<s>{text}" == rendered("chatml", [SYSTEM, USER], is_prompt=True, **LLAMA2)
    assert f"{text}ߒߞߏ<|im_end|>\n" == rendered("chatml", [SYSTEM, USER, ANSWER], **QWEN)


@pytest.mark.parametrize("name", ["plain", "chatml"])
def test_a_prompt_is_the_beginning_of_its_row(name: str) -> None:
    """
    What follows the generation prompt is the target of the training.
    """
    rows = [[SYSTEM, USER, ANSWER], [USER, ANSWER], [SYSTEM, USER, ANSWER, AGAIN, ANSWER]]

    for row in rows:
        prompt = rendered(name, row[:-1], is_prompt=True, **GEMMA)
        assert rendered(name, row, **GEMMA).startswith(f"{prompt}ߒߞߏ")


@pytest.mark.parametrize("name", ["plain", "chatml"])
@pytest.mark.parametrize(
    ("messages", "values", "what"),
    [
        ([USER, TOOL_CALL], {}, "writes no tool calls"),
        ([USER, {"role": "tool", "content": "1"}], {}, "has no form for messages of role tool"),
        ([USER], {"tools": [{"type": "function", "function": {"name": "f"}}]}, "writes no tools"),
    ],
)
def test_what_they_cannot_write_is_refused(name: str, messages: list[Any], values: dict[str, Any], what: str) -> None:
    """
    Left out in silence, a model would be trained to answer a question that it never saw.
    """
    with pytest.raises(jinja2.TemplateError, match=f"templates/chat/{name}.jinja {what}"):
        rendered(name, messages, **values)
