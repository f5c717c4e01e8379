"""Datasets from folders that `datasets` saved and from repositories of the hub: their splits, ids and manifests."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from tests.helpers.inputs import source
from tests.helpers.material import CODE
from thunder_train.config.dataset import Dataset, Source
from thunder_train.core import files
from thunder_train.data import audit, builder
from thunder_train.data.rows import Ledger
from thunder_train.data.sources import Place, read


def saved(folder: Path, *answers: str) -> None:
    """One split as Dataset.save_to_disk of `datasets` 5.2 writes it: an Arrow stream and its state."""
    folder.mkdir(parents=True)
    rows = pa.table({"prompt": [f"say {answer}" for answer in answers], "completion": answers})
    with pa.ipc.new_stream(folder / "data-00000-of-00001.arrow", rows.schema) as stream:
        stream.write_table(rows)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")


def saved_dict(folder: Path) -> None:
    """Three splits as DatasetDict.save_to_disk writes them."""
    saved(folder / "train", *(f"t{number}" for number in range(8)))
    saved(folder / "validation", "v0", "v1")
    saved(folder / "test", "e0", "e1")
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "validation", "test"]}')


def build(out: Path, root: Path, one: Source, place: Place | None = None) -> dict[str, Any]:
    """The manifest of a dataset of one source."""
    values: dict[str, Any] = {"name": "mine", "sources": (one,), "templates": (), "orthography_table": {}}
    places = {one: place} if place else None
    return builder.build(Dataset(**values), root, out, CODE, audit.build, places=places)


def answers(out: Path) -> dict[str, list[str]]:
    """{split: its answers}."""
    rows = {name: files.read_jsonl(out / f"{name}.jsonl") for name in ("train", "valid", "test")}
    return {name: [row["messages"][-1]["content"] for row in split] for name, split in rows.items()}


GIVEN = {"train": [f"t{number}" for number in range(8)], "valid": ["v0", "v1"], "test": ["e0", "e1"]}


def test_a_saved_dict_keeps_its_splits(tmp_path: Path) -> None:
    """
    Its folders say them, and its files all have one name, which must not give rows one id.
    """
    saved_dict(tmp_path / "corpus")

    manifest = build(tmp_path / "out", tmp_path, source(kind="completions", path="corpus"))

    assert GIVEN == {name: sorted(split) for name, split in answers(tmp_path / "out").items()}
    names = [f"corpus/{split}/data-00000-of-00001.arrow" for split in ("test", "train", "validation")]
    assert names == [file["path"] for file in manifest["sources"][0]["files"]]
    ids = [row["id"].partition(":")[0] for row in files.read_jsonl(tmp_path / "out/valid.jsonl")]
    assert ["validation-00000-of-00001"] * 2 == ids


def test_a_saved_dict_is_a_folder_of_given_splits(tmp_path: Path) -> None:
    """
    Kind folder, which also tells what the rows are.
    """
    saved_dict(tmp_path / "corpus")

    build(tmp_path / "out", tmp_path, source(kind="folder", path="corpus"))

    assert GIVEN == {name: sorted(split) for name, split in answers(tmp_path / "out").items()}


def test_a_folder_outside_the_project_is_named_without_its_place(tmp_path: Path) -> None:
    """
    A manifest is committed, and tells nobody where a person keeps files.
    """
    saved_dict(tmp_path / "elsewhere" / "corpus")

    one = source(kind="completions", path=str(tmp_path / "elsewhere/corpus"))
    manifest = build(tmp_path / "out", tmp_path / "project", one)

    assert "corpus" == manifest["sources"][0]["path"]
    assert "corpus/test/data-00000-of-00001.arrow" == manifest["sources"][0]["files"][0]["path"]


def test_a_repository_is_stated_with_its_commit(tmp_path: Path) -> None:
    """
    What a build on another machine pins.
    """
    saved_dict(tmp_path / "cache" / "corpus")
    place = Place(tmp_path / "cache", "a" * 40)

    one = source(kind="completions", path="corpus", repo="me/corpus", revision="main")
    manifest = build(tmp_path / "out", tmp_path, one, place)

    declared = {name: manifest["sources"][0][name] for name in ("repo", "revision", "commit", "path")}
    assert {"repo": "me/corpus", "revision": "main", "commit": "a" * 40, "path": "corpus"} == declared
    assert [2, 8, 2] == [file["rows"] for file in manifest["sources"][0]["files"]]


def own_splits(root: Path, **given: Any) -> dict[str, str]:
    """{a row's prompt: the split that it has of its own}."""
    one = source(**{"kind": "completions", "repo": "me/rows", "revision": "main"} | given)
    return {row.messages[0]["content"]: row.own_split for row in read(one, root, Ledger())}


def test_names_say_the_splits_of_rows_in_a_repository(tmp_path: Path) -> None:
    """
    As the hub itself reads them; a row that says its own split keeps it.
    """
    (tmp_path / "data").mkdir()
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d", "split": "train"}]
    files.write_text(tmp_path / "data/test-00000-of-00001.jsonl", "".join(map(files.json_line, rows)))

    assert {"a": "test", "c": "train"} == own_splits(tmp_path, path="data/*.jsonl")


def test_names_of_single_files_of_this_machine_say_nothing(tmp_path: Path) -> None:
    """
    Whoever names one file may mean anything by its name; its source can say split = "test".
    """
    files.write_text(tmp_path / "test.jsonl", files.json_line({"prompt": "a", "completion": "b"}))

    assert {"a": ""} == own_splits(tmp_path, path="test.jsonl", repo="")


def test_the_name_of_the_folder_itself_says_nothing(tmp_path: Path) -> None:
    """
    A folder called training holds all splits.
    """
    files.write_text(tmp_path / "training/rows.jsonl", files.json_line({"prompt": "a", "completion": "b"}))

    assert {"a": ""} == own_splits(tmp_path, path="training", repo="")
