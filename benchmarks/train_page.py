"""benchmarks/TRAIN.md: one part for each program that measures a training, written by that program alone."""

import re

from train_material import PROJECT

PAGE = PROJECT / "benchmarks" / "TRAIN.md"


def write(program: str, text: str) -> None:
    """Replace the part of a program, such as `train.py`, or add it at the end."""
    PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8"), program, text), encoding="utf-8")


def replaced(page: str, program: str, text: str) -> str:
    """A page with another part of this program. A part goes from its mark to the next one, or to the end."""
    mark = f"<!-- The next part is written by benchmarks/{program} --write. -->\n"
    part = f"{mark}\n{text.strip()}\n"
    if mark not in page:
        return f"{page.rstrip()}\n\n{part}"
    before, after = page.split(mark)
    rest = re.search("^<!-- The next part", after, re.MULTILINE)
    return before + part + (f"\n{after[rest.start() :]}" if rest else "")
