"""Jinja templates with a strict, sandboxed set-up: shell scripts, Markdown pages, prompts. core/html.py has HTML pages.

Input: a template and its values, which are untrusted text.  Output: text, each value quoted or escaped for its place.
An undefined name is an error. jinja2 is imported when first used: a no-op build needs none.
"""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thunder_train import ThunderError
from thunder_train.core import files, shipped
from thunder_train.core.text import printable

if TYPE_CHECKING:
    import jinja2
    from jinja2.sandbox import SandboxedEnvironment

MARKS = re.compile(
    r"[\\`*\[\]!|~$<>&@]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # inside a word it is only a letter
    r"|:(?=//)|(?<=\bwww)\."  # addresses become links by themselves
    r"|^(?:#|[-+](?=[\s-]|$)|=+$)",
    re.IGNORECASE,
)
"""What Markdown reads as a mark, there or at the start of a line."""
LIST_NUMBER = re.compile(r"^(\d{1,9})([.)])(?=\s|$)")
ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
BLOCKS: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True}
"""Options with which a template's line that holds only a block tag leaves nothing in the output."""


def shell(template: Path, values: dict[str, Any]) -> str:
    """A shell script; every value becomes exactly one word."""
    return _plain_text(template, values, lambda value: shlex.quote(str(value)))


def markdown(template: Path, values: dict[str, Any]) -> str:
    """A Markdown page; every value goes through `escape_markdown`."""
    return _plain_text(template, values, escape_markdown, {"code": code, "code_line": code_line})


def prompt(text: str, path: str) -> "jinja2.Template":
    """A compiled prompt template. path: its file, for errors. Values are not escaped: a prompt is no markup."""
    import jinja2

    try:
        return environment(autoescape=False).from_string(text)
    except jinja2.TemplateSyntaxError as error:
        where = f"{path}:{error.lineno}"
        raise ThunderError(f"is not a Jinja template: {error.message}", where=where, hint="correct the line") from None


class _AsItIs(str):
    """Markdown that needs no escape."""


def escape_markdown(value: Any) -> str:
    """A value on one line that a Markdown page shows as it is: no HTML, link, image, cell, code, heading or list."""
    if isinstance(value, _AsItIs):
        return value
    text = MARKS.sub(lambda match: ENTITIES.get(match.group(), f"\\{match.group()}"), _one_line(value))
    return LIST_NUMBER.sub(r"\1\\\2", text)


def code(value: Any) -> str:
    """A value as a code span, in which no escape works; with a bar, which would end a cell, as text."""
    text = _one_line(value)
    if not text or "|" in text:
        return _AsItIs(escape_markdown(text))
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if "`" in (text[0], text[-1]) else ""
    return _AsItIs(f"{fence}{space}{text}{space}{fence}")


def code_line(value: Any) -> str:
    """A value as a line of a code block, after the template's own first word."""
    return _AsItIs(_one_line(value))


def _one_line(value: Any) -> str:
    return printable(" ".join(str(value).split()))


def environment(**options: Any) -> "SandboxedEnvironment":
    """A sandboxed environment with options of Jinja's; reading an undefined name is an error."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    return SandboxedEnvironment(undefined=StrictUndefined, **options)


def _plain_text(
    template: Path, values: dict[str, Any], escape: Callable[[Any], str], filters: dict[str, Any] | None = None
) -> str:
    sandbox = environment(finalize=escape, keep_trailing_newline=True, **BLOCKS)
    sandbox.filters.update(filters or {})
    return render(sandbox, template, values)


def render(sandbox: "SandboxedEnvironment", template: Path, values: dict[str, Any]) -> str:
    """The text of a template file, the project's own or the package's.

    Raises ThunderError for a template that is missing, malformed or reads a name that is not among the values.
    """
    from jinja2 import TemplateError, TemplateNotFound, TemplateSyntaxError

    try:
        return sandbox.from_string(files.read_text(shipped.place(str(template)))).render(values)
    except FileNotFoundError:
        raise ThunderError("is missing", where=str(template), hint="git checkout it") from None
    except TemplateNotFound as error:  # an OSError, too
        raise ThunderError("is missing", where=str(template.parent / str(error.name)), hint="git checkout it") from None
    except OSError as error:
        raise ThunderError(f"cannot be read: {error.strerror}", where=str(template), hint="git checkout it") from None
    except TemplateSyntaxError as error:
        raise ThunderError(str(error.message), where=f"{template}:{error.lineno}", hint="correct that line") from error
    except TemplateError as error:
        raise ThunderError(str(error.message), where=str(template), hint="use only the names it is given") from error
