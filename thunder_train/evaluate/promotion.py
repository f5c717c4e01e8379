"""Decides GO, RELAXED or NO-GO for an adapter and lists every reason against it, with the rows behind it.

Input: eval.json and the rows of an evaluation, the dataset's manifest, the worker's done.json, and the run's identity.
Output: promotion.json.  The decision is NO-GO unless the files show that every limit holds: a missing value counts
against the adapter.  It is RELAXED where only limits hold that the recipe made weaker than their defaults.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from thunder_train.config.dataset import REAL, SYNTHETIC, UNSTATED
from thunder_train.config.evaluate import Evaluate
from thunder_train.config.promotion import Promotion
from thunder_train.core import files
from thunder_train.core.drop_reasons import LACKING
from thunder_train.evaluate import behind, error_rates, floors, looks, reasons
from thunder_train.evaluate.behind import Rows
from thunder_train.evaluate.reasons import Facts, Reason

SCHEMA = "thunder.promotion/3"
CONDITION = "adapter_gated"
"""The condition that is judged, because only gated text reaches a reader."""
BASELINE = "baseline"
EVIDENCE = REAL
"""The only accepted kind. No recipe can change it: other rows show nothing about a real recogniser."""
ANSWERED = "chrf"
"""The score of a chat that must rise: it counts a part of a right answer, and no length."""
RISING = ("exact", "chrf")
"""Scores of a chat of which more is better; of the others less is."""
MOST_ROWS = 50
"""Most rows that are named behind a reason."""
ENVIRONMENT = ("mlx", "mlx_lm", "platform", "python")
"""Parts of the environment that done.json must record."""


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
    look: int = 1
    """Which look at these test rows the evaluation was."""

    @property
    def reproduction(self) -> str:
        """The command that repeats the run, in a checkout of the commit that holds its manifest."""
        return f"./doit reproduce:{self.recipe}"


def decide(
    evaluation: Facts,
    dataset: Facts,
    done: Facts,
    limits: Promotion,
    run: Run,
    settings: Evaluate | None = None,
    rows: Rows | None = None,
) -> Facts:
    """The content of promotion.json: the decision, the reasons against GO, the limits, and what was judged.

    settings: the recipe's [evaluate]; rows: of the run, to be named behind the reasons; by default none are.
    """
    settings, rows = settings or Evaluate(), rows or Rows()
    is_chat = _is_chat(evaluation)
    against = [*_against(evaluation, dataset, done, limits, run, settings, rows)]
    relaxed = [Reason(text) for text in floors.relaxed(limits, settings, is_chat)]
    return {
        "schema": SCHEMA,
        "decision": "NO-GO" if against else "RELAXED" if relaxed else "GO",
        "reasons": [
            {"text": each.text, "rows": [*behind.first(each.rows, MOST_ROWS)]} for each in (*against, *relaxed)
        ],
        "looks": _look(evaluation, is_chat, run),
        "limits": asdict(limits) | {"condition": CONDITION, "evidence_kind": EVIDENCE},
        "attached": {
            "run_id": run.run_id,
            "datasets": [{"name": dataset.get("dataset", ""), "sha256": run.dataset_sha256}],
            "metrics": _answer_metrics(evaluation) if is_chat else _metrics(evaluation),
            "reproduction": run.reproduction,
        },
    }


def _against(
    evaluation: Facts, dataset: Facts, done: Facts, limits: Promotion, run: Run, settings: Evaluate, rows: Rows
) -> Iterator[Reason]:
    """Every reason for NO-GO, a collapse first: nothing else counts then."""
    yield from _behaviour(evaluation, rows)
    yield from _evidence(dataset, limits)
    yield from _training(dataset, done, run)
    yield from _references(evaluation, dataset, limits, rows)
    if _is_chat(evaluation):
        yield from _answers(evaluation, settings, run)
    else:
        yield from _scores(evaluation, limits, settings, run, rows)
    yield from _decisions(evaluation, limits, rows)
    yield from _adapter(evaluation, done)
    yield from _reproduction(done, run)


def _evidence(dataset: Facts, limits: Promotion) -> Iterator[Reason]:
    """Whether all rows are real, of the declared provenance, and none of train is nearly one of test."""
    declared = {str(each.get("evidence_kind", "unknown")) for each in dataset.get("sources", [])}
    of_rows = {*map(str, dataset.get("evidence_kinds", []))}
    kinds = sorted(declared | of_rows) or ["unknown"]
    if kinds != [EVIDENCE]:
        yield Reason(f"The evidence is {', '.join(kinds)}; only {EVIDENCE} evidence can promote an adapter.")
    if UNSTATED in kinds:
        yield Reason(
            f'A source does not state its evidence; if people checked it, set evidence_kind = "{EVIDENCE}" there.'
        )
    if SYNTHETIC in of_rows and declared == {EVIDENCE}:
        yield Reason(f'Rows say themselves that their mode is synthetic; their source declares "{EVIDENCE}".')
    provenance = dataset.get("provenance") or ""
    if not provenance:
        yield Reason("The provenance of the evidence is not declared; set provenance in [datasets.NAME].")
    elif limits.provenance not in ("", provenance):
        yield Reason(f"The provenance of the evidence is {provenance}; the deployment's is {limits.provenance}.")
    near = reasons.count(dataset.get("near_duplicates_of_train_and_test"))
    if near is None or near > limits.max_near_duplicates:
        most = limits.max_near_duplicates
        yield Reason(f"Pairs of nearly equal texts in train and test: {reasons.shown(near)}; the limit is {most}.")


def _training(dataset: Facts, done: Facts, run: Run) -> Iterator[Reason]:
    """Whether the adapter was trained, on all rows, and without skipped steps."""
    if "imported" in done:
        yield Reason(
            "The adapter was trained elsewhere: nothing shows which rows it has seen, so test rows may be among them."
        )
        return
    if not run.has_known_rows:
        yield Reason("The training began with an adapter of other or unknown rows: test rows may be among them.")
    if not reasons.count(done.get("steps")) or not reasons.count(done.get("trainable_parameters")):
        yield Reason("The adapter may be untrained: done.json records no training step or no trained parameter.")
    for split in ("train", "valid"):
        used, given = (
            reasons.count(done.get("rows", {}).get(split)),
            dataset.get("splits", {}).get(split, {}).get("rows"),
        )
        if used is not None:
            used -= done.get("split", {}).get(split, 0)  # a long row cut into two is one row of the dataset
        if used is None or used != given:
            yield Reason(
                f"Rows of {split} used in training: {reasons.shown(used)}; in the dataset: {reasons.shown(given)}."
            )
    if done.get("skipped_steps") != 0:
        yield Reason(
            f"Training steps skipped because a number was not finite: {reasons.shown(done.get('skipped_steps'))}."
        )


def _references(evaluation: Facts, dataset: Facts, limits: Promotion, rows: Rows) -> Iterator[Reason]:
    """Whether enough test rows were scored, all of them, and none was dropped for want of something to score."""
    counts = evaluation.get("rows", {})
    covered, test = _covered(evaluation), reasons.count(counts.get("test")) or 0
    if _is_unscored(evaluation) and not _is_chat(evaluation):
        yield Reason(why_unscored(counts), behind.without_reference(rows))
    else:
        if covered < limits.min_rows:
            yield Reason(f"{covered} test rows were scored; the limit is {limits.min_rows}.")
        if covered != test:
            missing = f"{test - covered} of {test} test rows have no reference."
            yield Reason(missing, behind.without_reference(rows))
    lost = sum(
        reasons.count(dropped) or 0 for reason, dropped in dataset.get("dropped", {}).items() if reason in LACKING
    )
    if lost:
        what = "for want of a reference or a text: those that are left may be the easy ones"
        yield Reason(f"{lost} rows of the dataset were dropped {what}.", behind.lacking(rows))


def _covered(evaluation: Facts) -> int:
    """Test rows that have an error rate, or an expected answer."""
    counts = evaluation.get("rows", {})
    return sum(reasons.count(counts.get(kind)) or 0 for kind in ("scored", "chat"))


def _is_unscored(evaluation: Facts) -> bool:
    """Whether the evaluation states that it scored no row; an evaluation without that count is judged as any other."""
    return reasons.count(evaluation.get("rows", {}).get("scored")) == 0


def _is_chat(evaluation: Facts) -> bool:
    """Whether no row has a recogniser's text, and some have an expected answer: then the base model is the baseline."""
    return _is_unscored(evaluation) and bool(reasons.count(evaluation.get("answers", {}).get("rows")))


