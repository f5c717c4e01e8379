"""Telemetry that prompts and gates may see: what the recogniser knew without the reference.

Input: telemetry of a row, as its field map gives it.  Output: the members that are allowed. A list of names allows,
because no list of forbidden names is complete: `edits_before` and `is_correct` leak an answer as `cer` does.
"""

import re
from collections import Counter
from collections.abc import Collection
from functools import cache
from typing import Any

from thunder_train.config.dataset import Source

HYPOTHESIS_SIDE = frozenset(
    # The row contract, and the trajectory behind its partitions.
    {"ctc_confidence", "velocity", "jerk", "commitment", "uncertainty", "transition_pressure", "recovery_margin"}
    | {"phase_stiffness", "novelty", "stability", "mean_entropy", "entropy", "confidence"}
    # Scores of lists of hypotheses, and what Whisper says of a segment.
    | {"am_score", "lm_score", "acoustic_score", "language_score", "log_prob", "avg_logprob", "no_speech_prob"}
    | {"compression_ratio", "temperature"}
    # The recording.
    | {"duration", "duration_ms", "start", "end", "start_ms", "end_ms", "offset", "snr"}
    | {"speaker_id", "speaker_confidence", "speaker_cluster_version"}
)
"""Names that are allowed wherever they stand; a source's `telemetry` allows others."""
REFERENCE_SIDE = re.compile(
    r"[wcsm]er(_.*)?|edits?(_.*)?|(.*_)?(edits|edit_distance|correct)|references?(_.*)?|refs?(_.*)?|levenshtein(_.*)?"
    r"|(ground_?)?truth(_.*)?|gold(_.*)?|oracle(_.*)?"
)
"""Names of what is computed from a reference; no declaration allows one."""
SCALARS = frozenset({float, int, str, bool, type(None)})
FIELDS = ("telemetry", "trajectory_scalars", "char_posteriors_summary")
"""Canonical fields whose members are the telemetry of a row."""


def _bare(name: str) -> str:
    """The name of a member of telemetry without the field that holds it in the row."""
    head, _, member = name.partition(".")
    return member if member and head in FIELDS else name


@cache
def knows_reference(name: str) -> bool:
    """Whether a field of this name is computed from a reference, or is one; such a name is never allowed."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[-\s]+", "_", name.strip())
    return bool(REFERENCE_SIDE.fullmatch(words.lower()))


class Allowed:
    """What of its telemetry a source lets through.

    declared: names that it allows besides HYPOTHESIS_SIDE; hidden: names that it forbids. Both are dotted, as `a.b`,
    and count for all members below them.
    """

    def __init__(self, declared: Collection[str], hidden: Collection[str]) -> None:
        self.declared, self.hidden = frozenset(declared), frozenset(hidden)
        passing = HYPOTHESIS_SIDE | {name for name in self.declared if not knows_reference(name)}
        self._plain = frozenset(passing - self.hidden)

    @classmethod
    def of(cls, source: Source) -> "Allowed":
        """What a source declares."""
        hidden = [name for name in source.reference_side if name.partition(".")[0] in FIELDS]
        return cls([*map(_bare, source.telemetry)], [*map(_bare, hidden)])

    def visible(self, telemetry: dict[str, Any], unused: Counter[str]) -> dict[str, Any]:
        """The allowed members, at any depth; unused counts the others."""
        if self._plain.issuperset(telemetry) and SCALARS.issuperset(map(type, telemetry.values())):
            return telemetry
        return self._members(telemetry, "", False, unused)

    def allows(self, dotted: str) -> bool:
        """Whether a member, or a part of it, may be visible."""
        parts = dotted.split(".")
        prefixes = {".".join(parts[: end + 1]) for end in range(len(parts))}
        if any(map(knows_reference, parts)) or prefixes & self.hidden:
            return False
        is_above = any(name.startswith(f"{dotted}.") for name in self.declared)
        return parts[-1] in HYPOTHESIS_SIDE or bool(prefixes & self.declared) or is_above

    def _members(self, values: dict[str, Any], prefix: str, is_declared: bool, unused: Counter[str]) -> dict[str, Any]:
        kept = {}
        for name, value in values.items():
            path = prefix + name
            if knows_reference(name) or path in self.hidden:
                unused[f"telemetry.{path}"] += 1
                continue
            is_allowed = is_declared or path in self.declared
            if isinstance(value, dict):
                inner = self._members(value, f"{path}.", is_allowed, unused)
                if inner:
                    kept[name] = inner
            elif is_allowed or name in HYPOTHESIS_SIDE:
                kept[name] = self._items(value, path, unused)
            else:
                unused[f"telemetry.{path}"] += 1
        return kept

    def _items(self, value: Any, path: str, unused: Counter[str]) -> Any:
        """A value; of a list of objects the members that are not of the reference side."""
        if not isinstance(value, list):
            return value
        return [
            self._members(item, f"{path}.", True, unused) if isinstance(item, dict) else self._items(item, path, unused)
            for item in value
        ]
