"""Where the edits are: letters that are taken for each other, and the rows that an adapter helps and harms most."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from rapidfuzz.distance import Levenshtein

from thunder_train.evaluate.error_rates import Profile, clusters, count, nfc

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
