"""Which answers are degenerate, and which only look so."""

from typing import Any

import pytest

from tests.helpers.evaluations import limits, prediction
from thunder_train.evaluate.collapse import BEHAVIOURS, Answer, behaviour, faults, loops, problems

HYPOTHESIS, REFERENCE = "ߊ ߓߍ ߕߊߡߊ", "ߊ ߓߍ ߕߊߡߌ"
PHRASE = "ߡߎߞߊߣ ߊߣߌ ߛߍߜߌߣ "
"""The hallucination that the users' recogniser is known for: mukan ani segin, again and again."""
NONE = dict.fromkeys(BEHAVIOURS, 0)


def found(text: str, finish: str = "stop", special: int = 0, asr: str = HYPOTHESIS, ref: str = REFERENCE) -> list[str]:
    """What one answer is counted as."""
    return faults(Answer(text, finish, special, asr, ref))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ߊ ߓߍ ߕߊߡߌ", []),
        ("", ["empty"]),
        (" \n", ["empty"]),
        (HYPOTHESIS, ["copied"]),
        ("ߊ ߓߍ <pad>", ["pad"]),
        ("<unk>", ["pad"]),
        ("ߊ ߓߍ <end_of_turn>", ["pad"]),
        ("ߊ <|im_end|>", ["pad"]),
        ("I be taama", ["wrong_script"]),
        ("Я бе таама", ["wrong_script"]),
        ("ߊ ߓߍ ߕߊߡߊ ߞߊ ߥߊ ߘߎߜߎ ߟߊ ߓߌ ߛߊߞߏ ߊ ߡߊ ߣ", ["over_long"]),
        ("ߓߊߓߊߓߊߓߊ", ["loop"]),
        ("ߊ ߓߍ ߟߊߟߊߟߊߟߊߟߊߟߊߟߊߟ", ["loop"]),
        (PHRASE * 4, ["loop", "over_long"]),
    ],
)
def test_degenerate_answers_are_told_by_kind(text: str, expected: list[str]):
    """Each is a way in which the users' adapters failed while their loss fell."""
    assert expected == found(text)


@pytest.mark.parametrize(
    "text",
    [
        "ߊ ߓߍ ߕߊߡߊ ߕߊߡߊ",  # a word said twice: a walk that goes on
        "ߘߐߐߣߌ ߘߐߐߣߌ ߘߐߐߣߌ",  # "little by little", three times
        "ߞߊߙߊ ߘߌ 10000000",  # a number
        "߁߀߀߀߀߀߀",  # the same in N'Ko digits
        "ߊߊߊߊ",  # a cry
        "ߊ ߟߍ 3 < 5",
        "ߊ ߓߍ ߕߊߡߊ ߓߊߡߊߞߐ [PDF]",  # three foreign letters among 14
    ],
)
def test_speech_that_only_resembles_a_fault_is_none(text: str):
    """Bambara says words twice and three times; numbers end in zeros."""
    assert [] == found(text)


@pytest.mark.parametrize(("latin", "expected"), [("a", []), ("ab", ["wrong_script"])])
def test_a_quarter_of_foreign_letters_is_borne(latin: str, expected: list[str]):
    """A name in its own script is no switch of script: 1 of 4 letters passes, 2 of 5 do not."""
    assert expected == found(f"ߓߊߕ {latin}")


def test_a_script_of_hypothesis_or_reference_is_not_foreign():
    """The bridge writes an apostrophe as U+0294, which is Latin to Unicode, and rows quote French."""
    assert [] == found("merci", ref="ߊ ߣߌ merci")


def test_without_any_known_letter_no_script_is_wrong():
    """A row of digits tells nothing about the script that is wanted."""
    assert [] == found("deux", asr="2", ref="")


def test_a_loop_of_the_hypothesis_is_not_the_models():
    """A recogniser that hallucinates must not make its corrector look collapsed: it copied."""
    assert ["copied"] == found(PHRASE * 4, asr=PHRASE * 4)


def test_copying_is_told_after_nfc():
    """Marks in another order are the same text."""
    assert ["copied"] == found("ߊ\u07eb\u07f2", asr="ߊ\u07f2\u07eb")


@pytest.mark.parametrize(("finish", "special", "expected"), [("length", 0, ["over_long"]), ("stop", 1, ["pad"])])
def test_the_workers_word_counts_too(finish: str, special: int, expected: list[str]):
    """Control tokens are left out of a text, and an answer that was cut may be short."""
    assert expected == found("ߊ ߓߍ ߕߊߡߌ", finish, special)


def test_a_drifting_loop_that_never_ended_is_one():
    """Two words in changing order have no period, but nothing to say either."""
    text = "ߊߊߊߊߓߊߊߊߓߓߊߊߊߊߓߊߊߊߊߓߊߊߊߊߊߓߊߊߊߊߓߊߊߊߊߊߊߊߓߊߊߊ"

    assert (["over_long"], ["loop", "over_long"]) == (found(text), found(text, "length"))


def test_a_loop_may_begin_late_and_end_in_the_middle_of_its_unit():
    """The limit of tokens cuts where it falls."""
    assert loops("ߊ ߓߍ ߕߊߡߊ " + PHRASE * 5 + PHRASE[:7])
    assert not loops("ߊ ߓߍ ߕߊߡߊ ߞߊ ߥߊ ߘߎߜߎ ߟߊ ߓߌ ߛߊߞߏ ߊ ߡߊ ߣ " + "ߓߊ" * 4)


def rows(**adapters: int) -> list[dict[str, Any]]:
    """Predictions whose base copies, and whose adapter says each of these texts so many times."""
    answers = [text for text, times in adapters.items() for _ in range(times)]
    return [prediction(HYPOTHESIS, REFERENCE, HYPOTHESIS, text) for text in answers]


def test_base_and_adapter_are_counted_on_the_same_rows():
    """A fault that the base has, too, is not the training's."""
    counted = behaviour(rows(**{"": 1, REFERENCE: 19}), limits())

    assert {
        "base": NONE | {"copied": 20, "rows": 20},
        "adapter": NONE | {"empty": 1, "rows": 20},
        "collapsed": [],
    } == counted


def test_each_broken_limit_of_the_adapter_has_its_sentence():
    """The stage fails on these whatever the loss says, and names the key that a recipe may set."""
    own = limits(copied=0.5)
    counted = behaviour(rows(**{"": 2, HYPOTHESIS: 11, "<pad>": 7}), own)

    assert [
        "2 of 20 answers (10.0%) are empty; the limit is 5.0%",
        "7 of 20 answers (35.0%) hold pad or other control tokens; the limit is 0.0%",
        "11 of 20 answers (55.0%) copy the hypothesis; the limit is 50.0%",
    ] == counted["collapsed"]
    assert (
        "recipes/nko.toml: evaluate.probe.max_empty: the adapter has collapsed: 2 of 20 answers (10.0%) are empty; the "
        "limit is 5.0%; read logs/evaluate/predictions.jsonl of the run; train longer or at another rate, or raise "
        "the limit"
    ) == str(problems(counted, own, "recipes/nko.toml")[0])
    assert 3 == len(problems(counted, own, "recipes/nko.toml"))


def test_the_bases_own_collapse_is_no_problem():
    """A base may know nothing yet; the adapter is judged."""
    broken = [prediction(HYPOTHESIS, REFERENCE, "", REFERENCE)]

    assert [] == behaviour(broken, limits())["collapsed"]


def test_no_rows_have_not_collapsed():
    """A dataset may have no test split."""
    assert {"base": NONE | {"rows": 0}, "adapter": NONE | {"rows": 0}, "collapsed": []} == behaviour([], limits())
