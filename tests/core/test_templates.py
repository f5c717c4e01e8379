"""Templates: a hostile value stays a value, and a wrong template is an error that says where."""

import subprocess
from pathlib import Path

import pytest

from thunder_train import ThunderError
from thunder_train.core import templates

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
