"""A row as it is written: messages, tools, silence, raw texts, leaks."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.helpers.inputs import source
from tests.helpers.material import dataset
from thunder_train.data.examples import NO_SYSTEM, OWN_SYSTEM, Composer, Example
from thunder_train.data.rows import Row

SYSTEM = {"role": "system", "content": "s"}
QUESTION, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


def composer(folder: Path, template: str = "{{ asr_text }}", **given: Any) -> Composer:
    """A composer of a dataset without an orthography."""
    (folder / "prompt.j2").write_text(template, encoding="utf-8")
    return Composer(dataset(**{"sources": (source(kind="rows"),), "orthography": ""} | given), folder)


def row(**given: Any) -> Row:
    """A row of a source."""
    values: dict[str, Any] = {"row_id": "in:1", "source": "in", "file": "in.jsonl", "line": 1, "evidence_kind": "smoke"}
    return Row(**values | {"target_text": given.get("reference_text", "a")} | given)


def composed(folder: Path, *, template: str = "{{ asr_text }}", system: str = "s", **given: Any) -> Any:
    """What is written of a row, without what every row has; or the reason to drop it."""
    example = composer(folder, template, system=system).compose(row(**given))
    if not isinstance(example, Example):
        return example
    written = json.loads(msgspec.json.encode(example))
    return {name: value for name, value in written.items() if name not in ("group", "id", "source")}


def test_a_conversation_without_a_system_message_gets_that_of_the_dataset(tmp_path: Path) -> None:
    """
    Never two: a model that reads both follows neither.
    """
    system, own = {"role": "system", "content": "s"}, {"role": "system", "content": "own"}
    developer = {"role": "developer", "content": "own"}

    assert [[system, QUESTION, ANSWER], [own, QUESTION, ANSWER], [developer, QUESTION, ANSWER]] == [
        composed(tmp_path, messages=messages)["messages"]
        for messages in ((QUESTION, ANSWER), (own, QUESTION, ANSWER), (developer, QUESTION, ANSWER))
    ]
    assert [QUESTION, ANSWER] == composed(tmp_path, messages=(QUESTION, ANSWER), system="")["messages"]


def test_rows_without_the_system_message_of_the_dataset_are_counted(tmp_path: Path) -> None:
    """
    The manifest states that message, and somebody may believe that every row has it.
    """
    made, own, same = composer(tmp_path, system="s"), {"role": "system", "content": "own"}, SYSTEM
    for given in (
        {"messages": (own, QUESTION, ANSWER)},
        {"messages": (same, QUESTION, ANSWER)},
        {"messages": (QUESTION, ANSWER)},
        {"is_text": True},
    ):
        made.compose(row(**given))

    assert {OWN_SYSTEM: 1, NO_SYSTEM: 1} == made.notes


def test_tools_calls_and_weights_are_written(tmp_path: Path) -> None:
    """
    Members that say nothing are left out, so that rows of earlier versions keep their bytes.
    """
    call = {"function": {"arguments": {"x": "e\u0301\0"}, "name": "f"}, "type": "function"}
    clean = {"function": {"arguments": {"x": "\u00e9"}, "name": "f"}, "type": "function"}
    turns = (
        {**QUESTION, "name": "n"},
        {**ANSWER, "weight": 0},
        QUESTION,
        {"role": "assistant", "content": "", "tool_calls": [call]},
    )

    written = composed(tmp_path, messages=turns, tools=({"type": "function"},), system="", target_text="")

    assert [*turns[:3], {**turns[3], "tool_calls": [clean]}] == written["messages"]
    assert [{"type": "function"}] == written["tools"]


def test_plain_text_has_no_messages(tmp_path: Path) -> None:
    """
    Nothing is asked there, so there is no prompt and no system message.
    """
    assert {
        "asr_text": "", "messages": [], "partition": "", "reference_text": "", "text": "a"
    } == composed(tmp_path, is_text=True)  # fmt: skip


def test_texts_as_they_came_are_kept_where_they_differ(tmp_path: Path) -> None:
    """
    An error rate of raw texts counts the blanks that are removed here.
    """
    assert {"asr_text": " a ", "reference_text": "b\n"} == composed(tmp_path, asr_text=" a ", reference_text="b\n")[
        "raw"
    ]
    assert "raw" not in composed(tmp_path, asr_text="a", reference_text="b")


def test_silence_is_marked(tmp_path: Path) -> None:
    """
    What a model says there is invented, and nothing can be divided by its length.
    """
    written = composed(tmp_path, asr_text="a", reference_text=" ", is_silent=True)

    assert (True, "") == (written["silent"], written["messages"][-1]["content"])
    assert composed(tmp_path, asr_text="a", reference_text="\u200b")["silent"]


def test_an_empty_answer_that_is_no_silence_is_dropped(tmp_path: Path) -> None:
    """
    It would teach to answer nothing.
    """
    assert "empty target" == composed(tmp_path, asr_text="a", target_text="")
    assert "empty target" == composed(tmp_path, asr_text="a", reference_text="b", target_text=" ")
    messages = ({"role": "user", "content": "q"}, {"role": "assistant", "content": "\u200b"})
    assert "empty target" == composed(tmp_path, messages=messages, target_text="\u200b")


def test_a_row_that_heard_nothing_is_written(tmp_path: Path) -> None:
    """
    Whether it is trained on is decided where the splits are known.
    """
    written = composed(tmp_path, reference_text="b", system="")

    assert ("", ["", "b"]) == (written["asr_text"], [each["content"] for each in written["messages"]])


def test_an_earlier_answer_obeys_the_orthography_and_a_question_need_not(tmp_path: Path) -> None:
    """
    Every answer is trained, not only the last.
    """
    nko = {"role": "assistant", "content": "ߊ"}
    made = composer(tmp_path, orthography="bridge-toneless")

    assert "stray script in an earlier answer" == made.compose(
        row(messages=(QUESTION, ANSWER, QUESTION, nko), target_text="ߊ")
    )
    assert isinstance(
        made.compose(row(messages=(QUESTION, {**ANSWER, "weight": 0}, QUESTION, nko), target_text="ߊ")), Example
    )


# Leaks


def leaks(folder: Path, *rows: Row, template: str = "{{ asr_text }}") -> list[str]:
    """What is wrong with rows."""
    made = composer(folder, template)
    assert all(isinstance(made.compose(each), Example) for each in rows)
    return [str(problem) for problem in made.problems]


def test_an_alternative_that_is_the_reference_is_no_leak(tmp_path: Path) -> None:
    """
    To find it among others is the task.
    """
    template = '{{ hypotheses | join("\\n") }}'
    rivals = row(asr_text="cat sad", reference_text="cat sat", hypotheses=("cat sad", "cat sat"))

    assert [] == leaks(tmp_path, rivals, template=template)


def test_a_prompt_that_people_wrote_must_not_hold_the_reference(tmp_path: Path) -> None:
    """
    A copy of what was heard may stand there, and so may words that rows with other references share.
    """
    prompts: list[tuple[str, dict[str, Any]]] = [
        ("Correct it: hit", {"asr_text": "hit", "reference_text": "it"}),
        ("Correct it: cat", {"asr_text": "cat", "reference_text": "cats"}),
        ("Correct it: dog (dogs)", {"asr_text": "dog", "reference_text": "dogs"}),
        ("Choose: cow, cows", {"asr_text": "cow", "reference_text": "cows", "hypotheses": ("cow", "cows")}),
    ]
    rows = [
        row(row_id=f"in:{number}", messages=({"role": "user", "content": text}, ANSWER), target_text="a", **texts)
        for number, (text, texts) in enumerate(prompts)
    ]

    assert [
        "thunder.toml: datasets.nko.sources: the prompt of in:2 holds its reference; "
        "take it out of the messages; if they show what was heard, map hypotheses to that field"
    ] == leaks(tmp_path, *rows)


def test_a_label_that_rows_with_other_references_share_is_no_leak(tmp_path: Path) -> None:
    """
    Somebody says "stable" or "anna" in a row of that partition or speaker.
    """
    labels = {"partition": "stable", "telemetry": {"speaker_id": "anna"}}
    rows = [
        row(row_id=f"in:{number}", asr_text=f"x{number}", reference_text=text, **labels)
        for number, text in enumerate(("stable", "anna", "y", "z"))
    ]

    assert [] == leaks(tmp_path, *rows, template="{{ asr_text }} {{ partition }} {{ telemetry.speaker_id }}")


def test_many_leaks_are_one_problem(tmp_path: Path) -> None:
    """
    A column that holds the reference does so in every row.
    """
    notes = [
        row(row_id=f"in:{number}", asr_text="a", reference_text="b", telemetry={"confidence": "b"})
        for number in range(5)
    ]

    assert [
        "thunder.toml: datasets.nko.template: the prompts of 5 rows hold their references, the first: in:0, in:1, "
        "in:2; take it out of the telemetry or the partition"
    ] == leaks(tmp_path, *notes, template="{{ asr_text }} {{ telemetry.confidence }}")


@pytest.mark.parametrize("number", [5, 5.0, [5]])
def test_a_number_of_telemetry_is_no_reference(tmp_path: Path, number: Any) -> None:
    """
    A recording of five seconds in which somebody says 5 leaks nothing.
    """
    heard = row(asr_text="4", reference_text="5", telemetry={"duration": number})

    assert [] == leaks(tmp_path, heard, template="{{ asr_text }} {{ telemetry.duration }}")
