"""What `doit compare` prints of two runs: a headline, the settings that differ, the main metrics, the rest counted."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thunder_train.core import console
from thunder_train.report import run_facts
from thunder_train.reproduce.compare import ABSENT, Difference

MAIN = re.compile(r"conditions\.\w+\.all\.cer|evaluation\.\w+\.(valid|test)\.loss")
"""Metrics that are shown; the others are counted."""
LOWER = re.compile(r".*(^|\.)(cer|loss|perplexity|worse|false_accept_rate|empty|loop|pad|over_long|wrong_script)")
HIGHER = re.compile(r".*(^|\.)better")
"""Metrics of which a lower, or a higher, value is the better one."""
FOLDED = ("metrics", "promotion")
"""Sections that follow from the others."""


def headline(left: Path, right: Path) -> tuple[str, bool]:
    """(which of two runs is better, by how much, and whether that may be chance; whether they can be compared)."""
    a, b = run_facts.of(left), run_facts.of(right)
    if a.score and b.score and (a.score.condition, a.measured_on) == (b.score.condition, b.measured_on):
        low, high = sorted((a.score, b.score), key=lambda score: score.rate)
        is_apart = low.high is not None and high.low is not None and low.high < high.low
        chance = "their 95 % intervals lie apart" if is_apart else "their 95 % intervals overlap, so it may be chance"
        return _in_words(a.score.condition, a.score.rate, b.score.rate, f"; {chance}"), True
    if a.loss is not None and b.loss is not None and a.validated_on == b.validated_on:
        return _in_words("validation loss", a.loss, b.loss, ""), True
    return "the scores cannot be compared: they are of other rows, or of another profile", False


def _in_words(what: str, a: float, b: float, more: str) -> str:
    if a == b:
        return f"both are equally good: {what} {number(a)}"
    better, share = ("A", b) if a < b else ("B", a)
    change = f" ({abs(a - b) / share:.0%} lower)" if share else ""
    return f"{better} is better: {what} {number(a)} in A, {number(b)} in B{change}{more}"


def show(differences: Sequence[Difference], names: Sequence[str], is_whole: bool, is_judged: bool) -> None:
    """Print the differences as a table. names: of the two runs. is_whole: also what is counted else.

    is_judged: whether a value of one run says anything about one of the other.
    """
    shown = [each for each in differences if is_whole or each.section not in FOLDED or MAIN.fullmatch(each.key)]
    rows = [(f"{d.section}.{d.key}", number(d.left), number(d.right), _judged(d) * is_judged) for d in shown]
    if rows:
        console.print_table(("", *names, "B is"), rows)
    if len(shown) < len(differences):
        more = len(differences) - len(shown)
        print(f"and {more} more metrics; --all shows them" if more > 1 else "and 1 more metric; --all shows it")


def _judged(each: Difference) -> str:
    """Whether the second value is better or worse, where that can be said."""
    both = (each.left, each.right)
    if each.section != "metrics" or not all(isinstance(value, int | float) for value in both):
        return ""
    if LOWER.fullmatch(each.key):
        return "better" if each.right < each.left else "worse"
    if HIGHER.fullmatch(each.key):
        return "better" if each.right > each.left else "worse"
    return ""


def number(value: Any) -> str:
    """A value in a cell: numbers with four digits."""
    if value is ABSENT:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
