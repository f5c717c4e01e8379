"""Tables in text, as spreadsheets and corpora write them."""

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.inputs import read, refusal

COMPLETIONS = {"kind": "completions", "path": "in.csv"}


def pairs(folder: Path, content: Any, **given: Any) -> list[tuple[int, str, str]]:
    """Line, prompt and answer of each row."""
    rows, _ = read(folder, content, **COMPLETIONS | given)
    return [(row.line, row.messages[0]["content"], row.target_text) for row in rows]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["in.csv", "in.tsv"])
def test_separator_is_found_by_header_and_rows(tmp_path: Path, separator: str, name: str) -> None:
    """Texts hold commas, semicolons and bars too; the name promises no separator."""
    others = " ".join({",", ";", "|"} - {separator})
    content = f"prompt{separator}completion\na {others}{separator}b\nc{separator}d {others} {others}\n"

    expected = [(2, f"a {others}", "b"), (3, "c", f"d {others} {others}")]
    assert expected == pairs(tmp_path, content, path=name)


@pytest.mark.parametrize(
    "content",
    [
        "\ufeffprompt;completion\r\na;b, c\r\n",
        "sep=;\nprompt;completion\na;b, c\n",
        "prompt;completion;;\na;b, c;;\n;;;\n",
        ";prompt;completion\n0;a;b, c\n",
        " prompt ; completion\na;b, c\n",
        "prompt;completion\na;b, c\n".encode("utf-16"),
        'prompt;completion\n"a";"b, c"\n',
    ],
)
def test_what_spreadsheets_add_is_no_mistake(tmp_path: Path, content: Any) -> None:
    """Marks, a line for Excel, empty columns, a column of numbers without a name."""
    assert [("a", "b, c")] == [pair[1:] for pair in pairs(tmp_path, content)]


def test_line_before_the_header_is_counted(tmp_path: Path) -> None:
    """An editor counts it."""
    assert [(3, "a", "b"), (4, "c", "d")] == pairs(tmp_path, "sep=;\nprompt;completion\na;b\nc;d\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"Hi" he said', '"Hi" he said'),
        ('"Hi', '"Hi'),
        ('"He said ""hi"""', 'He said "hi"'),
        ('"a\tb"', "a\tb"),
        ('"a\nb"', "a\nb"),
        ('say "hi"', 'say "hi"'),
    ],
)
def test_quotes_of_a_tab_separated_file_enclose_cells_or_are_text(tmp_path: Path, text: str, expected: str) -> None:
    """Common Voice quotes nothing, pandas and Excel quote what they must."""
    content = f"id\ttext\n1\t{text}\n2\tb\n"

    assert [expected, "b"] == [row.target_text for row in read(tmp_path, content, kind="text", path="in.tsv")[0]]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            "hyp;ref\na;b\nc;d\n",
            "in.csv:1: lacks prompt, completion; its header is hyp;ref; "
            'set fields = { prompt = "hyp", completion = "ref" }',
        ),
        (
            "x;y\na;b\nc;d\n",
            "in.csv:1: lacks prompt, completion; its header is x;y; map them in fields; "
            "if that is a row, add a line with the names of the columns before it",
        ),
        ("prompt;x\na;b\n", "in.csv:1: lacks completion; its header is prompt;x; map them in fields; "
         "if that is a row, add a line with the names of the columns before it"),
        ("messages;x\na;b\n", 'in.csv:1: lacks prompt, completion; its header is messages;x; its rows have messages: '
         'set kind = "chatml"'),
        ("prompt;completion\na;\n", "in.csv:2: lacks completion; add it"),
        ("prompt;completion\na;b;c\n", "in.csv:2: has 3 cells, the header 2; correct the row; "
         "quote a cell that holds a semicolon"),
        ("prompt;completion\na;bé\nb;ça\n".encode("cp1252"),
         "in.csv:2, 3: is not UTF-8 but perhaps Windows-1252; save the file as UTF-8"),
        ("prompt;completion\n".encode("utf-16-le"), "in.csv: is UTF-16 without its mark; save the file as UTF-8"),
    ],
)  # fmt: skip
def test_header_that_does_not_fit_is_shown(tmp_path: Path, content: Any, expected: str) -> None:
    """Once for the file: its rows are not to blame."""
    assert expected == refusal(tmp_path, content, **COMPLETIONS)
