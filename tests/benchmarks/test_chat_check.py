"""The check of targets against a template's own text, on small templates: it must see what it is there to see."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import chat_check
import chat_folders
import pytest
import transformers
from chat_check import DIFFERENT, EQUAL, IMPOSSIBLE, REFUSED, Case

from thunder_train import ThunderError

TURNS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{{ '<|im_start|>assistant\n' if add_generation_prompt }}"
)
PROMPT = "<|im_start|>user\nteh cat<|im_end|>\n<|im_start|>assistant\n"
ASKED = [{"role": "user", "content": "teh cat"}, {"role": "assistant", "content": "the cat"}]
STOPS = {"<|im_end|>"}


def test_equal(tokenizer: Any) -> None:
    """
    The prompt as the template opens the answer, then the answer with its end of turn.
    """
    assert EQUAL == state(tokenizer, TURNS, PROMPT, "the cat<|im_end|>")


def test_one_token_too_many(tokenizer: Any) -> None:
    """
    Text after the end of turn is never generated.
    """
    assert DIFFERENT == state(tokenizer, TURNS, PROMPT, "the cat<|im_end|>\n")
    assert DIFFERENT == state(tokenizer, TURNS, PROMPT, "the cat")
    assert DIFFERENT == state(tokenizer, TURNS, PROMPT + "the", " cat<|im_end|>")


def test_block_that_only_the_prompt_has(tokenizer: Any) -> None:
    """
    Gemma 4 closes the thoughts in its generation prompt and leaves the block out of answers.
    """
    template = TURNS.replace("assistant\n' if", "assistant\n[no thoughts]' if")
    prompt = PROMPT + "[no thoughts]"

    assert EQUAL == state(tokenizer, template, prompt, "the cat<|im_end|>")
    assert DIFFERENT == state(tokenizer, template, PROMPT, "the cat<|im_end|>")


def test_answer_without_end(tokenizer: Any) -> None:
    """
    GLM ends no turn: the end-of-sequence token is ours.
    """
    template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{{ '[assistant]' if add_generation_prompt }}"
    )

    assert EQUAL == state(tokenizer, template, "[user]teh cat[assistant]", "the cat<|im_end|>")
    assert DIFFERENT == state(tokenizer, template, "[user]teh cat[assistant]", "the cat")


def test_open_thoughts(tokenizer: Any) -> None:
    """
    An answer inside thoughts is never right, so only a refusal is.
    """
    template = TURNS.replace("assistant\n' if", "assistant\n<think>\n' if")
    assert DIFFERENT == state(tokenizer, template, PROMPT + "<think>\n", "the cat<|im_end|>")
    assert IMPOSSIBLE == refusal(tokenizer, template)


def test_refused_without_need(tokenizer: Any) -> None:
    """
    A refusal of a row that the template renders is named as ours.
    """
    assert REFUSED == refusal(tokenizer, TURNS)
    assert IMPOSSIBLE == refusal(tokenizer, "{{ raise_exception('no') }}")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer of single bytes, with ChatML's special words."""
    folder: Path = tmp_path_factory.mktemp("tiny")
    return transformers.AutoTokenizer.from_pretrained(chat_folders.tiny(folder))


def state(tokenizer: Any, template: str, prompt: str, targets: str) -> str:
    """The verdict on a row that is trained as this prompt and these targets."""
    head, tail = (tokenizer.encode(text, add_special_tokens=False) for text in (prompt, targets))
    example = SimpleNamespace(tokens=(*head, *tail), spans=((len(head), len(head) + len(tail)),))
    tokenizer.chat_template = template
    return chat_check.verdict(tokenizer, Case("one", ASKED), lambda *_: [example], STOPS).state


def refusal(tokenizer: Any, template: str) -> str:
    """The verdict on a row that is refused."""

    def refuse(*_: Any) -> Any:
        raise ThunderError("does not fit")

    tokenizer.chat_template = template
    return chat_check.verdict(tokenizer, Case("one", ASKED), refuse, STOPS).state
