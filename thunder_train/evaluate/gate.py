"""Which proposals may stand: the built-in policy decides, or an external gate does. Neither sees a reference.

Input: predictions.  Output: decisions.jsonl, a header and a line per row, from which replay.py decides again.
docs/gate.md tells the policy and the format.
"""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import msgspec
from rapidfuzz.distance import Levenshtein

from thunder_train import ThunderError
from thunder_train.config.evaluate import Gate
from thunder_train.core import files
from thunder_train.evaluate import external_gate

SCHEMA = "thunder.decisions/1"
FILE = "decisions.jsonl"
"""Its name in a run's folder."""
PARTITIONS = frozenset({"stable", "boundary", "uncertain", "recovery", "novelty"})
"""What a router is known to say. Rows of any other partition are judged by the edit budget, and counted."""
WITNESS = ("slice_id", "graph_snapshot_hash", "policy_hash", "token")
WITNESS_CHARACTERS = 200
REASONS = 50
"""Most reasons that a summary tells apart: an external gate may give every row its own."""
TOKEN = re.compile(r"[0-9a-f]{32}")

ACCEPT, REJECT = "accept", "reject"
UNCHANGED = "nothing to change"
EMPTY = "the proposal is empty"
OVER = "over the edit budget"
WITHIN = "within the edit budget"


@dataclass(frozen=True)
class Judged:
    """Every decision of a gate, sorted by id, and the header that tells who decided."""

    header: dict[str, Any]
    decisions: list[dict[str, Any]]


@dataclass(frozen=True)
class Ruling:
    """What the built-in policy says of one proposal. edits, budget: code points."""

    verdict: str
    reason: str
    edits: int
    budget: int


class _Header(msgspec.Struct):
    schema: Literal["thunder.decisions/1"]
    gate: dict[str, Any]
    policy_sha256: str
    rows: int
    unknown_partitions: dict[str, int]


class _Decision(msgspec.Struct):
    id: str
    partition: str
    hypothesis: str
    proposal: str
    verdict: Literal["accept", "reject"]
    reason: str
    edits: int
    budget: int | None
    gate: Literal["builtin", "external"]
    witness: dict[str, str] | None
    final: str
    telemetry: dict[str, float] = {}
    """External gates only: what was told besides, so that the question can be put again."""
    witness_problem: str = ""
    """External gates only: why a witness is not carried."""


def judge(predictions: list[dict[str, Any]], gate: Gate, where: str) -> Judged:
    """Every proposal decided; an external gate is run in the current folder, which is the project's.

    predictions: lines of predictions.jsonl; only what external_gate.request takes of them is read.
    where: the recipe's key that an error names.  Raises ThunderError, and then nothing is accepted.
    """
    requests = sorted(map(external_gate.request, predictions), key=lambda request: request["id"])
    twice = [name for name, count in Counter(request["id"] for request in requests).items() if count > 1]
    if twice:
        raise ThunderError(
            f"{len(twice)} ids stand for several rows, first {twice[0]!r}", where, "build the data again"
        )
    rule_all = _external if gate.command else _builtin
    policy = policy_of(gate)
    header = {
        "schema": SCHEMA,
        "gate": policy,
        "policy_sha256": files.digest(policy),
        "rows": len(requests),
        "unknown_partitions": dict(Counter(r["partition"] for r in requests if r["partition"] not in PARTITIONS)),
    }
    return Judged(header, rule_all(requests, gate, where))


def rule(partition: str, hypothesis: str, proposal: str, gate: Gate) -> Ruling:
    """The built-in policy's word on one proposal. A proposal that changes nothing is none, and so is not accepted."""
    edits, budget = edits_between(hypothesis, proposal), edit_budget(hypothesis, gate)
    against = (
        (edits == 0, UNCHANGED),
        (partition in gate.preserved, f"partition {partition} is left unchanged"),
        (partition in gate.blocked, f"partition {partition} is blocked"),
        (not proposal.strip(), EMPTY),  # short rows would fit the floor, and lose their text
        (edits > budget, OVER),
    )
    reason = next((reason for holds, reason in against if holds), "")
    return Ruling(REJECT if reason else ACCEPT, reason or WITHIN, edits, budget)


def edit_budget(hypothesis: str, gate: Gate) -> int:
    """Code points by which a hypothesis may be edited: max(floor, relative x its length), rounded down."""
    # Exact: 0.29 x 100 is 28.999999999999996 in floating point.
    return max(gate.floor, int(Fraction(str(gate.relative)) * len(_nfc(hypothesis))))


def edits_between(hypothesis: str, proposal: str) -> int:
    """Insertions, deletions and substitutions of code points, after NFC."""
    return Levenshtein.distance(_nfc(hypothesis), _nfc(proposal))


