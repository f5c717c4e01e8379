"""A folder of given splits: mlx-lm's own, and Hugging Face's names."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.inputs import lines, read_source, source
from tests.helpers.material import build
from thunder_train import ThunderError
from thunder_train.config.dataset import Dataset, Source
from thunder_train.data import folder
from thunder_train.data.rows import Row

CHAT = [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": f"a{n}"}]} for n in range(3)]
PAIRS = [{"prompt": "q", "completion": f"b{number}"} for number in range(2)]
TEXTS = [{"text": f"c{number}"} for number in range(2)]
TABLE = b"prompt,completion\nq,d0\nq,d1\n"


def rows_of(root: Path, **contents: Any) -> list[Row]:
    """The rows of a folder; contents: name, with __ for each dot, -> bytes or rows."""
    fill(root, contents)
    return read_source(root, kind="folder", path="mlx")[0]


def fill(root: Path, contents: dict[str, Any]) -> None:
    """Write the files of a folder."""
    (root / "mlx").mkdir()
    for name, content in contents.items():
        path = root / "mlx" / name.replace("__", ".")
        path.write_bytes(content if isinstance(content, bytes) else lines(*content))


def refused(root: Path, contents: dict[str, Any], **given: Any) -> str:
    """The text of the error that a folder gives."""
    fill(root, contents)
    with pytest.raises(ThunderError) as error:
        read_source(root, **{"kind": "folder", "path": "mlx"} | given)
    return str(error.value)


def test_each_file_is_of_its_own_kind_and_split(tmp_path: Path) -> None:
    """As mlx-lm reads them: chat, completions, text."""
    rows = rows_of(tmp_path, train__jsonl=CHAT, valid__jsonl=PAIRS, test__jsonl=TEXTS)

    assert [("train", "a0"), ("train", "a1"), ("train", "a2")] == [
        (row.given_split, row.target_text) for row in rows[:3]
    ]
    assert [("valid", "b0"), ("valid", "b1"), ("test", "c0"), ("test", "c1")] == [
        (row.given_split, row.target_text) for row in rows[3:]
    ]
    assert ["mlx-train", "mlx-valid", "mlx-test"] == [*dict.fromkeys(row.source for row in rows)]
    assert all(row.row_id.startswith(f"{row.source}:") for row in rows)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train.json", "validation.csv", "test.csv.gz"], ["train", "valid", "test"]),
        (["train-00000-of-00002.csv", "train-00001-of-00002.csv", "dev.csv"], ["train", "train", "valid"]),
        (["Train_1.csv", "train_2.csv", "eval.csv", "testing.csv"], ["train", "train", "valid", "test"]),
        (["training.csv", "val.csv", "train_raw.csv", "README.md", "dataset_info.json"], ["train", "valid"]),
    ],
)
def test_names_of_other_libraries_are_splits(tmp_path: Path, names: list[str], expected: list[str]) -> None:
    """Parts of a split are numbered; other files lie beside them."""
    contents = {"json": json.dumps(PAIRS).encode(), "csv": TABLE, "gz": gzip.compress(TABLE), "md": b"#"}
    fill(tmp_path, {name: contents[name.rpartition(".")[2]] for name in names})

    found = folder.files_by_split(the_source(split=""), tmp_path)

    assert expected == [split for split, paths in found.items() for _ in paths]
    assert 2 * len(expected) == len(read_source(tmp_path, kind="folder", path="mlx")[0])


def the_source(**given: Any) -> Source:
    """A source that is this folder."""
    return source(kind="folder", path="mlx", **given)


def test_rows_may_be_divided_anew(tmp_path: Path) -> None:
    """If the recipe says so."""
    fill(tmp_path, {"train__jsonl": CHAT, "valid__jsonl": PAIRS})

    assert {""} == {row.given_split for row in read_source(tmp_path, kind="folder", path="mlx", split="divide")[0]}


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        (
            {"train__jsonl": [*CHAT, *PAIRS]},
            "mlx/train.jsonl:4, 5: lacks messages; "
            "this row has prompt and completion: write all rows of a file in one way",
        ),
        (
            {"train__jsonl": CHAT, "train__csv": TABLE},
            "mlx: has train.csv and train.jsonl; keep one file for train, or number its parts as train-1, train-2",
        ),
        (
            {"train__jsonl": CHAT, "valid__jsonl": PAIRS, "validation__jsonl": PAIRS},
            "mlx: has valid.jsonl and validation.jsonl; "
            "keep one file for valid, or number its parts as valid-1, valid-2",
        ),
        (
            {"valid__jsonl": CHAT},
            "mlx: has no train file; call it train.jsonl, beside valid.jsonl and test.jsonl; it holds valid.jsonl",
        ),
        (
            {"train__jsonl": [{"a": 1}]},
            "mlx/train.jsonl:1: has rows of no kind that holds its own prompt; "
            "mlx-lm knows messages, prompt and completion, text; this has a",
        ),
        ({"train__jsonl": b""}, "mlx/train.jsonl: is empty; add rows, or remove the file"),
    ],
)
def test_folder_that_cannot_be_read_is_refused(tmp_path: Path, contents: dict[str, Any], expected: str) -> None:
    """Guessing which file is meant would train on the other."""
    assert expected == refused(tmp_path, contents)


def test_folder_of_the_hub_is_pointed_to(tmp_path: Path) -> None:
    """A repository keeps its files in a folder `data`."""
    (tmp_path / "mlx" / "data").mkdir(parents=True)
    (tmp_path / "mlx" / "data" / "train-00000-of-00001.csv").write_bytes(TABLE)
    with pytest.raises(ThunderError) as error:
        read_source(tmp_path, kind="folder", path="mlx")

    assert "mlx: has no train file; its folder data has one: name that" == str(error.value)


def test_split_of_a_folder_is_refused(tmp_path: Path) -> None:
    """Two answers to one question."""
    expected = "mlx: split is 'test', but the files say it; leave split out, or set \"divide\" to split the rows anew"

    assert expected == refused(tmp_path, {"train__jsonl": CHAT}, split="test")


def test_manifest_states_the_files_that_were_read(tmp_path: Path) -> None:
    """And no others that lie beside them."""
    rows = [{"prompt": f"q{number}", "completion": f"ߞ{number}"} for number in range(6)]
    fill(tmp_path, {"train__jsonl": rows[:3], "valid__jsonl": rows[3:5], "test__jsonl": rows[5:], "trace.md": b"#"})
    (tmp_path / "prompt.j2").write_text("x")

    manifest = build(dataset(), tmp_path, tmp_path / "out")

    assert [("mlx/train.jsonl", 3), ("mlx/valid.jsonl", 2), ("mlx/test.jsonl", 1)] == [
        (file["path"], file["rows"]) for file in manifest["sources"][0]["files"]
    ]
    assert [3, 2, 1] == [manifest["splits"][name]["rows"] for name in ("train", "valid", "test")]


def dataset() -> Dataset:
    """A dataset of this folder alone."""
    return Dataset(name="x", sources=(the_source(split=""),), system="", templates=(), orthography_table={})
