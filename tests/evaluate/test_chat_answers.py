"""Rows of a chat: compared with their own answers, not with a hypothesis."""

from typing import Any

from tests.helpers.evaluations import LOSSES, prediction, settings
from thunder_train.evaluate.collapse import BEHAVIOURS
from thunder_train.evaluate.conditions import evaluate, judge


def chat(question: str, answer: str, base: str, adapter: str) -> dict[str, Any]:
    """A row of a chat as the worker writes it."""
    row = prediction("", "", base, adapter, partition="")
    return row | {"id": question, "question": question, "answer": answer}


ROWS = [
    chat("Is it?", "Yes.", "No, it is not, and I can tell you at length why that is.", "Yes."),
    chat("Why?", "Because.", "Because.", "Ask the very old man who lives there."),
]
FACTS = LOSSES | {"adapter_sha256": "5" * 64}


def scored(rows: list[dict[str, Any]], **losses: Any) -> tuple[Any, dict[str, Any]]:
    """The gate's decisions and eval.json."""
    return judge(rows, {}, FACTS | losses, settings(), "test")


def test_answers_are_compared_with_the_rows_own() -> None:
    """
    An error rate needs a hypothesis; how many answers are those of the row is all that can be counted.
    """
    _, evaluation = scored(ROWS)

    assert ({"test": 2, "scored": 0, "chat": 2}, []) == (evaluation["rows"], evaluation["conditions"])
    assert (2, {"base": 1, "adapter": 1}) == (evaluation["chat"]["rows"], evaluation["chat"]["exact"])
    assert {
        "id": "Is it?",
        "question": "Is it?",
        "answer": "Yes.",
        "base": "No, it is not, and I can tell you at length why that is.",
        "adapter": "Yes.",
    } == evaluation["chat"]["examples"][0]


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

    assert dict.fromkeys(BEHAVIOURS, 0) | {"rows": 1} == scored(rows)[1]["probe"]["adapter"]


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

    assert not {"chat", "silence"} & evaluation.keys()
    assert {"test": 1, "scored": 1} == evaluation["rows"]
    assert evaluation == evaluate(rows, scored(rows)[0], LOSSES, settings(), "5" * 64)
