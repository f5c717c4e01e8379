"""Scores of a run's predictions under each condition: the content of eval.json.

Input: predictions.jsonl, the losses that the worker measured, and the gate's decisions.  Output: error rates by
condition and partition, degenerate answers and confused letters.  Only rows with a reference are scored;
that of a silent row is empty.  The profile chosen in [evaluate] decides; the rates under all profiles are reported
beside it.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from rapidfuzz.distance import Editops, Levenshtein

from thunder_train.config.evaluate import Evaluate
from thunder_train.config.profiles import Profile
from thunder_train.core.characters import Orthography
from thunder_train.core.text import clusters, nfc
from thunder_train.evaluate import chat_answers, collapse, error_rates, gate, intervals, looks, silence
from thunder_train.evaluate.error_rates import Counted, count, deciding, weighed

SCHEMA = "thunder.eval/3"
ALL = "all"
"""Name, beside the partitions', of all rows together."""
MODELS = ("base", "adapter")
LARGEST = 700
"""Largest loss whose perplexity is a number of 64 bits."""
CONFUSIONS = 20
"""Maximum number of confusions in eval.json."""

Prediction = dict[str, Any]
"""A line of predictions.jsonl."""


@dataclass(frozen=True)
class Text:
    """The text of one row under one condition. is_accepted: the gate's verdict; None if no gate is asked.

    raw: the text with the blanks around it, where it has some.
    """

    text: str
    is_accepted: bool | None = None
    raw: str | None = None

    def under(self, profile: Profile) -> str:
        """The text that a profile counts: raw is raw."""
        return self.raw if profile.is_raw and self.raw is not None else self.text


@dataclass(frozen=True)
class Scored:
    """One row under one condition, compared with its reference and its hypothesis."""

    counted: Counted
    is_changed: bool
    """Whether the text differs from the hypothesis after NFC."""
    is_accepted: bool | None


def judge(
    predictions: list[Prediction],
    decisions: dict[str, dict[str, Any]],
    losses: dict[str, Any],
    settings: Evaluate,
    where: str,
    telemetry: Collection[str] = (),
    table: Orthography | None = None,
) -> tuple[gate.Judged, dict[str, Any]]:
    """Run the gate on the predictions and score them: (the gate's decisions, the content of eval.json).

    decisions: id -> line of the dataset's decisions.jsonl; only its telemetry is used. losses: content of losses.json.
    where: the recipe's key, for errors of an external gate. telemetry: names of what such a gate may see of it.
    table: the dataset's orthography.
    """
    rows = [row | {"telemetry": decisions.get(row["id"], {}).get("telemetry", {})} for row in predictions]
    asked = [row for row in rows if not chat_answers.is_chat(row)]
    judged = gate.judge(asked, settings.gate, where, telemetry, table)
    return judged, evaluate(rows, judged, losses, settings, losses["adapter_sha256"])


def evaluate(
    predictions: list[Prediction],
    judged: gate.Judged,
    losses: dict[str, Any],
    settings: Evaluate,
    adapter_sha256: str = "",
) -> dict[str, Any]:
    """The content of eval.json. Without a row that has a reference, "conditions" is empty.

    judged: the gate's decisions on the predictions that are no chat.  losses: {"base", "adapter", "environment"}, and
    "text_rows", the number of rows that have no question.  adapter_sha256: of the adapter file that gave the answers.
    Members about rows that a dataset has not are left out.
    """
    rows = [row for row in predictions if row["reference_text"].strip() or silence.is_silent(row)]
    texts, profile = conditions(rows, judged, settings), deciding(settings)
    answers = chat_answers.compared(predictions, settings)
    silent = silence.invented(rows, {name: [text.text for text in each] for name, each in texts.items()})
    unasked = losses.get("text_rows", 0)
    kinds = {"silent": silent.get("rows"), "chat": answers.get("rows"), "text": unasked}
    counts = {"test": len(predictions) + unasked, "scored": len(rows)}
    return {
        "schema": SCHEMA,
        "adapter_sha256": adapter_sha256,
        "test_sha256": looks.test_rows(predictions),
        "losses": {model: {split: _with_perplexity(each) for split, each in losses[model].items()} for model in MODELS},
        "environment": losses["environment"],
        "profile": error_rates.described(profile),
        "profiles": [_rates(rows, texts, each) for each in error_rates.profiles(settings).values()],
        "rows": counts | {kind: count for kind, count in kinds.items() if count},
        "conditions": _table(rows, texts, settings),
        "probe": collapse.behaviour(predictions, settings.probe),
        "gate": gate.summary(judged),
        "confusions": confusions((row["asr_text"], row["reference_text"]) for row in rows if row["reference_text"]),
        **({"silence": silent} if silent else {}),
        **({"answers": answers} if answers else {}),
    }


