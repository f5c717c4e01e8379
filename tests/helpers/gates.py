"""Predictions, policies and small external gates for several tests."""

import sys
from pathlib import Path
from typing import Any

import pytest

from thunder_train import ThunderError
from thunder_train.config.evaluate import Gate
from thunder_train.evaluate import gate

HYPOTHESIS, PROPOSAL = "ߊ ߓߊ ߕߊ߯", "ߊ ߓߍ ߕߊ߯"
DIGITS = "676be7acd844510eb9e72770c165170d"
WITNESS = {"graph_snapshot_hash": "d638ab3d", "policy_hash": "c6c8058e", "slice_id": "08af9350", "token": DIGITS}
WHERE = "recipes/nko.toml: evaluate.gate.command"
LOOP = """
import json, sys
for line in sys.stdin:
    row = json.loads(line)
    print(json.dumps({"id": row["id"], "verdict": "accept", "reason": "fine"}), flush=True)
"""
"""An external gate that accepts every row as it reads it."""


def policy(**given: Any) -> Gate:
    """The gate of a recipe with default values, unless given."""
    values = {"command": (), "timeout_s": 20, "preserved": ("stable",), "blocked": ("novelty",)}
    return Gate(**values | {"floor": 2, "relative": 0.2} | given)


def prediction(name: str, proposal: str = PROPOSAL, **given: Any) -> dict[str, Any]:
    """A line of predictions.jsonl; every value that depends on the reference contains SECRET."""
    fields = {"id": name, "partition": "boundary", "asr_text": HYPOTHESIS, "adapter": proposal, "base": "SECRET base"}
    return fields | {"reference_text": "SECRET", "source": "SECRET source", "witness": {}, "cer_edits": 3} | given


def external(folder: Path, code: str, **given: Any) -> Gate:
    """A gate whose command runs this Python code from a file."""
    (folder / "gate.py").write_text(code, encoding="utf-8")
    return policy(command=(sys.executable, str(folder / "gate.py")), **given)


def refusal(predictions: list[dict[str, Any]], settings: Gate) -> str:
    """The text of a gate's error, with GATE in place of its command."""
    with pytest.raises(ThunderError) as error:
        gate.judge(predictions, settings, WHERE)
    return str(error.value).replace(" ".join(settings.command), "GATE")
