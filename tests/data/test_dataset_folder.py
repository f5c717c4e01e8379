"""Which files of a folder hold rows, and which split their names say."""

import json
from pathlib import Path

import pytest

from thunder_train import ThunderError
from thunder_train.data import dataset_folder


def touched(folder: Path, *names: str) -> Path:
    """A folder with empty files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def saved(folder: Path, *names: str) -> None:
    """A folder as Dataset.save_to_disk of `datasets` 5.2 writes it."""
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "83c5", "_split": None}
    touched(folder, *names, "dataset_info.json")
    (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")


def test_a_saved_dataset_has_the_files_that_its_state_names(tmp_path: Path) -> None:
    """
    map() and filter() leave cache-*.arrow beside them, and saving again with fewer shards leaves the earlier ones.
    """
    saved(tmp_path / "rows", "data-00000-of-00001.arrow")
    touched(tmp_path / "rows", "cache-5cc843f57aff13e1.arrow", "data-00001-of-00002.arrow")

    assert ["rows/data-00000-of-00001.arrow"] == dataset_folder.rows_in("rows", tmp_path)


def test_a_saved_dict_has_a_folder_for_each_split(tmp_path: Path) -> None:
    """
    DatasetDict.save_to_disk names all files alike, so that only their folders say the split.
    """
    (tmp_path / "dict").mkdir()
    (tmp_path / "dict" / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    for split in ("train", "validation"):
        saved(tmp_path / "dict" / split, "data-00000-of-00001.arrow")

    names = dataset_folder.rows_in("dict", tmp_path)

    assert ["train", "validation"] == [dataset_folder.split_word(name) for name in names]


def test_a_copied_repository_has_its_files_of_rows(tmp_path: Path) -> None:
    """
    Programs, texts about the rows, what git keeps and other hidden files are no rows.
    """
    names = ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "en/test.jsonl.gz")
    others = ("README.md", "rows.py", "dataset_infos.json", ".git/x.json", ".cache/a.jsonl", "data/.b.jsonl", "a.zip")
    touched(tmp_path / "repo", *names, *others)

    assert [f"repo/{name}" for name in names] == dataset_folder.rows_in("repo", tmp_path)


@pytest.mark.parametrize(
    "state", ['{"_data_files": [{"filename": "../../secret.arrow"}]}', '{"_data_files": [{}]}', "["]
)
def test_a_state_that_points_elsewhere_is_refused(tmp_path: Path, state: str) -> None:
    """
    The folder comes from anyone.
    """
    (tmp_path / "state.json").write_text(state)

    with pytest.raises(ThunderError, match=r"state\.json: (cannot be read|names files outside its folder); save the"):
        dataset_folder.rows_in(".", tmp_path)


def test_a_state_of_something_else_is_no_state(tmp_path: Path) -> None:
    """
    Trainers write a file of this name too.
    """
    touched(tmp_path, "rows.jsonl")
    (tmp_path / "state.json").write_text('{"epoch": 3}')

    assert ["rows.jsonl"] == dataset_folder.rows_in(".", tmp_path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("data/train-00000-of-00002.parquet", "train"),
        ("data/validation-00000-of-00001.parquet", "validation"),
        ("en/dev.jsonl", "dev"),
        ("test/data-00000-of-00001.arrow", "test"),
        ("rows_TEST.csv", "test"),
        ("trainee.jsonl", ""),
        ("constraints/rows.jsonl", ""),
        ("train/test.jsonl", "test"),
    ],
)
def test_a_name_says_the_split(path: str, expected: str) -> None:
    """
    A word of its own in the file's name, or else in that of the nearest folder.
    """
    assert expected == dataset_folder.split_word(path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("data", ["data/deep/b.jsonl", "data/train.jsonl"]),
        ("data/", ["data/deep/b.jsonl", "data/train.jsonl"]),
        ("data/*.jsonl", ["data/train.jsonl"]),
        ("**/*.jsonl", ["data/deep/b.jsonl", "data/train.jsonl"]),
        ("data/train.jsonl", ["data/train.jsonl"]),
        ("README.md", ["README.md"]),
        ("dat", []),
    ],
)
def test_a_path_selects_names_of_a_repository(path: str, expected: list[str]) -> None:
    """
    As the same path selects files on disk.
    """
    names = ["data/train.jsonl", "README.md", "data/deep/b.jsonl", "data/.hidden/c.jsonl", "data/rows.py"]

    assert expected == dataset_folder.selected(names, path)
