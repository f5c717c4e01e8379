"""The ledger of looks: which adapters were evaluated on which test rows, and in which order.

Input: the test rows and the adapter of an evaluation.  Output: runs/looks.jsonl, a line a look, and how sure a change
must be to count at that look.  Who evaluates a hundred adapters on the same rows finds one that looks good by chance.
The file is committed. It decides no stage's key: a look keeps the number that it got first, so an adapter that is made
again has the same number, whatever was evaluated since.
"""

import contextlib
import fcntl
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec

from thunder_train import ThunderError
from thunder_train.core import files, paths
from thunder_train.evaluate import intervals

TEXTS = ("asr_text", "reference_text", "question", "answer")
"""Fields of a prediction that no model wrote."""
ELSEWHERE = ""
"""Adapter of a line that stands for all looks before a run that is reproduced: their adapters are not known here."""


class Look(msgspec.Struct, frozen=True):
    """A line of the ledger: the evaluation of an adapter on test rows."""

    adapter: str
    """sha256 of its file."""
    number: Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]
    """1 for the first look at these rows."""
    test: str
    """Of `test_rows`."""


def test_rows(predictions: Iterable[dict[str, Any]]) -> str:
    """A hash of the texts of the test rows, whatever their order, ids and prompts; "" without a row."""
    texts = sorted([str(row.get(name, "")) for name in TEXTS] for row in predictions)
    return files.digest(texts) if texts else ""


def number(root: Path, test: str, adapter: str) -> int:
    """Which look at these test rows the evaluation of an adapter is, from 1: as recorded, else the next."""
    return _number(read(root), test, adapter)


def note(root: Path, test: str, adapter: str) -> int:
    """The same, and record it. root: the project's folder. Several processes may do so at once."""
    with _locked(root):
        looks = read(root)
        look = Look(adapter, _number(looks, test, adapter), test)
        if look not in looks:
            write(root, [*looks, look])
    return look.number


def read(root: Path) -> list[Look]:
    """All looks; none where there is no ledger. Raises ThunderError with the line that is none of ours."""
    path, looks = root / paths.LOOKS, []
    if not path.is_file():
        return []
    for at, line in enumerate(files.read_jsonl(path), start=1):
        try:
            looks.append(msgspec.convert(line, Look))
        except msgspec.ValidationError as error:
            raise ThunderError(f"is no look: {error}", f"{path}:{at}", "restore the file with git") from None
    return looks


def write(root: Path, looks: Iterable[Look]) -> None:
    """The ledger, sorted, so that equal looks are equal bytes; a line each, so that git can join two histories."""
    ordered = sorted(set(looks), key=lambda look: (look.test, look.number, look.adapter))
    files.write_text(root / paths.LOOKS, "".join(files.json_line(msgspec.structs.asdict(look)) for look in ordered))


def doubt(look: int) -> float:
    """The share of runs in which the interval of the k-th look may miss the truth: 0.05 / k^2.

    Half of the misses look like a gain, and 1 + 1/4 + 1/9 + ... is pi^2 / 6: however many adapters without effect are
    evaluated on these rows, one of them gets a GO in 4.1 % of projects, which leaves a part of the 5 % that are allowed
    to intervals of few groups. It is Bonferroni's inequality with shares
    that are given out look by look, because nobody knows how many will come (Foster and Stine 2008, Alpha-investing,
    Journal of the Royal Statistical Society B 70:429-444).
    """
    return (1 - intervals.LEVEL) / look**2


def widened(value: float, low: float, high: float, groups: int, look: int) -> tuple[float, float]:
    """The 95 % interval of a value at a look: both sides stretched as quantiles of Student's t are."""
    freedom = max(groups - 1, 1)
    quantiles = [intervals.student(1 - share / 2, freedom) for share in (doubt(look), doubt(1))]
    factor = quantiles[0] / quantiles[1]
    ends = (value + (end - value) * factor for end in (low, high))
    first, last = (round(end, intervals.DIGITS) + 0.0 for end in ends)
    return first, last


def _number(looks: list[Look], test: str, adapter: str) -> int:
    of_test = [look for look in looks if look.test == test]
    known = [look.number for look in of_test if look.adapter == adapter]
    last = max((look.number for look in of_test), default=0)
    # Two histories that were joined may have given one number twice: then there were more looks than the last says.
    return min(known) if known else max(last, len({look.adapter for look in of_test} - {ELSEWHERE})) + 1


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    path = root / paths.STATE / "looks.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the system gives it back when this process ends, however it ends
        yield
