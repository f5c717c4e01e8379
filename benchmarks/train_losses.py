"""Validation losses of a training benchmark, measured by our program for all sides."""

import json
import subprocess
import sys
from pathlib import Path

from train_material import PROJECT, Material
from train_sides import LONGEST, Side


def valid_loss(subject: Side, model: Path, material: Material) -> float:
    """Nats per target of the validation rows with this side's adapter."""
    flags = {
        "--model": model, "--adapter-path": subject.adapter, "--max-seq-len": LONGEST,
        "--valid-data": material.folder / "valid.jsonl", "--test-data": material.folder / "test.jsonl",
        "--max-tokens": 1, "--batch-size": 1,
        "--predictions": subject.run / "predictions.jsonl", "--losses": subject.run / "losses.json",
    }  # fmt: skip
    run("thunder_train.worker.generate", flags)
    return float(json.loads((subject.run / "losses.json").read_text())["adapter"]["valid"]["loss"])


def run(module: str, flags: dict[str, object]) -> None:
    """Run a program of ours; if it fails, the benchmark stops."""
    argv = [sys.executable, "-m", module, *(str(part) for flag in flags.items() for part in flag)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=PROJECT)
