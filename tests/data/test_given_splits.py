"""Which split a row goes to: given by its source, by its own word, or by a hash."""

from collections import Counter
from functools import partial
from typing import Any

import numpy as np
import pytest

from tests.helpers.inputs import source
from thunder_train.config.dataset import Dataset
from thunder_train.data import splits
from thunder_train.data.given_splits import Columns, Plan, filled, plan
from thunder_train.data.rows import Row

GROUPS = 40
"""Enough that each split gets some by hash."""


def row(number: int, own_split: str = "", given_split: str = "") -> Row:
    """A row of a group of its own."""
    return Row(
        row_id=f"{number}",
        source="in",
        file="in",
        line=number,
        evidence_kind="smoke",
        target_text=f"{number}",
        own_split=own_split,
        given_split=given_split,
    )


def planned(*parts: tuple[dict[str, Any], list[Row]], **given: Any) -> Plan:
    """The plan of a dataset of sources, each with its rows."""
    values: dict[str, Any] = {
        "name": "d",
        "sources": (),
        "templates": (),
        "orthography_table": {},
        "valid": 0.2,
        "test": 0.2,
    }
    dataset = Dataset(**values | given)
    columns = Columns(dataset)
    for keys, rows in parts:
        for each in rows:
            columns.add(each, source(**{"kind": "chatml"} | keys), each.row_id)
    return plan(columns, dataset)


def names(result: Plan) -> list[str]:
    """The split of each row."""
    return [splits.SPLITS[split] for split in result.splits]


def own(*words: str) -> list[Row]:
    """GROUPS rows that have these splits of their own, in turn."""
    return [row(number, words[number % len(words)]) for number in range(GROUPS)]


HASHED = names(planned(({}, own(""))))


def test_rows_without_splits_are_divided_by_hash() -> None:
    """
    As they always were: each group falls where its hash is.
    """
    result = planned(({}, own("")))

    assert {"train": 28, "valid": 6, "test": 6} == Counter(names(result))
    assert [] == result.notes
    assert not result.given.any()
    assert HASHED == names(planned(({"split": "divide"}, own("train", "test"))))


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_a_source_gives_all_its_rows_to_its_split(split: str) -> None:
    """
    Whatever the rows themselves say.
    """
    result = planned(({"split": split}, own("test", "train", "x")), ({}, own("")))

    assert {split} == {*names(result)[:GROUPS]}
    assert [] == result.problems


def test_rows_keep_their_own_splits_where_there_are_several() -> None:
    """
    A corpus with an official split stays comparable; the words of several toolkits mean the same.
    """
    result = planned(({}, own("Training", "validation", "dev", "TEST")))

    assert ["train", "valid", "valid", "test"] * 10 == names(result)
    assert [
        'rows keep their own splits (10 in train, 20 in valid, 10 in test); split = "divide" in a source divides its '
        "rows by hash"
    ] == result.notes


def test_one_split_everywhere_is_not_used_and_a_note_says_so() -> None:
    """
    Predictions on one test set are all the rows that somebody has: dividing them is all that can be done.
    """
    result = planned(({"kind": "rows"}, own("test")))

    assert HASHED == names(result)
    assert not result.given.any()
    assert [
        "rows that have a split of their own are all test: it is not used, they are divided by hash; "
        'split = "row" in a source keeps it'
    ] == result.notes


def test_rows_that_the_recogniser_was_trained_on_are_no_test() -> None:
    """
    Its transcripts of them are better than any that it will make.
    """
    alone = planned(({"kind": "nemo"}, own("train")))
    among = planned(({"kind": "rows"}, own("train", "")))

    assert {"train", "valid"} == {*names(alone)}
    assert [
        f"{GROUPS} rows that the recogniser was trained on stay in train",
        "no row is given to valid: it is taken from the rows of train, by hash (the recogniser was trained on them)",
    ] == alone.notes
    assert {"train"} == {*names(among)[::2]}
    assert HASHED[1::2] == names(among)[1::2]


def test_rows_of_its_training_given_as_its_test_are_noted() -> None:
    """
    The person who says so may have reasons, but the scores will flatter.
    """
    result = planned(({"kind": "rows", "split": "test"}, own("train", "test")), ({}, own("")))

    assert {"test"} == {*names(result)[:GROUPS]}
    assert ["20 rows given to test are rows that the recogniser was trained on: it errs less there"] == result.notes


def test_valid_is_taken_from_train_by_hash_where_none_is_given() -> None:
    """
    Many corpora have a train and a test split only. The test stays whole and fixed.
    """
    result = planned(({}, own("train", "test")))

    assert ["valid" if hashed == "valid" else "train" for hashed in HASHED[::2]] == names(result)[::2]
    assert {"test"} == {*names(result)[1::2]}
    assert "no row is given to valid: it is taken from the rows of train, by hash" == result.notes[1]
    assert {"train"} == {*names(planned(({}, own("train", "test")), valid=0))[::2]}


