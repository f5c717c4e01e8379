"""The test rows as a page shows them: texts, edits before and after, the gate's verdict.

Input: predictions.jsonl, decisions.jsonl and eval.json of a run.  Output: a Row for each prediction.  Edits are those
that eval.json's rates are made of: the same texts under the same profile.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from thunder_train.config.profiles import Profile
from thunder_train.core.text import nfc
from thunder_train.evaluate import chat_answers, error_rates, gate, silence
from thunder_train.evaluate.conditions import Text
from thunder_train.evaluate.error_rates import Counted

CORRECTION, CHAT = "correction", "chat"
CHAT_PROFILE = chat_answers.RATES["cer"]
"""The profile in which eval.json counts the edits of answers to a chat."""


@dataclass(frozen=True)
class Row:
    """A test row. kind: CORRECTION, or CHAT for whatever has a question and an expected answer."""

    number: int
    """Its line in predictions.jsonl, from 1."""
    id: str
    kind: str
    partition: str
    source: str
    group: str
    given: str
    """Hypothesis or question."""
    expected: str
    """Reference or expected answer."""
    base: str
    adapter: str
    final: str
    """The text after the gate; in a chat, the adapter's answer."""
    is_accepted: bool | None
    """The gate's verdict; None in a chat."""
    reason: str
    """The gate's."""
    before: Counted | None
    """Edits of the hypothesis, in a chat of the base's answer; None without a reference."""
    proposed: Counted | None
    """Of the adapter's answer."""
    after: Counted | None
    """Of the final text."""

    @property
    def length(self) -> int:
        """Code points of the reference, or of the hypothesis where there is no reference."""
        return len(nfc(self.expected or self.given))

    @property
    def added(self) -> int:
        """Edits that the final text has more than the hypothesis; negative if it has fewer, 0 without a reference."""
        return self.after.edits - self.before.edits if self.after and self.before else 0

    @property
    def proposed_added(self) -> int:
        """The same of the adapter's answer, accepted or not."""
        return self.proposed.edits - self.before.edits if self.proposed and self.before else 0


def profile_of(evaluation: dict[str, Any]) -> Profile:
    """The profile of eval.json's rates."""
    described = evaluation["profile"]
    return Profile(**{key.name: described[key.name] for key in fields(Profile) if key.name in described})


def of(
    predictions: Sequence[dict[str, Any]], decisions: Sequence[dict[str, Any]], evaluation: dict[str, Any]
) -> list[Row]:
    """The rows, in the order of predictions.jsonl. decisions: lines of decisions.jsonl without its header."""
    profile, by_id = profile_of(evaluation), {each["id"]: each for each in decisions}
    return [_row(number, line, by_id.get(line["id"]), profile) for number, line in enumerate(predictions, start=1)]


def _row(number: int, line: dict[str, Any], decision: dict[str, Any] | None, profile: Profile) -> Row:
    is_chat = chat_answers.is_chat(line)
    given, expected = ("question", "answer") if is_chat else ("asr_text", "reference_text")
    profile = CHAT_PROFILE if is_chat else profile
    final = decision["final"] if decision else line["adapter"]
    is_accepted = decision["verdict"] == gate.ACCEPT if decision else None
    # As evaluate.conditions: an accepted copy of the hypothesis keeps the blanks of the hypothesis.
    is_changed = is_chat or (is_accepted and nfc(final) != nfc(line["asr_text"]))
    counted = _counter(line, expected, profile)
    return Row(
        number=number,
        id=line["id"],
        kind=CHAT if is_chat else CORRECTION,
        partition=line["partition"],
        source=line["source"],
        group=line["group"],
        given=line[given],
        expected=line[expected],
        base=line["base"],
        adapter=line["adapter"],
        final=final,
        is_accepted=is_accepted,
        reason=decision["reason"] if decision else "",
        before=counted(line["base" if is_chat else "asr_text"], "base" if is_chat else "asr_text"),
        proposed=counted(line["adapter"], "adapter"),
        after=counted(final, "adapter" if is_changed else "asr_text"),
    )


def _counter(line: dict[str, Any], expected: str, profile: Profile) -> Callable[[str, str], Counted | None]:
    """A function: (text, name of the member that it came from) -> its edits; None where the row has no reference."""
    if not (line[expected].strip() or silence.is_silent(line)):
        return lambda text, name: None
    raw = line.get("raw", {})
    reference = Text(line[expected], raw=raw.get(expected)).under(profile)
    return lambda text, name: error_rates.count(Text(text, raw=raw.get(name)).under(profile), reference, profile)
