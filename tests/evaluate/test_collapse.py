"""Which answers count as degenerate, and which only resemble them."""

from typing import Any

import pytest

from tests.helpers.evaluations import limits, prediction
from thunder_train.evaluate.collapse import BEHAVIOURS, Answer, behaviour, faults, loops, thinking

HYPOTHESIS, REFERENCE = "ߊ ߓߍ ߕߊߡߊ", "ߊ ߓߍ ߕߊߡߌ"
PHRASE = "ߡߎߞߊߣ ߊߣߌ ߛߍߜߌߣ "
"""A known hallucination of the users' recogniser: mukan ani segin, repeated."""
NONE = dict.fromkeys(BEHAVIOURS, 0)


def kinds(text: str, finish: str = "stop", special: int = 0, asr: str = HYPOTHESIS, ref: str = REFERENCE) -> list[str]:
    """The kinds of degenerate answers that one text counts as."""
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
def test_each_kind_of_degenerate_answer_is_recognised(text: str, expected: list[str]) -> None:
    """The users' adapters failed in each of these ways while their loss fell."""
    assert expected == kinds(text)


@pytest.mark.parametrize(
    "text",
    [
        "ߊ ߓߍ ߕߊߡߊ ߕߊߡߊ",  # a word twice: a walk that goes on
        "ߘߐߐߣߌ ߘߐߐߣߌ ߘߐߐߣߌ",  # "little by little", three times
        "ߞߊߙߊ ߘߌ 10000000",  # a number
        "߁߀߀߀߀߀߀",  # the same in N'Ko digits
        "ߊߊߊߊ",  # an exclamation
        "ߊ ߟߍ 3 < 5",
        "ߊ ߓߍ ߕߊߡߊ ߓߊߡߊߞߐ [PDF]",  # three foreign letters among 14
    ],
)
def test_normal_speech_is_not_degenerate(text: str) -> None:
    """Bambara repeats words two and three times; numbers end in zeros."""
    assert [] == kinds(text)


@pytest.mark.parametrize(("latin", "expected"), [("a", []), ("ab", ["wrong_script"])])
def test_a_quarter_of_foreign_letters_is_allowed(latin: str, expected: list[str]) -> None:
    """A name in another script is not a wrong script: 1 of 4 letters is allowed, 2 of 5 are not."""
    assert expected == kinds(f"ߓߊߕ {latin}")


def test_a_script_of_hypothesis_or_reference_is_not_foreign() -> None:
    """The bridge orthography writes an apostrophe as U+0294, a Latin letter in Unicode, and rows quote French."""
    assert [] == kinds("merci", ref="ߊ ߣߌ merci")


def test_without_a_letter_in_hypothesis_or_reference_no_script_is_wrong() -> None:
    """A row of digits says nothing about the expected script."""
    assert [] == kinds("deux", asr="2", ref="")


def test_a_loop_of_the_hypothesis_does_not_count_against_the_model() -> None:
    """A model that copies a hallucination of the recogniser has not collapsed."""
    assert ["copied"] == kinds(PHRASE * 4, asr=PHRASE * 4)


def test_copies_are_recognised_after_nfc() -> None:
    """Marks in another order are the same text."""
    assert ["copied"] == kinds("ߊ\u07eb\u07f2", asr="ߊ\u07f2\u07eb")


@pytest.mark.parametrize(("finish", "special", "expected"), [("length", 0, ["over_long"]), ("stop", 1, ["pad"])])
def test_the_finish_and_control_tokens_of_the_worker_count_too(finish: str, special: int, expected: list[str]) -> None:
    """The text does not contain the control tokens, and an answer that was cut may be short."""
    assert expected == kinds("ߊ ߓߍ ߕߊߡߌ", finish, special)


def test_a_varying_loop_that_did_not_end_counts_as_a_loop() -> None:
    """Two letters in changing order have no period, but few different 4-grams."""
    text = "ߊߊߊߊߓߊߊߊߓߓߊߊߊߊߓߊߊߊߊߓߊߊߊߊߊߓߊߊߊߊߓߊߊߊߊߊߊߊߓߊߊߊ"

    assert (["over_long"], ["loop", "over_long"]) == (kinds(text), kinds(text, "length"))


def test_a_loop_may_begin_late_and_end_in_the_middle_of_its_unit() -> None:
    """The limit of tokens can cut an answer anywhere."""
    assert loops("ߊ ߓߍ ߕߊߡߊ " + PHRASE * 5 + PHRASE[:7])
    assert not loops("ߊ ߓߍ ߕߊߡߊ ߞߊ ߥߊ ߘߎߜߎ ߟߊ ߓߌ ߛߊߞߏ ߊ ߡߊ ߣ " + "ߓߊ" * 4)


def rows(**adapters: int) -> list[dict[str, Any]]:
    """Predictions whose base copies, and whose adapter gives each text the given number of times."""
    answers = [text for text, times in adapters.items() for _ in range(times)]
    return [prediction(HYPOTHESIS, REFERENCE, HYPOTHESIS, text) for text in answers]


def plain(counts: dict[str, Any]) -> dict[str, Any]:
    """Counts without their intervals."""
    return {name: count for name, count in counts.items() if name != "intervals"}