def why_unscored(rows: Facts) -> str:
    """The reason why no test row was scored, as a sentence. rows: their numbers, from eval.json."""
    test, chat, text = (reasons.count(rows.get(kind)) or 0 for kind in ("test", "chat", "text"))
    kinds = {"answers to a chat": chat, "plain text": text, "rows without a reference": test - chat - text}
    listed = " or ".join(kind for kind, count in kinds.items() if count > 0)
    return f"No test row was scored: {f'all {test} are {listed}' if test else 'the dataset has none'}."


def _scores(evaluation: Facts, limits: Promotion, settings: Evaluate, run: Run, rows: Rows) -> Iterator[Reason]:
    """Whether the gated adapter is better than the baseline on all scored rows, whichever profile counts."""
    if _is_unscored(evaluation):
        return  # said once, by _references
    gated, baseline = _line(evaluation, CONDITION), _line(evaluation, BASELINE)
    scored = evaluation.get("rows", {}).get("scored")
    if not gated or gated.get("n") != scored or baseline.get("n") != scored:
        yield Reason(f"The evaluation has no condition {CONDITION} or {BASELINE} over all scored rows.")
    cer, was = reasons.number(gated.get("cer")), reasons.number(baseline.get("cer"))
    if cer is None or was is None:
        yield Reason(f"The CER of {CONDITION} or of the baseline is unknown.")
    elif cer >= was:
        yield Reason(f"The CER of {CONDITION} is {cer:.4f}, not below the baseline's {was:.4f}.")
    yield from reasons.interval("CER", reasons.ends(gated, "delta_pp", "delta", run.look), gated, run.look)
    worse = reasons.count(gated.get("worse"))
    if worse is None or worse > limits.max_worse:
        text = f"Rows made worse by {CONDITION}: {reasons.shown(worse)}; the limit is {limits.max_worse}."
        yield Reason(text, behind.worse(rows, error_rates.deciding(settings)))
    yield from _profiles(evaluation, settings, rows)


