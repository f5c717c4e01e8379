"""Do the answers behave like corrections at all? Counts of degenerate answers, base and adapter on the same rows.

Input: predictions.  Output: the "probe" part of eval.json; sentences when the adapter has collapsed.  A loss can fall
while every answer is rubbish, so this asks the answers themselves.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from thunder_train import ThunderError
from thunder_train.config.evaluate import Probe
from thunder_train.evaluate.error_rates import nfc

MODELS = ("base", "adapter")
BEHAVIOURS = {
    "empty": "are empty",
    "pad": "hold pad or other control tokens",
    "loop": "repeat themselves",
    "copied": "copy the hypothesis",
    "wrong_script": "are in another script",
    "over_long": "do not end",
}
"""What is counted -> how it is told. Each has its limit max_<name> in [evaluate.probe]."""
CONTROL = re.compile(
    r"<(?:pad|unk|bos|eos|mask|s|/s|unused\d+|start_of_turn|end_of_turn)>|<\|[^|<>]*\|>|\[(?:PAD|UNK)\]"
)
"""Control tokens that were written out as letters."""
LOOP_TIMES, LOOP_POINTS, LOOP_SHARE = 4, 8, 0.5
"""A loop: a unit so many times in a row at the end of a text, so many code points and this share of it, at least."""
LONGEST_UNIT = 60
"""Code points of such a unit, at most: real ones are up to a short sentence long."""
GRAM, FEW_GRAMS = 4, 0.3
"""A text that did not end is a loop, too, if its runs of 4 code points have a smaller share of different ones."""
FOREIGN = 0.25
"""Share of letters in a script that neither hypothesis nor reference uses."""
LONG_TIMES, LONG_MORE = 2, 10
"""Over-long: more code points than this many times the longer of hypothesis and reference, and some more."""


class Answer(NamedTuple):
    """A model's answer to one row."""

    text: str
    finish: str
    """stop, or length when the limit of tokens ended it."""
    special: int
    """Control tokens in it."""
    hypothesis: str
    reference: str


def behaviour(predictions: list[dict[str, Any]], limits: Probe) -> dict[str, Any]:
    """Rows and degenerate answers of each model, and `collapsed`: a sentence for each limit that the adapter breaks."""
    found: dict[str, Any] = {model: _counts(_answers(predictions, model)) for model in MODELS}
    return found | {"collapsed": [what for _, what in _broken(found["adapter"], limits)]}


def problems(found: dict[str, Any], limits: Probe, where: str) -> list[ThunderError]:
    """An error for each limit that the adapter breaks. found: from `behaviour`. where: the recipe's file."""
    hint = "read logs/evaluate/predictions.jsonl of the run; train longer or at another rate, or raise the limit"
    return [
        ThunderError(f"the adapter has collapsed: {what}", f"{where}: evaluate.probe.{key}", hint)
        for key, what in _broken(found["adapter"], limits)
    ]


def faults(answer: Answer) -> list[str]:
    """What one answer is counted as, of BEHAVIOURS and in their order.

    What its hypothesis or reference does, too, is no fault: a recogniser may stammer, and its speaker may.
    """
    text, known = answer.text, (answer.hypothesis, answer.reference)
    room = LONG_TIMES * max(map(len, known)) + LONG_MORE
    is_cut = answer.finish == "length"
    is_so = {
        "empty": not text.strip(),
        "pad": answer.special > 0 or (CONTROL.search(text) and not any(map(CONTROL.search, known))),
        "loop": (loops(text) or (is_cut and has_few_grams(text))) and not any(map(loops, known)),
        "copied": nfc(text) == nfc(answer.hypothesis),
        "wrong_script": _is_foreign(text, known),
        "over_long": is_cut or len(text) > room,
    }
    return [name for name, fact in is_so.items() if fact]


def loops(text: str) -> bool:
    """Whether a text ends in one unit said again and again. Twice or three times is speech: not counted."""
    text = text.rstrip()
    for unit in range(1, min(LONGEST_UNIT, (len(text) + 1) // LOOP_TIMES) + 1):
        start = len(text) - unit
        while start and text[start - 1] == text[start - 1 + unit]:
            start -= 1
        looped = len(text) - start
        if looped >= max(LOOP_TIMES * unit - 1, LOOP_POINTS, LOOP_SHARE * len(text)):  # 1: the last unit's own space
            return True
    return False


def has_few_grams(text: str) -> bool:
    """Whether a text says few different things: a loop that drifts, or one in the middle."""
    grams = [text[start : start + GRAM] for start in range(len(text) - GRAM + 1)]
    return len(set(grams)) < FEW_GRAMS * len(grams)


def _answers(predictions: list[dict[str, Any]], model: str) -> Iterable[Answer]:
    for row in predictions:
        own = (row[model], row[f"{model}_finish"], row[f"{model}_special"])
        yield Answer(*own, row["asr_text"], row["reference_text"])


def _counts(answers: Iterable[Answer]) -> dict[str, int]:
    rows, counts = 0, dict.fromkeys(BEHAVIOURS, 0)
    for answer in answers:
        rows += 1
        for name in faults(answer):
            counts[name] += 1
    return counts | {"rows": rows}


def _broken(counts: dict[str, int], limits: Probe) -> list[tuple[str, str]]:
    """(key of the limit, sentence) for each limit that is broken; a share equal to its limit is not."""
    rows, broken = counts["rows"], []
    for name, told in BEHAVIOURS.items():
        limit: float = getattr(limits, f"max_{name}")
        if rows and counts[name] / rows > limit:
            share = f"{counts[name]} of {rows} answers ({counts[name] / rows:.1%})"
            broken.append((f"max_{name}", f"{share} {told}, and at most {limit:.1%} may"))
    return broken


def _is_foreign(text: str, known: Iterable[str]) -> bool:
    """Whether more than FOREIGN of a text's letters are of a script that no known text uses."""
    used = {script for each in known for script in _scripts(each)}
    scripts = _scripts(CONTROL.sub("", text))
    return bool(used) and sum(script not in used for script in scripts) > FOREIGN * len(scripts)


def _scripts(text: str) -> list[str]:
    """The script of each letter."""
    return [script for script in map(_script, text) if script]


@lru_cache(maxsize=4096)
def _script(character: str) -> str:
    """The first word of a letter's Unicode name, such as NKO or LATIN; "" for what is no letter."""
    is_letter = unicodedata.category(character)[0] == "L"
    return unicodedata.name(character, "unnamed").partition(" ")[0] if is_letter else ""
