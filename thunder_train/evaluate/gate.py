"""Accepts or rejects each proposal, by the built-in policy or by an external gate. Neither sees a reference.

Input: predictions.  Output: decisions.jsonl, a header and a line per row, which replay.py can decide again.
docs/gate.md describes the policy and the file.
"""

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import msgspec
import regex
from rapidfuzz.distance import Levenshtein

from thunder_train import ThunderError
from thunder_train.config.evaluate import Gate
from thunder_train.core import characters, files
from thunder_train.core.characters import Orthography
from thunder_train.core.text import nfc
from thunder_train.evaluate import external_gate

SCHEMA = "thunder.decisions/1"
FILE = "decisions.jsonl"
"""Name of the file in a run's folder."""
PARTITIONS = frozenset({"stable", "boundary", "uncertain", "recovery", "novelty"})
"""Partitions that the router is known to assign. Rows of others are decided by the edit budget, and counted."""
WITNESS = ("slice_id", "graph_snapshot_hash", "policy_hash", "token")
"""Fields of a witness."""
WITNESS_CHARACTERS = 200
"""Maximum length of each field."""
REASONS = 50
"""Maximum number of reasons that a summary lists: an external gate may give every row a different one."""
TOKEN = re.compile(r"[0-9a-f]{32}")

SEEN = regex.compile(r"[^\p{Z}\p{Cc}\p{Cf}\p{Cs}\p{Default_Ignorable_Code_Point}]")
"""A character that can be seen: without one, a text is empty, however many code points it has."""

ACCEPT, REJECT = "accept", "reject"
UNCHANGED = "nothing to change"
EMPTY = "the proposal is empty"
UNFIT = "the proposal has"
"""Before what no text of the dataset may hold, as `invisible character U+202E`."""
OVER = "over the edit budget"
WITHIN = "within the edit budget"


@dataclass(frozen=True)
class Judged:
    """The header of decisions.jsonl, which describes the gate, and its decisions, sorted by id."""

    header: dict[str, Any]
    decisions: list[dict[str, Any]]
    table: Orthography | None = None
    """The dataset's orthography, which the built-in gate knows."""


@dataclass(frozen=True)
class Ruling:
    """The built-in policy's decision on one proposal. edits, budget: in code points."""

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
    """External gates only: what the gate was given besides the texts; replay needs it to ask again."""
    witness_problem: str = ""
    """External gates only: why the witness was left out."""


def judge(
    predictions: list[dict[str, Any]],
    gate: Gate,
    where: str,
    telemetry: Collection[str] = (),
    table: Orthography | None = None,
) -> Judged:
    """Decide on every proposal. An external gate is run in the current folder, which is the project's.

    predictions: lines of predictions.jsonl; only the fields that external_gate.request selects are read.
    where: the recipe's key, for errors.  telemetry: names of what an external gate may see of it.  table: the dataset's
    orthography.  Raises ThunderError if any row cannot be decided.
    """
    requests = sorted((external_gate.request(row, telemetry) for row in predictions), key=lambda request: request["id"])
    repeated = [name for name, count in Counter(request["id"] for request in requests).items() if count > 1]
    if repeated:
        what = f"{len(repeated)} ids occur in several rows, first {repeated[0]!r}"
        raise ThunderError(what, where, "build the data again")
    policy = policy_of(gate, table)
    header = {
        "schema": SCHEMA,
        "gate": policy,
        "policy_sha256": files.digest(policy),
        "rows": len(requests),
        "unknown_partitions": dict(
            Counter(r["partition"] for r in requests if r["partition"].casefold() not in PARTITIONS)
        ),
    }
    decisions = _external(requests, gate, where) if gate.command else _builtin(requests, gate, table)
    return Judged(header, decisions, table)


def rule(partition: str, hypothesis: str, proposal: str, gate: Gate, table: Orthography | None = None) -> Ruling:
    """The built-in policy's decision. A proposal equal to the hypothesis is rejected: there is nothing to accept.

    Partitions are compared without case. table: the dataset's orthography.
    """
    edits, budget = edits_between(hypothesis, proposal), edit_budget(hypothesis, gate)
    objections = (
        (edits == 0, UNCHANGED),
        (_is_among(partition, gate.preserved), f"partition {partition} is left unchanged"),
        (_is_among(partition, gate.blocked), f"partition {partition} is blocked"),
        (not SEEN.search(proposal), EMPTY),  # within the floor of the budget, a short row could be erased
        (bool(fault := unfit(hypothesis, proposal, table)), f"{UNFIT} {fault}"),
        (edits > budget, OVER),
    )
    reason = next((reason for holds, reason in objections if holds), "")
    return Ruling(REJECT if reason else ACCEPT, reason or WITHIN, edits, budget)


