"""What a chat template may be given besides the messages: names with a text, a number, or true or false.

They come from [models.NAME.template] of thunder.toml, which a manifest of anyone may bring, and travel to the ranks as
the JSON of one flag.
"""

import json
import keyword
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

RESERVED = frozenset(
    {"messages", "conversation", "tools", "documents", "add_generation_prompt", "continue_final_message", "tokenize"}
    | {"chat_template", "padding", "truncation", "max_length", "return_tensors", "return_dict", "tokenizer_kwargs"}
    | {"return_assistant_tokens_mask", "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token"}
    | {"mask_token", "additional_special_tokens", "raise_exception", "strftime_now", "self", "loop", "range"}
    | {"namespace", "dict", "lipsum", "cycler", "joiner", "true", "false", "none"}
)
"""Names that transformers, the tokenizer or Jinja gives to a template itself."""
NAME = re.compile("[A-Za-z_][A-Za-z0-9_]{0,63}")
MOST = 64
LONGEST = 10_000
"""Most characters of a text."""
LONGEST_JSON = 65_536
"""Most characters of all arguments as JSON; Linux allows 128 KiB for a word of a command line."""

Value = str | int | float | bool


class Problem(NamedTuple):
    """An argument that cannot be given; name: "" for a problem of all together."""

    name: str
    what: str
    hint: str


def problems(arguments: Mapping[str, Any]) -> list[Problem]:
    """Every argument that a template cannot be given."""
    listed = [problem for name, value in arguments.items() if (problem := _problem(name, value))]
    if len(arguments) > MOST:
        listed.append(Problem("", f"has {len(arguments)} arguments", f"give at most {MOST}"))
    elif not listed and len(text_of(arguments)) > LONGEST_JSON:
        listed.append(Problem("", f"has more than {LONGEST_JSON} characters as JSON", "give shorter texts"))
    return listed


def text_of(arguments: Mapping[str, Value]) -> str:
    """The arguments as JSON, the same text for the same arguments; ASCII, so that no shell or terminal changes it."""
    return json.dumps(dict(arguments), sort_keys=True)


def parse(text: str) -> dict[str, Value]:
    """The arguments of a text of `text_of`, or of a person. Raises ValueError, which says what is wrong."""
    if len(text) > LONGEST_JSON:
        raise ValueError(f"has more than {LONGEST_JSON} characters")
    try:
        arguments = json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("is nested too deep") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error}") from None
    if not isinstance(arguments, dict):
        raise ValueError('must be a JSON object, as {"enable_thinking": false}')
    if wrong := problems(arguments):
        raise ValueError("; ".join(f"{name} {what}: {hint}".strip() for name, what, hint in wrong[:5]))
    return arguments


def _problem(name: str, value: Any) -> Problem | None:
    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        return Problem(name, "is no name of an argument", "use letters, digits and _, as enable_thinking")
    if name in RESERVED:
        return Problem(name, "is given to every chat template by the program itself", "leave it out")
    if not isinstance(value, str | int | float):
        return Problem(name, "is neither text, number, true nor false", "give one of these")
    if isinstance(value, float) and not math.isfinite(value):
        return Problem(name, f"is {value}", "give a finite number")
    if isinstance(value, int) and abs(value) >= 1 << 63:
        return Problem(name, "is a number of more than 64 bits", "give a smaller one")
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        # Jinja takes any text for true.
        return Problem(name, f"is the text {value!r}", f"write {value.strip().lower()} without quotes")
    if isinstance(value, str) and len(value) > LONGEST:
        return Problem(name, f"has {len(value)} characters", f"give at most {LONGEST}")
    return None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"gives {repeated[0]!r} twice")
    return dict(pairs)
