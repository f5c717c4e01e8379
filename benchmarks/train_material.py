"""Model and rows of the training benchmark: a small random model, and rows of ragged or uniform lengths."""

import json
import math
import random
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
LETTERS = [chr(code) for code in range(0x7CA, 0x7EB)]
MEDIAN = {"ragged": 140, "uniform": 180}
"""Median number of letters of a row, prompt and answer together; a letter is a token."""
SIGMA = 0.7
"""Standard deviation of the logarithm of ragged lengths."""
SHORTEST, LONGEST = 16, 900
SHAPE = {"layers": 4, "width": 128, "heads": 4, "kv-heads": 4, "hidden": 512}


@dataclass(frozen=True)
class Material:
    """Files of one kind of rows. rows: of train.jsonl, a multiple of batch; batch: rows per step, of all ranks."""

    folder: Path
    kind: str
    rows: int
    batch: int

    @property
    def steps(self) -> int:
        """Optimizer steps per epoch; none is short, because mlx-lm would drop it."""
        return self.rows // self.batch

    @property
    def targets(self) -> int:
        """Supervised tokens per epoch: the letters of the answers, and one end of turn each."""
        rows = [json.loads(line) for line in (self.folder / "train.jsonl").read_text().splitlines()]
        return sum(len(row["messages"][-1]["content"]) + 1 for row in rows)


def write(folder: Path, kind: str, rows: int, batch: int) -> Material:
    """Write train.jsonl and valid.jsonl; the same arguments give the same files."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(f"{kind}:{rows}")  # noqa: S311  (rows, not secrets)
    for name, count in (("train", rows), ("valid", max(2 * batch, rows // 8))):
        lines = [json.dumps(_row(f"{name}-{i}", kind, draw), ensure_ascii=False) for i in range(count)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "test.jsonl").write_text(lines[0] + "\n", encoding="utf-8")
    return Material(folder, kind, rows, batch)


def write_model(folder: Path, shape: Mapping[str, int] = SHAPE) -> None:
    """Write a nano model of this shape unless the folder has one."""
    if not (folder / "config.json").exists():
        flags = [part for name, value in shape.items() for part in (f"--{name}", str(value))]
        argv = [sys.executable, "-m", "thunder_train.worker.nano", "--output", str(folder), *flags]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, cwd=PROJECT)


def _row(name: str, kind: str, draw: random.Random) -> dict[str, object]:
    """A row whose answer is its prompt reversed."""
    spread = SIGMA if kind == "ragged" else 0.0
    letters = min(LONGEST, max(SHORTEST, round(math.exp(draw.gauss(math.log(MEDIAN[kind]), spread)))))
    text = "".join(draw.choice(LETTERS) for _ in range(letters // 2))
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": text[::-1]}]
    canonical = {"partition": "stable", "asr_text": text, "reference_text": text[::-1]}
    return {"id": name, "messages": messages, **canonical}
