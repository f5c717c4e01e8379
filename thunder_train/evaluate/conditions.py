"""Where the edits are: letters that are taken for each other, and the rows that an adapter helps and harms most.

Predictions and verdicts -> error rates by condition and partition, behaviour of the answers, telling examples.

Input: the predictions and losses that the worker left, and the gate's decisions.  Output: eval.json.  A prediction
counts only if its row has a reference.  The profile of [evaluate] decides; the others are told beside it.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rapidfuzz.distance import Editops, Levenshtein

from thunder_train.config import project
from thunder_train.evaluate import collapse, error_rates, gate
from thunder_train.evaluate.error_rates import PROFILES, Counted, Profile, clusters, count, nfc, weighed

CONFUSIONS = 20
SHOWN = 5
"""Best rows, and worst rows."""


def confusions(pairs: Iterable[tuple[str, str]], most: int = CONFUSIONS) -> list[list[Any]]:
    """The most frequent [piece of the reference, piece of the text, count]; pairs: (text, reference).

    A piece is a letter with its marks; "" on one side means that it was left out or put in. Of several alignments with
    as few edits, one is taken, the same each time.
    """
    found: Counter[tuple[str, str]] = Counter()
    for text, reference in pairs:
        written, spoken = clusters(nfc(text)), clusters(nfc(reference))
        for edit in Levenshtein.editops(_numbers(spoken, written), _numbers(written, spoken)):
            piece = spoken[edit.src_pos] if edit.tag != "insert" else ""
            found[piece, written[edit.dest_pos] if edit.tag != "delete" else ""] += 1
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return [[*pieces, number] for pieces, number in ordered[:most]]


def extremes(rows: list[dict[str, Any]], finals: list[str], profile: Profile) -> dict[str, list[dict[str, Any]]]:
    """The rows whose proposal removes ("best") and adds ("worst") the most edits; neither holds an unmoved row.

    rows: predictions with a reference.  finals: each row's text after the gate.  Edits are those of the adapter's own
    proposal, in the profile's unit: what the gate held back is worth seeing.
    """
    shown = [_example(row, final, profile) for row, final in zip(rows, finals, strict=True)]
    best = sorted(shown, key=lambda each: (_added(each), each["id"]))
    worst = sorted(shown, key=lambda each: (-_added(each), each["id"]))
    return {
        "best": [each for each in best[:SHOWN] if _added(each) < 0],
        "worst": [each for each in worst[:SHOWN] if _added(each) > 0],
    }


def _example(row: dict[str, Any], final: str, profile: Profile) -> dict[str, Any]:
    reference = row["reference_text"]
    return {name: row[name] for name in ("id", "partition", "asr_text", "reference_text", "adapter")} | {
        "final": final,
        "edits_before": count(row["asr_text"], reference, profile).edits,
        "edits_after": count(row["adapter"], reference, profile).edits,
    }


def _added(example: dict[str, Any]) -> int:
    added: int = example["edits_after"] - example["edits_before"]
    return added


def _numbers(pieces: list[str], others: list[str]) -> list[int]:
    """Each piece as a number, the same on both sides: rapidfuzz compares pieces by hash, and numbers never collide."""
    known = {piece: number for number, piece in enumerate(sorted({*pieces, *others}))}
    return [known[piece] for piece in pieces]


SCHEMA = "thunder.eval/2"
ALL = "all"
"""The name of all partitions together."""
MODELS = ("base", "adapter")

Prediction = dict[str, Any]


@dataclass(frozen=True)
class Text:
    """What one condition makes of one row. is_accepted: whether the gate took a proposal; None if it is not asked."""

    text: str
    is_accepted: bool | None = None


@dataclass(frozen=True)
class Scored:
    """The same, compared with the reference and the hypothesis."""

    counted: Counted
    is_changed: bool
    """Whether it differs from the hypothesis after NFC."""
    is_accepted: bool | None


def judge(
    predictions: list[Prediction],
    decisions: dict[str, dict[str, Any]],
    losses: dict[str, Any],
    settings: project.Evaluate,
    where: str,
) -> tuple[gate.Judged, dict[str, Any]]:
    """(the gate's decisions on the predictions, the content of eval.json).

    decisions: id -> line of the dataset's decisions.jsonl, for its telemetry. losses: content of losses.json. where:
    the recipe's key that an error of an external gate names.
    """
    rows = [row | {"telemetry": decisions.get(row["id"], {}).get("telemetry", {})} for row in predictions]
    judged = gate.judge(rows, settings.gate, where)
    return judged, evaluate(rows, judged, losses, settings, losses["adapter_sha256"])


def evaluate(
    predictions: list[Prediction],
    judged: gate.Judged,
    losses: dict[str, Any],
    settings: project.Evaluate,
    adapter_sha256: str = "",
) -> dict[str, Any]:
    """The content of eval.json. Without a row that has a reference there are no lines of conditions.

    predictions: lines of predictions.jsonl.  judged: the gate's decisions on them.  losses: {"base", "adapter",
    "environment"}.  adapter_sha256: of the adapter's file that gave these answers.
    """
    rows = [row for row in predictions if row["reference_text"].strip()]
    texts, decisive = conditions(rows, judged, settings), PROFILES[settings.profile]
    finals = [each.text for each in texts["adapter_gated"]]
    return {
        "schema": SCHEMA,
        "adapter_sha256": adapter_sha256,
        "losses": {model: losses[model] for model in MODELS},
        "environment": losses["environment"],
        "profile": error_rates.described(decisive),
        "profiles": [_rates(rows, texts, profile) for profile in PROFILES.values()],
        "rows": {"test": len(predictions), "scored": len(rows)},
        "conditions": _table(rows, texts, settings),
        "probe": collapse.behaviour(predictions, settings.probe),
        "gate": gate.summary(judged),
        "confusions": confusions((row["asr_text"], row["reference_text"]) for row in rows),
        "examples": extremes(rows, finals, decisive),
    }


def conditions(rows: list[Prediction], judged: gate.Judged, settings: project.Evaluate) -> dict[str, list[Text]]:
    """Condition -> its text of each row, the baseline first.

    Blind: every proposal is taken.  Gated: those that the gate took.  Oracle: the best that the gate would take.
    """
    by_id = {each["id"]: each for each in judged.decisions}
    decisions = [by_id[row["id"]] for row in rows]
    return {
        "baseline": [Text(row["asr_text"]) for row in rows],
        "base_blind": [Text(row["base"]) for row in rows],
        "adapter_blind": [Text(row["adapter"]) for row in rows],
        "adapter_gated": [Text(each["final"], each["verdict"] == gate.ACCEPT) for each in decisions],
        "oracle_gated": [_best(row, each, settings) for row, each in zip(rows, decisions, strict=True)],
    }


def _best(row: Prediction, decision: dict[str, Any], settings: project.Evaluate) -> Text:
    """The best that the gate would let through.

    Built-in: the reference, or what lies as far towards it as the edit budget goes; no accepted text is nearer.
    An external gate is not asked about texts that nobody proposed: what it accepted is taken unless that does harm.
    """
    hypothesis = row["asr_text"]
    if settings.gate.command:
        profile, text = PROFILES[settings.profile], decision["final"]
        is_harmful = _count(row, text, profile).edits > _count(row, hypothesis, profile).edits
        is_taken = decision["verdict"] == gate.ACCEPT and not is_harmful
    else:
        text = _towards(hypothesis, row["reference_text"], gate.edit_budget(hypothesis, settings.gate))
        is_taken = gate.rule(row["partition"], hypothesis, text, settings.gate).verdict == gate.ACCEPT
    return Text(text if is_taken else hypothesis, is_taken)


def _towards(text: str, reference: str, budget: int) -> str:
    """The text after `budget` of the fewest edits that make it the reference, which is not blank: the first ones.

    A gate takes no blank text: where that is made, its last edit makes room for the next one that writes a letter.
    """
    text, reference = nfc(text), nfc(reference)
    edits: list[Any] = list(Levenshtein.editops(text, reference))
    made = _applied(edits[:budget], text, reference)
    if budget == 0 or made.strip():
        return made
    letter = next(edit for edit in edits[budget:] if edit.tag != "delete" and reference[edit.dest_pos].strip())
    return _applied([*edits[: budget - 1], letter], text, reference)


def _applied(edits: list[Any], text: str, reference: str) -> str:
    return Editops(edits, len(text), len(reference)).apply(text, reference)


def _rates(rows: list[Prediction], texts: dict[str, list[Text]], profile: Profile) -> dict[str, Any]:
    """A profile, and the rate of each condition under it over all rows."""
    counted = _counted(rows, texts, profile)
    return error_rates.described(profile) | {
        "cer": {name: error_rates.rate(each, profile) for name, each in counted.items()}
    }


def _counted(rows: list[Prediction], texts: dict[str, list[Text]], profile: Profile) -> dict[str, list[Counted]]:
    """Edits and length of each row under each condition."""
    found: dict[str, list[Counted]] = {condition: [] for condition in texts}
    for row, own in zip(rows, zip(*texts.values(), strict=True), strict=True):
        counts = {text: _count(row, text, profile) for text in {each.text for each in own}}  # often the same text
        for condition, each in zip(texts, own, strict=True):
            found[condition].append(counts[each.text])
    return found


def _table(rows: list[Prediction], texts: dict[str, list[Text]], settings: project.Evaluate) -> list[dict[str, Any]]:
    """A line per condition and partition, "all" first; none without rows."""
    counted = _counted(rows, texts, PROFILES[settings.profile])
    scored = {
        condition: [
            Scored(count, nfc(each.text) != nfc(row["asr_text"]), each.is_accepted)
            for row, each, count in zip(rows, own, counted[condition], strict=True)
        ]
        for condition, own in texts.items()
    }
    groups = {ALL: list(range(len(rows)))} if rows else {}
    for name in sorted({row["partition"] for row in rows} - {ALL}):
        groups[name] = [number for number, row in enumerate(rows) if row["partition"] == name]
    lines = {
        name: _lines({condition: [own[number] for number in group] for condition, own in scored.items()}, settings)
        for name, group in groups.items()
    }
    return [
        {"condition": condition, "partition": name, **lines[name][condition]} for condition in texts for name in groups
    ]


def _lines(scored: dict[str, list[Scored]], settings: project.Evaluate) -> dict[str, dict[str, Any]]:
    """Condition -> its line of the table, over one group of rows."""
    profile, baseline = PROFILES[settings.profile], scored["baseline"]
    weights = [weighed(row.counted, profile)[1] for row in baseline]
    errors = {name: [weighed(row.counted, profile)[0] for row in own] for name, own in scored.items()}
    ends = error_rates.paired(list(errors.values()), weights, settings.bootstrap, settings.seed)
    first, weight = math.fsum(errors["baseline"]), sum(weights)
    return {
        name: {
            "n": len(own),
            "cer": math.fsum(errors[name]) / weight if weight else None,
            "delta_pp": 100 * (math.fsum(errors[name]) - first) / weight if weight else None,
            **_moves(own, baseline),
            **interval._asdict(),
        }
        for (name, own), interval in zip(scored.items(), ends, strict=True)
    }


def _moves(own: list[Scored], baseline: list[Scored]) -> dict[str, Any]:
    """What became of the rows. better, same and worse divide the changed ones by the profile's own edits.

    accept_rate: accepted / rows.  false_accept_rate: accepted and worse / accepted.  None where no gate is asked, and
    where it accepted nothing.
    """
    gains = [before.counted.edits - row.counted.edits for row, before in zip(own, baseline, strict=True)]
    changed = [gain for gain, row in zip(gains, own, strict=True) if row.is_changed]
    accepted = [gain for gain, row in zip(gains, own, strict=True) if row.is_accepted]
    is_asked = any(row.is_accepted is not None for row in own)
    return {
        "changed": len(changed),
        "better": sum(gain > 0 for gain in changed),
        "same": sum(gain == 0 for gain in changed),
        "worse": sum(gain < 0 for gain in changed),
        "accept_rate": len(accepted) / len(own) if is_asked else None,
        "false_accept_rate": sum(gain < 0 for gain in accepted) / len(accepted) if accepted else None,
    }


def _count(row: Prediction, text: str, profile: Profile) -> Counted:
    return error_rates.count(text, row["reference_text"], profile)
