"""Counts degenerate answers of the base model and the adapter, and detects a collapsed adapter.

Input: predictions.  Output: the "probe" part of eval.json, with a sentence for each limit that the adapter exceeds.  A
loss can fall while every answer is useless, so the answers themselves are checked.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from thunder_train.config.evaluate import Probe
from thunder_train.core.text import nfc
from thunder_train.evaluate import chat_answers, intervals, silence

MODELS = ("base", "adapter")
BEHAVIOURS = {
    "empty": "are empty",
    "pad": "hold pad or other control tokens",
    "loop": "repeat themselves",
    "copied": "copy the hypothesis",
    "wrong_script": "are in another script",
    "over_long": "do not end",
}
"""Kind of degenerate answer -> predicate for reports. Each kind has a limit max_<kind> in [evaluate.probe]."""
THINKING = "thinking"
"""Finish of an answer that ended inside the model's thoughts, and the name of its counter, which is left out at 0. Such
an answer does not end, so it counts as over_long, too.
"""
CONTROL = re.compile(
    r"<(?:pad|unk|bos|eos|mask|s|/s|unused\d+|start_of_turn|end_of_turn)>|<\|[^|<>]*\|>|\[(?:PAD|UNK)\]"
)
"""Control tokens spelled out as text."""
LOOP_TIMES, LOOP_POINTS, LOOP_SHARE = 4, 8, 0.5
"""A loop at the end of a text: at least this many repetitions, code points, and share of the text."""
LONGEST_UNIT = 60
"""Maximum length of a repeated unit in code points; observed ones are up to a short sentence long."""
GRAM, FEW_GRAMS = 4, 0.3
"""An answer cut at max_tokens is also a loop if a smaller share of its 4-grams of code points is distinct."""
JAPANESE = ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "IDEOGRAPHIC")
"""Scripts that one Japanese text mixes: a row in one of them may be answered in another."""
FOREIGN = 0.25
"""Maximum share of letters in a script that neither the hypothesis nor the reference uses."""
LONG_TIMES, LONG_MORE = 2, 10
"""Over-long: more code points than LONG_TIMES x the longer of hypothesis and reference + LONG_MORE."""


class Answer(NamedTuple):
    """A model's answer to one row."""

    text: str
    finish: str
    """stop, length if the limit of tokens ended it, or THINKING."""
    special: int
    """Number of control tokens in it."""
    hypothesis: str
    """In a chat, the question."""
    reference: str
    """In a chat, the row's own answer."""
    is_silent: bool = False
    """Whether nothing was said: then an empty answer is right."""
    is_chat: bool = False
    """Whether an answer may be of any length, and hold any text."""


def behaviour(predictions: list[dict[str, Any]], limits: Probe) -> dict[str, Any]:
    """Rows, degenerate answers and 95 % intervals of their shares, of each model; and `collapsed`: a sentence for each
    limit that the adapter exceeds.
    """
    counts: dict[str, Any] = {model: _counts(answers(predictions, model)) for model in MODELS}
    return counts | {"collapsed": _exceeded(counts["adapter"], limits)}


def thinking(counts: dict[str, Any]) -> list[str]:
    """A sentence for each model that was still thinking when answers ended, with what to do. counts: of `behaviour`."""
    return [
        f"{counts[model][THINKING]} of {counts[model]['rows']} answers of the {model} were still thinking when they "
        "ended; set enable_thinking = false in [models.NAME.template] or raise evaluate.max_tokens"
        for model in MODELS
        if counts[model].get(THINKING)
    ]


def faults(answer: Answer) -> list[str]:
    """The kinds of BEHAVIOURS that one answer shows, in their order.

    What the hypothesis or the reference shows, too, is not counted: speakers repeat themselves, and so do recognisers.
    """
    text, given = answer.text, (answer.hypothesis, answer.reference)
    longest = LONG_TIMES * max(map(len, given)) + LONG_MORE
    is_cut, is_thinking = answer.finish == "length", answer.finish == THINKING
    is_right_silence = answer.is_silent and not text.strip()
    has_control = not answer.is_chat and CONTROL.search(text) and not any(map(CONTROL.search, given))
    has = {
        "empty": not (text.strip() or is_right_silence or is_thinking),
        "pad": answer.special > 0 or has_control,
        "loop": (loops(text) or (is_cut and has_few_grams(text))) and not any(map(loops, given)),
        "copied": nfc(text) == nfc(answer.hypothesis) and not (is_right_silence or is_thinking),
        "wrong_script": _is_foreign(text, given),
        "over_long": is_cut or is_thinking or (not answer.is_chat and len(text) > longest),
    }
    return [name for name, fact in has.items() if fact]


