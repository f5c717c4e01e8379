"""Jinja templates with a strict, sandboxed set-up: shell scripts, Markdown pages, prompts. core/html.py has HTML pages.

Input: a template and its values, which are untrusted text.  Output: text, each value quoted or escaped for its place.
An undefined name is an error. jinja2 is imported when first used: a no-op build needs none.
"""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thunder_train import ThunderError

if TYPE_CHECKING:
    import jinja2
    from jinja2.sandbox import SandboxedEnvironment

BLOCKS: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True}
"""Options with which a template's line that holds only a block tag leaves nothing in the output."""


def shell(template: Path, values: dict[str, Any]) -> str:
    """A shell script; every value becomes exactly one word."""
    return _plain_text(template, values, lambda value: shlex.quote(str(value)))


def markdown(template: Path, values: dict[str, Any]) -> str:
    """A Markdown page; every value goes through `escape_markdown`."""
    return _plain_text(template, values, escape_markdown)


def prompt(text: str, path: str) -> "jinja2.Template":
    """A compiled prompt template. path: its file, for errors. Values are not escaped: a prompt is no markup."""
    import jinja2

    try:
        return environment(autoescape=False).from_string(text)
    except jinja2.TemplateSyntaxError as error:
        where = f"{path}:{error.lineno}"
        raise ThunderError(f"is not a Jinja template: {error.message}", where=where, hint="correct the line") from None


def escape_markdown(value: Any) -> str:
    """A value on one line that can add no HTML, table cell or code to a Markdown page."""
    text = " ".join(str(value).splitlines())
    for mark, escape in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|"), ("`", "\\`")):
        text = text.replace(mark, escape)
    return text


def environment(**options: Any) -> "SandboxedEnvironment":
    """A sandboxed environment with options of Jinja's; reading an undefined name is an error."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    return SandboxedEnvironment(undefined=StrictUndefined, **options)


def _plain_text(template: Path, values: dict[str, Any], escape: Callable[[Any], str]) -> str:
    return render(environment(finalize=escape, keep_trailing_newline=True, **BLOCKS), template, values)


def render(sandbox: "SandboxedEnvironment", template: Path, values: dict[str, Any]) -> str:
    """The text of a template file.

    Raises ThunderError for a template that is missing, malformed or reads a name that is not among the values.
    """
    from jinja2 import TemplateError, TemplateNotFound, TemplateSyntaxError

    try:
        return sandbox.from_string(template.read_text(encoding="utf-8")).render(values)
    except FileNotFoundError:
        raise ThunderError("is missing", where=str(template), hint="git checkout it") from None
    except TemplateNotFound as error:
        raise ThunderError("is missing", where=str(template.parent / str(error.name)), hint="git checkout it") from None
    except TemplateSyntaxError as error:
        raise ThunderError(str(error.message), where=f"{template}:{error.lineno}", hint="correct that line") from error
    except TemplateError as error:
        raise ThunderError(str(error.message), where=str(template), hint="use only the names it is given") from error
