"""A dataset of rows that were given to a split, or in which nothing was said: files, manifest and notes."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.inputs import PREDICTION, source
from tests.helpers.material import build
from thunder_train import ThunderError
from thunder_train.config.dataset import Dataset
from thunder_train.core import files

Rows = list[dict[str, Any]]
Pair = tuple[str, str | None, str]


def write(path: Path, rows: Rows) -> None:
    """Rows as JSONL."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def chat(question: str, answer: str) -> dict[str, Any]:
    """A row of a conversation."""
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def chats(folder: Path, files_of_rows: dict[str, Rows], **given: Any) -> dict[str, Any]:
    """The manifest of conversations, of a file for each split that their source gives."""
    for name, rows in files_of_rows.items():
        write(folder / f"{name}.jsonl", rows)
    sources = tuple(source(kind="chatml", path=f"{name}.jsonl", split=name) for name in files_of_rows)
    return build(
        Dataset(**{"name": "d", "sources": sources, "templates": (), "orthography_table": {}} | given),
        folder,
        folder / "out",
    )


def speech(folder: Path, pairs: list[Pair], **given: Any) -> dict[str, Any]:
    """The manifest of a recogniser's rows. pairs: (own split, hypothesis, reference)."""
    numbered = [*enumerate(pairs)]
    heard = [{"audio_path": f"{n:02d}", "split": split, "asr_text": text} for n, (split, text, _) in numbered]
    write(folder / "p.jsonl", [PREDICTION | each for each in heard])
    write(folder / "r.jsonl", [{"audio_path": f"{n:02d}", "reference_text": text} for n, (*_, text) in numbered])
    (folder / "prompt.j2").write_text("{{ asr_text }}", encoding="utf-8")
    sources = (source(kind="rows", path="p.jsonl", references="r.jsonl"),)
    values = {"name": "d", "sources": sources, "templates": ("prompt.j2",), "orthography_table": {}}
    return build(Dataset(**values | given), folder, folder / "out")


def ids(folder: Path) -> dict[str, list[str]]:
    """The ids of each split."""
    rows = {name: files.read_jsonl(folder / "out" / f"{name}.jsonl") for name in ("train", "valid", "test")}
    return {name: [row["id"].partition(":")[2] for row in each] for name, each in rows.items()}


def test_a_published_test_set_stays_whole(tmp_path: Path) -> None:
    """
    Equal rows of it stay, what train has of it goes, and the manifest says all of this.
    """
    same, other = chat("1 + 1?", "2"), chat("2 + 2?", "4")
    train = [same, chat("3 + 3?", "6"), chat("4 + 4?", "8")]

    manifest = chats(tmp_path, {"train": train, "valid": [other], "test": [same, same, other]})

    assert {"train": 2, "valid": 1, "test": 3} == {name: each["rows"] for name, each in manifest["splits"].items()}
    assert {"train": 2, "valid": 1, "test": 3} == manifest["split"]["given"]
    names = [row["id"] for row in files.read_jsonl(tmp_path / "out" / "test.jsonl")]
    assert 3 == len(set(names))
    assert [name for name in names if name + "#2" in names] == [name[:-2] for name in names if name.endswith("#2")]
    assert [("train.jsonl", 1, "exact duplicate of a row of test", "test.jsonl:1")] == [
        (row["file"], row["line"], row["reason"], row["also_at"])
        for row in files.read_jsonl(tmp_path / "out" / "dropped.jsonl")
    ]
    assert [
        "1 row that a given split has too was dropped; dropped.jsonl names both places",
        "1 row given to valid has the text of rows given to test and stays; the first: valid.jsonl:1 and test.jsonl:3",
        "equal rows inside a given split stay: 1 id got #2, #3 or higher at the end",
    ] == manifest["notes"]


def test_conversations_with_one_answer_are_not_one_text(tmp_path: Path) -> None:
    """
    Labels repeat: "yes" in the test must not take every "yes" out of train.
    """
    train = [chat(f"Is {number} odd?", "yes" if number % 2 else "no") for number in range(9)]

    manifest = chats(tmp_path, {"train": train, "test": [chat("Is 99 odd?", "yes")]}, valid=0)

    assert ({}, 9) == (manifest["dropped"], manifest["splits"]["train"]["rows"])


def test_an_official_split_of_a_recogniser_is_kept(tmp_path: Path) -> None:
    """
    Rows that the recogniser was trained on are no test, and telemetry of test rows is there for a gate.
    """
    manifest = speech(tmp_path, [("test" if n % 2 else "train", f"a b {n}", f"a c {n}") for n in range(40)])

    assert [f"{n:02d}" for n in range(1, 40, 2)] == ids(tmp_path)["test"]
    assert {"train": 20 - len(ids(tmp_path)["valid"]), "valid": 0, "test": 20} == manifest["split"]["given"]
    assert 0 < len(ids(tmp_path)["valid"]) < 8
    decisions = files.read_jsonl(tmp_path / "out" / "decisions.jsonl")
    assert [row["id"] for row in files.read_jsonl(tmp_path / "out" / "test.jsonl")] == [row["id"] for row in decisions]
    assert {"ctc_confidence": 0.5} == decisions[0]["telemetry"]


