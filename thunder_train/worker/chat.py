"""How messages become text: a tokenizer's chat template, or the recipe's, with its arguments.

A template comes with a model, from anyone. transformers compiles it for Jinja's immutable sandbox.
"""

import re
import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template

from thunder_train import ThunderError, raise_all
from thunder_train.core import files, shipped
from thunder_train.core.text import escaped
from thunder_train.worker.answer_text import THOUGHTS
from thunder_train.worker.args import Inputs

TODAY = "2024-07-26"
"""The date that a template is given. A fixed one: the same row gives the same tokens on every day."""
DEFAULTS = MappingProxyType({"enable_thinking": False, "thinking": False})
"""Arguments of every template. Rows hold no thoughts, so a model that may think would be trained not to."""
LARGEST = 1_000_000
"""Most bytes of a template file."""
LONGEST_REASON = 300
"""Most characters of a template's own error that a message quotes."""
LONGEST_S = 10.0
"""Most seconds of computing that one text may take. Jinja's sandbox bounds each loop, but not loops in loops."""
SPELLED = re.compile(
    r"<\|[^<>|\s'\"{}]+\|?>|<[^<>|\s'\"{}]+\|>|<｜[^<>｜\s'\"{}]+｜>|</?s>|<(?:bos|eos|start_of_turn|end_of_turn)>"
)
"""How the templates of model families spell control tokens."""
COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
TAILS = 1000
"""Most texts whose tokens are remembered."""
SHOWN = 6
"""Most control tokens of a vocabulary that a hint names."""


