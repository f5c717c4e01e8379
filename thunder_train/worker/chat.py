"""How messages become text: a tokenizer's chat template, or the recipe's, with its arguments.

A template comes with a model, from anyone. transformers renders it in Jinja's immutable sandbox.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template

from thunder_train import ThunderError
from thunder_train.worker.args import Inputs

TODAY = "2024-07-26"
"""The date that a template is told. A fixed one: the same row gives the same tokens on every day."""
DEFAULTS = MappingProxyType({"enable_thinking": False, "thinking": False})
"""Arguments of every template: rows hold no thoughts, so the model must not be taught to leave them out."""
LARGEST = 1_000_000
"""Most bytes of a template file."""


@dataclass(frozen=True)
class Chat:
    """A tokenizer with its chat template.

    template: the text of the recipe's, "" for the tokenizer's own. arguments: what it is told besides messages and
    tools. end_answers: whether an answer that the template does not end gets the end-of-sequence token.
    """

    tokenizer: Any
    template: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    end_answers: bool = True

    def text(self, messages: Sequence[Mapping[str, Any]], where: str, *, is_prompt: bool, tools: Any = None) -> str:
        """Messages as text. is_prompt: the model's turn is opened at the end.

        Raises ThunderError without a template, and for whatever goes wrong in it.
        """
        if not self.template and not self.tokenizer.has_chat_template:
            hint = (
                "set chat_template in [models.NAME], as templates/chat/chatml.jinja, or use an instruction-tuned model"
            )
            raise ThunderError("the tokenizer has no chat template", where="--model", hint=hint)
        try:
            return self._render(list(messages), is_prompt, tools)
        except Exception as error:  # a template may divide by zero, count too far, or call itself for ever
            raise ThunderError(
                f"the chat template rejects it: {error}", where=where, hint="change its roles"
            ) from error

    def _render(self, messages: list[Mapping[str, Any]], is_prompt: bool, tools: Any) -> str:
        arguments = {**DEFAULTS, **self.arguments}
        if not self.template and self._has_own_renderer:  # Python code of mlx-lm or of the tokenizer's class
            return str(
                self.tokenizer.apply_chat_template(
                    messages, add_generation_prompt=is_prompt, tokenize=False, tools=tools, **arguments
                )
            )
        # Not apply_chat_template: it replaces every function among the arguments, so that the date could not be fixed,
        # and it takes some arguments of the template for its own.
        template = _compile_jinja_template(self.template or self.tokenizer.get_chat_template(None, tools))
        given = {**self.tokenizer.special_tokens_map, "strftime_now": self._strftime_now, **arguments}
        return str(
            template.render(messages=messages, tools=tools, documents=None, add_generation_prompt=is_prompt, **given)
        )

    @property
    def _has_own_renderer(self) -> bool:
        wrapped = getattr(self.tokenizer, "_tokenizer", self.tokenizer)
        is_replaced = type(wrapped).apply_chat_template is not PreTrainedTokenizerBase.apply_chat_template
        return is_replaced or getattr(self.tokenizer, "_chat_template", None) is not None

    def encode(self, text: str) -> list[int]:
        """Tokens of a text that a template gave. It begins with <bos> already, so none is added."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def _strftime_now(self, pattern: str) -> str:
        return date.fromisoformat(str(self.arguments.get("today", TODAY))).strftime(pattern)


def of(tokenizer: Any, inputs: Inputs) -> Chat:
    """The tokenizer with the template and arguments that flags give. Raises ThunderError for an unreadable file."""
    template = _read(inputs.chat_template) if inputs.chat_template else ""
    return Chat(tokenizer, template, inputs.template_arguments(), inputs.end_answers)


def _read(path: Path) -> str:
    hint = "correct chat_template in thunder.toml"
    try:
        data = path.read_bytes()
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ThunderError(f"cannot be read as a template: {error}", where=str(path), hint=hint) from error
    if not text.strip() or len(data) > LARGEST:
        raise ThunderError(f"is no chat template: it has {len(data)} bytes", where=str(path), hint=hint)
    return text
