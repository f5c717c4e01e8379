"""Answers to rows of a chat, which have neither hypothesis nor reference, but an answer of their own: the expected one.

Input: predictions.  Output: the "answers" part of eval.json: base and adapter compared with the expected answer, and
with each other, with 95 % intervals that know groups.
Shapes: R rows, S bootstrap samples.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from thunder_train.config.evaluate import Evaluate
from thunder_train.config.profiles import DEFAULT, PROFILES
from thunder_train.core.text import nfc
from thunder_train.evaluate import chrf, error_rates, intervals

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MODELS = ("base", "adapter")
RATES = {"cer": PROFILES[DEFAULT], "wer": PROFILES["wer-nfc-pooled"]}
"""Name of an error rate -> its profile; both are pooled."""
SCORES = ("exact", *RATES, "chrf")
"""exact: share of answers that are the expected one after NFC. cer, wer: error rates. chrf: from 0 to 100."""
EXAMPLES = 5
"""Most rows among the best, and among the worst."""

Row = dict[str, Any]
"""A line of predictions.jsonl."""


def is_chat(row: Row) -> bool:
    """Whether a row belongs to a chat: there is nothing to correct in it."""
    return "question" in row


def compared(predictions: Sequence[Row], settings: Evaluate) -> dict[str, Any]:
    """The "answers" part of eval.json; empty without a row of a chat.

    rows, groups; scores: of each model, with ends of intervals; change: adapter minus base, in percentage points, of
    chrf in points; better, same, worse: rows by the adapter's edits to the expected answer against the base's;
    examples: the rows with the largest differences.
    """
    rows = [row for row in predictions if is_chat(row)]
    if not rows:
        return {}
    groups = [str(row.get("group") or row["id"]) for row in rows]
    edits = {
        model: [error_rates.count(row[model], row["answer"], RATES["cer"]).edits for row in rows] for model in MODELS
    }
    gains = [base - adapter for base, adapter in zip(*edits.values(), strict=True)]
    return {
        "rows": len(rows),
        **intervals.count(groups),
        **_scores(rows, groups, settings),
        "better": sum(gain > 0 for gain in gains),
        "same": sum(gain == 0 for gain in gains),
        "worse": sum(gain < 0 for gain in gains),
        "examples": _examples(rows, gains),
    }


def _scores(rows: Sequence[Row], groups: Sequence[str], settings: Evaluate) -> dict[str, Any]:
    """{"scores", "change"} of all rows together."""
    import numpy as np  # late: `import dodo` must not load numpy

    table = np.array([_counts(row) for row in rows], dtype=np.float64)
    values = _values(table.sum(axis=0, keepdims=True))[0]
    ends: list[tuple[float | None, float | None]] = [(None, None)] * len(values)
    if len(set(groups)) >= intervals.MIN_GROUPS:
        sums = intervals.resampled(table, groups, settings.bootstrap, settings.seed)
        ends = [*intervals.ends(_values(sums), intervals.effective([1.0] * len(rows), groups))]
        _widen(ends, values, len(set(groups)))
    named = [
        {name: float(values[at]), f"{name}_low": ends[at][0], f"{name}_high": ends[at][1]}
        for at, name in enumerate(SCORES * (len(MODELS) + 1))
    ]
    parts = [named[at : at + len(SCORES)] for at in range(0, len(named), len(SCORES))]
    *scores, change = [{key: value for each in part for key, value in each.items()} for part in parts]
    return {
        "scores": [{"model": model, "n": len(rows), **score} for model, score in zip(MODELS, scores, strict=True)],
        "change": change,
    }


def _widen(ends: list[tuple[float | None, float | None]], values: "NDArray[np.float64]", groups: int) -> None:
    """Give `exact` an interval where all groups are alike, as where no answer is right: resamples are then alike too.

    0 right answers of 22 groups say at most 15 %, which no bootstrap can see; of the change, as much to either side.
    """
    for model in range(len(MODELS)):
        at = model * len(SCORES)
        if ends[at][0] == ends[at][1]:
            ends[at] = intervals.of_share(round(float(values[at]) * groups), groups)
    at = len(MODELS) * len(SCORES)
    if ends[at][0] == ends[at][1]:
        change, reach = float(values[at]), 100 * intervals.of_share(0, groups)[1]
        ends[at] = max(-100.0, change - reach), min(100.0, change + reach)


def _counts(row: Row) -> list[int]:
    """What adds up over rows: 1, units expected by each rate; then of each model exact, edits by rate, and chrF's."""
    expected = nfc(row["answer"])
    counted = {name: error_rates.count("", expected, profile).length for name, profile in RATES.items()}
    summed = [1, *counted.values()]
    for model in MODELS:
        text = nfc(row[model])
        edits = [error_rates.count(text, expected, profile).edits for profile in RATES.values()]
        summed += [int(text == expected), *edits, *chrf.counts(text, expected)]
    return summed


def _values(sums: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """(S, 3 x len(SCORES)) scores of base and adapter, and their differences, from (S, K) sums of `_counts`."""
    import numpy as np

    shared, rest = np.split(sums, [1 + len(RATES)], axis=1)
    below = np.maximum(shared, 1)  # a sample may hold only empty answers
    of_models = []
    for each in np.split(rest, len(MODELS), axis=1):
        rates = each[:, : 1 + len(RATES)] / below
        of_models.append(np.column_stack([rates, chrf.score(each[:, 1 + len(RATES) :])]))
    base, adapter = of_models
    points = np.array([100.0] * (1 + len(RATES)) + [1.0])  # chrF is one of 0 to 100 already
    return np.column_stack([base, adapter, points * (adapter - base)])


def _examples(rows: Sequence[Row], gains: Sequence[int]) -> dict[str, list[Row]]:
    """{"best", "worst"}: rows in which the adapter is nearer to the expected answer than the base, or farther."""
    order = sorted(range(len(rows)), key=lambda at: (-gains[at], rows[at]["id"]))
    best = [at for at in order if gains[at] > 0][:EXAMPLES]
    worst = [at for at in reversed(order) if gains[at] < 0][:EXAMPLES]
    names = ("id", "question", "answer", *MODELS)
    return {
        kind: [{name: rows[at][name] for name in names} for at in chosen]
        for kind, chosen in (("best", best), ("worst", worst))
    }
