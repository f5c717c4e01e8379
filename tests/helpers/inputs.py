"""Source files that several tests write, and helpers to read them."""

import json
from pathlib import Path
from typing import Any

import pytest

from thunder_train import ThunderError
from thunder_train.config.dataset import Source
from thunder_train.data import sources
from thunder_train.data.rows import Ledger, Row

FIELDS = {
    "row_id": "n",
    "asr_text": "h",
    "reference_text": "r",
    "final_text": "f",
    "partition": "p",
    "decision": "d",
    "telemetry": "t",
}
"""Field map of report_row."""
LETTERS = "ߊߋߌߍߎߏߐߓߔߕߖߗߘߙߛߜߝߞߟߡ"
PREDICTION = {
    "audio_path": "a/1.wav",
    "split": "test",
    "script": "nko",
    "mode": "trajectory",
    "asr_text": "ߞߏ",
    "ctc_confidence": 0.5,
    "partition": "boundary",
}
"""What the row contract requires."""


def source(**given: Any) -> Source:
    """A source; by default plain text at in.jsonl."""
    values = {"kind": "text", "path": "in.jsonl", "references": "", "evidence_kind": "smoke", "rows": "", "fields": {}}
    return Source(
        **values
        | {"constants": {}, "enums": {}, "reference_side": (), "use": ("accepted",), "telemetry": ("c",)}
        | given
    )


def report_row(number: int, **given: Any) -> dict[str, Any]:
    """An accepted row of a report, with texts of its own; number: 0 to 19."""
    letter = LETTERS[number]
    texts = {"h": f"ߣ{letter}", "r": f"ߢ{letter}", "f": f"ߢ{letter}"}
    return {"n": f"{number:02d}", **texts, "p": "boundary", "d": True, "t": {"c": number}, **given}


def lines(*values: Any) -> bytes:
    """Values as JSONL."""
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values).encode()


def write(path: Path, content: Any) -> Path:
    """Write bytes, text, a list of rows as JSONL, or any other JSON value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        content = content.encode()
    if not isinstance(content, bytes):
        content = lines(*content) if isinstance(content, list) else json.dumps(content).encode()
    path.write_bytes(content)
    return path


def read_source(folder: Path, **given: Any) -> tuple[list[Row], Ledger]:
    """The rows of a source below a folder, and the ledger."""
    ledger = Ledger()
    return list(sources.read(source(**given), folder, ledger)), ledger


def read(folder: Path, content: Any, **given: Any) -> tuple[list[Row], Ledger]:
    """The rows and ledger of a source whose file holds this content."""
    write(folder / given.get("path", "in.jsonl"), content)
    return read_source(folder, **given)


def refusal(folder: Path, content: Any, **given: Any) -> str:
    """The text of the error that such a source gives."""
    with pytest.raises(ThunderError) as error:
        read(folder, content, **given)
    return str(error.value)


def drops(ledger: Ledger) -> list[tuple[str, int, str, str]]:
    """Dropped rows as plain tuples."""
    return [(each.file, each.line, each.row_id, each.reason) for each in ledger.dropped]
