"""The figures of a run: losses, speed, error rates, lengths and edits.

Input: metrics, done.json, eval.json and the rows of the page.  Output: SVG, "" where there is nothing to draw.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from markupsafe import Markup

from thunder_train.core.text import nfc
from thunder_train.evaluate.conditions import ALL
from thunder_train.report import plots
from thunder_train.report.page_rows import CORRECTION, Row
from thunder_train.report.plots import Interval, Labels, Mark, Series

TEXTS = ("hypothesis", "final text")
"""The two groups of each histogram."""


def all_of(
    done: dict[str, Any], metrics: Sequence[dict[str, Any]], evaluation: dict[str, Any], rows: Sequence[Row]
) -> dict[str, Markup]:
    """Name -> figure. done: done.json.  metrics: lines of metrics.jsonl.  evaluation: eval.json."""
    return {**_training(done, metrics), "rates": _rates(evaluation), **_histograms(rows)}


def tokens_per_second(metrics: Sequence[dict[str, Any]]) -> float:
    """Target tokens per second of all ranks together, over the training steps alone (no validation, no saving)."""
    events = [event for event in metrics if event["event"] == "train" and event["tokens"]]
    seconds = sum(event["tokens"] / event["target_tokens_per_second"] for event in events)
    return sum(event["tokens"] for event in events) / seconds if seconds else 0.0


def _training(done: dict[str, Any], metrics: Sequence[dict[str, Any]]) -> dict[str, Markup]:
    steps, losses = [event for event in metrics if event["event"] == "train"], done["losses"]
    chosen = done.get("chosen")
    mark = Mark(chosen["step"], f"adapter of step {chosen['step']}") if chosen and losses["valid"] else None
    loss = [Series("training", _losses(losses["train"])), Series("validation", _losses(losses["valid"]))]
    speed = [
        Series("targets", _points(steps, "target_tokens_per_second")),
        Series("computed", _points(steps, "computed_tokens_per_second")),
    ]
    figures = {
        "loss": plots.lines(Labels("loss", "Loss per target token", "step", "nats"), loss, is_log=True, mark=mark),
        "speed": plots.lines(Labels("speed", "Tokens per second", "step", "tokens/s"), speed),
    }
    if done.get("world_size", 1) == 1:
        return figures
    skew = [Series("skew", [(step, 1000 * seconds) for step, seconds in _points(steps, "skew_s")])]
    labels = Labels("skew", "Time of the slowest rank minus that of the fastest", "step", "ms")
    return figures | {"skew": plots.lines(labels, skew)}


def _losses(losses: list[list[float]]) -> list[tuple[float, float]]:
    return plots.thinned([(step, loss) for step, loss in losses])


def _points(events: list[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    """(step, value) of the events that have the key."""
    return plots.thinned([(event["step"], event[key]) for event in events if key in event])


def rate_name(evaluation: dict[str, Any]) -> str:
    """The short name of the error rate that decides."""
    return "WER" if evaluation["profile"]["unit"] == "word" else "CER"


def _rates(evaluation: dict[str, Any]) -> Markup:
    rows = [
        Interval(line["condition"].replace("_", " "), line["cer"], line["cer_low"], line["cer_high"])
        for line in evaluation["conditions"]
        if line["partition"] == ALL and line["cer"] is not None
    ]
    unit = "Word" if rate_name(evaluation) == "WER" else "Character"
    return plots.intervals(Labels("rates", f"{unit} error rate by condition", "error rate"), rows)


def _histograms(rows: Sequence[Row]) -> dict[str, Markup]:
    """Lengths of hypotheses and final texts, and their edits to the references."""
    judged = [row for row in rows if row.kind == CORRECTION]
    lengths = [[len(nfc(row.given)) for row in judged], [len(nfc(row.final)) for row in judged]]
    edits = [*zip(*_edits(judged), strict=True)] or [(), ()]
    of_lengths = Labels("lengths", "Lengths of the test rows", "code points", "rows")
    of_edits = Labels("edits", "Edits from a text to its reference", "edits", "rows")
    return {
        "lengths": plots.bars(of_lengths, TEXTS, plots.binned(lengths)),
        "edits": plots.bars(of_edits, TEXTS, plots.binned(edits)),
    }


def _edits(rows: Sequence[Row]) -> Iterator[tuple[int, int]]:
    for row in rows:
        if row.before and row.after:
            yield row.before.edits, row.after.edits
