"""The boundary to the terminal: whoever wrote a text, it can only be read."""

import ast
import io
import json
import os
import re
import subprocess
import sys

import pytest

from tests.helpers.project_copy import PROJECT
from thunder_train.core import console, terminal

PACKAGE = PROJECT / "thunder_train"
ATTACKS = {
    "colour": "\x1b[31m",
    "clear the screen": "\x1b[2J",
    "title": "\x1b]0;owned\x07",
    "hyperlink": "\x1b]8;;https://evil.example\x1b\\safe\x1b]8;;\x1b\\",
    "CSI as one character": "\x9b2J",
    "OSC as one character": "\x9d0;owned\x9c",
    "overwrite the line": "ok\rFAILED",
    "overwrite a letter": "a\x08b",
    "bell": "\x07",
    "NUL": "\x00",
    "bidi override": "\u202egnp.exe\u202c",
    "bidi isolate": "\u2066a\u2069",
    "line separator": "a\u2028b",
    "tag letters": "\U000e0041",
    "zero width": "pass\u200bword",
    "byte-order mark": "\ufeff",
    "half a character": "\ud800 \udcff",
}
HONEST = "ߒ ߡߊ߬ߙߌ\u07f2\u07eb ߓ\u200dߞ é \u00a0 \U0001f600\tx\n"
SAY = """
import sys
from thunder_train.core import terminal
terminal.guard()
print({text!a})
print({text!a}, file=sys.stderr)
"""


@pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS)
def test_no_text_steers_the_terminal(text: str) -> None:
    """
    Names of files, lines of hosts, configurations of models and errors that quote them come from anyone.
    """
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="\n")
    safe = terminal.safe(stream)

    print(text, file=safe)
    safe.writelines([text])
    safe.flush()

    shown = stream.buffer.getvalue().decode()  # type: ignore[attr-defined]
    assert "\N{REPLACEMENT CHARACTER}" in shown
    assert [] == re.findall(r"[^\n -~\ufffd]", shown)


def test_what_people_write_stays() -> None:
    """
    N'Ko goes from right to left by its letters alone; its marks and joiners are no controls.
    """
    stream = io.StringIO()

    print(HONEST, end="", file=terminal.safe(stream))

    assert HONEST == stream.getvalue()


@pytest.mark.parametrize("settings", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_a_terminal_without_the_letters_gets_their_numbers(settings: dict[str, str]) -> None:
    """
    A letter that LANG=C lacks must not end a training of hours.
    """
    argv = [sys.executable, "-c", SAY.format(text="ߒ \udc80 \x1b[2J")]
    done = subprocess.run(argv, cwd=PROJECT, env={**os.environ, **settings}, capture_output=True, check=True)

    assert (done.stdout, done.stderr) == (done.stderr, done.stdout)
    assert done.stdout.strip() in (rb"\u07d2 \ufffd \ufffd[2J", "ߒ \ufffd \ufffd[2J".encode())


def test_the_guard_is_put_once_and_lets_the_rest_through() -> None:
    """
    Programs ask a stream for its descriptor, and whether it is a terminal.
    """
    stream = io.StringIO()
    safe = terminal.safe(terminal.safe(stream))

    assert stream is terminal.unguarded(safe)
    assert safe.isatty() is False


@pytest.mark.parametrize("text", [*ATTACKS.values(), HONEST, '"\\ \u2029'])
def test_json_keeps_its_value(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """
    A machine must read what was there, and a person may look at it.
    """
    console.print_json({"key": text})
    shown = capsys.readouterr().out

    assert {"key": text} == json.loads(shown)
    assert shown == console.printable_json(shown)


@pytest.mark.parametrize(
    "cell", ["[red]x[/red]", "[link=https://evil.example]x[/link]", ":warning:", *ATTACKS.values()]
)
def test_a_cell_is_no_markup(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    rich reads brackets and emoji codes in plain strings, and draws with escapes of its own.
    """
    stream = io.StringIO()
    monkeypatch.setattr("sys.stdout", terminal.safe(stream))

    console.draw_table((cell,), [[(cell, "red")]], width=80)

    assert 2 == stream.getvalue().count(console.printable(cell))


def test_every_program_guards_what_it_prints() -> None:
    """
    One place decides what a terminal gets; it works only if each program begins with it.
    """
    guards = ("terminal.guard()", "enter(main)", "ending.run(main)")
    others = {"agent/mpi_holder.py", "config/reference.py", "core/blas.py"}  # a pipe reads it; no text of others
    programs = {str(path.relative_to(PACKAGE)): path.read_text() for path in PACKAGE.rglob("*.py")}
    programs = {name: text for name, text in programs.items() if 'if __name__ == "__main__":' in text}

    assert others == {name for name, text in programs.items() if not any(each in text for each in guards)}


def test_nothing_writes_past_the_guard() -> None:
    """
    rich is asked in one module, and nobody takes the descriptor's buffer or Python's first stream.
    """
    past = {f"sys.{name}.{end}" for name in ("stdout", "stderr") for end in ("buffer", "detach")}
    past |= {"sys.__stdout__", "sys.__stderr__"}
    for path in set(PACKAGE.rglob("*.py")) - set((PACKAGE / "agent").iterdir()):  # on a host a pipe reads its answers
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        rich = [node for node in nodes if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rich")]

        assert not rich or path.name == "console.py", path
        assert set() == past & {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}, path
