"""Rows of ragged English for the benchmark of a real model: an answer continues the text of its prompt.

The text is that of Python's own documentation (`pydoc_data`), so the rows are the same for one version of Python.
"""

import json
import math
import random
import re
from pathlib import Path
from pydoc_data.topics import topics

from train_material import SIGMA, Material

MEDIAN_WORDS, SHORTEST_WORDS, LONGEST_WORDS = 70, 8, 450
"""Words of a row, prompt and answer together."""
ANSWER = 0.4
"""Share of the words that the answer has."""


def write(folder: Path, rows: int, batch: int, longest: int = LONGEST_WORDS) -> Material:
    """Write train, valid and test rows; the same arguments give the same files. Splits share no text with train.

    longest: most words of a row.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw, text = random.Random(f"english:{rows}"), words()  # noqa: S311  (rows, not secrets)
    counts = {"train": rows, "valid": 2 * batch, "test": 1}
    border = len(text) * 4 // 5
    for name, count in counts.items():
        place = text[:border] if name == "train" else text[border:]
        lines = [
            json.dumps(_row(f"{name}-{number}", place, draw, longest), ensure_ascii=False) for number in range(count)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Material(folder, "english", rows, batch)


def words() -> list[str]:
    """The words of all paragraphs of prose, in order."""
    paragraphs = (part for name in sorted(topics) for part in re.split(r"\n\s*\n", topics[name]))
    return [word for part in paragraphs if part[:1].isalpha() and "   " not in part for word in part.split()]


def _row(name: str, text: list[str], draw: random.Random, longest: int) -> dict[str, object]:
    length = round(math.exp(draw.gauss(math.log(MEDIAN_WORDS), SIGMA)))
    length = min(longest, max(SHORTEST_WORDS, length))
    start = draw.randrange(len(text) - length)
    cut = start + length - round(ANSWER * length)
    asked, answer = " ".join(text[start:cut]), " ".join(text[cut : start + length])
    messages = [{"role": "user", "content": f"Continue: {asked}"}, {"role": "assistant", "content": answer}]
    return {"id": name, "messages": messages, "partition": "stable", "asr_text": asked, "reference_text": answer}
