"""audit.json: what the audit page is made from, of datasets that were built."""

import json
from pathlib import Path
from typing import Any

from tests.helpers.inputs import PREDICTION, source
from tests.helpers.material import build
from thunder_train.config.dataset import Dataset, Source
from thunder_train.core import files

CALL = {"id": "c", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rows as JSONL."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def chat(number: int, **changes: Any) -> dict[str, Any]:
    """A conversation, longer with each number."""
    turns = [{"role": "user", "content": "?" * (number + 1)}, {"role": "assistant", "content": f"{number}"}]
    return {"id": f"{number:02d}", "messages": turns} | changes


def facts(folder: Path, *sources: Source, **given: Any) -> dict[str, Any]:
    """The facts of a dataset of these sources."""
    (folder / "prompt.j2").write_text("{{ asr_text }}", encoding="utf-8")
    values = {"name": "tiny", "sources": sources, "templates": ("prompt.j2",), "orthography_table": {}}
    build(Dataset(**values | given), folder, folder / "out")
    read: dict[str, Any] = files.read_json(folder / "out" / "audit.json")
    return read


def speech(folder: Path, pairs: dict[str, str], name: str = "p") -> Source:
    """The source of a recogniser's rows. pairs: hypothesis -> reference."""
    numbered = [*enumerate(pairs.items())]
    heard = [{"audio_path": f"{number:02d}", "asr_text": text} for number, (text, _) in numbered]
    write(folder / f"{name}.jsonl", [PREDICTION | each for each in heard])
    references = [{"audio_path": f"{number:02d}", "reference_text": text} for number, (_, text) in numbered]
    write(folder / f"{name}-r.jsonl", references)
    return source(kind="rows", path=f"{name}.jsonl", references=f"{name}-r.jsonl")


def test_a_dropped_row_has_the_way_to_its_line(tmp_path: Path) -> None:
    """
    From data/tiny/ two folders up; a row of a list has no line, a file elsewhere no way that holds on every machine.
    """
    outside, project = tmp_path / "outside", tmp_path / "project"
    outside.mkdir()
    project.mkdir()
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]
    empty = [chat(7, messages=turns)]
    write(project / "a b.jsonl", [chat(number) for number in range(7)] + empty)
    (project / "list.json").write_text(json.dumps(empty))
    write(outside / "far.jsonl", empty)
    paths = ("a b.jsonl", "list.json", str(outside / "far.jsonl"))

    dropped = facts(project, *(source(kind="chatml", path=path) for path in paths))["dropped_examples"]

    assert {
        ("a b.jsonl", 8, "../../a%20b.jsonl#L8"),
        ("list.json", 1, "../../list.json"),
        ("far.jsonl", 1, ""),
    } == {(row["file"], row["line"], row["href"]) for rows in dropped.values() for row in rows}


def test_conversations_are_examples_too(tmp_path: Path) -> None:
    """
    Beside rows of a recogniser the shortest, a middle and the longest; alone as many as of any.
    """
    write(tmp_path / "c.jsonl", [chat(number) for number in range(20)])
    heard = speech(tmp_path, {f"a{number}": f"b{number}" for number in range(20)})

    alone = facts(tmp_path, source(kind="chatml", path="c.jsonl"))["examples"]
    beside = facts(tmp_path, heard, source(kind="chatml", path="c.jsonl"))["examples"]

    assert [f"c:{number:02d}" for number in (0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19)] == [row["id"] for row in alone]
    assert 12 == sum(row["id"].startswith("p:") for row in beside)
    assert ["c:00", "c:10", "c:19"] == [row["id"] for row in beside if row["id"].startswith("c:")]


def test_a_message_has_its_calls_and_its_mask(tmp_path: Path) -> None:
    """
    The page says which answer is no target, and what a model called.
    """
    turns = [
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "2", "tool_call_id": "c", "name": "add"},
        {"role": "assistant", "content": "Hm.", "weight": 0},
        {"role": "assistant", "content": "2"},
    ]
    tool = {"type": "function", "function": {"name": "add", "parameters": {}}}
    write(tmp_path / "c.jsonl", [chat(0, messages=turns, tools=[tool]), chat(1), chat(2)])

    examples = facts(tmp_path, source(kind="chatml", path="c.jsonl"))["examples"]

    row = next(row for row in examples if row["id"] == "c:00")
    assert ([tool], 0, False) == (row["tools"], row["more_messages"], row["is_text"])
    names = ("role", "content", "name", "tool_call_id", "calls", "is_trained")
    assert [
        ("user", "1 + 1?", "", "", [], True),
        ("assistant", "", "", "", [{"name": "add", "arguments": {"a": 1}, "id": "c"}], True),
        ("tool", "2", "add", "c", [], True),
        ("assistant", "Hm.", "", "", [], False),
        ("assistant", "2", "", "", [], True),
    ] == [tuple(message[name] for name in names) for message in row["messages"]]


def test_a_long_conversation_is_cut_and_says_so(tmp_path: Path) -> None:
    """
    A page of a thousand turns is read by nobody.
    """
    turns = [{"role": role, "content": f"{number}"} for number in range(50) for role in ("user", "assistant")]
    write(tmp_path / "c.jsonl", [chat(0, messages=turns), chat(1), chat(2)])

    row = facts(tmp_path, source(kind="chatml", path="c.jsonl"))["examples"][-1]

    assert (40, 60) == (len(row["messages"]), row["more_messages"])


def test_stray_letters_come_from_every_source_the_most_frequent_first(tmp_path: Path) -> None:
    """
    A letter of which a hundred rows died is what a reader must see first.
    """
    good = {f"a{chr(97 + number)}": f"b{chr(97 + number)}" for number in range(12)}
    one = speech(tmp_path, good | {"aé": "bz", "x": "bé", "y": "bё"})
    other = speech(tmp_path, {"ё": "ёa", "b": "ёb"}, "q")
    table = {"letters": "a-z", "shared": "0-9"}

    letters = facts(tmp_path, one, other, orthography="latin", orthography_table=table)["stray_letters"]

    assert [
        ("q", "ё", 2, 0, "q:00"),
        ("p", "é", 1, 1, "p:13"),
        ("p", "ё", 1, 0, "p:14"),
    ] == [tuple(each[name] for name in ("source", "letter", "dropped", "used", "row_id")) for each in letters]
    assert "U+0451 CYRILLIC SMALL LETTER IO" == letters[0]["name"]