def _profiles(evaluation: Facts, settings: Evaluate, rows: Rows) -> Iterator[Reason]:
    """Whether no pooled error rate is higher than the baseline's: a gain in one definition may be harm in another."""
    pooled = [each for each in evaluation.get("profiles", []) if each.get("average") == "pooled"]
    if not pooled:
        yield Reason("The evaluation has no error rates under other profiles.")
    for each in pooled:
        rates = each.get("cer", {})
        cer, was = reasons.number(rates.get(CONDITION)), reasons.number(rates.get(BASELINE))
        if cer is None or was is None:
            yield Reason(f"The error rate under the profile {each.get('name')} is unknown.")
        elif cer > was and each.get("name") != settings.profile:  # said of the deciding one before
            text = f"Under the profile {each.get('name')}, the error rate rises from {was:.4f} to {cer:.4f}."
            profile = error_rates.profiles(settings).get(each.get("name", ""))
            yield Reason(text, behind.worse(rows, profile) if profile else ())


def _answers(evaluation: Facts, settings: Evaluate, run: Run) -> Iterator[Reason]:
    """Whether the adapter's answers are nearer to the expected ones than the base's, and no score says the contrary."""
    answers = evaluation.get("answers", {})
    change = answers.get("change", {})
    facts = {**change, "groups": answers.get("groups"), "too_few_groups": answers.get("too_few_groups")}
    if settings.gate.command:
        yield Reason("The recipe declares a gate, and no answer to a chat passes it.")
    if answers.get("rows") != evaluation.get("rows", {}).get("chat"):
        yield Reason("The answers were not compared on all rows of the chat.")
    yield from reasons.interval(
        "chrF", reasons.ends(facts, ANSWERED, ANSWERED, run.look), facts, run.look, is_rise=True
    )
    for name in ("exact", "cer", "wer"):
        value, ends = (
            reasons.number(change.get(name)),
            [reasons.number(change.get(f"{name}_{end}")) for end in ("low", "high")],
        )
        if value is None:
            yield Reason(f"The change of {name} is unknown.")
        elif None not in ends and (ends[1] < 0 if name in RISING else ends[0] > 0):  # type: ignore[operator]
            yield Reason(f"By {name}, the answers are worse than the base's: {value:+.2f} percentage points.")