def _with_perplexity(measured: dict[str, Any]) -> dict[str, Any]:
    """The loss of a split with its perplexity, e to the loss: from how many equally likely tokens the model chooses."""
    loss = measured["loss"]
    return measured | {"perplexity": None if loss is None or loss > LARGEST else math.exp(loss)}


def conditions(rows: list[Prediction], judged: gate.Judged, settings: Evaluate) -> dict[str, list[Text]]:
    """Condition -> the text of each row, the baseline first.

    Blind: every proposal is accepted.  Gated: only those that the gate accepted.  Oracle: the best text that the gate
    would accept, an upper bound for any adapter behind this gate.
    """
    by_id = {each["id"]: each for each in judged.decisions}
    decisions = [by_id[row["id"]] for row in rows]
    return {
        "baseline": [_text(row, "asr_text") for row in rows],
        "base_blind": [_text(row, "base") for row in rows],
        "adapter_blind": [_text(row, "adapter") for row in rows],
        "adapter_gated": [
            _gated(row, each["final"], each["verdict"] == gate.ACCEPT)
            for row, each in zip(rows, decisions, strict=True)
        ],
        "oracle_gated": [_oracle(row, each, settings, judged.table) for row, each in zip(rows, decisions, strict=True)],
    }


def _text(row: Prediction, name: str) -> Text:
    return Text(row[name], raw=row.get("raw", {}).get(name))


def _gated(row: Prediction, final: str, is_accepted: bool) -> Text:
    """The text after a gate, with the blanks of the text that it is: an accepted copy changes nothing."""
    is_changed = is_accepted and nfc(final) != nfc(row["asr_text"])
    return Text(final, is_accepted, row.get("raw", {}).get("adapter" if is_changed else "asr_text"))


def gated_edits(row: Prediction, decision: dict[str, Any], profile: Profile) -> tuple[int, int]:
    """Edits from a row's hypothesis to its reference, and from its text behind the gate."""
    final = _gated(row, decision["final"], decision["verdict"] == gate.ACCEPT)
    return _edits(row, _text(row, "asr_text"), profile), _edits(row, final, profile)


def _oracle(row: Prediction, decision: dict[str, Any], settings: Evaluate, table: Orthography | None) -> Text:
    """The best text that the gate would accept for a row.

    Built-in gate: the reference, or the text that the edit budget reaches on the way to it; no other accepted text is
    nearer to the reference.  An external gate is not asked about texts that no model proposed: the oracle takes what
    the gate accepted unless it is worse than the hypothesis.
    """
    hypothesis = row["asr_text"]
    if settings.gate.command:
        final = _gated(row, decision["final"], decision["verdict"] == gate.ACCEPT)
        before, after = gated_edits(row, decision, deciding(settings))
        is_harmful = after > before
        is_accepted = bool(final.is_accepted) and not is_harmful
        return _gated(row, final.text if is_accepted else hypothesis, is_accepted)
    text = _towards(hypothesis, row["reference_text"], gate.edit_budget(hypothesis, settings.gate))
    is_accepted = gate.rule(row["partition"], hypothesis, text, settings.gate, table).verdict == gate.ACCEPT
    return Text(text, True) if is_accepted else _gated(row, hypothesis, False)


def _towards(text: str, reference: str, budget: int) -> str:
    """The text after the first `budget` edits of a shortest edit path to the reference, which is not blank.

    The gate rejects blank texts. If the first edits give one, the last of them is replaced by the next edit that writes
    a character other than white space; where there is none, as towards the empty reference of a silent row, one letter
    of the text stays.
    """
    text, reference = nfc(text), nfc(reference)
    edits: list[Any] = list(Levenshtein.editops(text, reference))
    edited = _applied(edits[:budget], text, reference)
    if not edits or budget == 0 or edited.strip():
        return edited
    writes = (edit for edit in edits[budget:] if edit.tag != "delete" and reference[edit.dest_pos].strip())
    if letter := next(writes, None):
        return _applied([*edits[: budget - 1], letter], text, reference)
    last = max((at for at, character in enumerate(text) if character.strip()), default=-1)
    return _applied([edit for edit in edits if edit.src_pos != last][:budget], text, reference)


def _applied(edits: list[Any], text: str, reference: str) -> str:
    return Editops(edits, len(text), len(reference)).apply(text, reference)


def _rates(rows: list[Prediction], texts: dict[str, list[Text]], profile: Profile) -> dict[str, Any]:
    """A profile with the rate and the edits by kind of each condition over all rows."""
    counted = _counted(rows, texts, profile)
    return error_rates.described(profile) | {
        "cer": {name: error_rates.rate(counts, profile) for name, counts in counted.items()},
        "edits": {name: error_rates.kinds(counts) for name, counts in counted.items()},
    }


