"""Rows of a chat: compared with their own answers, not with a hypothesis."""

from typing import Any

from tests.helpers.evaluations import LOSSES, prediction, settings
from thunder_train.evaluate.collapse import BEHAVIOURS
from thunder_train.evaluate.conditions import evaluate, judge


def chat(question: str, answer: str, base: str, adapter: str) -> dict[str, Any]:
    """A row of a chat as the worker writes it."""
    row = prediction("", "", base, adapter, partition="")
    return row | {"id": question, "group": question, "question": question, "answer": answer}


ROWS = [
    chat("Is it?", "Yes.", "No, it is not, and I can tell you at length why that is.", "Yes."),
    chat("Why?", "Because.", "Because.", "Ask the very old man who lives there."),
]
FACTS = LOSSES | {"adapter_sha256": "5" * 64}


def scored(rows: list[dict[str, Any]], **losses: Any) -> tuple[Any, dict[str, Any]]:
    """The gate's decisions and eval.json."""
    return judge(rows, {}, FACTS | losses, settings(), "test")


def test_answers_are_compared_with_the_expected_ones() -> None:
    """
    A chat has no hypothesis to correct: what the base model answers is the baseline.
    """
    _, evaluation = scored(ROWS)
    answers = evaluation["answers"]

    assert ({"test": 2, "scored": 0, "chat": 2}, []) == (evaluation["rows"], evaluation["conditions"])
    base, adapter = answers["scores"]
    assert ("base", 2, 0.5, 53 / 12, 14 / 2) == (base["model"], base["n"], base["exact"], base["cer"], base["wer"])
    assert ("adapter", 0.5, 32 / 12, 4.0) == (adapter["model"], adapter["exact"], adapter["cer"], adapter["wer"])
    change = [round(answers["change"][name], 9) for name in ("exact", "cer", "wer")]
    assert [0.0, -175.0, -300.0] == change  # 32 edits of 12 characters against 53, 8 of 2 words against 14
    assert answers["change"]["chrf"] == adapter["chrf"] - base["chrf"]
    assert (1, 0, 1) == (answers["better"], answers["same"], answers["worse"])


def test_examples_are_the_rows_with_the_largest_differences() -> None:
    """
    What an adapter gained and what it broke is seen in texts.
    """
    answers = scored(ROWS)[1]["answers"]["examples"]

    assert [
        {
            "id": "Is it?",
            "question": "Is it?",
            "answer": "Yes.",
            "base": "No, it is not, and I can tell you at length why that is.",
            "adapter": "Yes.",
        }
    ] == answers["best"]
    assert ["Why?"] == [each["id"] for each in answers["worst"]]


def test_a_few_groups_have_no_interval() -> None:
    """
    Two rows say nothing about a third.
    """
    answers = scored(ROWS)[1]["answers"]

    assert (2, True, None) == (answers["groups"], answers["too_few_groups"], answers["change"]["cer_low"])


def test_intervals_draw_the_rows_of_a_group_together() -> None:
    """
    Ten rows of one conversation are one witness: 30 conversations of 10 equal rows say as much as 30 rows.
    """
    alone = [chat(f"{at}?", "Yes.", "No.", "Yes." if at % 3 else "No.") | {"group": str(at)} for at in range(30)]
    tenfold = [row | {"id": f"{row['id']}{copy}"} for row in alone for copy in range(10)]
    few, many = scored(alone)[1]["answers"], scored(tenfold)[1]["answers"]

    assert (30, 30, 300) == (few["groups"], many["groups"], many["rows"])
    assert few["change"] == many["change"]
    assert few["change"]["exact_low"] < 100 * 2 / 3 < few["change"]["exact_high"] < 100


def test_no_right_answer_is_no_proof_that_none_can_be_right() -> None:
    """
    Resamples of equal groups are equal; 0 of 20 still leaves 16 % open.
    """
    rows = [chat(f"{at}?", "Yes.", "No.", "Perhaps.") for at in range(20)]
    answers = scored(rows)[1]["answers"]

    assert (0.0, 0.0, 0.161125) == tuple(answers["scores"][1][f"exact{end}"] for end in ("", "_low", "_high"))
    assert (-16.1125, 16.1125) == (answers["change"]["exact_low"], answers["change"]["exact_high"])


def test_the_gate_is_not_asked_about_a_chat() -> None:
    """
    It judges corrections of a hypothesis, and an answer to a question corrects none.
    """
    judged, evaluation = scored([*ROWS, prediction("ߊ", "ߋ", "ߊ", "ߋ")])

    assert ["ߊ-ߋ"] == [each["id"] for each in judged.decisions]
    assert (1, {"test": 3, "scored": 1, "chat": 2}) == (evaluation["gate"]["accepted"], evaluation["rows"])


def test_an_answer_of_a_chat_may_be_of_any_length_and_hold_any_tag() -> None:
    """
    Nothing says how long an answer must be; a text about HTML may name <s>.
    """
    rows = [chat("How?", "Use <del>.", "", "Use <s>, as in the page that was shown to you yesterday.")]

    counts = scored(rows)[1]["probe"]["adapter"]
    assert dict.fromkeys(BEHAVIOURS, 0) | {"rows": 1, "intervals": counts["intervals"]} == counts


def test_an_answer_in_another_script_than_question_and_answer_counts() -> None:
    """
    So does one that repeats the question, or itself.
    """
    rows = [
        chat("Where is it?", "Here.", "", "Здесь он."),
        chat("Where is it?", "Here.", "", "Where is it?"),
        chat("Where is it?", "Here.", "", "here and here and here and here and here and here and"),
    ]
    counts = scored(rows)[1]["probe"]["adapter"]

    assert (1, 1, 1) == (counts["wrong_script"], counts["copied"], counts["loop"])


def test_rows_of_plain_text_are_counted_as_such() -> None:
    """
    They have a loss only; nobody answered them.
    """
    _, evaluation = scored(ROWS, text_rows=5)

    assert {"test": 7, "scored": 0, "chat": 2, "text": 5} == evaluation["rows"]
    assert 2 == evaluation["probe"]["adapter"]["rows"]


def test_a_dataset_without_chat_has_no_word_about_it() -> None:
    """
    Its eval.json stays as it was.
    """
    rows = [prediction("ߊ", "ߋ", "ߊ", "ߋ")]
    _, evaluation = scored(rows)

    assert not {"answers", "silence"} & evaluation.keys()
    assert {"test": 1, "scored": 1} == evaluation["rows"]
    assert evaluation == evaluate(rows, scored(rows)[0], LOSSES, settings(), "5" * 64)
