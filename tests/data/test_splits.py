"""Which split a row falls into, and which rows are dropped to keep the splits apart."""

from array import array

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from thunder_train.data.splits import SPLITS, Assignment, assign, fraction, repeated_ids

Line = tuple[str, str, str, dict[str, str]]


def assigned(rows: list[Line], given: str = "", unfit: str = "") -> Assignment:
    """rows: (id, split, content, {key: value}) in plain values; given, unfit: letters that are ids of such rows."""
    ids = [row[0] for row in rows]
    splits = np.array([SPLITS.index(row[1]) for row in rows], np.uint8)
    contents = array("q", [hash(row[2]) for row in rows])
    names = sorted({key for row in rows for key in row[3]})
    keys = {key: array("q", [hash(row[3][key]) if key in row[3] else 0 for row in rows]) for key in names}
    is_given = np.array([row[0] in [*given] for row in rows], bool)
    return assign(
        ids, splits, contents, keys, is_given, {i: "silent" for i, row in enumerate(rows) if row[0] in [*unfit]}
    )


def test_a_text_in_two_splits_stays_in_the_more_protected_one() -> None:
    """
    A sentence that was trained on proves nothing in the test; the test row stays, for scores must stay comparable.
    """
    result = assigned(
        [
            ("a", "train", "1", {"text": "x"}),
            ("b", "valid", "2", {"text": "x"}),
            ("c", "test", "3", {"text": "x"}),
            ("d", "train", "4", {"text": "y"}),
        ]
    )

    assert {0: "its text is also in the test split", 1: "its text is also in the test split"} == result.reasons
    assert [False, False, True, True] == result.kept.tolist()
    assert {0: 2, 1: 2} == result.partners


def test_rows_without_a_key_share_nothing() -> None:
    """
    Else all rows that lack a segment would be one group.
    """
    result = assigned([("a", "train", "1", {"text": "x"}), ("b", "test", "2", {}), ("c", "train", "3", {})])

    assert {} == result.reasons


def test_of_equal_rows_the_smallest_id_stays() -> None:
    """
    Whatever the order of the input.
    """
    rows: list[Line] = [("b", "train", "same", {}), ("a", "train", "same", {}), ("c", "train", "same", {})]

    assert {0: "exact duplicate", 2: "exact duplicate"} == assigned(rows).reasons


def test_a_dropped_duplicate_drops_no_other_row() -> None:
    """
    A row that is gone cannot make its recording belong to the test.
    """
    rows: list[Line] = [
        ("a", "train", "same", {"audio_path": "1"}),
        ("b", "test", "same", {"audio_path": "2"}),
        ("c", "train", "other", {"audio_path": "2"}),
    ]

    assert {1: "exact duplicate"} == assigned(rows).reasons


def test_ids_of_different_rows_are_counted() -> None:
    """
    Predictions are matched to rows by id.
    """
    rows: list[Line] = [
        ("a", "train", "1", {}),
        ("a", "train", "2", {}),
        ("b", "train", "3", {}),
        ("b", "train", "3", {}),
    ]

    assert {"a": 2} == repeated_ids([row[0] for row in rows], assigned(rows))


def test_given_rows_stay_and_drop_others_from_train_alone() -> None:
    """
    A published test set is scored whole, or its scores compare with nobody's. The train row that leaks is named.
    """
    rows: list[Line] = [
        ("a", "train", "1", {"text": "x"}),
        ("b", "valid", "2", {"text": "x"}),
        ("c", "test", "3", {"text": "x"}),
        ("d", "test", "3", {"text": "x"}),
        ("e", "train", "3", {}),
        ("f", "train", "5", {}),
    ]

    result = assigned(rows, given="bcd")

    assert {0: "its text is also in the test split", 4: "exact duplicate of a row of test"} == result.reasons
    assert ({0: 2, 4: 2}, {1: ("text", 2)}) == (result.partners, result.overlaps)


def test_rows_by_hash_give_way_to_given_rows_of_any_split() -> None:
    """
    Of a leak between test rows by hash and a given validation set, the given set stays whole.
    """
    rows: list[Line] = [
        ("a", "test", "1", {"text": "x"}),
        ("b", "valid", "2", {"text": "x"}),
        ("c", "valid", "3", {"text": "x"}),
        ("d", "test", "4", {"text": "y"}),
        ("e", "test", "5", {"text": "y"}),
    ]

    assert {0: "its text is also in the valid split"} == assigned(rows, given="be").reasons


