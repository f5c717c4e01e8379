"""Answers to rows without references: those of an evaluation, in parts, for any number of ranks and interruptions."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.worker.conftest import TEXTS, inline, python, row, write_rows
from thunder_train.core import files

pytestmark = pytest.mark.ranks

PROGRAM = "thunder_train.worker.correct"


def flags(adapter: Path, out: Path, **changed: object) -> list[str]:
    """The program's flags; it reads and writes below out."""
    chosen: dict[str, object] = {
        "model": "nano",
        "adapter_path": adapter,
        "valid_data": "valid.jsonl",
        "test_data": "test.jsonl",
        "max_tokens": 6,
        "batch_size": 2,
    }
    chosen |= {"predictions": out / "p.jsonl", "losses": out / "l.json", "partial": out / "kept"}
    chosen |= {"rows": out / "parts", "answers": out / "answers"}
    return [str(part) for name, value in (chosen | changed).items() for part in (f"--{name}".replace("_", "-"), value)]


def parts(out: Path, *rows: list[dict[str, Any]]) -> Path:
    """Parts of new rows, in which what was heard stands for the answer."""
    for number, each in enumerate(rows):
        (out / "parts").mkdir(parents=True, exist_ok=True)
        heard = [
            {"id": one["id"], "messages": [*one["messages"][:-1], {"role": "assistant", "content": one["asr_text"]}]}
            for one in each
        ]
        write_rows(out / "parts" / f"rows-{number:05}.jsonl", heard)
    return out


def answers(out: Path) -> list[Any]:
    """What was written of each row, without the headers."""
    return [line for path in sorted((out / "answers").iterdir()) for line in files.read_jsonl(path)[1:]]


def correct(folder: Path, adapter: Path, out: Path, **changed: object) -> "subprocess.CompletedProcess[str]":
    """Run the program as the only rank."""
    return inline(PROGRAM, flags(adapter, out, **changed), folder)


ROWS = [row(number, text) for number, text in enumerate(TEXTS[3:6])]


def test_rows_get_the_answers_that_an_evaluation_gives_them(folder: Path, adapter: Path, tmp_path: Path) -> None:
    """
    What an evaluation measured holds for new rows only if they are answered in the same way.
    """
    out = parts(tmp_path, ROWS)
    shared = dict(zip(*[iter(flags(adapter, out))] * 2, strict=True))
    shared = {name: value for name, value in shared.items() if name not in ("--rows", "--answers")}
    given = [part for pair in (shared | {"--partial": str(tmp_path / "evaluation")}).items() for part in pair]
    evaluated = inline("thunder_train.worker.generate", given, folder)
    done = correct(folder, adapter, out)

    assert (0, 0, "") == (evaluated.returncode, done.returncode, done.stderr)
    predictions = files.read_jsonl(out / "p.jsonl")
    assert [(each["adapter"], each["adapter_finish"]) for each in predictions] == [
        (each["text"], each["finish"]) for each in answers(out)
    ]


def test_a_prompt_that_is_too_long_is_not_asked(folder: Path, adapter: Path, tmp_path: Path) -> None:
    """
    No training row had such a length, and it may take all memory. The other rows are answered.
    """
    out = parts(tmp_path, [ROWS[0], row(9, TEXTS[0] * 30)])
    done = correct(folder, adapter, out, max_seq_len=100)

    assert 0 == done.returncode
    first, second = answers(out)
    assert {"text", "finish", "special", "raw"} == set(first)
    assert second["problem"].endswith(" tokens, more than train.max_seq_len, 100")


def test_two_ranks_and_an_interruption_leave_the_bytes_of_one_rank(folder: Path, adapter: Path, tmp_path: Path) -> None:
    """
    Whole parts are not answered again, kept batches are not, and a damaged file is.
    """
    chunks = [ROWS, [row(number, text * 2) for number, text in enumerate(TEXTS)]]
    one, two = parts(tmp_path / "one", *chunks), parts(tmp_path / "two", *chunks)
    assert 0 == correct(folder, adapter, one).returncode
    start = ["--hostfile", "hosts.json", "--log-dir", str(tmp_path / "logs"), "--module", PROGRAM]
    assert 0 == python("thunder_train.launch", start + flags(adapter, two), folder).returncode
    whole = [path.read_bytes() for path in sorted((one / "answers").iterdir())]
    assert whole == [path.read_bytes() for path in sorted((two / "answers").iterdir())]

    kept = one / "kept" / "answers.jsonl"
    header, *batches = kept.read_bytes().splitlines(keepends=True)
    kept.write_bytes(b"".join([header, *batches[:2], batches[2][:9]]))
    (one / "answers" / "answers-00001.jsonl").unlink()
    resumed = correct(folder, adapter, one)
    assert "adapter: 2 of 4 batches were answered before" in resumed.stdout
    (one / "answers" / "answers-00000.jsonl").write_bytes(whole[0].replace(b"length", b"stop", 1))
    again = correct(folder, adapter, one)
    assert "answers-00000.jsonl: damaged; its rows are answered again" in again.stderr
    assert whole == [path.read_bytes() for path in sorted((one / "answers").iterdir())]


def test_other_rows_are_answered_anew(folder: Path, adapter: Path, tmp_path: Path) -> None:
    """
    A file that was corrected under the same name must not get the answers of the one before.
    """
    out = parts(tmp_path, ROWS)
    assert 0 == correct(folder, adapter, out).returncode
    before = answers(out)
    parts(tmp_path, ROWS[::-1])
    assert 0 == correct(folder, adapter, out).returncode

    assert before != before[::-1] == answers(out)
