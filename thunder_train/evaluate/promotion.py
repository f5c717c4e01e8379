"""Decides GO or NO-GO for an adapter and lists every reason against it.

Input: eval.json, the dataset's manifest, the worker's done.json, and the run's identity.  Output: promotion.json.
The decision is NO-GO unless the files show that every limit holds: a missing value counts against the adapter.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from thunder_train.config.promotion import Promotion
from thunder_train.core import files

SCHEMA = "thunder.promotion/2"
CONDITION = "adapter_gated"
"""The condition that is judged, because only gated text reaches a reader."""
BASELINE = "baseline"
EVIDENCE = "real"
"""The only accepted kind. No recipe can change it: other rows show nothing about a real recogniser."""
UNSTATED = "unstated"
"""The kind of a source that declares none."""
ENVIRONMENT = ("mlx", "mlx_lm", "platform", "python")
"""Parts of the environment that done.json must record."""

Facts = dict[str, Any]
"""The content of a JSON file."""


@dataclass(frozen=True)
class Run:
    """What identifies a run and makes it reproducible."""

    recipe: str
    run_id: str
    dataset_sha256: str
    """sha256 of data/<dataset>/manifest.json."""
    model: Facts
    """The content of model.lock.json."""
    has_known_rows: bool = True
    """Whether all trainings behind the adapter read the training rows of this dataset."""

    @property
    def reproduction(self) -> str:
        """The command that repeats the run, in a checkout of the commit that holds its manifest."""
        return f"./doit reproduce:{self.recipe}"


def decide(evaluation: Facts, dataset: Facts, done: Facts, limits: Promotion, run: Run) -> Facts:
    """The content of promotion.json: the decision, the reasons against GO, the limits, and what was judged."""
    reasons = [
        *_evidence(dataset, limits),
        *_training(dataset, done, run),
        *_references(evaluation, limits),
        *_scores(evaluation, limits),
        *_behaviour(evaluation),
        *_decisions(evaluation, limits),
        *_adapter(evaluation, done),
        *_reproduction(done, run),
    ]
    return {
        "schema": SCHEMA,
        "decision": "NO-GO" if reasons else "GO",
        "reasons": reasons,
        "limits": asdict(limits) | {"condition": CONDITION, "evidence_kind": EVIDENCE},
        "attached": {
            "run_id": run.run_id,
            "datasets": [{"name": dataset.get("dataset", ""), "sha256": run.dataset_sha256}],
            "metrics": _metrics(evaluation),
            "reproduction": run.reproduction,
        },
    }


def _evidence(dataset: Facts, limits: Promotion) -> Iterator[str]:
    """Whether all rows are real, and of the provenance that the recipe requires."""
    declared = {
        *dataset.get("evidence_kinds", []),
        *(each.get("evidence_kind", "unknown") for each in dataset.get("sources", [])),
    }
    kinds = sorted(map(str, declared)) or ["unknown"]
    if kinds != [EVIDENCE]:
        yield f"The evidence is {', '.join(kinds)}; only {EVIDENCE} evidence can promote an adapter."
    if UNSTATED in kinds:
        yield f'A source does not state its evidence; if people checked it, set evidence_kind = "{EVIDENCE}" there.'
    provenance = dataset.get("provenance") or "unknown"
    if limits.provenance not in ("", provenance):
        yield f"The provenance of the evidence is {provenance}; the deployment's is {limits.provenance}."


def _training(dataset: Facts, done: Facts, run: Run) -> Iterator[str]:
    """Whether the adapter was trained, on all rows, and without skipped steps."""
    if "imported" in done:
        yield "The adapter was trained elsewhere: nothing shows which rows it has seen, so test rows may be among them."
        return
    if not run.has_known_rows:
        yield "The training began with an adapter of other or unknown rows: test rows may be among them."
    if not _count(done.get("steps")) or not _count(done.get("trainable_parameters")):
        yield "The adapter may be untrained: done.json records no training step or no trained parameter."
    for split in ("train", "valid"):
        used, given = _count(done.get("rows", {}).get(split)), dataset.get("splits", {}).get(split, {}).get("rows")
        if used is not None:
            used -= done.get("split", {}).get(split, 0)  # a long row cut into two is one row of the dataset
        if used is None or used != given:
            yield f"Rows of {split} used in training: {_shown(used)}; in the dataset: {_shown(given)}."
    if done.get("skipped_steps") != 0:
        yield f"Training steps skipped because a number was not finite: {_shown(done.get('skipped_steps'))}."


def _references(evaluation: Facts, limits: Promotion) -> Iterator[str]:
    """Whether enough test rows were scored, and all of them."""
    rows = evaluation.get("rows", {})
    scored, test = _count(rows.get("scored")) or 0, _count(rows.get("test")) or 0
    if _is_unscored(evaluation):
        yield why_unscored(rows)
        return
    if scored < limits.min_rows:
        yield f"{scored} test rows were scored; the limit is {limits.min_rows}."
    if scored != test:
        yield f"{test - scored} of {test} test rows have no reference."


def _is_unscored(evaluation: Facts) -> bool:
    """Whether the evaluation states that it scored no row; an evaluation without that count is judged as any other."""
    return _count(evaluation.get("rows", {}).get("scored")) == 0


def why_unscored(rows: Facts) -> str:
    """The reason why no test row was scored, as a sentence. rows: their numbers, from eval.json."""
    test, chat, text = (_count(rows.get(kind)) or 0 for kind in ("test", "chat", "text"))
    kinds = {"answers to a chat": chat, "plain text": text, "rows without a reference": test - chat - text}
    listed = " or ".join(kind for kind, count in kinds.items() if count > 0)
    return f"No test row was scored: {f'all {test} are {listed}' if test else 'the dataset has none'}."


def _scores(evaluation: Facts, limits: Promotion) -> Iterator[str]:
    """Whether the gated adapter is better than the baseline on all scored rows."""
    if _is_unscored(evaluation):
        return  # said once, by _references
    gated, baseline = _line(evaluation, CONDITION), _line(evaluation, BASELINE)
    scored = evaluation.get("rows", {}).get("scored")
    if not gated or gated.get("n") != scored or baseline.get("n") != scored:
        yield f"The evaluation has no condition {CONDITION} or {BASELINE} over all scored rows."
    cer, was = _number(gated.get("cer")), _number(baseline.get("cer"))
    if cer is None or was is None:
        yield f"The CER of {CONDITION} or of the baseline is unknown."
    elif cer >= was:
        yield f"The CER of {CONDITION} is {cer:.4f}, not below the baseline's {was:.4f}."
    low, high = _number(gated.get("delta_low")), _number(gated.get("delta_high"))
    if low is None or high is None:
        yield "The change of CER has no 95 % interval."
    elif high >= 0:
        yield f"The change of CER may be none: its 95 % interval is {low:+.2f} to {high:+.2f} percentage points."
    worse = _count(gated.get("worse"))
    if worse is None or worse > limits.max_worse:
        yield f"Rows made worse by {CONDITION}: {_shown(worse)}; the limit is {limits.max_worse}."


def _behaviour(evaluation: Facts) -> Iterator[str]:
    """Whether the answers were checked on all test rows, and no limit is exceeded."""
    probe, rows = evaluation.get("probe", {}), evaluation.get("rows", {})
    if "collapsed" not in probe or probe.get("adapter", {}).get("rows") != _without(rows, "text"):
        yield "The adapter was not checked for degenerate answers on all test rows."
    for sentence in probe.get("collapsed", []):
        yield f"The adapter has collapsed: {sentence}."


def _decisions(evaluation: Facts, limits: Promotion) -> Iterator[str]:
    """Whether the gate decided on each row and, where required, gave a valid witness."""
    gate, test = evaluation.get("gate", {}), _without(evaluation.get("rows", {}), "text", "chat")
    verdicts = [_count(gate.get(verdict)) for verdict in ("accepted", "rejected")]
    decided = sum(count or 0 for count in verdicts)
    if None in verdicts or decided != test:
        yield f"The gate decided on {decided} of {_shown(test)} test rows."
    witnesses = gate.get("witnesses", {})
    if limits.needs_witness and witnesses.get("valid") != decided:
        missing, malformed = _shown(witnesses.get("missing")), _shown(witnesses.get("malformed"))
        note = "; the built-in gate gives none" if gate.get("kind") == "builtin" else ""
        yield f"Decisions without a witness: {missing}, with a malformed one: {malformed}, of {decided}{note}."


def _adapter(evaluation: Facts, done: Facts) -> Iterator[str]:
    """Whether the evaluated adapter is the file that the training wrote, by its hash."""
    trained, answered = done.get("adapter", {}).get("sha256"), evaluation.get("adapter_sha256")
    if not files.is_sha256(trained) or trained != answered:
        names = [str(name)[:12] if name else "unknown" for name in (trained, answered)]
        yield f"The trained adapter is {names[0]}, the evaluated one is {names[1]}."


def _reproduction(done: Facts, run: Run) -> Iterator[str]:
    """Whether the environment, the data and the base model are recorded."""
    unknown = [name for name in ENVIRONMENT if not done.get("environment", {}).get(name)]
    if unknown:
        yield f"The run cannot be reproduced: its environment lacks {', '.join(unknown)}."
    if not run.run_id or not files.is_sha256(run.dataset_sha256):
        yield "The run cannot be reproduced: it has no run id or no manifest of its dataset."
    locked = run.model.get("files") or []
    is_pinned = run.model.get("kind") != "hub" or run.model.get("commit")
    if not locked or not is_pinned or not all(files.is_sha256(each.get("sha256")) for each in locked):
        yield "The run cannot be reproduced: its base model is not locked."


def _metrics(evaluation: Facts) -> Facts:
    """The figures that the decision rests on, with their error-rate profile."""
    gated, baseline = _line(evaluation, CONDITION), _line(evaluation, BASELINE)
    names = ("n", "cer", "cer_low", "cer_high", "delta_pp", "delta_low", "delta_high", "changed", "worse")
    return {
        "condition": CONDITION,
        "baseline_cer": baseline.get("cer"),
        **{name: gated.get(name) for name in names},
        "profile": {name: evaluation.get("profile", {}).get(name) for name in ("name", "sha256")},
    }


def _line(evaluation: Facts, condition: str) -> Facts:
    """A condition's line over all partitions; empty if there is none, or more than one."""
    lines = [
        line
        for line in evaluation.get("conditions", [])
        if (line.get("condition"), line.get("partition")) == (condition, "all")
    ]
    return lines[0] if len(lines) == 1 else {}


def _without(rows: Facts, *kinds: str) -> int | None:
    """Test rows that are not of these kinds: a row of plain text has no answer, a row of a chat nothing to correct."""
    test = _count(rows.get("test"))
    return None if test is None else test - sum(_count(rows.get(kind)) or 0 for kind in kinds)


def _number(value: Any) -> float | None:
    """A finite number, else None: NaN would pass every limit, because its comparisons are false."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and math.isfinite(value) else None


def _count(value: Any) -> int | None:
    """A whole number of at least 0, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _shown(count: Any) -> str:
    return "unknown" if count is None else str(count)