@dataclass(frozen=True)
class Chat:
    """A tokenizer with its chat template.

    template: the text of the recipe's, "" for the tokenizer's own. arguments: what the template is given besides
    messages and tools. end_answers: whether an answer that it does not end gets the end-of-sequence token.
    """

    tokenizer: Any
    template: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    end_answers: bool = True
    openings: list[str] = field(default_factory=list, compare=False, repr=False)
    """What generation prompts were seen to have after the header of an answer, as an empty block of thoughts."""
    _tails: dict[str, list[int]] = field(default_factory=dict, compare=False, repr=False)

    def text(self, messages: Sequence[Mapping[str, Any]], *, is_prompt: bool, tools: Any = None) -> str:
        """Messages as text. is_prompt: the model's turn is opened at the end.

        Raises ThunderError without a template, and for whatever goes wrong in it.
        """
        if not self.template and not self.tokenizer.has_chat_template:
            hint = "set chat_template in [models.NAME] to a file of templates/chat, or use an instruction-tuned model"
            raise ThunderError("the tokenizer has no chat template", where="--model", hint=hint)
        try:
            return self._in_time(list(messages), is_prompt, tools)
        except ThunderError:
            raise
        except Exception as error:  # a template may divide by zero, count too far, or call itself for ever
            raise ThunderError(
                f"the chat template rejects it: {_reason(error)}", hint="change the messages, or give another template"
            ) from error

    def _in_time(self, messages: list[Mapping[str, Any]], is_prompt: bool, tools: Any) -> str:
        """The text, or ThunderError for a template that does not end. Only a main thread can be interrupted."""
        if threading.current_thread() is not threading.main_thread():
            return self._render(messages, is_prompt, tools)
        _listen()
        signal.setitimer(signal.ITIMER_VIRTUAL, LONGEST_S)
        try:
            return self._render(messages, is_prompt, tools)
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)

    def _render(self, messages: list[Mapping[str, Any]], is_prompt: bool, tools: Any) -> str:
        if not self.template and self._has_own_renderer:  # Python code of mlx-lm or of the tokenizer's class
            # It takes no other names: mlx-lm calls enable_thinking what the renderer does.
            given = {"enable_thinking": False, **self.arguments, **({"tools": tools} if tools else {})}
            return str(
                self.tokenizer.apply_chat_template(messages, add_generation_prompt=is_prompt, tokenize=False, **given)
            )
        # Not apply_chat_template: it replaces every function among the arguments, so that the date could not be fixed,
        # and takes some names of arguments for its own. So the private function below is called: docs/decisions/0014.
        template = _compile_jinja_template(self.template or self.tokenizer.get_chat_template(None, tools))
        return str(
            template.render(
                messages=messages,
                tools=tools,
                documents=None,
                add_generation_prompt=is_prompt,
                strftime_now=self._strftime_now,
                **self._special_tokens,
                **{**DEFAULTS, **self.arguments},
            )
        )

    @cached_property
    def wrapped(self) -> Any:
        """The tokenizer of transformers inside mlx-lm's."""
        inner = vars(self.tokenizer).get("_tokenizer")
        return inner if isinstance(inner, PreTrainedTokenizerBase) else self.tokenizer

    @cached_property
    def _special_tokens(self) -> dict[str, Any]:
        return dict(self.tokenizer.special_tokens_map)

    @cached_property
    def _has_own_renderer(self) -> bool:
        is_replaced = type(self.wrapped).apply_chat_template is not PreTrainedTokenizerBase.apply_chat_template
        return is_replaced or getattr(self.tokenizer, "_chat_template", None) is not None

    @cached_property
    def unread(self) -> list[str]:
        """Notes on arguments that the template does not name, such as a misspelt one."""
        if not self.template and self._has_own_renderer:
            return []
        words = set(re.findall(r"\w+", self.template or str(self.tokenizer.chat_template)))
        words |= {"today"} if "strftime_now" in words else set()
        return [f"the chat template reads no argument {name}" for name in self.arguments if name not in words]

    @cached_property
    def ends(self) -> tuple[str, ...]:
        """The texts of the tokens at which a generation stops."""
        texts = (self.tokenizer.decode([token]) for token in sorted(self.tokenizer.eos_token_ids))
        return tuple(text for text in texts if text)

    def encode(self, text: str) -> list[int]:
        """Tokens of a text that a template gave. It begins with <bos> already, so none is added."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    @cached_property
    def thoughts(self) -> tuple[tuple[str, str], ...]:
        """How a model's thoughts may begin and end: mlx-lm's marks for this tokenizer, and those of families."""
        start, end = (getattr(self.tokenizer, name, None) for name in ("think_start", "think_end"))
        return ((start, end), *THOUGHTS) if start and end and (start, end) not in THOUGHTS else THOUGHTS

    @cached_property
    def added_tokens(self) -> frozenset[int]:
        """The tokens that part a text wherever it spells them."""
        return frozenset(getattr(self.wrapped, "added_tokens_decoder", {}))

    @cached_property
    def vocabulary(self) -> int:
        """Tokens that the model has embeddings for; 0 if that is not known."""
        return _vocabulary(self.tokenizer)

    def encode_tail(self, text: str) -> list[int]:
        """The same as `encode`, remembered: the ends of prompts, as an empty block of thoughts, are few."""
        if text not in self._tails:
            if len(self._tails) >= TAILS:
                self._tails.clear()
            self._tails[text] = self.encode(text)
        return self._tails[text]

    def _strftime_now(self, pattern: str) -> str:
        return date.fromisoformat(str(self.arguments.get("today", TODAY))).strftime(pattern)


def of(tokenizer: Any, inputs: Inputs) -> Chat:
    """The tokenizer with the template and the arguments that flags give.

    Raises ThunderError for a file that cannot be read, for one with control tokens that the vocabulary lacks, and for a
    first or last token that the model has no embedding of.
    """
    template = _read(shipped.place(str(inputs.chat_template))) if inputs.chat_template else ""
    arguments = inputs.template_arguments()
    problems = _template_problems(template, tokenizer, str(inputs.chat_template)) + _date_problems(arguments)
    raise_all(problems + _vocabulary_problems(tokenizer))
    return Chat(tokenizer, template, arguments, inputs.end_answers)


def _reason(error: Exception) -> str:
    return escaped(" ".join(str(error).split()) or type(error).__name__)[:LONGEST_REASON]


@cache
def _listen() -> None:
    signal.signal(signal.SIGVTALRM, _stop)


def _stop(*_: Any) -> None:
    what = f"is still not done with a row after {LONGEST_S:.0f} s"
    raise ThunderError(what, where="the chat template", hint="correct its loops, or give another template")


def _read(path: Path) -> str:
    hint = "correct chat_template in thunder.toml"
    try:
        data = files.read_bytes(path, LARGEST + 1)
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ThunderError(f"cannot be read as a template: {error}", where=str(path), hint=hint) from error
    if not text.strip() or len(data) > LARGEST:
        size = f"more than {LARGEST:,} bytes" if text.strip() else "no text"
        raise ThunderError(f"is no chat template: it has {size}", where=str(path), hint=hint)
    return text


def _template_problems(template: str, tokenizer: Any, path: str) -> list[ThunderError]:
    """What is wrong with a recipe's template.

    A control token that the vocabulary lacks would become several tokens of text, which mean nothing to the base.
    """
    try:
        _compile_jinja_template(template)
    except Exception as error:  # jinja2 has several, and its compiler may run out of stack
        return [ThunderError(f"is no Jinja template: {_reason(error)}", where=path, hint="correct it")]
    words = dict.fromkeys(SPELLED.findall(COMMENT.sub("", template)))
    missing = [word for word in words if len(tokenizer.encode(word, add_special_tokens=False)) != 1]
    if not missing:
        return []
    present = ", ".join(sorted(map(str, tokenizer.all_special_tokens))[:SHOWN])
    what = f"writes {', '.join(missing)}, which are no single tokens of the model's vocabulary"
    hint = f"write it with control tokens of the vocabulary ({present}), or use templates/chat/plain.jinja"
    return [ThunderError(escaped(what), where=path, hint=escaped(hint))]


def _vocabulary(tokenizer: Any) -> int:
    """Tokens that the model has embeddings for, according to its config.json; 0 if that is not known."""
    path = Path(str(getattr(tokenizer, "name_or_path", ""))) / "config.json"
    config = files.read_json(path) if path.is_file() else {}
    return max(part.get("vocab_size") or 0 for part in (config, config.get("text_config") or {}))


def _vocabulary_problems(tokenizer: Any) -> list[ThunderError]:
    """transformers adds a bos_token or eos_token that tokenizer.json lacks, with an id past the model's embeddings.

    MLX would read whatever lies behind them in memory.
    """
    size = _vocabulary(tokenizer)
    wrong = [
        f"{name} {getattr(tokenizer, name)}"
        for name in ("bos_token", "eos_token")
        if size and (getattr(tokenizer, f"{name}_id", None) or 0) >= size
    ]
    if not wrong:
        return []
    what = f"names {escaped(' and '.join(wrong))}, outside of the model's vocabulary of {size:,} tokens"
    hint = "name tokens of tokenizer.json there, or null"
    return [ThunderError(what, where=str(Path(tokenizer.name_or_path) / "tokenizer_config.json"), hint=hint)]


def _date_problems(arguments: Mapping[str, Any]) -> list[ThunderError]:
    try:
        date.fromisoformat(str(arguments.get("today", TODAY)))
    except ValueError:
        fact = f"today is {escaped(repr(arguments['today']))}"
        return [ThunderError(fact, where="--template-args", hint=f'write a date, as "{TODAY}"')]
    return []