def loops(text: str) -> bool:
    """Whether a text ends in one unit repeated at least LOOP_TIMES times. Speech repeats words two or three times."""
    text = text.rstrip()
    for unit in range(1, min(LONGEST_UNIT, (len(text) + 1) // LOOP_TIMES) + 1):
        start = len(text) - unit
        while start and text[start - 1] == text[start - 1 + unit]:
            start -= 1
        looped = len(text) - start
        # - 1: the space after the last repetition was stripped above.
        if looped >= max(LOOP_TIMES * unit - 1, LOOP_POINTS, LOOP_SHARE * len(text)):
            return True
    return False


def has_few_grams(text: str) -> bool:
    """Whether a text has few different 4-grams: a loop that varies, or one in the middle of the text."""
    grams = [text[start : start + GRAM] for start in range(len(text) - GRAM + 1)]
    return len(set(grams)) < FEW_GRAMS * len(grams)


def answers(predictions: list[dict[str, Any]], model: str) -> Iterable[Answer]:
    """A model's answer to each row of predictions.jsonl."""
    for row in predictions:
        answer = (row[model], row[f"{model}_finish"], row[f"{model}_special"])
        if chat_answers.is_chat(row):
            yield Answer(*answer, row["question"], row["answer"], is_chat=True)
        else:
            yield Answer(*answer, row["asr_text"], row["reference_text"], is_silent=silence.is_silent(row))


def _counts(answers: Iterable[Answer]) -> dict[str, Any]:
    rows, unfinished, counts = 0, 0, dict.fromkeys(BEHAVIOURS, 0)
    for answer in answers:
        rows += 1
        unfinished += answer.finish == THINKING
        for name in faults(answer):
            counts[name] += 1
    shares = {name: intervals.of_share(count, rows) for name, count in counts.items() if rows}
    return counts | {"rows": rows, "intervals": shares} | ({THINKING: unfinished} if unfinished else {})


def _exceeded(counts: dict[str, Any], limits: Probe) -> list[str]:
    """A sentence for each limit that is exceeded: by the share, and by all that its interval leaves open."""
    rows, exceeded = counts["rows"], []
    for name, (low, high) in counts["intervals"].items():
        limit: float = getattr(limits, f"max_{name}")
        if low > limit:
            share = f"{counts[name]} of {rows} answers ({low:.1%} to {high:.1%} of all)"
            exceeded.append(f"{share} {BEHAVIOURS[name]}; the limit is {limit:.1%}")
    return exceeded


def _is_foreign(text: str, given: Iterable[str]) -> bool:
    """Whether more than FOREIGN of a text's letters are in a script that no given text uses."""
    used = {script for each in given for script in _scripts(each)}
    scripts = _scripts(CONTROL.sub("", text))
    return bool(used) and sum(script not in used for script in scripts) > FOREIGN * len(scripts)


def _scripts(text: str) -> list[str]:
    """The script of each letter."""
    return [script for script in map(_script, text) if script]


@lru_cache(maxsize=4096)
def _script(character: str) -> str:
    """The first word of a letter's Unicode name, such as NKO or LATIN; "" for any other character."""
    if unicodedata.category(character)[0] != "L":
        return ""
    word, _, rest = unicodedata.name(character, "unnamed").partition(" ")
    if word in ("FULLWIDTH", "HALFWIDTH"):
        word = rest.partition(" ")[0]
    if word == "MODIFIER":
        return ""  # apostrophes and raised letters, which belong to many scripts
    return "JAPANESE OR CHINESE" if word in JAPANESE else word
