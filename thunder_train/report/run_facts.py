"""What is known of each run that has a manifest: settings, losses, scores, decision, date and duration.

The manifest is committed, so a clone knows all but date and duration, which timing.json tells where a run was trained.
"""

import datetime
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thunder_train import ThunderError
from thunder_train.core import files
from thunder_train.core.text import printable
from thunder_train.evaluate.conditions import ALL
from thunder_train.reproduce import compare, manifest

NAMED = ("model", "dataset", "cluster")
"""Parts of a manifest's recipe that the table shows by name; `doit compare` shows what is in them."""
SETTINGS = ("train", "adapter", "evaluate")
"""Parts of it whose keys are shown."""
SCORED = ("adapter_gated", "adapter_blind")
"""Conditions that score a run, the decisive one first."""


@dataclass(frozen=True)
class Score:
    """An error rate with its 95 % interval; None where there is none."""

    condition: str
    rate: float
    low: float | None
    high: float | None
    baseline: float | None


@dataclass(frozen=True)
class Facts:
    """A run. losses: (step, nats per target) of its validations. seconds: of the training; date: its day, ISO."""

    name: str
    run_id: str
    settings: dict[str, Any]
    """Dotted key: value."""
    losses: list[tuple[int, float]]
    score: Score | None
    decision: str
    measured_on: str
    """A digest of dataset, test rows and profile: scores of runs with the same may be compared."""
    validated_on: str
    """The same for validation losses: dataset and its validation rows."""
    date: str = ""
    seconds: float | None = None

    @property
    def loss(self) -> float | None:
        """The best validation loss."""
        return min((loss for _, loss in self.losses), default=None)


@dataclass(frozen=True)
class Runs:
    """All runs, by name. differing: keys of settings in which they differ. problems: manifests that cannot be read."""

    runs: list[Facts]
    differing: tuple[str, ...] = ()
    problems: list[str] = field(default_factory=list)


def gather(root: Path, names: Iterable[str] | None = None) -> Runs:
    """The runs of a project, or those of these names."""
    chosen = None if names is None else {*names}
    runs, problems = [], []
    for path in sorted((root / "runs").glob("*/manifest.json")):
        if chosen is not None and path.parent.name not in chosen:
            continue
        try:
            runs.append(of(path))
        except ThunderError as problem:
            problems.append(printable(str(problem)))
        except (KeyError, TypeError, ValueError, AttributeError, LookupError):
            problems.append(f"{printable(str(path))}: its metrics have another format; build the run again")
    return Runs(runs, differing([run.settings for run in runs]), problems)


def of(path: Path) -> Facts:
    """The facts of a manifest."""
    run = manifest.read(path)
    metrics, recipe = run["metrics"], run["recipe"]
    splits = {name: each["sha256"] for name, each in run["inputs"]["splits"].items()}
    settings = {part: recipe[part]["name"] for part in NAMED}
    for part in SETTINGS:
        settings |= compare.flattened(recipe.get(part, {}), part)
    date, seconds = _timing(path.parent / "timing.json")
    return Facts(
        name=path.parent.name,
        run_id=str(run["run_id"]),
        settings=settings,
        losses=[(int(step), float(loss)) for step, loss in metrics["losses"].get("valid", [])],
        score=_score(metrics["conditions"]),
        decision=str(run["promotion"]["decision"]),
        measured_on=files.digest([splits.get("test"), metrics["profile"]["name"]]),
        validated_on=files.digest([splits.get("valid"), recipe["model"]["name"]]),
        date=date,
        seconds=seconds,
    )


def differing(settings: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Keys that do not have one value in all runs, in their order."""
    keys = dict.fromkeys(key for each in settings for key in each)
    return tuple(key for key in keys if len({files.json_line(each.get(key)) for each in settings}) > 1)


def best(runs: Sequence[Facts]) -> Iterator[str]:
    """Names of the best runs: of each group whose scores may be compared the lowest, if there are two or more.

    By the error rate of the decisive condition; where rows have no such rate, by validation loss.
    """
    groups: dict[str, list[tuple[float, str]]] = {}
    for run in runs:
        if run.score:
            groups.setdefault(f"{run.score.condition} {run.measured_on}", []).append((run.score.rate, run.name))
        elif run.loss is not None:
            groups.setdefault(f"loss {run.validated_on}", []).append((run.loss, run.name))
    for members in groups.values():
        if len(members) > 1:
            yield min(members)[1]


def _score(conditions: list[dict[str, Any]]) -> Score | None:
    lines = {line["condition"]: line for line in conditions if line["partition"] == ALL}
    baseline = lines.get("baseline", {}).get("cer")
    for condition in SCORED:
        line = lines.get(condition)
        if line and line["cer"] is not None:
            return Score(condition, float(line["cer"]), line["cer_low"], line["cer_high"], baseline)
    return None


def _timing(path: Path) -> tuple[str, float | None]:
    """Day and seconds of a training; of a run that was made elsewhere neither is known."""
    try:
        facts = files.read_json(path)
        day = datetime.datetime.fromtimestamp(path.stat().st_mtime).date().isoformat()
        return str(facts.get("ended", day))[:10], float(facts["seconds"])
    except (ThunderError, OSError, ValueError, KeyError, TypeError, OverflowError):
        return "", None