def policy_of(gate: Gate) -> dict[str, Any]:
    """Who decides and by which numbers, as data; its digest is the policy's hash. Told without absolute paths."""
    if gate.command:
        told = [Path(word).name if Path(word).is_absolute() else word for word in gate.command]
        return {"kind": "external", "command": told, "files": external_gate.programs(gate.command)}
    partitions = {"preserved": sorted(gate.preserved), "blocked": sorted(gate.blocked)}
    return {"kind": "builtin", **partitions, "floor": gate.floor, "relative": gate.relative}


def witness_problem(witness: Any) -> str:
    """What is wrong with a witness's format; "" when nothing is, or when there is none.

    Only the format: whether a token is genuine, only the kernel that made it can tell.
    """
    if witness is None:
        return ""
    if not isinstance(witness, dict):
        return "is not an object"
    for name in WITNESS:
        value = witness.get(name)
        if not isinstance(value, str) or not value.strip():
            return f"lacks {name}"
        if len(value) > WITNESS_CHARACTERS or not value.isprintable():
            return f"{name} is not a line of at most {WITNESS_CHARACTERS} characters"
    return "" if TOKEN.fullmatch(witness["token"]) else "token is not 32 hex digits"


def summary(judged: Judged) -> dict[str, Any]:
    """What eval.json tells of a gate: kind, policy_sha256, accepted, rejected, reasons and witnesses, counted."""
    accepted = sum(each["verdict"] == ACCEPT for each in judged.decisions)
    valid = sum(each["witness"] is not None for each in judged.decisions)
    malformed = sum("witness_problem" in each for each in judged.decisions)
    missing = len(judged.decisions) - valid - malformed
    return {
        "kind": judged.header["gate"]["kind"],
        "policy_sha256": judged.header["policy_sha256"],
        "accepted": accepted,
        "rejected": len(judged.decisions) - accepted,
        "reasons": _reasons(judged),
        "witnesses": {"valid": valid, "missing": missing, "malformed": malformed},
    }


def as_jsonl(judged: Judged) -> str:
    """The text of decisions.jsonl."""
    return "".join(map(files.json_line, [judged.header, *judged.decisions]))


def read(path: Path) -> Judged:
    """decisions.jsonl as written, its shape checked. Raises ThunderError naming the line."""
    hint = f"run `./doit evaluate:{path.parent.name}`"
    lines = files.read_jsonl(path, hint)
    if not lines:
        raise ThunderError("is empty", where=str(path), hint=hint)
    for number, line in enumerate(lines, start=1):
        try:
            msgspec.convert(line, _Decision if number > 1 else _Header)
        except msgspec.ValidationError as error:
            raise ThunderError(str(error), where=f"{path}:{number}", hint=hint) from None
    return Judged(lines[0], lines[1:])


def _reasons(judged: Judged) -> dict[str, int]:
    counts = Counter(each["reason"] for each in judged.decisions)
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    others = sum(count for _, count in most[REASONS:])
    return dict(sorted(most[:REASONS])) | ({"other reasons": others} if others else {})


def _builtin(requests: list[dict[str, Any]], gate: Gate, where: str) -> list[dict[str, Any]]:
    """Decisions of the built-in policy. It has no kernel to bear witness, and so gives none."""
    decisions = []
    for request in requests:
        request.pop("telemetry", None)  # not read by this policy
        ruling = rule(request["partition"], request["hypothesis"], request["proposal"], gate)
        decisions.append(_decision(request, "builtin", **vars(ruling)))
    return decisions


def _external(requests: list[dict[str, Any]], gate: Gate, where: str) -> list[dict[str, Any]]:
    """Decisions of the recipe's command. A malformed witness is not carried; what is wrong with it is."""
    answers = external_gate.ask(gate.command, gate.timeout_s, requests, where)
    decisions = []
    for request in requests:
        answer = answers[request["id"]]
        edits = edits_between(request["hypothesis"], request["proposal"])
        told = {"verdict": answer.verdict, "reason": answer.reason, "edits": edits, "budget": None}
        if problem := witness_problem(answer.witness):
            told["witness_problem"] = problem
        elif answer.witness is not None:
            told["witness"] = {name: answer.witness[name] for name in WITNESS}
        decisions.append(_decision(request, "external", **told))
    return decisions


def _decision(request: dict[str, Any], kind: str, **told: Any) -> dict[str, Any]:
    final = request["proposal" if told["verdict"] == ACCEPT else "hypothesis"]
    return {**request, "gate": kind, "witness": None, "final": final, **told}


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)
