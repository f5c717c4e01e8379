"""Templates: a hostile value stays a value, and a wrong template is an error that says where."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from thunder_train import ThunderError
from thunder_train.core import templates

MARKDOWN = [
    "[a](javascript:alert(1))",
    "![a](https://evil.example/x.png)",
    "<img src=x onerror=alert(1)>",
    "<https://evil.example>",
    "https://evil.example www.evil.example me@evil.example",
    "[^1] [x]: y",
    "# title",
    "- item",
    "+ item",
    "* item",
    "1. item",
    "7) item",
    "> quote",
    "---",
    "===",
    "***",
    "- - -",
    "~~~",
    "```",
    "    code",
    "`code` ``co`de``",
    "*a* **b** _c_ __d__ ~~e~~ $f$",
    "a | b \\| c \\",
    "&lt;script&gt; &#0;",
    "\\[a](b) \\",
    "a\n\n# b\r\n- c\u2028d",
    "|---|---|",
    "a_b adapter_blind __init__.py -0.5 3.14 #1 +2",
    "ߒ\u202eߞߏ",
]
HOSTILE = "$(touch pwned); `id` 'x' \"y\" ../.. \n --flag"


def test_a_hostile_value_is_one_quoted_word(tmp_path: Path) -> None:
    """
    Recipes are untrusted text: nothing in a value may run or become a second word.
    """
    (tmp_path / "t.j2").write_text("printf '%s' {{ value }}\n")
    script = templates.shell(tmp_path / "t.j2", {"value": HOSTILE})

    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)

    assert HOSTILE == done.stdout
    assert ["t.j2"] == [path.name for path in tmp_path.iterdir()]


def test_an_undefined_name_is_an_error_that_names_the_template(tmp_path: Path) -> None:
    """
    A template that reads what it was not given would render a hole.
    """
    (tmp_path / "t.j2").write_text("{{ nothing }}")

    with pytest.raises(ThunderError) as caught:
        templates.shell(tmp_path / "t.j2", {})

    assert f"{tmp_path}/t.j2: 'nothing' is undefined; use only the names it is given" == str(caught.value)


def test_a_template_cannot_reach_python(tmp_path: Path) -> None:
    """
    Jinja2's sandbox refuses attributes that lead to the interpreter.
    """
    (tmp_path / "t.j2").write_text("{{ ''.__class__.__mro__ }}")

    with pytest.raises(ThunderError, match="unsafe"):
        templates.shell(tmp_path / "t.j2", {})


def test_a_broken_template_is_told_with_its_line(tmp_path: Path) -> None:
    """
    The line says what to correct.
    """
    (tmp_path / "t.j2").write_text("one\n{% if %}\n")

    with pytest.raises(ThunderError, match=r"t\.j2:2: "):
        templates.shell(tmp_path / "t.j2", {})


def test_a_value_cannot_add_markup_to_the_report() -> None:
    """
    A row that holds `<script>` or a table bar shows as text, on one line.
    """
    assert "&lt;script&gt; a \\| b \\`c\\` &amp;" == templates.escape_markdown(
        "<script> a | b\n`c` &".replace("\n", " ")
    )
    assert "a b" == templates.escape_markdown("a\nb")


PLACES = {
    "paragraph": "{{ value }}\n",
    "after a line": "x\n\n{{ value }}\n\ny\n",
    "list item": "- {{ value }}\n- {{ value }}\n",
    "cell": "| a | b |\n|---|---|\n| {{ value }} | {{ value }} |\n",
    "code": "- {{ value | code }}, x\n",
    "code in a cell": "| a | b |\n|---|---|\n| {{ value | code }} | x |\n",
    "code block": "```\n{{ ('--flag ' ~ value) | code_line }}\n```\n",
}
HARMLESS = {"text", "text_special", "inline", "softbreak"}
PLAIN = "value"


def kinds(markdown: str) -> list[str]:
    """What a reader of Markdown sees, by its kind, without text."""
    reader = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    blocks = reader.parse(markdown)
    return [each.type for block in blocks for each in (block, *(block.children or ())) if each.type not in HARMLESS]


def shown(markdown: str) -> str:
    """The text that a reader of Markdown sees."""
    blocks = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)
    return " ".join("".join(each.content for each in block.children) for block in blocks if block.children)


@pytest.mark.parametrize("value", MARKDOWN)
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_value_is_text_wherever_the_report_puts_it(tmp_path: Path, place: str, value: str) -> None:
    """
    File names, hosts, errors and reasons stand in report.md, which people read on pages that render it.
    """
    (tmp_path / "t.j2").write_text(place)
    page = templates.markdown(tmp_path / "t.j2", {"value": value})
    plain = PLAIN + "|" * ("|" in value)  # a bar makes code to text

    assert kinds(templates.markdown(tmp_path / "t.j2", {"value": plain})) == kinds(page)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab1 \\`*_[]()!|~$<>&@#+-=.:/\n\t"), min_size=1))
def test_a_reader_sees_the_value_itself(value: str) -> None:
    """
    An escape that shows is as wrong as one that is missing.
    """
    page = templates.escape_markdown(value)

    assert " ".join(value.split()) == shown(page)
    assert kinds(PLAIN) == kinds(page) or not value.strip()


def test_no_address_becomes_a_link(tmp_path: Path) -> None:
    """
    GitHub makes links of bare addresses; nothing of an address is left that it looks for.
    """
    assert r"https\://evil.example www\.evil.example me\@evil.example" == templates.escape_markdown(
        "https://evil.example www.evil.example me@evil.example"
    )


def test_a_macro_may_print_what_was_escaped(tmp_path: Path) -> None:
    """
    Numbers with signs pass twice through the escape.
    """
    (tmp_path / "t.j2").write_text(
        "{% macro one(x) %}{{ '%+.2f' | format(x) }}{% endmacro %}{{ one(-1) }} {{ one(2) }}"
    )

    assert "-1.00 +2.00" == templates.markdown(tmp_path / "t.j2", {})
