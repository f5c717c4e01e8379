"""Small sources and datasets that several tests build from."""

import json
from pathlib import Path
from typing import Any

import pytest

from thunder_train import ThunderError, dataset, sources
from thunder_train.config import Dataset, Source
from thunder_train.rows import Loaded

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


def source(**given: Any) -> Source:
    """A source: a report at in.json unless told otherwise."""
    values = {"kind": "report", "path": "in.json", "references": "", "evidence_kind": "smoke", "rows": ""}
    return Source(**values | {"fields": FIELDS, "constants": {}, "use": ("accepted",)} | given)


def report_row(number: int, **given: Any) -> dict[str, Any]:
    """An accepted row of a report, with texts of its own; number: 0 to 19."""
    letter = LETTERS[number]
    texts = {"h": f"ߣ{letter}", "r": f"ߢ{letter}", "f": f"ߢ{letter}"}
    return {"n": f"{number:02d}", **texts, "p": "boundary", "d": True, "t": {"c": number}, **given}


def report_rows() -> list[dict[str, Any]]:
    """Twenty of them."""
    return [report_row(number) for number in range(20)]


def read(folder: Path, content: Any, **given: Any) -> Loaded:
    """What a source gives when its file holds these bytes, this text or this JSON value."""
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    (folder / "in.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    return sources.read(source(**given), folder)


def refusal(folder: Path, content: Any, **given: Any) -> str:
    """The text of the error that such a source gives."""
    with pytest.raises(ThunderError) as error:
        read(folder, content, **given)
    return str(error.value)


def built(folder: Path, report: Any, template: str = "Text: {{ asr_text }}", **given: Any) -> dict[str, Any]:
    """The manifest of a dataset built below a folder from one report: a third for validation, a third for test."""
    (folder / "in.json").write_text(json.dumps(report), encoding="utf-8")
    (folder / "prompt.j2").write_text(template, encoding="utf-8")
    values = {"name": "nko", "sources": (source(),), "system": "Correct.", "template": "prompt.j2"}
    split = {"orthography": "bridge-toneless", "split_seed": 0, "valid": 0.3, "test": 0.3}
    return dataset.build(Dataset(**values | split | given), folder, folder / "out")