def _behaviour(evaluation: Facts, rows: Rows) -> Iterator[Reason]:
    """Whether the answers were checked on all test rows, and no limit is exceeded."""
    probe, counts = evaluation.get("probe", {}), evaluation.get("rows", {})
    if "collapsed" not in probe or probe.get("adapter", {}).get("rows") != _without(counts, "text"):
        yield Reason("The adapter was not checked for degenerate answers on all test rows.")
    for sentence in probe.get("collapsed", []):
        yield Reason(f"The adapter has collapsed: {sentence}.", behind.collapsed(rows, sentence))


def _decisions(evaluation: Facts, limits: Promotion, rows: Rows) -> Iterator[Reason]:
    """Whether the gate decided on each row, kept what must be kept and, where required, gave witnesses of its own."""
    gate, test = evaluation.get("gate", {}), _without(evaluation.get("rows", {}), "text", "chat")
    verdicts = [reasons.count(gate.get(verdict)) for verdict in ("accepted", "rejected")]
    decided = sum(count or 0 for count in verdicts)
    if None in verdicts or decided != test:
        yield Reason(f"The gate decided on {decided} of {reasons.shown(test)} test rows.")
    if changed := behind.changed_in_kept(rows):
        yield Reason(f"Rows of partition stable or novelty that the gate changed: {len(changed)}.", changed)
    witnesses = gate.get("witnesses", {})
    if limits.needs_witness and witnesses.get("valid") != decided:
        missing, malformed = reasons.shown(witnesses.get("missing")), reasons.shown(witnesses.get("malformed"))
        note = "; the built-in gate gives none" if gate.get("kind") == "builtin" else ""
        text = f"Decisions without a witness: {missing}, with a malformed one: {malformed}, of {decided}{note}."
        yield Reason(text, behind.unwitnessed(rows))
    if shared := behind.sharing_witness(rows):
        what = "another slice or recording"
        yield Reason(f"Decisions whose witness is also that of {what}: {len(shared)} of {decided}.", shared)


def _look(evaluation: Facts, is_chat: bool, run: Run) -> Facts:
    """How often these test rows have been looked at, and the interval of the change that a GO needs then."""
    facts, names = _line(evaluation, CONDITION), ("delta_pp", "delta")
    if is_chat:
        answers = evaluation.get("answers", {})
        facts, names = {**answers.get("change", {}), "groups": answers.get("groups")}, (ANSWERED, ANSWERED)
    low, high = reasons.ends(facts, *names, run.look) or (None, None)
    return {
        "count": run.look,
        "test_sha256": evaluation.get("test_sha256", ""),
        "confidence": round(1 - looks.doubt(run.look), 9),
        "low": low,
        "high": high,
    }


def _adapter(evaluation: Facts, done: Facts) -> Iterator[Reason]:
    """Whether the evaluated adapter is the file that the training wrote, by its hash, and its look was counted."""
    trained, answered = done.get("adapter", {}).get("sha256"), evaluation.get("adapter_sha256")
    if not files.is_sha256(trained) or trained != answered:
        names = [str(name)[:12] if name else "unknown" for name in (trained, answered)]
        yield Reason(f"The trained adapter is {names[0]}, the evaluated one is {names[1]}.")
    if _covered(evaluation) and not files.is_sha256(evaluation.get("test_sha256")):
        yield Reason("The evaluation does not say which test rows it looked at, so its look cannot be counted.")


def _reproduction(done: Facts, run: Run) -> Iterator[Reason]:
    """Whether the environment, the data and the base model are recorded."""
    unknown = [name for name in ENVIRONMENT if not done.get("environment", {}).get(name)]
    if unknown:
        yield Reason(f"The run cannot be reproduced: its environment lacks {', '.join(unknown)}.")
    if not run.run_id or not files.is_sha256(run.dataset_sha256):
        yield Reason("The run cannot be reproduced: it has no run id or no manifest of its dataset.")
    locked = run.model.get("files") or []
    is_pinned = run.model.get("kind") != "hub" or run.model.get("commit")
    if not locked or not is_pinned or not all(files.is_sha256(each.get("sha256")) for each in locked):
        yield Reason("The run cannot be reproduced: its base model is not locked.")


def _answer_metrics(evaluation: Facts) -> Facts:
    """The figures of a chat that the decision rests on."""
    answers = evaluation.get("answers", {})
    return {name: answers.get(name) for name in ("rows", "groups", "scores", "change", "better", "same", "worse")}


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
    test = reasons.count(rows.get("test"))
    return None if test is None else test - sum(reasons.count(rows.get(kind)) or 0 for kind in kinds)