def test_base_and_adapter_are_counted_on_the_same_rows() -> None:
    """A fault that the base model has, too, does not come from the training."""
    counted = behaviour(rows(**{"": 1, REFERENCE: 19}), limits())

    assert [] == counted["collapsed"]
    assert NONE | {"copied": 20, "rows": 20} == plain(counted["base"])
    assert NONE | {"empty": 1, "rows": 20} == plain(counted["adapter"])


def test_each_limit_that_the_adapter_exceeds_has_its_sentence() -> None:
    """The decision is NO-GO on these for any loss, and the page begins with them."""
    counted = behaviour(rows(**{"": 4, HYPOTHESIS: 16, "<pad>": 1}), limits(copied=0.5))

    assert [
        "4 of 21 answers (7.7% to 40.0% of all) are empty; the limit is 5.0%",
        "1 of 21 answers (0.8% to 22.7% of all) hold pad or other control tokens; the limit is 0.0%",
        "16 of 21 answers (54.9% to 89.4% of all) copy the hypothesis; the limit is 50.0%",
    ] == counted["collapsed"]


def test_a_few_answers_of_few_rows_are_no_collapse() -> None:
    """1 of 13 is 7.7 %, but says no more than 1 % to 33 %; the same share of many rows is over the limit."""
    few, many = (behaviour(rows(**{"": empty, REFERENCE: 12 * empty}), limits()) for empty in (1, 20))

    assert (0.01371, 0.33314) == few["adapter"]["intervals"]["empty"]
    assert [] == few["collapsed"]
    assert ["20 of 260 answers (5.0% to 11.6% of all) are empty; the limit is 5.0%"] == many["collapsed"]


def test_a_collapsed_base_model_is_no_problem() -> None:
    """A base model may be untrained; only the adapter is judged."""
    collapsed = [prediction(HYPOTHESIS, REFERENCE, "", REFERENCE)]

    assert [] == behaviour(collapsed, limits())["collapsed"]


def test_no_rows_are_no_collapse() -> None:
    """A dataset may have no test split."""
    nothing = NONE | {"rows": 0, "intervals": {}}

    assert {"base": nothing, "adapter": nothing, "collapsed": []} == behaviour([], limits())


ENGLISH = "Two students cleaned a heavy suitcase near the station."


@pytest.mark.parametrize(
    "text",
    [
        *("Yes.", "No, no.", "OK", "I see.", "2", "Ha ha ha.", "It is 10:30.", "Café, s'il vous plaît", "A.", "naïve"),
        *("Bye-bye, bye-bye!", "www.example.org", "100,000", "hmm...", "ʻOkina", "\uff2f\uff2b"),
    ],
)
def test_short_english_answers_are_normal(text: str) -> None:
    """Rows of a real recogniser are often one word; accents, fullwidth letters and raised letters are Latin, too."""
    assert [] == kinds(text, asr=f"{text[:-1]}x y", ref=f"{text}!")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Two students cleaned a heavy suitcase near the station.", []),
        ("Two stdents", []),
        ("ߌߊ ߞߊ", ["wrong_script"]),
        ("the the the the the the", ["loop"]),
        (ENGLISH * 3, ["over_long"]),
    ],
)
def test_rows_of_latin_script_are_judged_as_others(text: str, expected: list[str]) -> None:
    """The probe knows no script by name: what hypothesis and reference use is right."""
    assert expected == kinds(text, asr="Twos tudents cleaned a heavy sutcase near the station.", ref=ENGLISH)


def test_japanese_may_mix_its_scripts() -> None:
    """A reference in kana may be answered in kanji: both are Japanese."""
    assert [] == kinds("木に登る", asr="きに のぼる", ref="きに登る")
    assert ["wrong_script"] == kinds("나무에", asr="きに のぼる", ref="きに登る")


def thinkers(base: int, adapter: int) -> list[dict[str, Any]]:
    """12 predictions, so many of which were still thinking when they ended."""
    texts = [("" if at < base else REFERENCE, "" if at < adapter else REFERENCE) for at in range(12)]
    ends = {True: "stop", False: "thinking"}
    return [
        prediction(HYPOTHESIS, REFERENCE, *pair)
        | {"base_finish": ends[bool(pair[0])], "adapter_finish": ends[bool(pair[1])]}
        for pair in texts
    ]


def test_answers_that_were_still_thinking_are_counted_apart() -> None:
    """They did not end, but they are not empty: a longer answer, or a switch of the template, would show them."""
    counted = behaviour(thinkers(12, 1), limits())

    assert NONE | {"over_long": 12, "rows": 12, "thinking": 12} == plain(counted["base"])
    assert NONE | {"over_long": 1, "rows": 12, "thinking": 1} == plain(counted["adapter"])
    assert [
        "12 of 12 answers of the base were still thinking when they ended; set enable_thinking = false in "
        "[models.NAME.template] or raise evaluate.max_tokens",
        "1 of 12 answers of the adapter were still thinking when they ended; set enable_thinking = false in "
        "[models.NAME.template] or raise evaluate.max_tokens",
    ] == thinking(counted)
    assert [] == thinking(behaviour(thinkers(0, 0), limits()))
