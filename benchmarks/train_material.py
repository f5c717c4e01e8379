"""What the training benchmark trains on: a small random model, and rows whose lengths are ragged or uniform."""

import json
import math
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

LETTERS = [chr(code) for code in range(0x7CA, 0x7EB)]
MEDIAN = {"ragged": 140, "uniform": 180}
"""Letters of a row, prompt and answer together; about as many tokens in the mean."""
SIGMA = 0.7
"""Of the logarithm of the ragged lengths."""
SHORTEST, LONGEST = 16, 900
SHAPE = {"layers": 4, "width": 128, "heads": 4, "kv-heads": 4, "hidden": 512}


@dataclass(frozen=True)
class Material:
    """Files of one kind of rows. rows: of train.jsonl, a multiple of batch, the rows of a step on all ranks."""

    folder: Path
    kind: str
    rows: int
    batch: int

    @property
    def steps(self) -> int:
        """Optimizer steps of an epoch; none is short, for mlx-lm would drop it."""
        return self.rows // self.batch

    @property
    def targets(self) -> int:
        """Tokens of an epoch that teach: a letter is a token, and the end of the turn is one."""
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


def write_model(folder: Path) -> None:
    """A nano model of SHAPE; made once."""
    if not (folder / "config.json").exists():
        flags = [part for name, value in SHAPE.items() for part in (f"--{name}", str(value))]
        argv = [sys.executable, "-m", "thunder_train.worker.nano", "--output", str(folder), *flags]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)


def _row(name: str, kind: str, draw: random.Random) -> dict[str, object]:
    """A row that asks to double letters; its answer is about half of it."""
    spread = SIGMA if kind == "ragged" else 0.0
    letters = min(LONGEST, max(SHORTEST, round(math.exp(draw.gauss(math.log(MEDIAN[kind]), spread)))))
    text = "".join(draw.choice(LETTERS) for _ in range(letters // 2))
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": text[::-1]}]
    canonical = {"partition": "stable", "asr_text": text, "reference_text": text[::-1]}
    return {"id": name, "messages": messages, **canonical}