@pytest.mark.parametrize("path", ["{}-*.jsonl", ""])
def test_files_that_are_named_as_splits_keep_them(tmp_path: Path, path: str) -> None:
    """
    To divide a published test set by hash would train on it without a word. One name alone says nothing.
    """
    names = ("x-train-0.jsonl", "x-test.jsonl")
    for number, name in enumerate(names):
        write(tmp_path / name, [chat(f"{number} {n}?", "a") for n in range(10)])
    patterns = [path.format("x")] if path else names
    values = {"name": "d", "templates": (), "orthography_table": {}}

    both = Dataset(sources=tuple(source(kind="chatml", path=each) for each in patterns), **values)
    one = Dataset(sources=(source(kind="chatml", path="x-test.jsonl"),), **values)

    assert {"train": 9, "valid": 1, "test": 10} == {
        name: each["rows"] for name, each in build(both, tmp_path, tmp_path / "out")["splits"].items()
    }
    assert "given" not in build(one, tmp_path, tmp_path / "out")["split"]


def test_without_any_row_only_the_reason_is_told(tmp_path: Path) -> None:
    """
    That no split has a row only follows from it.
    """
    untrained = [{**chat(f"{n}?", "a"), "weight": 0} for n in range(5)]

    with pytest.raises(ThunderError) as caught:
        chats(tmp_path, {"train": untrained}, max_dropped=1.0)

    assert (
        "thunder.toml: datasets.d.max_dropped: 5 of 5 rows were dropped (a row with a weight of 0: 5); "
        "correct them; the first: train.jsonl:1, train.jsonl:2, train.jsonl:3"
    ) == str(caught.value)


def test_silence_is_scored_and_not_trained_on(tmp_path: Path) -> None:
    """
    A model that answers silence harms; one that learned from silence repeats nothing. A recipe may say otherwise.
    """
    pairs: list[Pair] = [("train", f"a b {n}", f"a c {n}") for n in range(20)]
    pairs += [("train", "", "x y"), ("train", " hum ", ""), ("train", None, "z")]
    pairs += [("test", "", "x a"), ("test", " ham ", ""), ("test", None, "z a"), ("test", "c d", "c d")]

    manifest = speech(tmp_path, pairs)

    assert {"the recogniser heard nothing": 2, "nothing was said": 1} == manifest["dropped"]
    assert ["23", "24", "25", "26"] == ids(tmp_path)["test"]
    assert {"", "ham", "c d"} == {row["asr_text"] for row in files.read_jsonl(tmp_path / "out" / "test.jsonl")}
    trained = speech(tmp_path, pairs, train_on_silence=True)
    assert ({}, 27) == (trained["dropped"], sum(each["rows"] for each in trained["splits"].values()))
    assert 1.0 == manifest["splits"]["test"]["cer"]  # 3 + 3 + 3 edits, 9 letters


def test_a_dataset_without_rows_for_train_says_what_to_do(tmp_path: Path) -> None:
    """
    All of its rows are given to the test.
    """
    with pytest.raises(ThunderError) as error:
        chats(tmp_path, {"test": [chat("1 + 1?", "2"), chat("2 + 2?", "4")]}, valid=0)

    assert (
        "thunder.toml: datasets.d.valid: no row of 2 fell into the train split; "
        'rows were given to valid and test: add others, or set split = "train" or "divide" in a source'
    ) == str(error.value)


def test_what_is_disabled_is_said(tmp_path: Path) -> None:
    """
    No validation means no best adapter; nobody should find that out after a night of training.
    """
    manifest = chats(tmp_path, {"train": [chat("1 + 1?", "2"), chat("2 + 2?", "4")]}, valid=0, test=0)

    assert [
        "valid has no row: there is no best adapter and no early stopping",
        "test has no row: nothing is scored",
    ] == manifest["notes"]
    assert "" == (tmp_path / "out" / "valid.jsonl").read_text()


def test_the_rule_says_what_was_moved_and_unused_fields_are_named(tmp_path: Path) -> None:
    """
    A split of a handful of rows is no longer a matter of hashes alone.
    """
    write(tmp_path / "c.jsonl", [chat(f"{n}?", f"{n}") | {"mood": "x"} for n in range(3)])
    sources = (source(kind="chatml", path="c.jsonl"),)
    dataset = Dataset(name="d", sources=sources, templates=(), orthography_table={}, valid=0.001, test=0.001)

    manifest = build(dataset, tmp_path, tmp_path / "out")

    assert [1, 1, 1] == [each["rows"] for each in manifest["splits"].values()]
    assert manifest["split"]["rule"].endswith("; " + manifest["notes"][-1])
    assert {"mood": 3} == manifest["unused_fields"]