def _counted(rows: list[Prediction], texts: dict[str, list[Text]], profile: Profile) -> dict[str, list[Counted]]:
    """Condition -> edits and length of each row."""
    counted: dict[str, list[Counted]] = {condition: [] for condition in texts}
    for row, of_row in zip(rows, zip(*texts.values(), strict=True), strict=True):
        # Several conditions often have the same text: each different text is counted once.
        reference = _text(row, "reference_text").under(profile)
        counts = {text: count(text, reference, profile) for text in {each.under(profile) for each in of_row}}
        for condition, each in zip(texts, of_row, strict=True):
            counted[condition].append(counts[each.under(profile)])
    return counted


def _edits(row: Prediction, text: Text, profile: Profile) -> int:
    return count(text.under(profile), _text(row, "reference_text").under(profile), profile).edits


def _table(rows: list[Prediction], texts: dict[str, list[Text]], settings: Evaluate) -> list[dict[str, Any]]:
    """A line per condition and partition, the group "all" first; empty without rows."""
    counted = _counted(rows, texts, deciding(settings))
    scored = {
        condition: [
            Scored(counts, nfc(each.text) != nfc(row["asr_text"]), each.is_accepted)
            for row, each, counts in zip(rows, of_condition, counted[condition], strict=True)
        ]
        for condition, of_condition in texts.items()
    }
    parts = {ALL: list(range(len(rows)))} if rows else {}
    for name in sorted({row["partition"] for row in rows} - {ALL}):
        parts[name] = [number for number, row in enumerate(rows) if row["partition"] == name]
    lines = {
        name: _lines(
            {condition: [each[number] for number in part] for condition, each in scored.items()},
            [rows[number]["group"] for number in part],
            settings,
        )
        for name, part in parts.items()
    }
    return [
        {"condition": condition, "partition": name, **lines[name][condition]} for condition in texts for name in parts
    ]


def _lines(scored: dict[str, list[Scored]], groups: list[str], settings: Evaluate) -> dict[str, dict[str, Any]]:
    """Condition -> its line of the table, over the rows of a partition or all. groups: that of each row."""
    profile, baseline = deciding(settings), scored["baseline"]
    weights = [weighed(row.counted, profile)[1] for row in baseline]
    errors = {name: [weighed(row.counted, profile)[0] for row in rows] for name, rows in scored.items()}
    bounds = intervals.paired(list(errors.values()), weights, groups, settings.bootstrap, settings.seed)
    before, weight = math.fsum(errors["baseline"]), sum(weights)
    return {
        name: {
            "n": len(rows),
            **intervals.count(groups),
            "cer": math.fsum(errors[name]) / weight if weight else None,
            "delta_pp": 100 * (math.fsum(errors[name]) - before) / weight if weight else None,
            **error_rates.kinds(row.counted for row in rows),
            **_changes(rows, baseline),
            **interval._asdict(),
        }
        for (name, rows), interval in zip(scored.items(), bounds, strict=True)
    }


def _changes(rows: list[Scored], baseline: list[Scored]) -> dict[str, Any]:
    """Counts of changed rows, and of those that are better, the same or worse than the baseline in edits.

    accept_rate: accepted / rows; None if no gate is asked.  false_accept_rate: accepted rows that became worse /
    accepted rows; None if none is accepted.
    """
    gains = [before.counted.edits - row.counted.edits for row, before in zip(rows, baseline, strict=True)]
    changed = [gain for gain, row in zip(gains, rows, strict=True) if row.is_changed]
    accepted = [gain for gain, row in zip(gains, rows, strict=True) if row.is_accepted]
    is_asked = any(row.is_accepted is not None for row in rows)
    return {
        "changed": len(changed),
        "better": sum(gain > 0 for gain in changed),
        "same": sum(gain == 0 for gain in changed),
        "worse": sum(gain < 0 for gain in changed),
        "accept_rate": len(accepted) / len(rows) if is_asked else None,
        "false_accept_rate": sum(gain < 0 for gain in accepted) / len(accepted) if accepted else None,
    }


def confusions(pairs: Iterable[tuple[str, str]], most: int = CONFUSIONS) -> list[list[Any]]:
    """The most frequent [cluster of the reference, cluster of the text, count]. pairs: (text, reference).

    A cluster is a letter with its marks; "" on one side stands for an insertion or a deletion. Several alignments can
    have the fewest edits; the same one is used each time.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for text, reference in pairs:
        after, before = clusters(nfc(text)), clusters(nfc(reference))
        for edit in Levenshtein.editops(_numbers(before, after), _numbers(after, before)):
            cluster = before[edit.src_pos] if edit.tag != "insert" else ""
            counts[cluster, after[edit.dest_pos] if edit.tag != "delete" else ""] += 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [[*pair, number] for pair, number in ordered[:most]]


def _numbers(pieces: list[str], others: list[str]) -> list[int]:
    """Each cluster as a number, equal for equal clusters on both sides.

    rapidfuzz compares strings of a list by their hash, which can collide; numbers cannot.
    """
    numbers = {piece: number for number, piece in enumerate(sorted({*pieces, *others}))}
    return [numbers[piece] for piece in pieces]