def test_equal_given_rows_get_ids_of_their_own() -> None:
    """
    Predictions are kept by id; which of the equal rows is first decides nothing.
    """
    rows: list[Line] = [("b", "test", "1", {}), ("a", "test", "2", {}), ("b", "test", "1", {}), ("b", "test", "1", {})]

    result = assigned(rows, given="ab")

    assert ({}, {2: "b#2", 3: "b#3"}) == (result.reasons, result.new_ids)
    assert ([1, 0, 2, 3], {}) == (result.order.tolist(), repeated_ids([row[0] for row in rows], result))
    assert {"b": 2} == repeated_ids(["b", "b"], assigned([("b", "test", "1", {}), ("b", "test", "2", {})], given="b"))


def test_equal_rows_given_to_valid_and_test_are_an_overlap() -> None:
    """
    Also where the dataset groups by nothing that they share.
    """
    rows: list[Line] = [("a", "valid", "1", {}), ("b", "test", "1", {})]

    result = assigned(rows, given="ab")

    assert ({}, {0: ("whole content", 1)}) == (result.reasons, result.overlaps)


def test_unfit_rows_are_kept_in_test_alone() -> None:
    """
    A model that answers silence must be seen to; it must not learn from it, nor be chosen by it.
    """
    rows: list[Line] = [
        ("a", "train", "1", {}),
        ("b", "valid", "1", {}),
        ("c", "test", "1", {}),
        ("d", "valid", "2", {}),
    ]

    assert {0: "silent", 1: "silent", 3: "silent"} == assigned(rows, given="d", unfit="abcd").reasons


Group = tuple[int, int, int]
GROUPS = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 6), st.integers(0, 9)), min_size=1, max_size=40, unique=True
)


def placed(groups: list[Group]) -> dict[str, tuple[str, dict[str, str]]]:
    """id -> split of the rows kept; a row's own split is that of its audio."""
    rows: list[Line] = []
    for audio, text, number in groups:
        split = SPLITS[int(fraction(0, f"{audio}") * len(SPLITS))]
        keys = {"audio_path": f"a{audio}", "text": f"t{text}"}
        rows.append((f"{audio}-{text}-{number}", split, f"{audio} {text} {number}", keys))
    result = assigned(rows)
    return {rows[i][0]: (rows[i][1], rows[i][3]) for i in range(len(rows)) if result.kept[i]}


@given(groups=GROUPS)
def test_no_recording_and_no_text_is_in_two_splits(groups: list[Group]) -> None:
    """
    The one promise of a split.
    """
    seen: dict[str, set[str]] = {}
    for split, keys in placed(groups).values():
        for value in keys.values():
            seen.setdefault(value, set()).add(split)

    assert all(len(splits) == 1 for splits in seen.values())


@given(groups=GROUPS, more=GROUPS)
def test_appended_rows_move_no_row_and_drop_no_test_row(groups: list[Group], more: list[Group]) -> None:
    """
    A dataset that grows must keep its test: old scores stay comparable. A train row may be dropped, never moved.
    """
    before, after = placed(groups), placed(list(dict.fromkeys([*groups, *more])))

    assert all(after[name][0] == split for name, (split, _) in before.items() if name in after)
    assert all(name in after for name, (split, _) in before.items() if split == "test")


@given(groups=GROUPS, data=st.data())
def test_order_of_rows_decides_nothing(groups: list[Group], data: st.DataObject) -> None:
    """
    The same rows from other files, or in another order, are the same dataset.
    """
    assert placed(groups) == placed(data.draw(st.permutations(groups)))


@given(groups=GROUPS, data=st.data())
def test_given_rows_all_stay_and_nothing_else_leaks(groups: list[Group], data: st.DataObject) -> None:
    """
    Whatever overlaps, a value is in two splits only where both were given to theirs.
    """
    splits = np.array(data.draw(st.lists(st.integers(0, 2), min_size=len(groups), max_size=len(groups))), np.uint8)
    chosen = data.draw(st.lists(st.booleans(), min_size=len(groups), max_size=len(groups)))
    is_given = np.array(chosen, bool) & (splits > 0)
    keys = {
        name: array("q", [1 + each[column] for each in groups]) for column, name in enumerate(("audio_path", "text"))
    }
    contents = array("q", [hash(each[1:]) for each in groups])

    result = assign([f"{number:03d}" for number in range(len(groups))], splits, contents, keys, is_given, {})

    assert result.kept[is_given].all()
    for values in keys.values():
        for value in set(values):
            rows = np.flatnonzero(result.kept & (np.array(values) == value))
            given_to = set(splits[rows][is_given[rows]].tolist())
            by_hash = set(splits[rows][~is_given[rows]].tolist())
            assert by_hash <= given_to if given_to else len(by_hash) < 2