def unfit(hypothesis: str, proposal: str, table: Orthography | None) -> str:
    """What a proposal has that no text of the dataset may hold, as `line break or tab U+000A`; "" for nothing.

    A reader does not see it, or cannot undo it: a bidi control turns a whole line round. A letter of another script
    counts if the hypothesis does not have it, for a recogniser may write any.
    """
    if control := characters.CONTROL.search(proposal):  # those that an orthography keeps are others
        return f"{characters.INVISIBLE} U+{ord(control[0]):04X}"
    for fault in characters.faults(proposal, table):
        if fault != characters.STRAY or any(
            characters.is_letter(each) and each not in hypothesis
            for each in (table.suspects.findall(proposal) if table else ())
        ):
            return fault
    return ""


def _is_among(partition: str, names: Collection[str]) -> bool:
    return partition.casefold() in {name.casefold() for name in names}


def edit_budget(hypothesis: str, gate: Gate) -> int:
    """Maximum number of edits of a hypothesis: max(floor, relative x its length), rounded down, in code points."""
    # A fraction is exact: 0.29 x 100 is 28.999999999999996 in floating point.
    return max(gate.floor, int(Fraction(str(gate.relative)) * len(nfc(hypothesis))))


def edits_between(hypothesis: str, proposal: str) -> int:
    """Insertions, deletions and substitutions of code points, after NFC."""
    return Levenshtein.distance(nfc(hypothesis), nfc(proposal))


def policy_of(gate: Gate, table: Orthography | None = None) -> dict[str, Any]:
    """The gate as data: its kind and settings, without absolute paths. The digest of this is the policy's hash.

    table: the dataset's orthography, which the built-in policy names with the hash of its fields.
    """
    if gate.command:
        command = [Path(word).name if Path(word).is_absolute() else word for word in gate.command]
        return {"kind": "external", "command": command, "files": external_gate.programs(gate.command)}
    partitions = {"preserved": sorted(gate.preserved), "blocked": sorted(gate.blocked)}
    spelling = {"orthography": {"name": table.name, "sha256": files.digest(asdict(table))}} if table else {}
    return {"kind": "builtin", **partitions, "floor": gate.floor, "relative": gate.relative, **spelling}


def witness_problem(witness: Any) -> str:
    """What is wrong with the format of a witness; "" if it is well formed or None.

    Only the kernel that issued a token can check whether it is genuine.
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
    """The "gate" part of eval.json: kind, policy_sha256, and counts of verdicts, reasons and witnesses."""
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
    """decisions.jsonl as written, after a check of each line. Raises ThunderError that names the line."""
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
    """Reason -> rows, by name; reasons beyond the REASONS most frequent are counted together."""
    counts = Counter(each["reason"] for each in judged.decisions)
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    others = sum(count for _, count in most[REASONS:])
    return dict(sorted(most[:REASONS])) | ({"other reasons": others} if others else {})


def _builtin(requests: list[dict[str, Any]], gate: Gate, table: Orthography | None) -> list[dict[str, Any]]:
    """Decisions of the built-in policy. It has no kernel that could issue witnesses."""
    decisions = []
    for request in requests:
        request.pop("telemetry", None)  # this policy does not use it
        ruling = rule(request["partition"], request["hypothesis"], request["proposal"], gate, table)
        decisions.append(_decision(request, "builtin", **vars(ruling)))
    return decisions


def _external(requests: list[dict[str, Any]], gate: Gate, where: str) -> list[dict[str, Any]]:
    """Decisions of the recipe's command. A malformed witness is replaced by a description of what is wrong with it."""
    answers = external_gate.ask(gate, requests, where)
    decisions = []
    for request in requests:
        answer = answers[request["id"]]
        edits = edits_between(request["hypothesis"], request["proposal"])
        fields = {"verdict": answer.verdict, "reason": answer.reason, "edits": edits, "budget": None}
        if problem := witness_problem(answer.witness):
            fields["witness_problem"] = problem
        elif answer.witness is not None:
            fields["witness"] = {name: answer.witness[name] for name in WITNESS}
        decisions.append(_decision(request, "external", **fields))
    return decisions


def _decision(request: dict[str, Any], kind: str, **fields: Any) -> dict[str, Any]:
    """A line of decisions.jsonl; `fields` override the defaults."""
    final = request["proposal" if fields["verdict"] == ACCEPT else "hypothesis"]
    return {**request, "gate": kind, "witness": None, "final": final, **fields}