def test_a_given_split_takes_no_row_by_hash() -> None:
    """
    A published test set with rows of another source is no longer that test set; unless its source says so.
    """
    given = ({"split": "test"}, [row(100 + number) for number in range(5)])

    assert ["train" if split == "test" else split for split in HASHED] == names(planned(({}, own("")), given))[:GROUPS]
    assert HASHED == names(planned(({"split": "divide"}, own("")), given))[:GROUPS]


def test_rows_of_a_folder_are_given() -> None:
    """
    The reader knows from the name of a file what its rows are for.
    """
    rows = [row(1, given_split="train"), row(2, "train", "valid"), row(3, given_split="test")]

    result = planned(({"kind": "folder"}, rows))

    assert ["train", "valid", "test"] == names(result)
    assert ([False, True, True], []) == (result.given.tolist(), result.notes)


def test_a_split_that_means_nothing_is_refused_where_it_counts() -> None:
    """
    Else its rows would be trained on without a word. Elsewhere a note says that it is not used.
    """
    asked = planned(({"split": "row"}, own("fold1", "test", "")))
    mixed = planned(({}, own("train", "test", "b")))
    alike = planned(({}, own("train-clean-100", "test-other")))
    folds = planned(({}, own(*(f"fold{number}" for number in range(8)))))

    end = ' of the source, or set split = "divide" there'
    where = "thunder.toml: datasets.d.sources: rows have the splits"
    assert [
        f"{where} 'fold1' (14 rows), none (13 rows); list all words of the file in enums.split{end}",
        f"{where} 'b' (13 rows); list all words of the file in enums.split{end}",
        f"{where} 'test-other' (20 rows), 'train-clean-100' (20 rows); list all words of the file in "
        f"enums.split = {{ 'test-other' = 'test', 'train-clean-100' = 'train' }}{end}",
    ] == [str(problem) for each in (asked, mixed, alike) for problem in each.problems]
    assert ([], HASHED) == (folds.problems, names(folds))
    assert [
        "the split of rows is not used where it is no word for train, valid or test: 'fold0' (5 rows), "
        "'fold1' (5 rows), 'fold2' (5 rows), 'fold3' (5 rows), 'fold4' (5 rows), others (15 rows)"
    ] == folds.notes


def assignment(result: Plan, texts: list[str]) -> tuple[list[str], list[str]]:
    """The split of each row that is kept, "" for others, and the notes. texts: the key of each row."""
    ids = [f"{number:03d}" for number in range(len(texts))]
    keys = {"text": np.array([hash(text) for text in texts])}
    contents: Any = np.arange(len(texts))
    rows = partial(splits.assign, ids, contents=contents, keys=keys, given=result.given, unfit={})  # type: ignore[arg-type]
    assigned, notes = filled(result, lambda each: rows(splits=each))
    return [
        splits.SPLITS[split] if kept else "" for split, kept in zip(assigned.splits, assigned.kept, strict=True)
    ], notes


def test_an_empty_split_takes_the_nearest_groups() -> None:
    """
    Thirteen rows may all fall into valid by bad luck; a person who tries the program with them shall see it work.
    """
    unlucky = [row(number) for number in range(400) if splits.fraction(0, f"{number}") < 0.1][:13]

    placed, notes = assignment(planned(({}, unlucky), valid=0.1, test=0.1), [each.row_id for each in unlucky])

    assert {"train": 9, "valid": 3, "test": 1} == Counter(placed)
    assert [
        "no group fell into train by its hash, so the nearest 10 groups went there",
        "no group fell into test by its hash, so the nearest group went there",
    ] == notes


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(1, {"train"}), (2, {"train", "valid"}), (3, {"train", "valid", "test"}), (4, {"train", "valid", "test"})],
)
def test_a_few_groups_fill_train_first_then_valid_then_test(rows: int, expected: set[str]) -> None:
    """
    For every seed; without train there is nothing, without test there is still an adapter.
    """
    for seed in range(30):
        few = planned(({}, [row(number) for number in range(rows)]), split_seed=seed, valid=0.1, test=0.1)
        assert expected == {*assignment(few, [f"{number}" for number in range(rows)])[0]}


def test_where_no_split_is_empty_nothing_moves() -> None:
    """
    Appended rows must not move others.
    """
    result = planned(({}, own("")))

    assert (HASHED, []) == assignment(result, [f"{number}" for number in range(GROUPS)])


def test_groups_that_would_leak_are_not_what_fills_a_split() -> None:
    """
    All rows but one share a text, so only that one can be in another split.
    """
    for seed in range(20):
        result = planned(({}, [row(number) for number in range(6)]), split_seed=seed, valid=0.1, test=0)
        placed, _ = assignment(result, ["same"] * 5 + ["other"])
        assert {"train", "valid"} <= {*placed}


def test_given_rows_are_never_moved() -> None:
    """
    Not even if train is left without a row: that is said, not mended.
    """
    result = planned(({"split": "test"}, [row(1), row(2)]), ({"split": "valid"}, [row(3)]))

    assert (["test", "test", "valid"], []) == assignment(result, ["a", "b", "c"])
